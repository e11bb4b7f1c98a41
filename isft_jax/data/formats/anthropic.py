"""Format of Anthropic's API: content is a list of blocks.

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

A user's message becomes several turns, in order: each tool result is a turn of
the tool, and the text beside it is a turn of the user. An agent's message stays
one turn. Its blocks must be thinking, text and calls in this order, because
chat templates show them in this order. Blocks in another order, and blocks that
are not text, make the row malformed.
"""

import itertools
from collections.abc import Mapping

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.messages.normalize import (
  find,
  json_or_text,
  normalised,
  system_turn,
  take,
)

KEYS = ('messages', 'conversation', 'conversations')  # of a row
HAS = ('role', 'content')  # keys of a message
WANTS = 'messages: a list of {role, content} with blocks as tool_use'
# Keys of a message, and of the block of a tool result.
USES = normalize.USES | {'type', 'tool_use_id', 'is_error'}
# Keys of a block.
PARTS = normalize.PARTS | {
  *('thinking', 'id', 'name', 'input', 'tool_use_id', 'content', 'is_error')
}
# Types of blocks that only this API has. Other APIs have 'text' too.
_BLOCKS = ('tool_use', 'tool_result', 'thinking', 'redacted_thinking')
# Blocks of an agent's turn, in the order in which chat templates show them.
_ORDER = ('thinking', 'text', 'tool_use')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, HAS)
  if match is None:
    return False
  # The keys are also those of OpenAI's format. Only schemas, the system prompt
  # and types of blocks can tell the two apart.
  row = value if isinstance(value, dict) else {}
  tools = json_or_text(row.get('tools'))
  if isinstance(tools, list) and any(_is_schema(tool) for tool in tools):
    return True
  # Bedrock has blocks without a type.
  system = row.get('system')
  if isinstance(system, list) and all(
    isinstance(block, dict) and 'type' in block for block in system
  ):
    return True
  return any(
    isinstance(block, dict) and block.get('type') in _BLOCKS
    for message in match[1]
    for block in _blocks(message)
  )


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  # Unlike in OpenAI's API, the system prompt is beside the messages.
  system = metadata.pop('system', None)
  if system:
    messages = [{'role': 'system', 'content': system}, *messages]
  messages = [
    *system_turn(metadata, 'role', 'content', messages),
    *messages,
  ]
  # A message may become several turns.
  pieces = [p for i, m in enumerate(messages) for p in _pieces(m, i)]
  turns = [
    Turn(normalised(message, i), None, {**raw, 'role': message['role']})
    for i, (message, raw) in enumerate(pieces)
  ]
  return Chat(turns, tools and [*map(_tool, tools)], metadata)


def _blocks(message: object) -> list:
  content = message.get('content') if isinstance(message, dict) else None
  return content if isinstance(content, list) else []


def _pieces(raw: Mapping, i: int) -> list[tuple[Mapping, Mapping]]:
  """Splits a message into turns: (in OpenAI's form, raw) of each."""
  blocks = _blocks(raw)
  for j, block in enumerate(blocks):
    if not isinstance(block, dict):
      raise Malformed(f'message {i}: block {j} is {kind(block)}')
  # The content is a text.
  if not blocks:
    return [(raw, raw)]
  if raw.get('role') == 'assistant':
    return [(_agents(raw, blocks, i), raw)]
  # A user's message: split it at the tool results.
  pieces: list[tuple[Mapping, Mapping]] = []
  for is_result, group in itertools.groupby(blocks, _is_result):
    if is_result:
      pieces += [(_result(raw, b, i), {**raw, **b}) for b in group]
    else:
      message = {**raw, 'content': _texts([*group], i)}
      pieces.append((message, message))
  # Spans count characters of one text, and cannot be assigned to several.
  if len(pieces) > 1 and raw.get('spans') is not None:
    raise Malformed(
      f'message {i}: spans count characters of one text, and this has '
      f'{len(pieces)}'
    )
  return pieces


def _is_result(block: Mapping) -> bool:
  return block.get('type') == 'tool_result'


def _agents(raw: Mapping, blocks: list, i: int) -> dict:
  """Returns an agent's message in OpenAI's form."""
  # Check the order of the blocks.
  types = [block.get('type') for block in blocks]
  for j, type_ in enumerate(types):
    if type_ not in _ORDER:
      raise Malformed(f'message {i}: block {j} is {_unfit(type_)}')
    if j and _ORDER.index(types[j - 1]) > _ORDER.index(type_):
      raise Malformed(
        f'message {i}: block {j} is {type_} after {types[j - 1]}; chat '
        'templates show thinking, text and calls in this order'
      )
  # Join the blocks of each type.
  by_type: dict[str, list] = {name: [] for name in _ORDER}
  for block in blocks:
    by_type[block['type']].append(block)
  message = {**raw, 'content': _texts(by_type['text'], i)}
  if by_type['thinking']:
    thoughts = [block.get('thinking') for block in by_type['thinking']]
    if not all(isinstance(t, str) and t for t in thoughts):
      raise Malformed(
        f'message {i}: a thinking block has no text: the words of the agent '
        'are not in the row'
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
  # `normalised` checks the name.
  function = {'name': block.get('name'), 'arguments': block['input']}
  return {'id': block.get('id'), 'type': 'function', 'function': function}


def _result(raw: Mapping, block: Mapping, i: int) -> dict:
  """Returns a tool result as a message in OpenAI's form."""
  content = block.get('content')
  if isinstance(content, list):
    content = _texts(content, i)
  # Spans and the name describe the user's message, not this result.
  message = {k: v for k, v in raw.items() if k not in ('spans', 'name')}
  message |= {
    'role': 'tool',
    'tool_call_id': block.get('tool_use_id'),
    'content': content,
  }
  return message | ({'is_error': True} if block.get('is_error') is True else {})


def _texts(blocks: list, i: int) -> list[dict]:
  """Returns the blocks, which must all be text."""
  for block in blocks:
    type_ = block.get('type') if isinstance(block, dict) else kind(block)
    if type_ != 'text':
      raise Malformed(f'message {i}: a block is {_unfit(type_)}')
  return blocks


def _unfit(type_: object) -> str:
  """Returns the end of an error message about a block of the wrong type."""
  if type_ == 'redacted_thinking':
    return 'redacted_thinking: the words of the agent are not in the row'
  return f'of type {quoted(type_)}, which this turn cannot have'


def _is_schema(tool: object) -> bool:
  return isinstance(tool, dict) and tool.get('input_schema') is not None


def _tool(tool: dict) -> dict:
  """Returns a tool's schema in OpenAI's form."""
  # Already in OpenAI's form.
  if tool.get('function') is not None:
    return tool
  if not _is_schema(tool):
    raise Malformed(
      f'tool {quoted(tool.get("name"))} has no input_schema, so that no chat '
      'template can show it; tools of the API itself are not supported'
    )
  # cache_control is a setting of the API, not part of the conversation.
  rest = ('type', 'input_schema', 'cache_control')
  function = {k: v for k, v in tool.items() if k not in rest}
  function['parameters'] = tool['input_schema']
  return {'type': 'function', 'function': function}
