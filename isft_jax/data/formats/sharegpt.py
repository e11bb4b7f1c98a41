"""ShareGPT conversations, with LLaMA-Factory's turns for tools.

    {"conversations": [{"from": "human", "value": "2 + 2?"},
                       {"from": "function_call", "value": "{\"name\": ...}"},
                       {"from": "observation", "value": "4"},
                       {"from": "gpt", "value": "It is 4."}],
     "system": "...", "tools": "[...]"}

Each stays a turn of its own: two neighbours may have two authors.
"""

from collections.abc import Mapping

from isft_jax.data.formats.conversation import Chat, Malformed, Turn, quoted
from isft_jax.data.formats.normalize import (
  find,
  json_or_text,
  normalised,
  system_turn,
  take,
)

KEYS = ('conversations', 'conversation', 'messages')
HAS = ('from', 'value')
WANTS = 'conversations: a list of {from, value}'
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
  """Whether a row is of this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Returns a row's turns; a row's `system` is the first. Raises Malformed."""
  messages, tools, metadata = take(value, KEYS, HAS)
  messages = [*system_turn(metadata, 'from', 'value'), *messages]
  turns = [
    Turn(normalised(_message(found, i), i), None, found)
    for i, found in enumerate(messages)
  ]
  return Chat(turns, tools, metadata)


def _message(found: Mapping, i: int) -> dict:
  """The turn as OpenAI's format has it."""
  speaker, value = found.get('from'), found.get('value')
  if not isinstance(speaker, str) or speaker not in ROLES:
    known = ', '.join(ROLES)
    raise Malformed(f'turn {i}: from is {quoted(speaker)}, expected {known}')
  if 'value' not in found:
    raise Malformed(f'turn {i}: no value')
  if found.get('content') is not None:
    raise Malformed(f'turn {i}: has both value and content')
  message = {k: v for k, v in found.items() if k not in HAS}
  message |= {'role': ROLES[speaker], 'content': value}
  if speaker == 'function_call':
    calls = json_or_text(value)
    calls = [calls] if isinstance(calls, dict) else calls
    if isinstance(calls, list) and calls and all(map(_is_call, calls)):
      message |= {'content': '', 'tool_calls': calls}
  return message


def _is_call(value: object) -> bool:
  function = value.get('function', value) if isinstance(value, dict) else None
  name = function.get('name') if isinstance(function, dict) else None
  return isinstance(name, str) and name != ''
