"""Format of LLaMA-Factory v1: contents of {type, value}.

    {"messages": [
       {"role": "user", "content": [{"type": "text", "value": "2 + 2?"}]},
       {"role": "assistant", "loss_weight": 1.0, "content": [
         {"type": "reasoning", "value": "..."},
         {"type": "tool_call", "value": "{\"name\": \"f\", ...}"}]},
       {"role": "tool", "content": [{"type": "text", "value": "4"}]}],
     "tools": "[...]"}

A message of the agent with a text after a call becomes two turns.

Source: hiyouga/LLaMA-Factory, src/llamafactory/v1/utils/types.py.
"""

from collections.abc import Mapping

from isft_jax.data.messages.agent_items import Items, not_text
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  kind,
  outline,
  quoted,
)
from isft_jax.data.messages.normalize import find, system_turn, take
from isft_jax.data.messages.tools import json_or_text, with_envelope

KEYS = ('messages', '_messages')  # of a row
HAS = ('role', 'content')  # keys of a message
WANTS = 'messages: a list of {role, content} with contents as {type, value}'
USES = frozenset(HAS)  # keys of a message
_CALLS = ('tool_call', 'tool_calls')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, HAS)
  return match is not None and any(
    isinstance(part, dict) and {'type', 'value'} <= part.keys()
    for message in match[1]
    for part in _parts(message)
  )


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  messages, tools, metadata = take(value, KEYS, HAS)
  messages = [*system_turn(metadata, 'role', 'content', messages), *messages]
  tools = [*(tools or ())]
  turns = Items()
  for i, message in enumerate(messages):
    _message(message, turns, tools, f'message {i}')
  return Chat(turns.turns(), tools or None, metadata)


def _parts(message: object) -> list:
  content = message.get('content') if isinstance(message, dict) else None
  return content if isinstance(content, list) else []


def _message(
  message: Mapping, turns: Items, tools: list[dict], where: str
) -> None:
  """Adds a message to the turns."""
  turns.end_turn()
  role, content = message.get('role'), message.get('content')
  # A content that is a text has one part.
  parts = content
  if isinstance(content, str):
    parts = [{'type': 'text', 'value': content}]
  if not isinstance(parts, list):
    raise Malformed(f'{where}: content is {kind(content)}, expected a list')
  # Texts of other roles are joined; parts of the agent keep their order.
  texts = []
  for part in parts:
    type_ = part.get('type') if isinstance(part, dict) else kind(part)
    value = part.get('value') if isinstance(part, dict) else None
    # The first version has the schemas in the system prompt.
    if type_ == 'tools' and role != 'assistant':
      tools += map(with_envelope, _objects(value, where, 'tools'))
    elif type_ == 'text' and role != 'assistant' and isinstance(value, str):
      texts.append(value)
    elif type_ == 'text' and role == 'assistant':
      turns.text(value, message)
    elif type_ == 'reasoning' and role == 'assistant':
      turns.thought(value, message)
    elif type_ in _CALLS and role == 'assistant':
      for call in _objects(value, where, str(type_)):
        # The function may be in OpenAI's envelope.
        function = call.get('function')
        function = function if isinstance(function, dict) else call
        turns.call(
          call.get('id'),
          function.get('name'),
          function.get('arguments'),
          message,
        )
    else:
      raise not_text(where, type_)
  if role != 'assistant':
    turns.message({'role': role, 'content': ''.join(texts)}, message)
  # A message without parts is an empty turn.
  elif not parts:
    turns.text('', message)
  turns.end_turn()


def _objects(value: object, where: str, key: str) -> list[dict]:
  """Returns the objects in a JSON text, which may be one object or a list."""
  objects = json_or_text(value)
  objects = [objects] if isinstance(objects, dict) else objects
  if not isinstance(objects, list) or not all(
    isinstance(item, dict) for item in objects
  ):
    raise Malformed(f'{where}: {key} is {quoted(value)}, expected JSON objects')
  return objects
