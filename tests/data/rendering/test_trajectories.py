"""Real agent runs, read in place: every one of them proves, to the token."""

import hashlib
import itertools
import json
import pathlib

import pytest

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.records import shards
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance
from tests.data.chat_tokenizer import NAMES, applied, template, trained

P = Provenance

FOLDER = pathlib.Path(__file__).parents[4] / 'shared' / 'trajectories'

pytestmark = pytest.mark.skipif(
  not FOLDER.is_dir(), reason=f'no real trajectories in {FOLDER}'
)

FILES = {
  'tau_bench_airline.jsonl': 50,
  'glaive_toolcall_sharegpt.json': 150,
  'swe_agent_function_calling.traj': 1,
  'swe_agent_thought_action.traj': 1,
}
# Thinking and white space that each template takes away, of all of the above.
LOST = {
  'chatml': {'thinking': 0, 'whitespace': 0, 'tools': 0},
  'qwen3_like': {'thinking': 0, 'whitespace': 61, 'tools': 0},
  'llama3_like': {'thinking': 0, 'whitespace': 61, 'tools': 0},
}

# Sums of the records of each file, as the first version wrote them.
SUMS = {
  'chatml': (
    '17c89aef34e4c5b7',
    {
      'tau_bench_airline.jsonl': '6f3a4a94167fa74c',
      'glaive_toolcall_sharegpt.json': '6400339ea18887dc',
      'swe_agent_function_calling.traj': '543ec3ac512e6240',
      'swe_agent_thought_action.traj': '5188c450f3ea7836',
    },
  ),
  'qwen3_like': (
    'b4c76ce3f8241df3',
    {
      'tau_bench_airline.jsonl': 'b1bb26ff8934d06f',
      'glaive_toolcall_sharegpt.json': '3c76cbe82e6eaf3c',
      'swe_agent_function_calling.traj': 'f953da5fd67bac1e',
      'swe_agent_thought_action.traj': '8bf2789be346fa72',
    },
  ),
  'llama3_like': (
    'ed44e92a1bc28886',
    {
      'tau_bench_airline.jsonl': 'b358d3b50041c750',
      'glaive_toolcall_sharegpt.json': '805d26ad74d74ff7',
      'swe_agent_function_calling.traj': 'f539a8f7f106713e',
      'swe_agent_thought_action.traj': 'a8d7107cd330bf85',
    },
  ),
}


@pytest.fixture(scope='module')
def trajectories():
  """{file: its trajectories}."""
  return {
    name: [
      registry.read(row.value, f'{name}:{row.number}', 'auto', Rules.default())
      for row in rows.read(FOLDER / name)
    ]
    for name in FILES
  }


@pytest.fixture(scope='module')
def tokenizer(trajectories):
  """Of the words of these runs; it leaves white space out of offsets."""
  texts = [
    segment.text
    for name in FILES
    for trajectory in trajectories[name][:10]
    for segment in trajectory.segments
  ]
  return trained(tuple(texts), vocab_size=1500, trim_offsets=True)


def some(trajectories):
  """A subset, for what is slow: the first four of each file."""
  return [t for name in FILES for t in trajectories[name][:4]]


def test_all_of_them_are_here(trajectories):
  assert {name: len(ts) for name, ts in trajectories.items()} == FILES


@pytest.mark.parametrize('name', NAMES)
def test_every_one_proves_and_every_word_has_its_author(
  name, trajectories, tokenizer
):
  renderer = Renderer(tokenizer, template(name))
  lost = dict.fromkeys(LOST[name], 0)
  for trajectory in itertools.chain(*trajectories.values()):
    rendered = renderer.render(trajectory)  # or it raises
    for what, count in rendered.lost.items():
      lost[what] += count
    text = ''.join(span.text for span in rendered.spans)
    by = [s.provenance for s in rendered.spans for _ in s.text]
    at = 0
    # From the messages alone: each content is there, after the one before it,
    # and each of its characters is its author's.
    for segment in trajectory.segments:
      content = segment.text if name == 'chatml' else segment.text.strip()
      at = _found(text, content, by, segment.provenance, at)
      for call in segment.fields.get('tool_calls', ()):
        function = call['function']
        assert function['name'] in text[at:]
        arguments = json.dumps(function['arguments'], ensure_ascii=False)
        at = _found(text, arguments, by, P.AGENT, at)
  assert lost == LOST[name]


def _found(text, words, by, author, start):
  """Returns where the words end, each of whose characters is the author's.

  Not always at the first place: a schema may hold the words of a short message.
  """
  at = text.find(words, start)
  while at >= 0 and not {*by[at : at + len(words)]} <= {author}:
    at = text.find(words, at + 1)
  assert at >= 0, f'{author.name} has not said {words[:60]!r}'
  return at + len(words)


@pytest.mark.parametrize('name', NAMES)
def test_the_ids_are_those_of_the_chat_template(name, trajectories, tokenizer):
  renderer = Renderer(tokenizer, template(name))
  for trajectory in some(trajectories):
    example = renderer.example(trajectory)
    assert example.tokens_T.tolist() == applied(
      tokenizer,
      chat_template.freeze(template(name)),
      chat_template.messages_of(trajectory),
      trajectory.tools and list(trajectory.tools),
    )


@pytest.mark.parametrize('name', NAMES)
def test_the_tokens_of_an_agents_message_are_the_agents(
  name, trajectories, tokenizer
):
  """Decoded, what is AGENT holds what agents said, in order, and nothing that
  anyone else did: all of it, though offsets leave white space out."""
  renderer = Renderer(tokenizer, template(name))
  for trajectory in some(trajectories):
    example = renderer.example(trajectory)
    for author in (P.AGENT, P.TOOL, P.USER):
      ids = example.tokens_T[example.provenance_T == author]
      text, at = tokenizer.decode(ids), 0
      for segment in trajectory.segments:
        if segment.provenance == author:
          # The last of its white space may share a token with the template.
          words = segment.text.strip()
          at = text.index(words, at) + len(words)


def test_the_turns_of_a_run_follow_one_another(trajectories, tokenizer):
  renderer = Renderer(tokenizer, template('chatml'))
  for trajectory in some(trajectories):
    segment_T = renderer.example(trajectory).segment_T
    assert (segment_T[1:] >= segment_T[:-1]).all()
    assert {*segment_T.tolist()} == {*range(len(trajectory.segments))}


def test_tool_output_in_the_users_role_is_the_tools(trajectories, tokenizer):
  """In this run only the type of a message tells the two apart."""
  (trajectory,) = trajectories['swe_agent_thought_action.traj']
  spans = Renderer(tokenizer, template('chatml')).render(trajectory).spans
  said = {s.segment: s.provenance for s in spans if s.written}
  roles = [
    (segment.role, said[turn].name)
    for turn, segment in enumerate(trajectory.segments)
    if turn in said
  ]
  assert {('user', 'TOOL'), ('assistant', 'AGENT')} <= {*roles}
  assert ('user', 'USER') not in roles
  first = roles.index(('assistant', 'AGENT'))
  assert ('user', 'TOOL') not in roles[:first]


@pytest.mark.parametrize('name', NAMES)
def test_records_and_fingerprints_are_those_of_the_first_version(
  name, trajectories
):
  """Byte for byte: ids, authors, segments and verdicts of every trajectory."""
  renderer, codec = Renderer(trained(), template(name)), shards.Codec()
  sums = {}
  for file, in_file in trajectories.items():
    digest = hashlib.sha256()
    for trajectory in in_file:
      digest.update(codec.write(renderer.example(trajectory)))
    sums[file] = digest.hexdigest()[:16]
  assert (renderer.metadata()['fingerprint'], sums) == SUMS[name]
