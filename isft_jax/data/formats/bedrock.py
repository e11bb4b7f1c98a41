"""Format of Amazon Bedrock's Converse API: blocks without a type.

    {"system": [{"text": "..."}],
     "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": ...}}]},
     "messages": [
       {"role": "user", "content": [{"text": "2 + 2?"}]},
       {"role": "assistant", "content": [
         {"reasoningContent": {"reasoningText": {"text": "..."}}},
         {"toolUse": {"toolUseId": "a", "name": "f", "input": {"x": 2}}}]},
       {"role": "user", "content": [
         {"toolResult": {"toolUseId": "a", "content": [{"text": "4"}]}}]}]}

Each tool result is a turn of the tool, and the text beside it a turn of the
user. A response, `output.message`, is the last turn. The bodies of invocation
logs (`inputBodyJson`, `outputBodyJson`) are read too.

Source: Amazon Bedrock API Reference, Converse and ContentBlock.
"""

from collections.abc import Mapping

from isft_jax.data.messages.agent_items import (
  Items,
  hidden,
  json_text,
  not_text,
)
from isft_jax.data.messages.conversation import Chat, Malformed, kind, outline
from isft_jax.data.messages.normalize import find, take
from isft_jax.data.messages.tools import json_or_text

KEYS = ('messages', 'conversation', 'conversations')  # of a row
HAS = ('role', 'content')  # keys of a message
WANTS = 'messages: a list of {role, content} with blocks as toolUse'
USES = frozenset(HAS)  # keys of a message
# Blocks that only this API has. A block of text is also Qwen-Agent's.
_BLOCKS = ('toolUse', 'toolResult', 'reasoningContent')
_BOOKKEEPING = ('cachePoint',)


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  request = _request(value)
  match = find(request, KEYS, HAS)
  if match is None:
    return False
  # Tools or a system prompt in the form of this API are enough.
  if isinstance(request, dict):
    config = json_or_text(request.get('toolConfig'))
    if isinstance(config, dict) and isinstance(config.get('tools'), list):
      return True
    system = request.get('system')
    if isinstance(system, list) and any(map(_is_plain_text, system)):
      return True
  # Otherwise a block must have a key that only this API has.
  return any(
    isinstance(block, dict)
    and any(isinstance(block.get(name), dict) for name in _BLOCKS)
    for message in match[1]
    for block in _blocks(message)
  )


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format, or it lacks words that the
      agent wrote or saw.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  request = _request(value)
  messages, tools, rest = take(request, KEYS, HAS)
  # The metadata of a log are all its fields but the body that was read.
  metadata = rest
  if request is not value and isinstance(value, dict):
    metadata = {k: v for k, v in value.items() if k not in ('input', 'request')}
    metadata |= {'request': rest} if rest else {}
  # The response in a log is the last message.
  answer = _answer(value, metadata)
  system = rest.pop('system', None)
  config = json_or_text(rest.pop('toolConfig', None))
  turns = Items()
  # The system prompt is beside the messages.
  if system:
    system = [{'text': system}] if isinstance(system, str) else system
    if not isinstance(system, list):
      raise Malformed(f'system is {kind(system)}, expected blocks')
    text = ''.join(_text(block, 'system') for block in system)
    turns.message({'role': 'system', 'content': text}, {})
  for i, message in enumerate([*messages, *answer]):
    _message(message, turns, f'message {i}')
  # A request whose fields were all read leaves no metadata.
  if metadata.get('request') == {}:
    del metadata['request']
  return Chat(turns.turns(), _schemas(config) or tools, metadata)


def _request(value: object) -> object:
  """Returns the object with the messages: the row, or a part of a log."""
  if isinstance(value, dict):
    # Bedrock's logs of invocations have the request in `input`.
    logged = value.get('input')
    if isinstance(logged, dict) and isinstance(
      logged.get('inputBodyJson'), dict
    ):
      return logged['inputBodyJson']
    if isinstance(value.get('request'), dict):
      return value['request']
  return value


def _answer(value: object, metadata: dict) -> list[dict]:
  """Returns the message of a response, and removes it from the metadata."""
  if not isinstance(value, dict):
    return []
  for key in ('output', 'response'):
    body = value.get(key)
    # A log has the body of the response, which has the output.
    while isinstance(body, dict) and 'message' not in body:
      body = body.get('outputBodyJson', body.get('output'))
    if isinstance(body, dict) and isinstance(body['message'], dict):
      metadata.pop(key, None)
      return [body['message']]
  return []


def _is_plain_text(block: object) -> bool:
  return isinstance(block, dict) and 'text' in block and 'type' not in block


def _blocks(message: object) -> list:
  content = message.get('content') if isinstance(message, dict) else None
  return content if isinstance(content, list) else []


def _message(message: Mapping, turns: Items, where: str) -> None:
  """Adds a message to the turns."""
  turns.end_turn()
  content, role = message.get('content'), message.get('role')
  blocks = [{'text': content}] if isinstance(content, str) else content
  if not isinstance(blocks, list):
    raise Malformed(f'{where}: content is {kind(content)}, expected blocks')
  # Blocks of the agent join one turn. Other blocks are texts or results.
  texts: list[str] = []
  for block in blocks:
    name, value = _named(block, where)
    if role == 'assistant':
      _agents(name, value, block, message, turns, where)
    elif name == 'toolResult':
      # Texts before a result are a separate turn, which keeps the order.
      if texts:
        turns.message({'role': role, 'content': ''.join(texts)}, message)
        texts = []
      _result(value, message, turns, where)
    elif name not in _BOOKKEEPING:
      texts.append(_text(block, where))
  # A message without blocks is an empty turn.
  if role == 'assistant':
    if not blocks:
      turns.text('', message)
    turns.end_turn()
  elif texts or not blocks:
    turns.message({'role': role, 'content': ''.join(texts)}, message)


def _named(block: object, where: str) -> tuple[str, object]:
  """Returns the key and the value of a block; keys that are null are absent."""
  if not isinstance(block, dict):
    raise Malformed(f'{where}: a block is {kind(block)}, expected an object')
  items = [(k, v) for k, v in block.items() if v is not None and k != 'type']
  if len(items) != 1:
    raise Malformed(f'{where}: a block has {outline(block)}, expected one key')
  return items[0]


def _agents(
  name: str,
  value: object,
  block: object,
  message: Mapping,
  turns: Items,
  where: str,
) -> None:
  """Adds a block of the agent."""
  if name == 'reasoningContent':
    inner = value.get('reasoningText') if isinstance(value, dict) else None
    text = inner.get('text') if isinstance(inner, dict) else None
    # Redacted reasoning has no text.
    if not isinstance(text, str) or not text:
      raise hidden(where, name)
    turns.thought(text, message)
  elif name == 'toolUse':
    if not isinstance(value, dict):
      raise Malformed(f'{where}: toolUse is {kind(value)}, expected an object')
    turns.call(
      value.get('toolUseId'), value.get('name'), value.get('input'), message
    )
  elif name not in _BOOKKEEPING:
    turns.text(_text(block, where), message)


def _text(block: object, where: str) -> str:
  """Returns the text of a block."""
  name, value = _named(block, where)
  if name in _BOOKKEEPING:
    return ''
  # Some blocks have their text one level deeper.
  if name == 'guardContent' and isinstance(value, dict):
    inner = value.get('text')
    value = inner.get('text') if isinstance(inner, dict) else None
  elif name == 'citationsContent' and isinstance(value, dict):
    inner = value.get('content')
    inner = inner if isinstance(inner, list) else [None]
    return ''.join(_text(block, where) for block in inner)
  elif name != 'text':
    raise not_text(where, name)
  if not isinstance(value, str):
    raise Malformed(f'{where}: {name} is {kind(value)}, expected text')
  return value


def _result(value: object, message: Mapping, turns: Items, where: str) -> None:
  if not isinstance(value, dict):
    raise Malformed(f'{where}: toolResult is {kind(value)}, expected an object')
  content = value.get('content')
  blocks = [{'text': content}] if isinstance(content, str) else content
  if not isinstance(blocks, list):
    raise Malformed(f'{where}: content of toolResult is {kind(content)}')
  texts = []
  for block in blocks:
    name, inner = _named(block, where)
    texts.append(json_text(inner) if name == 'json' else _text(block, where))
  # Author rules may test the status of a result.
  raw = {
    **message,
    **({'status': value['status']} if 'status' in value else {}),
  }
  turns.result(value.get('toolUseId'), None, ''.join(texts), raw)


def _schemas(config: object) -> list[dict]:
  """Returns the specifications of tools in OpenAI's form."""
  if config is None:
    return []
  tools = config.get('tools') if isinstance(config, dict) else config
  if not isinstance(tools, list):
    raise Malformed(f'tools of toolConfig is {kind(tools)}, expected a list')
  schemas = []
  for tool in tools:
    name, spec = _named(tool, 'toolConfig')
    if name in _BOOKKEEPING:
      continue
    if name != 'toolSpec' or not isinstance(spec, dict):
      raise Malformed(
        f'tool {name!r} of toolConfig has no schema, so that no chat template '
        'can show it'
      )
    # Chat templates expect schemas in OpenAI's form.
    function = {k: spec[k] for k in ('name', 'description') if k in spec}
    schema = spec.get('inputSchema')
    if isinstance(schema, dict):
      function['parameters'] = json_or_text(schema.get('json', schema))
    schemas.append({'type': 'function', 'function': function})
  return schemas
