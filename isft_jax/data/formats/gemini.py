"""Format of Gemini's API: contents with parts.

    {"systemInstruction": {"parts": [{"text": "..."}]},
     "tools": [{"functionDeclarations": [{"name": "f", "parameters": {...}}]}],
     "contents": [
       {"role": "user", "parts": [{"text": "2 + 2?"}]},
       {"role": "model", "parts": [{"text": "...", "thought": true},
                                   {"functionCall": {"name": "f", ...}}]},
       {"role": "user", "parts": [{"functionResponse": {"name": "f", ...}}]}]}

Keys may be in snake case. The contents may also be the row itself, or under
`request`; a response's `candidates` are the last turn. Each function response
is a turn of the tool. A thought that is only a signature makes the row
malformed, because its words are not in the row.

Source: ai.google.dev/api/caching#Content, python-genai, google/genai/types.py.
"""

import re
from collections.abc import Collection, Mapping

from isft_jax.data.messages.agent_items import (
  Items,
  hidden,
  json_text,
  not_text,
)
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  kind,
  outline,
  quoted,
)
from isft_jax.data.messages.normalize import find
from isft_jax.data.messages.tools import json_or_text

WANTS = 'contents: a list of {role, parts}'
USES = frozenset(('role', 'parts'))  # keys of a content
_LISTS = ('contents', 'messages', 'history', 'conversation', 'conversations')
# Keys of a part that hold something, in snake case.
_PARTS = (
  *('text', 'function_call', 'function_response', 'executable_code'),
  *('code_execution_result', 'inline_data', 'file_data', 'thought_signature'),
)
_ROLES = ('user', 'model', 'function', 'tool', 'system')
# The one key of a function response that holds its output; see the source.
_OUTPUTS = ('output', 'result')
# Types of the API's schemas. JSON Schema has them in small letters.
_TYPES = ('STRING', 'NUMBER', 'INTEGER', 'BOOLEAN', 'ARRAY', 'OBJECT', 'NULL')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  if isinstance(value, list):
    return any(map(_is_content, value))
  if not isinstance(value, dict):
    return False
  # Logs have the request as an object of the row.
  request = value.get('request')
  if isinstance(request, dict) and _contents(request, _LISTS):
    return True
  return _contents(value, _LISTS) is not None


def read(value: object) -> Chat:
  """Reads a row. Its system instruction, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format, or it lacks words that the
      agent wrote or saw.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  # Copies, from which each key that is read is removed.
  metadata = {'contents': value} if isinstance(value, list) else value
  assert isinstance(metadata, dict)
  metadata = dict(metadata)
  # What is not used of a nested request stays metadata.
  request = metadata
  if isinstance(metadata.get('request'), dict):
    request = metadata['request'] = dict(metadata['request'])
  match = _contents(request, _LISTS)
  # The contents may be beside a request that has only settings.
  if match is None:
    request = metadata
    match = _contents(request, _LISTS)
  assert match
  del request[match[0]]
  contents = [*match[1], *_answer(metadata)]

  # The SDK has the system instruction and the tools in `config`.
  system, declared = _settings(request)
  if isinstance(request.get('config'), dict):
    request['config'] = dict(request['config'])
    inner = _settings(request['config'])
    system, declared = system or inner[0], declared or inner[1]
  turns = Items()
  # The system instruction is the first turn.
  if system:
    for part in _parts_of(system, 'system instruction'):
      if not isinstance(part.get('text'), str):
        raise not_text('system instruction', next(iter(part), 'part'))
    text = ''.join(
      part['text'] for part in _parts_of(system, 'system instruction')
    )
    turns.message({'role': 'system', 'content': text}, {})
  for i, content in enumerate(contents):
    _content(content, turns, f'content {i}', len(contents) == 1)
  # An object whose keys were all read leaves no metadata.
  for key in ('request', 'response', 'config'):
    if metadata.get(key) == {}:
      del metadata[key]
  return Chat(turns.turns(), _schemas(declared) or None, metadata)


def _snake(key: str) -> str:
  return re.sub('(?<=[a-z])([A-Z])', r'_\1', key).lower()


def _snaked(value: Mapping) -> dict:
  """Returns an object without nulls, and with its keys in snake case."""
  return {_snake(k): v for k, v in value.items() if v is not None}


def _contents(
  holder: Mapping, keys: Collection[str]
) -> tuple[str, list] | None:
  """Returns the first key of contents, and the contents, or None."""
  for key in keys:
    match = find(holder, (key,), ('parts',))
    if match and any(map(_is_content, match[1])):
      return match
  return None


def _is_content(value: object) -> bool:
  """Returns whether a value is a content of this API, and of no other."""
  if not isinstance(value, dict) or (value.get('role') or 'user') not in _ROLES:
    return False
  parts = value.get('parts')
  if not isinstance(parts, list) or value.get('content'):
    return False
  # A part must have a key of this API, or be a text of the model.
  return any(
    (isinstance(part, str) and value.get('role') == 'model')
    or (
      isinstance(part, dict)
      # Parts of other APIs have a type.
      and not {'type', 'kind'} & part.keys()
      and any(_snake(key) in _PARTS for key in part)
    )
    for part in parts
  )


def _answer(metadata: dict) -> list:
  """Moves the content of a response out of the metadata."""
  response = metadata
  if isinstance(metadata.get('response'), dict):
    response = metadata['response'] = dict(metadata['response'])
  candidates = response.get('candidates')
  if not isinstance(candidates, list):
    return []
  if len(candidates) != 1 or not isinstance(candidates[0], dict):
    raise Malformed(f'candidates has {len(candidates)} answers, expected one')
  # Other fields, such as the reason for its end, are not used.
  candidate = dict(candidates[0])
  content = candidate.pop('content', None)
  response['candidates'] = [candidate]
  return [] if content is None else [content]


def _settings(request: dict) -> tuple[object, object]:
  """Removes the system instruction and the tools from a request."""
  system = [
    request.pop(key, None)
    for key in ('systemInstruction', 'system_instruction')
  ]
  tools = json_or_text(request.pop('tools', None))
  return system[0] or system[1], tools


def _parts_of(content: object, where: str) -> list[dict]:
  """Returns the parts of a content, which may be a text."""
  # The SDK accepts a text, a part, or a list of both.
  content = json_or_text(content)
  if isinstance(content, str):
    return [{'text': content}]
  if isinstance(content, dict):
    content = content.get('parts', [content])
  if isinstance(content, (str, dict)):
    content = [content]
  if not isinstance(content, list):
    raise Malformed(f'{where}: parts is {kind(content)}, expected a list')
  parts = []
  for part in content:
    if isinstance(part, str):
      part = {'text': part}
    if not isinstance(part, dict):
      raise Malformed(f'{where}: a part is {kind(part)}, expected an object')
    parts.append(_snaked(part))
  return parts


def _content(content: object, turns: Items, where: str, is_only: bool) -> None:
  """Adds a content to the turns."""
  if not isinstance(content, dict):
    raise Malformed(f'{where} is {kind(content)}, expected an object')
  role = content.get('role')
  # The role of a single prompt may be absent.
  role = 'user' if role is None and is_only else role
  if role not in _ROLES:
    raise Malformed(
      f'{where}: role is {quoted(role)}, expected {", ".join(_ROLES)}'
    )
  parts = _parts_of(content.get('parts', []), where)
  turns.end_turn()
  if role == 'model':
    _agents(parts, content, turns, where)
    return
  # A user's texts and the results of tools, in order.
  texts: list[str] = []
  for part in parts:
    response = part.get('function_response')
    if response is None:
      texts.append(_text(part, where))
      continue
    # Texts before a result are a separate turn, which keeps the order.
    if texts:
      turns.message({'role': role, 'content': ''.join(texts)}, content)
      texts = []
    _result(response, content, turns, where)
  if texts or not parts:
    turns.message({'role': role, 'content': ''.join(texts)}, content)


def _text(part: Mapping, where: str) -> str:
  for key in part:
    if key in _PARTS and key not in ('text', 'thought_signature'):
      raise not_text(where, key)
  if not isinstance(part.get('text'), str):
    raise not_text(where, next(iter(part), 'part'))
  return part['text']


def _agents(
  parts: list[dict], content: Mapping, turns: Items, where: str
) -> None:
  """Adds a content of the agent."""
  # A signature is evidence of thoughts, which the row then must have.
  is_signed = any('thought_signature' in part for part in parts)
  if is_signed and not any(_is_thought(part) for part in parts):
    raise hidden(where, 'thoughtSignature')
  # Parts are in the order in which the model wrote them.
  for part in parts:
    call, code = part.get('function_call'), part.get('executable_code')
    output = part.get('code_execution_result')
    if _is_thought(part):
      turns.thought(part['text'], content)
    elif isinstance(call, dict):
      arguments = call.get('args')
      arguments = {} if arguments is None else arguments
      turns.call(call.get('id'), call.get('name'), arguments, content)
    # Code that the API ran: a call, with its result in another part.
    elif isinstance(code, dict):
      turns.call(code.get('id'), 'code_execution', code, content)
    elif isinstance(output, dict):
      text = output.get('output') or ''
      turns.result(output.get('id'), 'code_execution', text, content)
    # A signature may be a part of its own.
    elif part.keys() <= {'thought_signature', 'thought'}:
      continue
    else:
      turns.text(_text(part, where), content)
  if not parts:
    turns.text('', content)
  turns.end_turn()


def _is_thought(part: Mapping) -> bool:
  text = part.get('text')
  return part.get('thought') is True and isinstance(text, str) and text != ''


def _result(
  response: object, content: Mapping, turns: Items, where: str
) -> None:
  if not isinstance(response, dict):
    raise Malformed(f'{where}: functionResponse is {kind(response)}')
  # Images and files in the response.
  if response.get('parts'):
    raise not_text(where, 'parts of functionResponse')
  value = response.get('response')
  if value is None:
    raise Malformed(f'{where}: functionResponse has no response')
  # A text in an object of one key is shown without the object.
  if isinstance(value, dict) and len(value) == 1:
    key, text = next(iter(value.items()))
    value = text if key in _OUTPUTS and isinstance(text, str) else value
  turns.result(
    response.get('id'), response.get('name'), json_text(value), content
  )


def _schemas(tools: object) -> list[dict]:
  """Returns the declarations of functions in OpenAI's form."""
  if tools is None:
    return []
  tools = [tools] if isinstance(tools, dict) else tools
  if not isinstance(tools, list):
    raise Malformed(f'tools is {kind(tools)}, expected a list')
  schemas = []
  for tool in tools:
    if not isinstance(tool, dict):
      raise Malformed(f'a tool is {kind(tool)}, expected an object')
    for key, declarations in _snaked(tool).items():
      if key != 'function_declarations':
        raise Malformed(
          f'tool {quoted(key)} has no schema, so that no chat template can '
          'show it; tools of the API itself are not supported'
        )
      if not isinstance(declarations, list):
        raise Malformed(f'functionDeclarations is {kind(declarations)}')
      schemas += [_schema(declaration) for declaration in declarations]
  return schemas


def _schema(declaration: object) -> dict:
  if not isinstance(declaration, dict):
    raise Malformed(f'a declaration is {kind(declaration)}, expected an object')
  fields = _snaked(declaration)
  function = {k: fields[k] for k in ('name', 'description') if k in fields}
  # Parameters that are JSON Schema have another key.
  for key in ('parameters', 'parameters_json_schema'):
    if key in fields:
      function['parameters'] = _with_small_types(fields[key])
  return {'type': 'function', 'function': function}


def _with_small_types(schema: object) -> object:
  """Returns a schema whose types are those of JSON Schema, as 'string'."""
  if isinstance(schema, list):
    return [_with_small_types(item) for item in schema]
  if not isinstance(schema, dict):
    return schema
  return {
    key: value.lower()
    if key == 'type' and isinstance(value, str) and value in _TYPES
    else _with_small_types(value)
    for key, value in schema.items()
    if value is not None
  }
