"""The chat templates that the trl package ships: nothing crashes under them,
and what proves is right.

trl is not imported, its templates are only read. Where it has patched one to
mark what the assistant generates, those marks are a second opinion on ours.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.call_forms import with_text_arguments
from isft_jax.data.rendering.rejection import REASONS, Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance, Segment, Trajectory
from tests.data.chat_tokenizer import trained

P = Provenance


def templates():
  found = importlib.util.find_spec('trl')
  if found is None or not found.submodule_search_locations:
    return []
  (folder, *_) = found.submodule_search_locations
  return sorted((pathlib.Path(folder) / 'chat_templates').glob('*.jinja'))


TEMPLATES = templates()
# pytest skips what is parametrized by nothing, but without a reason.
pytestmark = pytest.mark.skipif(
  not TEMPLATES, reason='trl is not installed: none of its templates is here'
)
FILES = TEMPLATES or [pathlib.Path('none')]
TRAINING = [f for f in FILES if f.stem.endswith('_training')] or FILES


def agent(text='', *calls, **fields):
  if calls:
    fields['tool_calls'] = [*calls]
  return Segment('assistant', text, P.AGENT, fields=fields)


def call(id, **arguments):
  function = {'name': 'look', 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def result(text, id):
  fields = {'name': 'look', 'tool_call_id': id}
  return Segment('tool', text, P.TOOL, fields=fields)


HELP = Segment('system', 'Help with the weather.', P.CONTEXT)
ASK = Segment('user', 'Is it warm, there?', P.USER)
MORE = Segment('user', ' And [[now]]?\n', P.USER)
TOOLS = (
  {
    'type': 'function',
    'function': {
      'name': 'look',
      'description': 'Looks out.',
      'parameters': {
        'type': 'object',
        'properties': {'city': {'type': 'string', 'description': 'Where.'}},
        'required': ['city'],
      },
    },
  },
)
TALKS = {
  'questions': (ASK, agent('Yes, it is.'), MORE, agent('No, not now.')),
  'system': (HELP, ASK, agent('Yes, it is.')),
  'thinking': (
    *(ASK, agent('Yes, it is.', reasoning_content='South, so it is.')),
    *(MORE, agent('No, not now.', reasoning_content='It is night.')),
  ),
  'thinking in tags': (
    *(ASK, agent('<think>\nSouth.\n</think>\n\nYes, it is.')),
    *(MORE, agent('<think>\nNight.\n</think>\n\nNo, not now.')),
  ),
  'a call': (
    *(HELP, ASK, agent('', call('abcdefgh1', city='Rome'))),
    *(result('[[21]]', 'abcdefgh1'), agent('It is warm.'), MORE, agent('No.')),
  ),
  'two calls at once': (
    *(ASK, agent('Both.', call('abcdefgh1', city='Rome'), call('abcdefgh2'))),
    *(result('{"c": 21}', 'abcdefgh1'), result('[]', 'abcdefgh2')),
    agent('One is warm.', reasoning_content='Rome is.'),
  ),
}


def trajectory_of(name):
  has_tools = 'call' in name
  return Trajectory(name, TALKS[name], TOOLS if has_tools else None)


def tokenizer():
  return trained(vocab_size=400)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_what_proves_is_the_chat_templates_own_text_and_ids(file):
  renderer = Renderer(tokenizer(), file.read_text())
  for name in TALKS:
    trajectory = trajectory_of(name)
    try:
      example, text, *_ = renderer.render(trajectory)
    except Rejected as error:
      assert error.reason in REASONS
      continue
    given = {
      'conversation': chat_template.messages_of(trajectory),
      'tools': trajectory.tools and list(trajectory.tools),
      'chat_template': chat_template.freeze(file.read_text()),
    }
    try:
      expected = tokenizer().apply_chat_template(**given, tokenize=False)
    except TypeError:  # DeepSeek-V3's concatenates the arguments as text
      messages = with_text_arguments(given['conversation'])
      given |= {'conversation': messages}
      expected = tokenizer().apply_chat_template(**given, tokenize=False)
    assert text == expected
    ids = tokenizer().apply_chat_template(**given, return_dict=False)
    assert example.tokens_T.tolist() == ids
    # Words of an agent and of the world keep their authors.
    by = [P(a) for a in example.provenance_T.tolist()]
    for author in (P.USER, P.TOOL):
      said = [s for s in trajectory.segments if s.provenance == author]
      assert (author in by) == bool(said)
    assert P.AGENT in by


# Templates that write a tool's result within the agent's own turn: what stands
# around it then goes to the agent, whose words no loss credits to the world.
AROUND_RESULTS = ('gemma4', 'diffusion_gemma')
# Templates of images and text: to them a content is a list.
OF_PARTS = ('idefics3', 'llava_next', 'smolvlm')


def may_differ(span, before):
  """Whether trl may mark a span that is not the agent's, and why.

  before: the spans before it.
  """
  of_turn = [s for s in before if s.segment == span.segment]
  has_begun = any(s.provenance == P.AGENT for s in of_turn)
  if not span.text.strip() and has_begun:
    return 'white space after the end marker'
  if span.provenance == P.TEMPLATE and not has_begun:
    return 'the generation prompt'
  if span.text.strip() == tokenizer().eos_token:
    return 'the end of the text, which is in no turn'
  return ''


@pytest.mark.parametrize('file', TRAINING, ids=lambda file: file.stem)
def test_the_agents_tokens_are_those_that_trl_marks(file):
  """But for what `may_differ` declares."""
  text = file.read_text()
  renderer = Renderer(tokenizer(), text)
  proved = 0
  for name in TALKS:
    trajectory = trajectory_of(name)
    try:
      example, whole, starts_T, _, spans, _ = renderer.render(trajectory)
    except Rejected:
      continue
    proved += 1
    given = tokenizer().apply_chat_template(
      chat_template.messages_of(trajectory),
      tools=trajectory.tools and list(trajectory.tools),
      chat_template=chat_template.freeze(text),
      return_dict=True,
      return_assistant_tokens_mask=True,
    )
    theirs = np.asarray(given['assistant_masks'], bool)
    ours = example.provenance_T == P.AGENT
    assert ours.any() and theirs.any()
    stops_S = np.cumsum([len(span.text) for span in spans])
    for token in np.flatnonzero(ours != theirs):
      at = int(np.searchsorted(stops_S, starts_T[token], side='right'))
      what = (name, int(token), spans[at], whole[starts_T[token] :][:30])
      if theirs[token]:
        assert may_differ(spans[at], spans[:at]), what
        assert trajectory.segments[spans[at].segment].role == 'assistant', what
      else:
        assert file.stem.startswith(AROUND_RESULTS) and 'call' in name, what
  assert proved or file.stem.startswith(OF_PARTS)
