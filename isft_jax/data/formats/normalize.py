"""Messages as every adapter needs them: found in a row, then normalised.

Normalised is what a chat template can be given: content is text, arguments are
objects, and what is null is absent, as the templates themselves would have it.
"""

from collections.abc import Collection, Mapping

from isft_jax.data.files import strict_json
from isft_jax.data.formats.annotations import is_mark
from isft_jax.data.formats.conversation import Malformed, kind, outline, quoted

_TOOLS = ('tools', 'functions')
_OF_CALL = ('id', 'index', 'type', 'function')
# Where other formats keep text: a message with one of these has not said ''.
_NOT_CONTENT = ('text', 'value', 'parts')


def find(
  row: object, keys: Collection[str], has: Collection[str]
) -> tuple[str, list] | None:
  """Returns the key and the list of a row's messages, or None.

  row: any JSON value; a list is the messages themselves, under the key ''.
  keys: where the list may stand, itself or as JSON; the first that fits.
  has: what a message has; a list fits if one of its items has all of them.
  """
  places = (
    {key: row.get(key) for key in keys} if isinstance(row, dict) else {'': row}
  )
  for key, value in places.items():
    items = _unpacked(value)
    if isinstance(items, list) and any(
      isinstance(item, dict) and all(name in item for name in has)
      for item in items
    ):
      return key, items
  return None


def take(
  row: object, keys: Collection[str], has: Collection[str]
) -> tuple[list[dict], list[dict] | None, dict]:
  """Returns a row's messages, its tools, and what else it holds.

  Arguments as in `find`. Raises Malformed when it has no messages, or when one
  of them or a tool is no object.
  """
  found = find(row, keys, has)
  if not found:
    raise Malformed(
      f'no turns: expected a list of messages with {" and ".join(has)} under '
      f'{", ".join(keys)}; the row has {outline(row)}'
    )
  key, messages = found
  for i, message in enumerate(messages):
    if not isinstance(message, dict):
      raise Malformed(f'turn {i}: is {kind(message)}, expected an object')
  rest = row if isinstance(row, dict) else {}
  metadata = {k: v for k, v in rest.items() if k not in (key, *_TOOLS)}
  return messages, _tools(rest), metadata


def system_turn(metadata: dict, role: str, content: str) -> list[dict]:
  """Takes a row's own `system` out of its metadata; returns it as a message.

  role, content: the keys under which the format's messages hold them.
  Raises Malformed when it is no text.
  """
  system = metadata.pop('system', None)
  if system is not None and not isinstance(system, str):
    raise Malformed(f'system is {kind(system)}, expected text')
  return [{role: 'system', content: system}] if system else []


def normalised(found: Mapping, i: int) -> dict:
  """Returns message i of a row as chat templates get it; `found` stays as is.

  Raises Malformed, naming the turn, for what would have to be guessed.
  """
  message = {
    key: value
    for key, value in found.items()
    if value is not None and not is_mark(key, value)
  }
  role = message.pop('role', None)
  if not isinstance(role, str) or not role:
    raise Malformed(f'turn {i}: role is {kind(role)}, expected a name')
  if 'content' not in found:
    for key in _NOT_CONTENT:
      if key in message:
        raise Malformed(f'turn {i}: has {key}, expected content')
  content = _text(message.pop('content', ''), i)
  calls = message.pop('tool_calls', [])
  if role == 'assistant' and 'function_call' in message:
    if calls:
      raise Malformed(f'turn {i}: has both tool_calls and function_call')
    calls = [message.pop('function_call')]
  if not isinstance(calls, list):
    raise Malformed(f'turn {i}: tool_calls is {kind(calls)}, expected a list')
  if calls:
    message['tool_calls'] = [
      _call(call, f'turn {i}: tool call {j}') for j, call in enumerate(calls)
    ]
  role = 'tool' if role == 'function' else role
  return {'role': role, 'content': content, **message}


def json_or_text(value: object) -> object:
  """Returns the value that a string holds as JSON; anything else as it is."""
  try:
    return strict_json.parse(value) if isinstance(value, str) else value
  except ValueError:
    return value


def _unpacked(value: object) -> object:
  # Tables of text store lists as JSON. Most strings are no such thing.
  if isinstance(value, str) and value.lstrip().startswith('['):
    return json_or_text(value)
  return value


def _text(content: object, i: int) -> str:
  if isinstance(content, str):
    return content
  if not isinstance(content, list):
    raise Malformed(f'turn {i}: content is {kind(content)}, expected text')
  return ''.join(
    _part(part, f'turn {i}: part {j}') for j, part in enumerate(content)
  )


def _part(part: object, where: str) -> str:
  if isinstance(part, str):
    return part
  if not isinstance(part, dict):
    raise Malformed(f'{where} is {kind(part)}, expected text')
  if part.get('type') != 'text':
    type_ = quoted(part.get('type'))
    raise Malformed(f"{where} is of type {type_}, expected 'text'")
  if not isinstance(part.get('text'), str):
    raise Malformed(
      f'{where}: text is {kind(part.get("text"))}, expected a string'
    )
  return part['text']


def _call(call: object, where: str) -> dict:
  if not isinstance(call, dict):
    raise Malformed(f'{where} is {kind(call)}, expected an object')
  if call.get('function') is None:  # flat: the function is the call
    outer = {k: v for k, v in call.items() if k in ('id', 'index')}
    inner = {k: v for k, v in call.items() if k not in _OF_CALL}
    call = {**outer, 'type': 'function', 'function': inner}
  function = call['function']
  if not isinstance(function, dict):
    raise Malformed(
      f'{where}: function is {kind(function)}, expected an object'
    )
  if not isinstance(function.get('name'), str) or not function['name']:
    raise Malformed(
      f'{where}: name is {kind(function.get("name"))}, expected one'
    )
  arguments = json_or_text(function.get('arguments'))
  if isinstance(arguments, dict):
    function = {**function, 'arguments': arguments}
  return {**call, 'function': function}


def _tools(row: Mapping) -> list[dict] | None:
  tools, functions = (json_or_text(row.get(key)) or None for key in _TOOLS)
  if tools is not None and functions is not None:
    raise Malformed('the row has both tools and functions')
  if functions is not None:
    return [
      {'type': 'function', 'function': schema}
      for schema in _schemas('functions', functions)
    ]
  return None if tools is None else _schemas('tools', tools)


def _schemas(key: str, found: object) -> list[dict]:
  if not isinstance(found, list) or not all(isinstance(s, dict) for s in found):
    raise Malformed(
      f'{key} is {kind(found)}, expected a list of schemas, or JSON of one'
    )
  return found
