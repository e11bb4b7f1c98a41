"""Schemas of tools and tool calls, normalised to OpenAI's form.

    {"type": "function", "function": {"name": "f", "parameters": {...}}}

A list of schemas without this envelope under `tools` stays as it is: the
renderer adds the envelope if the chat template needs it.
"""

from isft_jax.data.files import strict_json
from isft_jax.data.messages.conversation import Malformed, kind
from isft_jax.types import JsonObject

# Keys of schemas in a row, the usual ones first.
KEYS = (
  *('tools', 'functions', 'tool_defs', 'tool_definitions', 'tool_schemas'),
  *('oai_tools', 'available_tools', 'available_functions'),
)
_USUAL = ('tools', 'functions')
# Keys of a schema besides its name. Without any of them, an object with a name
# is something else.
_SCHEMA = ('parameters', 'description', 'input_schema', 'inputSchema')
# Keys of a call in OpenAI's form. All others are fields of its function.
_CALL_FIELDS = ('id', 'index', 'type', 'function')


def json_or_text(value: object) -> object:
  """Parses a string as JSON; returns the value unchanged if that fails."""
  try:
    return strict_json.parse(value) if isinstance(value, str) else value
  except ValueError:
    return value


def take(metadata: dict) -> list[dict] | None:
  """Moves the schemas of tools out of the fields of a row.

  Args:
    metadata: fields of the row. The key that is used is removed, and the keys
      of `KEYS` that hold nothing.

  Returns:
    The schemas, or None if there are none.

  Raises:
    Malformed: `tools` or `functions` holds something else, or both differ.
  """
  # The first key with schemas counts. Others usually repeat it.
  keys = [key for key in KEYS if key in metadata]
  used: tuple[str, list[dict]] | None = None
  for key in keys:
    value = json_or_text(metadata[key])
    schemas = _schemas(key, value) if value else []
    # Another key with the same tools, or with names of tools, says no more.
    if not value or (used and schemas == used[1]):
      del metadata[key]
    elif used and key in _USUAL:
      raise Malformed(f'the row has both {used[0]} and {key}')
    elif schemas and not used:
      used = key, schemas
      del metadata[key]
  return used and used[1]


def call(value: object, where: str) -> dict:
  """Returns a tool call in OpenAI's form, with its arguments parsed.

  Args:
    value: the call, with or without `function`.
    where: its place, for error messages.

  Raises:
    Malformed: it is not an object, or has no name.
  """
  if not isinstance(value, dict):
    raise Malformed(f'{where} is {kind(value)}, expected an object')
  # A flat call has name and arguments beside its id.
  if value.get('function') is None:
    outer = {k: v for k, v in value.items() if k in ('id', 'index')}
    inner = {k: v for k, v in value.items() if k not in _CALL_FIELDS}
    value = {**outer, 'type': 'function', 'function': inner}
  function = value['function']
  if not isinstance(function, dict):
    raise Malformed(
      f'{where}: function is {kind(function)}, expected an object'
    )
  if not isinstance(function.get('name'), str) or not function['name']:
    raise Malformed(
      f'{where}: name is {kind(function.get("name"))}, expected a name'
    )
  # OpenAI's API has arguments as JSON text; templates expect an object. A call
  # without arguments has null, an empty text or no such key.
  text = function.get('arguments')
  is_empty = text is None or (isinstance(text, str) and not text.strip())
  arguments = None if is_empty else json_or_text(text)
  if arguments is None:  # or the text 'null'
    function = {**function, 'arguments': {}}
  elif isinstance(text, str) and isinstance(arguments, dict):
    function = {**function, 'arguments': JsonObject(arguments, text)}
  return {**value, 'function': function}


def calls_in_text(text: object) -> list[dict] | None:
  """Returns the calls of a text that is JSON of one call or a list of calls.

  Args:
    text: as in '{"name": "f", "arguments": {}}'.

  Returns:
    The calls, or None if the text is anything else.
  """
  calls = json_or_text(text)
  # One call, or a list of parallel calls.
  calls = [calls] if isinstance(calls, dict) else calls
  if isinstance(calls, list) and calls and all(map(_is_call, calls)):
    return calls
  return None


def _is_call(value: object) -> bool:
  """Returns whether a value is a tool call, with or without `function`."""
  # A call in OpenAI's form has its name inside of `function`.
  function = value.get('function', value) if isinstance(value, dict) else None
  name = function.get('name') if isinstance(function, dict) else None
  return isinstance(name, str) and name != ''


def _schemas(key: str, value: object) -> list[dict]:
  """Returns the schemas under a key; [] if a rare key holds something else."""
  schemas = _listed(value)
  if schemas is None:
    if key not in _USUAL:
      return []
    raise Malformed(
      f'{key} is {kind(value)}, expected a list of schemas, or JSON of one'
    )
  # Only `tools` may be flat: its schemas are passed as the row has them.
  is_as_written = key == 'tools' and isinstance(value, list)
  schemas = [*map(_with_parameters, schemas)]
  return schemas if is_as_written else [*map(with_envelope, schemas)]


def _listed(value: object) -> list[dict] | None:
  """Returns a list of schemas, or None."""
  if isinstance(value, dict):
    # One schema, or names and their schemas.
    if 'function' in value or any(key in value for key in _SCHEMA):
      return [value]
    if not all(isinstance(schema, dict) for schema in value.values()):
      return None
    return [
      schema if 'function' in schema else {'name': name, **schema}
      for name, schema in value.items()
    ]
  if not isinstance(value, list):
    return None
  # Columns of texts hold each schema as JSON.
  schemas = [s for s in map(json_or_text, value) if isinstance(s, dict)]
  return schemas if len(schemas) == len(value) else None


def with_envelope(schema: dict) -> dict:
  """Returns a schema with OpenAI's envelope, if it has a name and none."""
  if 'function' in schema or not isinstance(schema.get('name'), str):
    return schema
  inner = {k: v for k, v in schema.items() if (k, v) != ('type', 'function')}
  return {'type': 'function', 'function': inner}


def _with_parameters(schema: dict) -> dict:
  """Returns a schema with `parameters`; MCP's name for them is inputSchema."""
  if isinstance(schema.get('inputSchema'), dict) and 'parameters' not in schema:
    fields = {k: v for k, v in schema.items() if k != 'inputSchema'}
    return {**fields, 'parameters': schema['inputSchema']}
  return schema
