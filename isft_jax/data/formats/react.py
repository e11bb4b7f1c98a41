"""ReAct transcripts: one text, in which labels say who speaks.

    Answer with the tools you have.    CONTEXT, what there is before any label
    Question: What is 2 + 2?           USER
    Thought: I should compute.         AGENT, with the label, which it wrote
    Action: compute
    Action Input: 2 + 2
    Observation: 4                     TOOL
    Thought: I know.
    Final Answer: 4

Each labelled line is a turn, with what follows it up to the next label. The
plain format writes a line a turn, and so proves such a text. A label may carry
a number, as `Thought 2:`. What could be the agent's as well as the world's
makes the row malformed, above all an observation that no action asked for.

Source: Yao et al., ReAct (arXiv 2210.03629), and its followers' action inputs.
"""

import re
from collections.abc import Iterator

from isft_jax.data.formats.conversation import Chat, Malformed, Turn, outline

KEYS = ('text', 'trajectory', 'react')
WANTS = 'text or trajectory: one text with Thought, Action, Observation lines'
_LABELS = (
  *('Question', 'Thought', 'Action Input', 'Action'),
  *('Observation', 'Final Answer'),
)
_LABEL = rf'({"|".join(_LABELS)})(?: \d+)?:'
_LINE = re.compile(rf'^{_LABEL}[ \t]?', re.MULTILINE)
_ANYWHERE = re.compile(_LABEL)
_ACTS = re.compile(r'^(?:Thought|Action)(?: \d+)?:', re.MULTILINE)
_ROLES = {'Question': 'user', 'Observation': 'tool'}
_ASK = ('Action', 'Action Input')


def matches(value: object) -> bool:
  """Whether a row is of this format."""
  text = _text(value)
  return text is not None and _ACTS.search(text[1]) is not None


def read(value: object) -> Chat:
  """Returns a text's turns, in their order. Raises Malformed."""
  found = _text(value)
  if found is None or not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  key, text = found
  metadata = value if isinstance(value, dict) else {}
  metadata = {k: v for k, v in metadata.items() if k != key}
  said = [*_turns(text)]
  roles = [role for role, _ in said]
  question = metadata.get('question')
  if 'user' not in roles and isinstance(question, str) and question:
    said.insert(roles.index('assistant'), ('user', question))
  messages = [{'role': role, 'content': words} for role, words in said]
  return Chat([Turn(m, None, m) for m in messages], None, metadata)


def _text(value: object) -> tuple[str, str] | None:
  places: dict[str, object] = {'': value} if isinstance(value, str) else {}
  if isinstance(value, dict):
    places = {key: value.get(key) for key in KEYS}
  texts = [(k, text) for k, text in places.items() if isinstance(text, str)]
  return texts[0] if texts else None


def _turns(text: str) -> Iterator[tuple[str, str]]:
  """Yields a role and its words; the agent's words begin with their label."""
  found = [*_LINE.finditer(text)]
  before = text[: found[0].start()].strip('\n')
  if before:
    yield 'system', before
  last = None
  ends = [match.start() for match in found[1:]] + [len(text)]
  for match, end in zip(found, ends, strict=True):
    label, line = match[1], text.count('\n', 0, match.start()) + 1
    words = text[match.end() : end].rstrip('\n')
    if label == 'Question' and last:
      raise Malformed(
        f'line {line}: a second Question: which run is an example cannot be '
        'told'
      )
    if label == 'Observation' and last not in _ASK:
      raise Malformed(
        f'line {line}: an Observation that no Action asked for: whose it is '
        'cannot be told'
      )
    is_worlds = label in _ROLES
    for inner in _ANYWHERE.finditer(words):
      if is_worlds != (inner[1] in _ROLES):
        raise Malformed(
          f'line {line}: {inner[0]!r} inside the {label}: whose it is cannot '
          'be told'
        )
    words = words if is_worlds else match[0] + words
    yield _ROLES.get(label, 'assistant'), words
    last = label
