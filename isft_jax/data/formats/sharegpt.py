"""Format of ShareGPT conversations, with LLaMA-Factory's turns for tools.

    {"conversations": [{"from": "human", "value": "2 + 2?"},
                       {"from": "function_call", "value": "{\"name\": ...}"},
                       {"from": "observation", "value": "4"},
                       {"from": "gpt", "value": "It is 4."}],
     "system": "...", "tools": "[...]"}

Turns of the same role are not merged, because their authors may differ.
"""

from collections.abc import Mapping

from isft_jax.data.formats import normalize
from isft_jax.data.formats.conversation import Chat, Malformed, Turn, quoted
from isft_jax.data.formats.normalize import (
  find,
  json_or_text,
  normalised,
  system_turn,
  take,
)

KEYS = ('conversations', 'conversation', 'messages')  # of a row
HAS = ('from', 'value')  # keys of a message
WANTS = 'conversations: a list of {from, value}'
USES = normalize.USES | {'from', 'value'}  # keys of a message
# Speakers, and their roles in chat templates.
ROLES = {
  'system': 'system',
  'human': 'user',
  'user': 'user',
  'gpt': 'assistant',
  'assistant': 'assistant',
  'model': 'assistant',
  'chatgpt': 'assistant',
  'function_call': 'assistant',
  'observation': 'tool',
  'tool': 'tool',
  'function_response': 'tool',
}


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  messages = [*system_turn(metadata, 'from', 'value'), *messages]
  turns = [
    Turn(normalised(_message(raw, i), i), None, raw)
    for i, raw in enumerate(messages)
  ]
  return Chat(turns, tools, metadata)


def _message(raw: Mapping, i: int) -> dict:
  """Returns the turn as a message in OpenAI's form."""
  speaker, value = raw.get('from'), raw.get('value')
  if not isinstance(speaker, str) or speaker not in ROLES:
    known = ', '.join(ROLES)
    raise Malformed(f'turn {i}: from is {quoted(speaker)}, expected {known}')
  if 'value' not in raw:
    raise Malformed(f'turn {i}: no value')
  # Two texts in one turn are ambiguous.
  if raw.get('content') is not None:
    raise Malformed(f'turn {i}: has both value and content')
  # Other fields, such as annotations, are kept.
  message = {k: v for k, v in raw.items() if k not in HAS}
  message |= {'role': ROLES[speaker], 'content': value}
  # A call is JSON text. Any other text stays content.
  if speaker == 'function_call':
    calls = json_or_text(value)
    # One call, or a list of parallel calls.
    calls = [calls] if isinstance(calls, dict) else calls
    if isinstance(calls, list) and calls and all(map(_is_call, calls)):
      message |= {'content': '', 'tool_calls': calls}
  return message


def _is_call(value: object) -> bool:
  """Returns whether a value is a tool call, with or without `function`."""
  # A call in OpenAI's form has its name inside of `function`.
  function = value.get('function', value) if isinstance(value, dict) else None
  name = function.get('name') if isinstance(function, dict) else None
  return isinstance(name, str) and name != ''
