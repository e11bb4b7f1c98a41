"""Reads items of OpenAI's Responses API, which several logs contain.

    {"type": "message", "role": "user", "content": [...]}
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "..."}]}
    {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    {"type": "function_call_output", "call_id": "a", "output": "4"}

A thought is the text of the reasoning if the item has it, and its summary
otherwise. An item whose text is only on OpenAI's servers, such as encrypted
reasoning or the results of a web search, makes the row malformed.

Source: openai-python, types/responses/response_input_item_param.py.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from isft_jax.data.messages.agent_items import (
  Items,
  Piece,
  hidden,
  json_text,
  not_text,
)
from isft_jax.data.messages.conversation import Malformed, kind, quoted
from isft_jax.types import Provenance

# Keys of items that `read` uses.
USES = frozenset(
  (
    *('type', 'role', 'content', 'summary', 'name', 'arguments', 'input'),
    *('output', 'outputs', 'action', 'operation', 'code', 'tools', 'error'),
    *('call_id', 'tool_calls', 'tool_call_id', 'reasoning_content'),
  )
)
# Calls, and the key of their arguments. Those without a name are named after
# their type.
_CALLS = {
  'function_call': 'arguments',
  'custom_tool_call': 'input',
  'local_shell_call': 'action',
  'shell_call': 'action',
  'apply_patch_call': 'operation',
}
_RESULTS = frozenset(f'{name}_output' for name in _CALLS)
# Calls that OpenAI's servers answer; the item has the answer too.
_SERVER_CALLS = {'mcp_call': 'output', 'code_interpreter_call': 'outputs'}
# Items without words for or by the agent.
_LEFT_OUT = (
  'mcp_approval_request',
  'mcp_approval_response',
  'ghost_snapshot',
  'compaction_trigger',
)
# Summaries of earlier turns that only the provider can read.
_HIDDEN = ('compaction', 'compaction_summary', 'context_compaction')
# Types that no other format has. 'message' is also a type of other APIs.
_TYPES = frozenset(
  (
    *_CALLS,
    *_RESULTS,
    *_SERVER_CALLS,
    *_HIDDEN,
    *('reasoning', 'web_search_call', 'file_search_call', 'item_reference'),
    *('image_generation_call', 'computer_call', 'computer_call_output'),
    'mcp_list_tools',
  )
)
# Types of parts with text, and types of parts that only this API has.
_TEXT_PARTS = ('input_text', 'output_text', 'text')
_OWN_PARTS = ('input_text', 'output_text', 'input_image', 'input_file')
# Decides the author of one part of a user's message; None: the role decides.
ByText = Callable[[str], Provenance | None]


def is_item(value: object) -> bool:
  """Returns whether a value is an item that only this API has."""
  if not isinstance(value, dict):
    return False
  type_ = value.get('type')
  if isinstance(type_, str) and type_ in _TYPES:
    # An item, and not a block of Anthropic's or an event's name.
    return value.get('role') is None
  # A message without a type is detected by its parts.
  content = value.get('content')
  return (
    isinstance(value.get('role'), str)
    and isinstance(content, list)
    and any(
      isinstance(part, dict) and part.get('type') in _OWN_PARTS
      for part in content
    )
  )


def read(
  items: list,
  turns: Items,
  tools: list[dict],
  left_out: Counter[str],
  by_text: ByText = lambda text: None,
  first: int = 0,
) -> None:
  """Adds items to turns.

  Args:
    items: the items, in order.
    turns: turns of the agent and of others; items are added to them.
    tools: schemas of tools; those that an MCP server listed are added.
    left_out: counts of items that are left out, by type.
    by_text: decides the author of each text of a user's message.
    first: number of the first item, for error messages.

  Raises:
    Malformed: an item does not follow the format, or its text is hidden.
  """
  for i, item in enumerate(items, first):
    where = f'item {i}'
    if not isinstance(item, dict):
      raise Malformed(f'{where} is {kind(item)}, expected an object')
    type_ = item.get('type')
    # Short messages have no type.
    if type_ is None and 'role' in item:
      type_ = 'message'
    if not isinstance(type_, str):
      raise Malformed(f'{where}: type is {kind(type_)}, expected a name')

    # Each type becomes turns, is left out and counted, or is an error.
    if type_ == 'message':
      _message(item, turns, where, by_text)
    elif type_ == 'reasoning':
      turns.thought(_thought(item, where), item)
    elif type_ in _CALLS:
      _call(item, type_, turns)
    elif type_ in _RESULTS:
      output = _output(item.get('output'), where)
      turns.result(item.get('call_id'), item.get('name'), output, item)
    elif type_ in _SERVER_CALLS:
      _server_call(item, type_, turns, where)
    elif type_ == 'mcp_list_tools':
      tools += _listed_tools(item, where)
    elif type_ in _LEFT_OUT:
      left_out[type_] += 1
    elif type_ in _HIDDEN:
      raise hidden(where, type_)
    # These types hold only references to text.
    elif type_ == 'item_reference':
      raise Malformed(f'{where}: item_reference: its text is not in the row')
    elif type_ in ('web_search_call', 'file_search_call'):
      raise Malformed(f'{where}: {type_}: its results are not in the row')
    else:
      raise not_text(where, type_)


def _message(item: Mapping, turns: Items, where: str, by_text: ByText) -> None:
  role, content = item.get('role'), item.get('content')
  # A message of Chat Completions between the items.
  if role == 'tool':
    content = _output(content, where)
    turns.result(item.get('tool_call_id'), item.get('name'), content, item)
    return
  if not isinstance(role, str) or not role:
    raise Malformed(f'{where}: role is {kind(role)}, expected a name')
  texts = _texts([] if content is None else content, where)
  # Texts of other roles may have several authors.
  if role != 'assistant':
    pieces: list[Piece] = [
      (text, by_text(text) if role == 'user' else None) for text in texts
    ]
    turns.pieces(role, pieces, item)
    return
  # A message of the agent may have the fields of Chat Completions.
  thought, calls = item.get('reasoning_content'), item.get('tool_calls') or []
  if thought:
    turns.thought(thought, item)
  # A turn that only makes calls has no text.
  if texts or not calls:
    turns.text(''.join(texts), item)
  if not isinstance(calls, list):
    raise Malformed(f'{where}: tool_calls is {kind(calls)}, expected a list')
  for call in calls:
    function = call.get('function') if isinstance(call, dict) else None
    if not isinstance(function, dict):
      raise Malformed(
        f'{where}: a tool call is {kind(call)}, expected function'
      )
    turns.call(
      call.get('id'), function.get('name'), function.get('arguments'), item
    )


def _texts(content: object, where: str) -> list[str]:
  """Returns the texts of a message."""
  if isinstance(content, str):
    return [content]
  if not isinstance(content, list):
    raise Malformed(f'{where}: content is {kind(content)}, expected text')
  texts = []
  for part in content:
    type_ = part.get('type') if isinstance(part, dict) else kind(part)
    if isinstance(part, str):
      text: object = part
    elif type_ == 'refusal':
      text = part.get('refusal')  # words of the agent
    elif type_ in _TEXT_PARTS:
      text = part.get('text')
    else:
      raise not_text(where, type_)
    if not isinstance(text, str):
      raise Malformed(f'{where}: {type_} is {kind(text)}, expected a string')
    texts.append(text)
  return texts


def _thought(item: Mapping, where: str) -> str:
  """Returns the text of a reasoning item, or else its summary."""
  for key in ('content', 'summary'):
    parts = item.get(key)
    # Some providers write the text itself.
    if isinstance(parts, str) and parts:
      return parts
    if not isinstance(parts, list):
      continue
    texts = [p.get('text') if isinstance(p, dict) else None for p in parts]
    if texts and all(isinstance(text, str) for text in texts) and any(texts):
      return ('' if key == 'content' else '\n\n').join(map(str, texts))
  raise hidden(where, 'reasoning')


def _call(item: Mapping, type_: str, turns: Items) -> None:
  arguments = item.get(_CALLS[type_])
  name = item.get('name')
  # A custom tool takes one text. Calls of the API's own tools have no name.
  if type_ == 'custom_tool_call':
    arguments = {'input': arguments}
  elif type_ != 'function_call':
    name = type_.removesuffix('_call')
    if isinstance(arguments, dict):
      arguments = {k: v for k, v in arguments.items() if v is not None}
  turns.call(item.get('call_id', item.get('id')), name, arguments, item)


def _output(output: object, where: str) -> str:
  """Returns the output of a tool as text."""
  if isinstance(output, list) and all(
    isinstance(part, dict) and isinstance(part.get('type'), str)
    for part in output
  ):
    return ''.join(_texts(output, where))
  # Older rollouts of Codex have {content, success}.
  if isinstance(output, dict) and 'content' in output:
    return _output(output['content'], where)
  if output is None:
    raise Malformed(f'{where}: the output is null, expected text')
  return json_text(output)


def _server_call(item: Mapping, type_: str, turns: Items, where: str) -> None:
  """Adds a call that OpenAI's servers answered, and its answer."""
  # The provider ran the tool: one item has the call and its result.
  answer = item.get(_SERVER_CALLS[type_])
  name, arguments = item.get('name'), item.get('arguments')
  # The code is the argument of the call, and the logs are its result.
  if type_ == 'code_interpreter_call':
    name, arguments = 'code_interpreter', {'code': item.get('code')}
    if isinstance(answer, list):
      logs = [p.get('logs') if isinstance(p, dict) else None for p in answer]
      if not all(isinstance(log, str) for log in logs):
        raise not_text(where, type_)
      answer = ''.join(map(str, logs))
  elif answer is None:
    answer = item.get('error')
  if answer is None:
    raise Malformed(f'{where}: {type_}: its results are not in the row')
  turns.call(item.get('id'), name, arguments, item)
  turns.result(item.get('id'), name, json_text(answer), item)


def _listed_tools(item: Mapping, where: str) -> list[dict]:
  listed = item.get('tools')
  if not isinstance(listed, list):
    raise Malformed(f'{where}: tools is {kind(listed)}, expected a list')
  schemas = []
  for tool in listed:
    if not isinstance(tool, dict) or not isinstance(tool.get('name'), str):
      raise Malformed(f'{where}: a tool is {kind(tool)}, expected a schema')
    parameters = tool.get('input_schema') or {}
    schemas.append(_schema(tool, parameters))
  return schemas


def schemas(tools: object) -> list[dict]:
  """Returns the `tools` of a request in the form of Chat Completions.

  Args:
    tools: a list of flat schemas, or None.

  Raises:
    Malformed: a tool is not a schema, so that no chat template can show it.
  """
  if tools is None:
    return []
  if not isinstance(tools, list):
    raise Malformed(f'tools is {kind(tools)}, expected a list of schemas')
  return [s for tool in tools for s in _schemas(tool)]


def _schemas(tool: object) -> list[dict]:
  if not isinstance(tool, dict):
    raise Malformed(f'a tool is {kind(tool)}, expected a schema')
  if isinstance(tool.get('function'), dict):
    return [tool]
  type_ = tool.get('type', 'function')
  # The schemas of a server's tools are in an item, `mcp_list_tools`.
  if type_ == 'mcp':
    return []
  # A group of functions.
  if type_ == 'namespace':
    return schemas(tool.get('tools'))
  # A custom tool takes one text, which is shown as a parameter `input`.
  if type_ == 'custom':
    return [
      _schema(
        tool,
        {
          'type': 'object',
          'properties': {'input': {'type': 'string'}},
          'required': ['input'],
        },
      )
    ]
  if type_ != 'function' or not isinstance(tool.get('name'), str):
    raise Malformed(
      f'tool {quoted(tool.get("name") or type_)} has no schema, so that no '
      'chat template can show it; tools of the API itself are not supported'
    )
  return [_schema(tool, tool.get('parameters'))]


def _schema(tool: Mapping, parameters: object) -> dict:
  function = {k: tool[k] for k in ('name', 'description') if tool.get(k)}
  if parameters is not None:
    function['parameters'] = parameters
  if isinstance(tool.get('strict'), bool):
    function['strict'] = tool['strict']
  return {'type': 'function', 'function': function}
