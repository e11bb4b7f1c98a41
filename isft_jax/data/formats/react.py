"""Format of ReAct transcripts: one text, with a label before each turn.

    Answer with the tools you have.    CONTEXT, text before the first label
    Question: What is 2 + 2?           USER
    Thought: I should compute.         AGENT, including the label
    Action: compute
    Action Input: 2 + 2
    Observation: 4                     TOOL
    Thought: I know.
    Final Answer: 4

A turn begins at a label and ends before the next one. Only the plain format can
render such a text, because it writes one line per turn. A label may have a
number, as in `Thought 2:`. Text that either the agent or the world may have
written makes the row malformed, especially an observation without an action.

Source: Yao et al., ReAct (arXiv 2210.03629), and its followers' action inputs.
"""

import re
from collections.abc import Iterator

from isft_jax.data.messages.conversation import Chat, Malformed, Turn, outline

KEYS = ('text', 'trajectory', 'react')  # of a row
USES = frozenset(('role', 'content'))  # keys of a turn
WANTS = 'text or trajectory: one text with Thought, Action, Observation lines'
# 'Action Input' is before 'Action', so that the longer label matches.
_LABELS = (
  *('Question', 'Thought', 'Action Input', 'Action'),
  *('Observation', 'Final Answer'),
)
# A label with an optional number; at the beginning of a line it begins a turn.
_LABEL = rf'({"|".join(_LABELS)})(?: \d+)?:'
_LINE = re.compile(rf'^{_LABEL}[ \t]?', re.MULTILINE)
_ANYWHERE = re.compile(_LABEL)  # a label inside of a line
# A text without any thought or action is not a transcript of an agent.
_ACTS = re.compile(r'^(?:Thought|Action)(?: \d+)?:', re.MULTILINE)
# Labels of the world; all others are the agent's.
_ROLES = {'Question': 'user', 'Observation': 'tool'}
_ASK = ('Action', 'Action Input')  # labels before an Observation


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  text = _text(value)
  return text is not None and _ACTS.search(text[1]) is not None


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or an author is unknown.
  """
  keyed_text = _text(value)
  if keyed_text is None or not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  key, text = keyed_text
  metadata = value if isinstance(value, dict) else {}
  metadata = {k: v for k, v in metadata.items() if k != key}
  turns = [*_turns(text)]
  # The question may be a field of the row instead of a line of the text.
  roles = [role for role, _ in turns]
  question = metadata.get('question')
  if 'user' not in roles and isinstance(question, str) and question:
    turns.insert(roles.index('assistant'), ('user', question))
  messages = [{'role': role, 'content': words} for role, words in turns]
  return Chat([Turn(m, None, m) for m in messages], None, metadata)


def _text(value: object) -> tuple[str, str] | None:
  """Returns the key and the text of a row, or None."""
  places: dict[str, object] = {'': value} if isinstance(value, str) else {}
  if isinstance(value, dict):
    places = {key: value.get(key) for key in KEYS}
  texts = [(k, text) for k, text in places.items() if isinstance(text, str)]
  return texts[0] if texts else None


def _turns(text: str) -> Iterator[tuple[str, str]]:
  """Yields (role, words) of each turn; the agent's words include the label."""
  # Text before the first label is context.
  labels = [*_LINE.finditer(text)]
  before = text[: labels[0].start()].strip('\n')
  if before:
    yield 'system', before

  # A turn ends where the next label begins.
  last = None
  ends = [match.start() for match in labels[1:]] + [len(text)]
  for match, end in zip(labels, ends, strict=True):
    label, line = match[1], text.count('\n', 0, match.start()) + 1
    words = text[match.end() : end].rstrip('\n')
    # Prompts with worked examples have several questions, and the examples are
    # not the agent's.
    if label == 'Question' and last:
      raise Malformed(
        f'line {line}: a second Question: it is unknown which run is an example'
      )
    # An agent can make up an observation.
    if label == 'Observation' and last not in _ASK:
      raise Malformed(
        f'line {line}: an Observation without an Action: its author is unknown'
      )
    is_worlds = label in _ROLES
    # A label of the other side within a line.
    for inner in _ANYWHERE.finditer(words):
      if is_worlds != (inner[1] in _ROLES):
        raise Malformed(
          f'line {line}: {inner[0]!r} inside the {label}: its author is unknown'
        )
    # The plain format writes "Agent: " before the label.
    words = words if is_worlds else match[0] + words
    yield _ROLES.get(label, 'assistant'), words
    last = label
