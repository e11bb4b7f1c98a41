"""Format of ShareGPT conversations, with LLaMA-Factory's turns for tools.

    {"conversations": [{"from": "human", "value": "2 + 2?"},
                       {"from": "function_call", "value": "{\"name\": ...}"},
                       {"from": "observation", "value": "4"},
                       {"from": "gpt", "value": "It is 4."}],
     "system": "...", "tools": "[...]"}

Turns of the same role are not merged, because their authors may differ.
"""

from collections.abc import Mapping

from isft_jax.data.messages import normalize, roles, tools
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, quoted
from isft_jax.data.messages.normalize import (
  find,
  joined_calls,
  normalised,
  system_turn,
  take,
)

KEYS = ('conversations', 'conversation', 'messages')  # of a row
HAS = ('from', 'value')  # keys of a message
WANTS = 'conversations: a list of {from, value}'
USES = normalize.USES | {'from', 'value'}  # keys of a message
# Speakers, for error messages; see `roles` for more names.
ROLES = (
  *('system', 'human', 'user', 'gpt', 'assistant', 'model', 'chatgpt'),
  *('function_call', 'tool_call', 'observation', 'tool', 'function_response'),
  'tool_response',
)
# Their roles in chat templates.
_ROLES = ('system', 'user', 'assistant', 'tool')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, schemas, metadata = take(value, KEYS, HAS)
  system = system_turn(metadata, 'from', 'value', messages)
  messages = [*system, *messages]
  turns = [
    Turn(normalised(_message(raw, i), i), None, raw)
    for i, raw in enumerate(messages)
  ]
  return Chat(joined_calls(turns), schemas, metadata)


def _message(raw: Mapping, i: int) -> dict:
  """Returns the turn as a message in OpenAI's form."""
  speaker, value = raw.get('from'), raw.get('value')
  role = roles.for_template(speaker) if isinstance(speaker, str) else ''
  if role not in _ROLES:
    known = ', '.join(ROLES)
    raise Malformed(f'turn {i}: from is {quoted(speaker)}, expected {known}')
  if 'value' not in raw:
    raise Malformed(f'turn {i}: no value')
  # Two texts in one turn are ambiguous.
  if raw.get('content') is not None:
    raise Malformed(f'turn {i}: has both value and content')
  # Other fields, such as annotations, are kept.
  message = {k: v for k, v in raw.items() if k not in HAS}
  message |= {'role': role, 'content': value}
  # A call is JSON text. Any other text stays content.
  if roles.is_call(speaker):
    calls = tools.calls_in_text(value)
    if calls:
      message |= {'content': '', 'tool_calls': calls}
  return message
