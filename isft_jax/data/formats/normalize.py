"""Finds the messages of a row, and normalises them for chat templates.

In a normalised message the content is text, the arguments of tool calls are
objects, and fields that are null are absent, as chat templates expect.
"""

from collections.abc import Collection, Mapping

from isft_jax.data.files import strict_json
from isft_jax.data.formats.annotations import is_mark
from isft_jax.data.formats.conversation import Malformed, kind, outline, quoted
from isft_jax.types import JsonObject

_TOOLS = ('tools', 'functions')  # keys of schemas in a row
_CALL_FIELDS = ('id', 'index', 'type', 'function')
# Keys of text in other formats. A message with one of them and without content
# is an error, and not an empty message.
_NOT_CONTENT = ('text', 'value', 'parts')


def find(
  row: object, keys: Collection[str], has: Collection[str]
) -> tuple[str, list] | None:
  """Finds the list of messages in a row.

  Args:
    row: a JSON value. A list is the messages themselves, with the key ''.
    keys: keys that may hold the list, or its JSON text. The first match counts.
    has: keys of a message. A list matches if one of its items has all of them.

  Returns:
    The key and the list, or None.
  """
  # Tables may hold lists as JSON text, which `_unpacked` parses.
  places = (
    {key: row.get(key) for key in keys} if isinstance(row, dict) else {'': row}
  )
  for key, value in places.items():
    items = _unpacked(value)
    # One complete message is enough. `take` reports errors in the others.
    if isinstance(items, list) and any(
      isinstance(item, dict) and all(name in item for name in has)
      for item in items
    ):
      return key, items
  return None


def take(
  row: object, keys: Collection[str], has: Collection[str]
) -> tuple[list[dict], list[dict] | None, dict]:
  """Splits a row into messages, tools and metadata.

  Args:
    row: a JSON value.
    keys: as in `find`.
    has: as in `find`.

  Returns:
    The messages, the schemas of the tools (None if there are none), and all
    other fields.

  Raises:
    Malformed: the row has no messages, or a message or a tool is not an object.
  """
  match = find(row, keys, has)
  if not match:
    raise Malformed(
      f'no turns: expected a list of messages with {" and ".join(has)} under '
      f'{", ".join(keys)}; the row has {outline(row)}'
    )
  key, messages = match
  for i, message in enumerate(messages):
    if not isinstance(message, dict):
      raise Malformed(f'turn {i}: is {kind(message)}, expected an object')
  # Author rules can refer to all other fields.
  rest = row if isinstance(row, dict) else {}
  metadata = {k: v for k, v in rest.items() if k not in (key, *_TOOLS)}
  return messages, _tools(rest), metadata


def system_turn(metadata: dict, role: str, content: str) -> list[dict]:
  """Moves a row's `system` out of its metadata, into a list of messages.

  Args:
    metadata: fields of the row; `system` is removed.
    role: key of the role in messages of the format.
    content: key of the content in messages of the format.

  Returns:
    One message, or an empty list.

  Raises:
    Malformed: `system` is not text.
  """
  system = metadata.pop('system', None)
  if system is not None and not isinstance(system, str):
    raise Malformed(f'system is {kind(system)}, expected text')
  return [{role: 'system', content: system}] if system else []


def normalised(raw: Mapping, i: int) -> dict:
  """Returns a message normalised for chat templates.

  Args:
    raw: the message in OpenAI's form. It is not changed.
    i: index of its turn, for messages.

  Raises:
    Malformed: a field has the wrong type or is missing.
  """
  # Annotations are ours, and templates must not see them.
  message = {
    key: value
    for key, value in raw.items()
    if value is not None and not is_mark(key, value)
  }

  # Role and content.
  role = message.pop('role', None)
  if not isinstance(role, str) or not role:
    raise Malformed(f'turn {i}: role is {kind(role)}, expected a name')
  if 'content' not in raw:
    for key in _NOT_CONTENT:
      if key in message:
        raise Malformed(f'turn {i}: has {key}, expected content')
  content = _text(message.pop('content', ''), i)

  # Tool calls. `function_call` and the role 'function' are OpenAI's old names.
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
  # OpenAI's old role of tool results.
  role = 'tool' if role == 'function' else role
  return {'role': role, 'content': content, **message}


def json_or_text(value: object) -> object:
  """Parses a string as JSON; returns the value unchanged if that fails."""
  try:
    return strict_json.parse(value) if isinstance(value, str) else value
  except ValueError:
    return value


def _unpacked(value: object) -> object:
  # Tables of text columns store lists as JSON. Most strings are not lists.
  # The bracket avoids an attempt to parse every text.
  if isinstance(value, str) and value.lstrip().startswith('['):
    return json_or_text(value)
  return value


def _text(content: object, i: int) -> str:
  """Returns a content as text; it may be a list of parts of type text."""
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
  # Only text is supported, not images or audio.
  if part.get('type') != 'text':
    type_ = quoted(part.get('type'))
    raise Malformed(f"{where} is of type {type_}, expected 'text'")
  if not isinstance(part.get('text'), str):
    raise Malformed(
      f'{where}: text is {kind(part.get("text"))}, expected a string'
    )
  return part['text']


def _call(call: object, where: str) -> dict:
  """Returns a tool call in OpenAI's form, with its arguments parsed."""
  if not isinstance(call, dict):
    raise Malformed(f'{where} is {kind(call)}, expected an object')
  # A flat call has name and arguments beside its id.
  if call.get('function') is None:
    outer = {k: v for k, v in call.items() if k in ('id', 'index')}
    inner = {k: v for k, v in call.items() if k not in _CALL_FIELDS}
    call = {**outer, 'type': 'function', 'function': inner}
  function = call['function']
  if not isinstance(function, dict):
    raise Malformed(
      f'{where}: function is {kind(function)}, expected an object'
    )
  if not isinstance(function.get('name'), str) or not function['name']:
    raise Malformed(
      f'{where}: name is {kind(function.get("name"))}, expected a name'
    )
  # OpenAI's API has arguments as JSON text; templates expect an object.
  text = function.get('arguments')
  arguments = json_or_text(text)
  if isinstance(text, str) and isinstance(arguments, dict):
    function = {**function, 'arguments': JsonObject(arguments, text)}
  return {**call, 'function': function}


def _tools(row: Mapping) -> list[dict] | None:
  """Returns the schemas of a row's tools; `functions` is the old key."""
  tools, functions = (json_or_text(row.get(key)) or None for key in _TOOLS)
  if tools is not None and functions is not None:
    raise Malformed('the row has both tools and functions')
  # The old key lists functions without the envelope.
  if functions is not None:
    return [
      {'type': 'function', 'function': schema}
      for schema in _schemas('functions', functions)
    ]
  return None if tools is None else _schemas('tools', tools)


def _schemas(key: str, value: object) -> list[dict]:
  if not isinstance(value, list) or not all(
    isinstance(schema, dict) for schema in value
  ):
    raise Malformed(
      f'{key} is {kind(value)}, expected a list of schemas, or JSON of one'
    )
  return value
