"""Laws over random conversations, templates and tokenizers.

A conversation may hold anything: markers, quotes, brackets, white space, other
scripts. It proves, and then all of these hold, or it is refused with a reason.
"""

import collections
import json
import re

import hypothesis
import numpy as np
from hypothesis import strategies as st

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.rejection import REASONS, Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.objectives import weight_table
from isft_jax.types import (
  STRADDLE_ORDER,
  Part,
  Provenance,
  Segment,
  Trajectory,
)
from tests.data import chat_tokenizer

P = Provenance

often = hypothesis.settings(
  deadline=None,
  derandomize=True,
  max_examples=200,
  database=None,
  suppress_health_check=[*hypothesis.HealthCheck],
)

# -------------------------------------------------------- random conversations

ODD = [
  *('', ' ', '\n\n', 'Hi.', ' Hi. \n', '[[1, 2], [3, 4]]', '[[]]', '{}', '"'),
  *(
    '{"a": [0]}',
    "it's",
    '\\n',
    'None',
    'assistant',
    'user',
    'Agent: a',
    '日本',
  ),
  *(
    '😀 é',
    'e\u0301',
    '\x00',
    '\u2028',
    '\xa0a',
    '<tool_call>',
    '</tool_call>',
  ),
  *('<think>a</think>b', 'a</think>b', '<think>', '{{ x }}', '{% if %}', '<|'),
  *('<|im_end|', '|>', '<|not_special|>'),
]
SPECIAL = ['<|im_end|>', 'a<|eot_id|>\nb', '<|im_start|>assistant\n']
words = (
  st.text('ab \n"\\<>|{}[]:é日😀', max_size=8)
  | st.sampled_from(ODD)
  | st.integers(0, 40).flatmap(
    lambda n: st.sampled_from(SPECIAL if n == 0 else ODD)
  )
)
arguments = st.dictionaries(
  st.text('xyz"é', min_size=1, max_size=2),
  words | st.integers() | st.booleans() | st.none() | st.lists(words),
  max_size=3,
)
calls = st.builds(
  lambda name, arguments: {
    'id': 'call-1',
    'type': 'function',
    'function': {'name': name, 'arguments': arguments},
  },
  st.sampled_from(['look', 'do_it']),
  arguments,
)
ROLES = {
  'user': [P.USER, P.USER, P.HARNESS, P.CONTEXT, P.DEMONSTRATION],
  'tool': [P.TOOL],
  'assistant': [P.AGENT, P.AGENT, P.AGENT, P.DEMONSTRATION],
}


@st.composite
def segments(draw, role=None, with_calls=True):
  role = role or draw(st.sampled_from([*ROLES]))
  text = draw(words)
  fields = {}
  if role == 'assistant' and with_calls:
    if draw(st.booleans()):
      fields['tool_calls'] = draw(st.lists(calls, min_size=1, max_size=2))
    if draw(st.integers(0, 3)) == 0:
      fields['reasoning_content'] = draw(words)
  parts = ()
  if text and draw(st.integers(0, 4)) == 0:
    start = draw(st.integers(0, len(text) - 1))
    stop = draw(st.integers(start + 1, len(text)))
    author = draw(st.sampled_from([P.HARNESS, P.AGENT, P.USER]))
    parts = (Part(start, stop, author),)
  author = draw(st.sampled_from(ROLES[role])) if role in ROLES else P.CONTEXT
  return Segment(role, text, author, parts=parts, fields=fields)


@st.composite
def trajectories(draw, with_calls=True, system=True):
  turns = draw(
    st.lists(segments(with_calls=with_calls), min_size=1, max_size=6)
  )
  if system and draw(st.booleans()):
    turns.insert(0, draw(segments(role='system')))
  tools = ({'name': 'look'},) if draw(st.booleans()) and with_calls else None
  return Trajectory('x', tuple(turns), tools)


tokenizers = st.sampled_from(
  [
    chat_tokenizer.trained,
    lambda: chat_tokenizer.trained(trim_offsets=True),
    lambda: chat_tokenizer.trained(use_regex=False),  # merges across all seams
  ]
)

# ------------------------------------------------------------- random templates

headers = st.lists(
  st.sampled_from(['<|im_start|>', '### ', '[', '<x|>', ':', '\n', ' ', '】']),
  max_size=3,
).map(''.join)
footers = st.lists(
  st.sampled_from(['<|im_end|>', '</s>', ']', '\n', ' ', '<|x|>', '.']),
  max_size=3,
).map(''.join)


class Family:
  """A template of given headers and footers, and what it must render.

  Nothing here is taken from the code under test: the position of each
  character, and whether it is the agent's, follow from how it is built.
  """

  def __init__(self, heads, feet, prompts, in_one, call=('<c>', '</c>')):
    self.heads, self.feet, self.call = heads, feet, call
    self.prompts = prompts
    turn = (
      '{{ heads[message.role] + message.content + calls(message)'
      ' + feet[message.role] }}'
      if in_one
      else '{{ heads[message.role] }}{{ message.content }}'
      '{{ calls(message) }}{{ feet[message.role] }}'
    )
    self.template = (
      f'{{% set heads = {json.dumps(heads, ensure_ascii=False)} %}}'
      f'{{% set feet = {json.dumps(feet, ensure_ascii=False)} %}}'
      '{% macro calls(message) %}{% for c in message.tool_calls or [] %}'
      f'{{{{ {json.dumps(call[0])} }}}}{{{{ c.function.name }}}} '
      f'{{{{ c.function.arguments | tojson }}}}{{{{ {json.dumps(call[1])} }}}}'
      '{% endfor %}{% endmacro %}'
      '{% for message in messages %}' + turn + '{% endfor %}'
    )
    if prompts:
      self.template += (
        '{% if add_generation_prompt %}{{ heads.assistant }}{% endif %}'
      )

  def pieces(self, trajectory):
    """[(text, whether it is the agent's), ...] of a conversation."""
    return [p for s in trajectory.segments for p in self._turn(s)]

  def _turn(self, segment):
    slot = segment.role == 'assistant' and segment.provenance == P.AGENT
    head, foot = self.heads[segment.role], self.feet[segment.role]
    calls = segment.fields.get('tool_calls', ())
    # What no prompt announces is all the agent's own.
    pieces = [(head, slot and not self.prompts)]
    by = [segment.provenance == P.AGENT] * len(segment.text)
    for part in segment.parts:
      of_part = part.provenance == P.AGENT
      by[part.start : part.stop] = [of_part] * (part.stop - part.start)
    pieces += zip(segment.text, by, strict=True)
    for call in calls:
      function = call['function']
      said = json.dumps(function['arguments'], ensure_ascii=False)
      pieces.append(
        (f'{self.call[0]}{function["name"]} {said}{self.call[1]}', slot)
      )
    # White space after a marker is protocol; with no other before it, it is
    # the marker. What ends a call, or announces a turn, is one as well.
    marked = foot.strip() or calls
    if not self.prompts and not segment.text and not calls:
      pieces.pop()
      foot = head + foot
      marked = foot.strip()
    kept = len(foot.rstrip()) if marked else len(foot)
    return [*pieces, (foot[:kept], slot), (foot[kept:], False)]


@st.composite
def families(draw):
  roles = ('system', 'user', 'tool', 'assistant')
  heads = {role: draw(headers) + role + draw(headers) for role in roles}
  feet = {role: draw(footers) for role in roles}
  return Family(heads, feet, draw(st.booleans()), draw(st.booleans()))


# ------------------------------------------------------------------- the laws


def held_by(starts_T, length):
  """The characters of each token: from its start to where the next begins.

  Tokens that share a character start at the same place.
  """
  stops_T = [*starts_T[1:].tolist(), length][: len(starts_T)]
  return [
    slice(start, max(stop, start + 1))
    for start, stop in zip(starts_T.tolist(), stops_T, strict=True)
  ]


def check_laws(renderer, trajectory, special_text):
  """Encodes, and asserts what holds of anything that proves."""
  rendered = renderer.render(trajectory)
  example, text, starts_T, straddling, spans, _ = rendered
  tokenizer = renderer.tokenizer

  # The text, and the ids, are those of the tokenizer's own chat template.
  messages = chat_template.messages_of(trajectory)
  given = {
    'tools': trajectory.tools and list(trajectory.tools),
    'chat_template': renderer.rendering['template'],
  }
  assert text == ''.join(span.text for span in spans)
  assert text == tokenizer.apply_chat_template(
    messages, tokenize=False, **given
  )
  forged = any(
    s in json.dumps(messages, ensure_ascii=False)
    for s in chat_tokenizer.SPECIAL
  )
  if not (special_text == 'escape' and forged):
    ids = tokenizer.apply_chat_template(messages, return_dict=False, **given)
    assert example.tokens_T.tolist() == ids
  assert tokenizer.decode(example.tokens_T) == text

  # Authors are complete and disjoint: each character, each token has one.
  assert {span.provenance for span in spans} <= {*STRADDLE_ORDER}
  assert all(span.text for span in spans)
  assert len(example.provenance_T) == len(example.tokens_T)
  assert {*example.provenance_T.tolist()} <= {*map(int, STRADDLE_ORDER)}
  turns = len(trajectory.segments)
  assert ((example.segment_T >= 0) & (example.segment_T < turns)).all()

  # A token goes to the first author, in the declared order, of its characters.
  by = [span.provenance for span in spans for _ in span.text]
  held = [{*by[part]} for part in held_by(starts_T, len(text))]
  assert example.provenance_T.tolist() == [
    next(author for author in STRADDLE_ORDER if author in authors)
    for authors in held
  ]
  assert straddling == sum(len(authors) > 1 for authors in held)

  # Interventional and agent-only targets are complements; context is neither.
  do_T, agent_T = (
    weight_table(objective)[example.provenance_T, example.verdict_T]
    for objective in ('interventional', 'agent_only')
  )
  context_T = example.provenance_T == P.CONTEXT
  assert (do_T + agent_T).tolist() == (~context_T).astype(float).tolist()
  assert (do_T * agent_T == 0).all()
  return example, text, starts_T, by


def holds(body, at_least, *strategies):
  """Runs a property; this many examples must prove, and not only be refused."""
  outcomes = collections.Counter()

  @often
  @hypothesis.given(st.tuples(*strategies))
  def counted(drawn):
    try:
      body(*drawn)
    except Rejected as error:
      assert error.reason in REASONS
      outcomes[error.reason] += 1
    else:
      outcomes['proved'] += 1

  counted()
  assert outcomes['proved'] >= at_least, outcomes


special_texts = st.sampled_from(['reject', 'escape'])


def test_the_agents_tokens_are_those_that_hold_a_character_of_its_own():
  """The oracle is the construction of the template, not the spans."""

  def body(family, trajectory, make, special_text):
    renderer = Renderer(make(), family.template, special_text=special_text)
    example, text, starts_T, _ = check_laws(renderer, trajectory, special_text)
    pieces = [*family.pieces(trajectory)]
    assert text == ''.join(piece for piece, _ in pieces)
    mine = np.array([own for piece, own in pieces for _ in piece], bool)
    parts = held_by(starts_T, len(text))
    assert (example.provenance_T == P.AGENT).tolist() == [
      bool(mine[part].any()) for part in parts
    ]

  holds(body, 100, families(), trajectories(), tokenizers, special_texts)


def test_the_laws_hold_under_every_template():
  texts = {name: chat_tokenizer.template(name) for name in chat_tokenizer.NAMES}

  def body(name, trajectory, make, special_text):
    renderer = Renderer(make(), texts[name], special_text=special_text)
    check_laws(renderer, trajectory, special_text)

  holds(
    body,
    100,
    st.sampled_from([*texts]),
    trajectories(),
    tokenizers,
    special_texts,
  )


def test_the_laws_hold_under_the_plain_format():
  def body(trajectory, make, special_text):
    renderer = Renderer(make(), chat_template.PLAIN, special_text=special_text)
    check_laws(renderer, trajectory, special_text)

  holds(body, 50, trajectories(with_calls=False), tokenizers, special_texts)


# ----------------------------------- a second rendering tells whose a value is


def disguised(value):
  """The value in characters of no script, one for one, white space kept.

  What a template looks for in a text stays: tags, and empty texts.
  """
  if isinstance(value, str):
    if '<' in value:
      return value
    return re.sub(r'[^\s"\\\x00-\x1f]', _private, value)
  if isinstance(value, dict):
    return {disguised(k): disguised(v) for k, v in value.items()}
  if isinstance(value, list):
    return [disguised(item) for item in value]
  return value


def _private(match):
  code = ord(match[0])
  return chr(0xF0000 + code) if code < 0xFF00 else match[0]


def is_private(character):
  return 0xF0000 <= ord(character) <= 0xFFFFF


def disguise(segment):
  """The message, of which its author's words are in disguise."""
  message = segment.message()
  message['content'] = disguised(message['content'])
  if 'reasoning_content' in message:
    message['reasoning_content'] = disguised(message['reasoning_content'])
  message['tool_calls'] = [
    {
      **call,
      'function': {
        **call['function'],
        'arguments': disguised(call['function']['arguments']),
      },
    }
    for call in message.get('tool_calls', ())
  ]
  return message


def test_words_are_where_a_second_rendering_shows_them():
  """One author's words are replaced, character for character, by characters
  that no one else has; transformers renders it again; where those stand, in the
  first rendering, is what that author wrote."""

  def body(name, trajectory, author):
    text = chat_tokenizer.template(name)
    renderer = Renderer(chat_tokenizer.trained(), text, special_text='escape')
    turns = [s for s in trajectory.segments if not s.parts]
    trajectory = Trajectory('x', tuple(turns), trajectory.tools)
    _, whole, _, by = check_laws(renderer, trajectory, 'escape')
    again = renderer.tokenizer.apply_chat_template(
      [disguise(s) if s.provenance == author else s.message() for s in turns],
      tools=trajectory.tools and list(trajectory.tools),
      chat_template=renderer.rendering['template'],
      tokenize=False,
    )
    assert len(again) == len(whole)
    assert {
      owner for owner, new in zip(by, again, strict=True) if is_private(new)
    } <= {author}
    unchanged = [
      (old, new)
      for old, new in zip(whole, again, strict=True)
      if not is_private(new)
    ]
    assert all(old == new for old, new in unchanged)

  holds(
    body,
    100,
    st.sampled_from(chat_tokenizer.NAMES),
    trajectories(),
    st.sampled_from([P.AGENT, P.AGENT, P.USER, P.TOOL]),
  )


# -------------------------------------------- nothing but Rejected is raised

templates = st.lists(
  st.sampled_from(
    [
      '{% for message in messages %}',
      '{% endfor %}',
      '{{ message.content }}',
      '{{ message.content | trim }}',
      '{{ message.content | title }}',
      '{{ message.role + "\n" }}',
      '{{ message.tool_calls | tojson }}',
      '{{ messages[0].content }}',
      '{{ messages[-1]["content"][:2] }}',
      '{% set x = message %}{{ x.content }}',
      '{% for m in messages[::-1] %}{{ m.content }}{% endfor %}',
      '{% if message.role == "user" %}<|im_start|>{% else %}<|im_end|>'
      '{% endif %}',
      '{{ tools }}',
      '{{ 1 // 0 }}',
      '<|im_end|>\n',
      'x',
    ]
  ),
  max_size=6,
).map(''.join)


def test_nothing_but_rejected_is_raised_whatever_the_template():
  def body(text, trajectory, make, special_text):
    try:
      renderer = Renderer(make(), text or 'x', special_text=special_text)
    except ValueError as error:  # it is no template at all
      assert 'the chat template does not compile' in str(error)
      hypothesis.assume(False)
    check_laws(renderer, trajectory, special_text)

  holds(body, 5, templates, trajectories(), tokenizers, special_texts)
