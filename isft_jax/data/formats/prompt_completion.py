"""Format of a conversation in two columns: its beginning, and the rest.

    {"prompt": [{"role": "user", "content": "2 + 2?"}],
     "completion": [{"role": "assistant", "content": "It is 4."}]}

TRL's conversational data sets and rollouts of verifiers have this form. One of
the two may be text instead of messages: the user's, or the agent's. Two texts
may be one text of a base model in two pieces, or a question and its answer.
They are read as a question and its answer if --format names this format.
"""

from collections.abc import Mapping

from isft_jax.data.formats import openai
from isft_jax.data.messages import roles
from isft_jax.data.messages.conversation import Chat, Malformed, outline
from isft_jax.data.messages.normalize import find

KEYS = ('prompt', 'messages')  # of the beginning, in a row
# Keys of both columns. A log of API calls has messages and a response.
_PAIRS = (
  ('prompt', 'completion'),
  ('prompt', 'response'),
  ('messages', 'completion'),
)
HAS = ('role',)  # keys of a message
WANTS = 'prompt and completion: two lists of {role, content}'
USES = openai.USES  # keys of a message
PARTS = openai.PARTS  # keys of a part of a content


def matches(value: object) -> bool:
  """Returns whether a row has this format, with messages in a column."""
  if not isinstance(value, dict):
    return False
  halves = _halves(value)
  return halves is not None and any(_messages(value, key) for key in halves)


def is_of_texts(value: object) -> bool:
  """Returns whether a row has two texts, which only --format reads."""
  if not isinstance(value, dict) or matches(value):
    return False
  return _halves(value) is not None


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format.
  """
  halves = _halves(value) if isinstance(value, dict) else None
  if halves is None:
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  assert isinstance(value, dict)
  rest = {key: v for key, v in value.items() if key not in halves}
  messages = [message for half in halves.values() for message in half]
  return openai.read({**rest, 'messages': messages})


def _halves(row: Mapping) -> dict[str, list] | None:
  """Returns the messages of both columns by their keys, or None."""
  for first, second in _PAIRS:
    if not row.get(first) or not row.get(second):
      continue
    beginning = _messages(row, first) or _text(row, first, 'user')
    rest = _messages(row, second) or _text(row, second, 'assistant')
    if not beginning or not rest:
      continue
    # A conversation that ends with the agent is complete.
    last = beginning[-1] if isinstance(beginning[-1], dict) else {}
    role = last.get('role')
    if not isinstance(role, str) or roles.for_template(role) != 'assistant':
      return {first: beginning, second: rest}
  return None


def _messages(row: Mapping, key: str) -> list:
  """Returns the messages of a column; [] if it holds something else."""
  match = find(row, (key,), HAS)
  return match[1] if match else []


def _text(row: Mapping, key: str, role: str) -> list[dict]:
  """Returns the text of a column as a message; [] if it is no text."""
  text = row.get(key)
  is_text = isinstance(text, str) and text
  return [{'role': role, 'content': text}] if is_text else []
