"""Format of LangChain's and LangGraph's messages, in each of their dumps.

    {"messages": [
       {"type": "human", "content": "2 + 2?"},                model_dump
       {"type": "ai", "data": {"content": "",                 messages_to_dict
                               "tool_calls": [{"name": "f", "args": {},
                                               "id": "a"}]}},
       {"lc": 1, "type": "constructor",                       dumpd
        "id": ["langchain", "schema", "messages", "ToolMessage"],
        "kwargs": {"content": "4", "tool_call_id": "a"}}]}

The messages may also be the row itself, or in a state (`values`,
`channel_values`). Calls are those of `tool_calls`. If a call has arguments that
LangChain could not parse, all calls are those of `additional_kwargs`, which has
the agent's own text.

Source: langchain-core, langchain_core/messages and langchain_core/load.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.messages.agent_items import Items, hidden, not_text
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  kind,
  outline,
  quoted,
)
from isft_jax.data.messages.normalize import find, system_turn, take

KEYS = ('messages', 'conversation', 'conversations', 'history', 'chat_history')
WANTS = 'messages: a list of {type, content} with types as human and ai'
# Keys of a message, and of its dumps.
USES = frozenset(
  (
    *('type', 'role', 'content', 'name', 'tool_call_id', 'tool_calls'),
    *('invalid_tool_calls', 'additional_kwargs', 'data', 'lc', 'kwargs', 'id'),
  )
)
_STATES = ('values', 'channel_values', 'state', 'kwargs')  # keys of a state
# Types of messages, and their roles in chat templates.
ROLES = {
  'system': 'system',
  'developer': 'developer',
  'human': 'user',
  'ai': 'assistant',
  'tool': 'tool',
  'function': 'tool',
}
_OWN_TYPES = ('human', 'ai')  # types that no other format has
_LEFT_OUT = ('remove',)  # an instruction to the state
# Blocks that repeat a message's `tool_calls`.
_CALL_BLOCKS = (
  *('tool_use', 'tool_call', 'function_call', 'tool_call_chunk'),
  *('invalid_tool_call', 'input_json_delta', 'toolUse'),
)
_TEXT_BLOCKS = ('text', 'output_text', 'input_text')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(_state(value), KEYS, ())
  return match is not None and any(
    _type(message) in _OWN_TYPES for message in match[1]
  )


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format, or it lacks words that the
      agent wrote or saw.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  state = _state(value)
  messages, tools, metadata = take(state, KEYS, ())
  # Keys around a state are metadata, too.
  if state is not value and isinstance(value, dict):
    outer = {k: v for k, v in value.items() if v is not state}
    metadata = {**metadata, **outer}
  messages = [*system_turn(metadata, 'type', 'content', messages), *messages]
  turns, left_out = Items(), Counter[str]()
  for i, raw in enumerate(messages):
    _message(_flat(raw, i), turns, left_out, f'message {i}')
  return Chat(turns.turns(), tools, metadata, left_out)


def _state(value: object) -> object:
  """Returns the object with the messages: the row, or a state in it."""
  if isinstance(value, dict) and not any(key in value for key in KEYS):
    for key in _STATES:
      if isinstance(value.get(key), dict):
        return value[key]
  return value


def _type(message: object) -> str | None:
  """Returns the type of a message in any dump, or None."""
  if not isinstance(message, dict):
    return None
  type_, id = message.get('type'), message.get('id')
  if message.get('lc') is not None:
    # The last name is the class, as AIMessageChunk.
    named = id[-1] if isinstance(id, list) and id else None
    if not isinstance(named, str) or not isinstance(
      message.get('kwargs'), dict
    ):
      return None
    return named.removesuffix('Chunk').removesuffix('Message').lower()
  if not isinstance(type_, str):
    return None
  # A chunk's type is the name of its class.
  if type_.endswith('MessageChunk'):
    type_ = type_.removesuffix('MessageChunk').lower()
  has = 'content' in message or isinstance(message.get('data'), dict)
  # Other formats have a role beside the type.
  return type_ if has and message.get('role') is None else None


def _flat(raw: dict, i: int) -> dict:
  """Returns a message of any dump with its fields at the top."""
  type_ = _type(raw)
  # The message of any role: {"type": "chat", "role": ..., "content": ...}.
  if type_ is None and raw.get('type') == 'chat':
    return raw
  if type_ is None:
    raise Malformed(
      f'message {i}: type is {quoted(raw.get("type"))}, expected '
      f'{", ".join(ROLES)}'
    )
  # The fields are in `kwargs` of a constructor, in `data`, or at the top.
  fields = raw
  for key in ('kwargs' if raw.get('lc') is not None else '', 'data'):
    if isinstance(raw.get(key), dict):
      fields = raw[key]
      break
  return {**fields, 'type': type_}


def _message(
  message: Mapping, turns: Items, left_out: Counter[str], where: str
) -> None:
  """Adds a message to the turns."""
  turns.end_turn()
  type_ = message['type']
  if type_ in _LEFT_OUT:
    left_out[type_] += 1
    return
  role = message.get('role') if type_ == 'chat' else ROLES.get(type_)
  if not isinstance(role, str):
    raise Malformed(
      f'{where}: type is {quoted(type_)}, expected {", ".join(ROLES)}'
    )
  extra = message.get('additional_kwargs') or {}
  if not isinstance(extra, dict):
    raise Malformed(f'{where}: additional_kwargs is {kind(extra)}')
  # The content is a text, a list of blocks, or null.
  content = message.get('content')
  blocks = [content] if isinstance(content, str) else content
  blocks = [] if content is None else blocks
  if not isinstance(blocks, list):
    raise Malformed(f'{where}: content is {kind(content)}, expected text')
  if role == 'assistant':
    _agents(message, blocks, extra, turns, where)
    return
  text = ''.join(_text(block, where) for block in blocks)
  fields: dict = {'role': role, 'content': text}
  if role == 'tool':
    fields |= {k: message.get(k) for k in ('tool_call_id', 'name')}
  turns.message(fields, message)


def _agents(
  message: Mapping, blocks: list, extra: Mapping, turns: Items, where: str
) -> None:
  """Adds a message of the agent."""
  # Thoughts are beside the content, or blocks of it.
  thought = extra.get('reasoning_content')
  if not thought and isinstance(extra.get('reasoning'), dict):
    thought = _thought({**extra['reasoning'], 'type': 'reasoning'}, where)
  if thought:
    turns.thought(thought, message)
  # Texts, and thoughts unless they were beside the content.
  has_text = False
  for block in blocks:
    type_ = block.get('type') if isinstance(block, dict) else None
    if type_ == 'non_standard' and isinstance(block.get('value'), dict):
      block = block['value']
      type_ = block.get('type')
    if type_ in ('thinking', 'reasoning', 'reasoning_content'):
      if not thought:
        turns.thought(_thought(block, where), message)
    elif type_ == 'redacted_thinking':
      raise hidden(where, type_)
    elif type_ not in _CALL_BLOCKS:
      text = _text(block, where)
      has_text |= text != ''
      if text:
        turns.text(text, message)
  # A refusal takes the place of the text.
  refusal = extra.get('refusal')
  if not has_text and isinstance(refusal, str) and refusal:
    turns.text(refusal, message)
    has_text = True
  # Blocks of calls only repeat the calls that are beside the content.
  calls = _calls(message, extra, where)
  for call in calls:
    turns.call(*call, message)
  if not calls and not has_text:
    # The calls are only in blocks of another API.
    if any(
      isinstance(b, dict) and b.get('type') in _CALL_BLOCKS for b in blocks
    ):
      raise Malformed(f'{where}: has blocks of calls, expected tool_calls')
    turns.text('', message)
  turns.end_turn()


def _calls(
  message: Mapping, extra: Mapping, where: str
) -> list[tuple[object, object, object]]:
  """Returns (id, name, arguments) of each call."""
  calls = _objects(message, 'tool_calls', where)
  invalid = _objects(message, 'invalid_tool_calls', where)
  originals = _objects(extra, 'tool_calls', where)
  # OpenAI's own calls keep their order, and the text of arguments that
  # LangChain could not parse.
  if originals and (invalid or not calls):
    functions = [call.get('function') for call in originals]
    if not all(isinstance(function, dict) for function in functions):
      raise Malformed(f'{where}: a call of additional_kwargs has no function')
    return [
      (
        call.get('id'),
        call['function'].get('name'),
        call['function'].get('arguments'),
      )
      for call in originals
    ]
  if calls and invalid:
    raise Malformed(
      f'{where}: the order of tool_calls and invalid_tool_calls is unknown'
    )
  # OpenAI's old key.
  single = extra.get('function_call')
  if isinstance(single, dict) and not calls and not invalid:
    return [(None, single.get('name'), single.get('arguments'))]
  return [(c.get('id'), c.get('name'), c.get('args')) for c in calls or invalid]


def _objects(holder: Mapping, key: str, where: str) -> list[dict]:
  calls = holder.get(key) or []
  if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
    raise Malformed(
      f'{where}: {key} is {kind(calls)}, expected a list of calls'
    )
  return calls


def _thought(block: Mapping, where: str) -> str:
  """Returns the text of a block of reasoning, or else its summary."""
  type_ = block['type']
  text = block.get(type_)
  # Bedrock's block has the text in an object.
  if isinstance(text, dict):
    text = text.get('text')
  if isinstance(text, str) and text:
    return text
  for key in ('content', 'summary'):
    parts = block.get(key)
    if isinstance(parts, list):
      texts = [p.get('text') if isinstance(p, dict) else None for p in parts]
      if all(isinstance(text, str) for text in texts) and any(texts):
        return '\n\n'.join(map(str, texts))
  raise hidden(where, type_)


def _text(block: object, where: str) -> str:
  if isinstance(block, str):
    return block
  if not isinstance(block, dict):
    raise Malformed(f'{where}: a block is {kind(block)}, expected text')
  type_ = block.get('type')
  text = block.get('refusal' if type_ == 'refusal' else 'text')
  if type_ not in (*_TEXT_BLOCKS, 'refusal'):
    raise not_text(where, type_)
  if not isinstance(text, str):
    raise Malformed(f'{where}: text is {kind(text)}, expected a string')
  return text
