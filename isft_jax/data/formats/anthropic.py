"""Anthropic's messages: content is a list of blocks, each of its own author.

    {"system": "...", "tools": [{"name": "f", "input_schema": {...}}],
     "messages": [
       {"role": "user", "content": "2 + 2?"},
       {"role": "assistant", "content": [
         {"type": "thinking", "thinking": "..."},
         {"type": "text", "text": "Let me see."},
         {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 2}}]},
       {"role": "user", "content": [
         {"type": "tool_result", "tool_use_id": "a", "content": "4"},
         {"type": "text", "text": "Well?"}]}]}

A user's message is taken apart: each tool result is a turn of the tool, and the
text beside it one of the user, in their order. The agent's is one turn, which
holds thinking, text and calls in this order, as chat templates have it; blocks
in another order, and those that no text can hold, make the row malformed.
"""

import itertools
from collections.abc import Mapping

from isft_jax.data.formats.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.formats.normalize import find, json_or_text, normalised, take

KEYS = ('messages', 'conversation', 'conversations')
HAS = ('role', 'content')
WANTS = 'messages: a list of {role, content} with blocks as tool_use'
# Blocks of this API alone. One of type text is found elsewhere too.
_BLOCKS = ('tool_use', 'tool_result', 'thinking', 'redacted_thinking')
_ORDER = ('thinking', 'text', 'tool_use')


def matches(value: object) -> bool:
  """Whether a row is of this format."""
  found = find(value, KEYS, HAS)
  if found is None:
    return False
  row = value if isinstance(value, dict) else {}
  tools = json_or_text(row.get('tools'))
  if isinstance(tools, list) and any(_is_schema(tool) for tool in tools):
    return True
  return isinstance(row.get('system'), list) or any(
    isinstance(block, dict) and block.get('type') in _BLOCKS
    for message in found[1]
    for block in _blocks(message)
  )


def read(value: object) -> Chat:
  """Returns a row's turns; a row's `system` is the first. Raises Malformed."""
  messages, tools, metadata = take(value, KEYS, HAS)
  system = metadata.pop('system', None)
  if system:
    messages = [{'role': 'system', 'content': system}, *messages]
  pieces = [p for i, m in enumerate(messages) for p in _pieces(m, i)]
  turns = [
    Turn(normalised(message, i), None, {**found, 'role': message['role']})
    for i, (message, found) in enumerate(pieces)
  ]
  return Chat(turns, tools and [*map(_tool, tools)], metadata)


def _blocks(message: object) -> list:
  content = message.get('content') if isinstance(message, dict) else None
  return content if isinstance(content, list) else []


def _pieces(found: Mapping, i: int) -> list[tuple[Mapping, Mapping]]:
  """The turns of a message, each as OpenAI's API has it and as found."""
  blocks = _blocks(found)
  for j, block in enumerate(blocks):
    if not isinstance(block, dict):
      raise Malformed(f'message {i}: block {j} is {kind(block)}')
  if not blocks:
    return [(found, found)]
  if found.get('role') == 'assistant':
    return [(_agents(found, blocks, i), found)]
  pieces: list[tuple[Mapping, Mapping]] = []
  for is_result, group in itertools.groupby(blocks, _is_result):
    if is_result:
      pieces += [(_result(found, b, i), {**found, **b}) for b in group]
    else:
      message = {**found, 'content': _texts([*group], i)}
      pieces.append((message, message))
  if len(pieces) > 1 and found.get('spans') is not None:
    raise Malformed(
      f'message {i}: spans count characters of one text, and this has '
      f'{len(pieces)}'
    )
  return pieces


def _is_result(block: Mapping) -> bool:
  return block.get('type') == 'tool_result'


def _agents(found: Mapping, blocks: list, i: int) -> dict:
  types = [block.get('type') for block in blocks]
  for j, type_ in enumerate(types):
    if type_ not in _ORDER:
      raise Malformed(f'message {i}: block {j} is {_unfit(type_)}')
    if j and _ORDER.index(types[j - 1]) > _ORDER.index(type_):
      raise Malformed(
        f'message {i}: block {j}, {type_} after {types[j - 1]}, has no place '
        'in a chat template: it knows thinking, text, calls'
      )
  by_type: dict[str, list] = {name: [] for name in _ORDER}
  for block in blocks:
    by_type[block['type']].append(block)
  message = {**found, 'content': _texts(by_type['text'], i)}
  if by_type['thinking']:
    thoughts = [block.get('thinking') for block in by_type['thinking']]
    if not all(isinstance(t, str) and t for t in thoughts):
      raise Malformed(
        f'message {i}: thinking without its text: what the agent wrote there '
        'is not in the row'
      )
    message['reasoning_content'] = ''.join(thoughts)
  if by_type['tool_use']:
    message['tool_calls'] = [_call(b, i) for b in by_type['tool_use']]
  return message


def _call(block: Mapping, i: int) -> dict:
  if not isinstance(block.get('input'), dict):
    raise Malformed(
      f'message {i}: input of tool_use is {kind(block.get("input"))}, expected '
      'an object'
    )
  function = {'name': block.get('name'), 'arguments': block['input']}
  return {'id': block.get('id'), 'type': 'function', 'function': function}


def _result(found: Mapping, block: Mapping, i: int) -> dict:
  content = block.get('content')
  if isinstance(content, list):
    content = _texts(content, i)
  message = {k: v for k, v in found.items() if k not in ('spans', 'name')}
  message |= {
    'role': 'tool',
    'tool_call_id': block.get('tool_use_id'),
    'content': content,
  }
  return message | ({'is_error': True} if block.get('is_error') is True else {})


def _texts(blocks: list, i: int) -> list[dict]:
  """The blocks as parts of a text, if they are that."""
  for block in blocks:
    type_ = block.get('type') if isinstance(block, dict) else kind(block)
    if type_ != 'text':
      raise Malformed(f'message {i}: a block is {_unfit(type_)}')
  return blocks


def _unfit(type_: object) -> str:
  if type_ == 'redacted_thinking':
    return 'redacted_thinking: what the agent wrote there is not in the row'
  return f'of type {quoted(type_)}, which is no text of this turn'


def _is_schema(tool: object) -> bool:
  return isinstance(tool, dict) and tool.get('input_schema') is not None


def _tool(tool: dict) -> dict:
  """A tool's schema as OpenAI's API has it."""
  if tool.get('function') is not None:
    return tool
  if not _is_schema(tool):
    raise Malformed(
      f'tool {quoted(tool.get("name"))} has no input_schema: a tool of the API '
      'itself, which no chat template can show'
    )
  # What the API is to cache says nothing of the conversation.
  rest = ('type', 'input_schema', 'cache_control')
  function = {k: v for k, v in tool.items() if k not in rest}
  function['parameters'] = tool['input_schema']
  return {'type': 'function', 'function': function}
