"""Format of Inspect's logs: one sample.

    {"id": 1, "epoch": 1, "input": "2 + 2?", "target": "4",
     "messages": [
       {"role": "user", "content": "2 + 2?", "source": "input"},
       {"role": "assistant", "source": "generate",
        "content": [{"type": "reasoning", "reasoning": "Hm."},
                    {"type": "text", "text": "Let me see."}],
        "tool_calls": [{"id": "a", "function": "f", "arguments": {"x": 2}}]},
       {"role": "tool", "tool_call_id": "a", "function": "f",
        "content": "4"}]}

`function` of a call is its name. A call that the provider ran itself (a part of
type tool_use) becomes a call, a turn of the tool and the rest of the agent's
turn. The tools are those of the sample's model events, if these agree. Messages
of the assistant that were part of the input are demonstrations.

Source: inspect-ai 0.3, model/_chat_message.py and _util/content.py.
"""

from collections.abc import Mapping

from isft_jax.data.messages import model_messages, normalize
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
  take,
)
from isft_jax.types import Provenance

KEYS = ('messages',)  # of a row
HAS = ('role', 'content')  # keys of a message
WANTS = 'a sample with epoch, input and messages'
USES = normalize.USES | {'function', 'tool_call_id', 'error', 'source'}
# Keys of a part of a content.
PARTS = frozenset(
  (
    *('type', 'text', 'reasoning', 'summary', 'redacted'),
    *('id', 'name', 'arguments', 'result', 'error'),
  )
)
# Keys of a message that all of its pieces share.
_FIELDS = ('role', 'author', 'verdict', 'spans')
_ATTACHMENT = 'attachment://'


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, HAS)
  if match is None:
    return False
  if isinstance(value, dict) and {'epoch', 'input'} <= value.keys():
    return True
  return any(map(_is_marked, match[1]))


def _is_marked(message: object) -> bool:
  """Returns whether only Inspect writes such a message."""
  if not isinstance(message, dict):
    return False
  # Only Inspect has these sources, or calls whose function is a name.
  calls = message.get('tool_calls')
  return message.get('source') in ('input', 'generate', 'operator') or (
    isinstance(calls, list)
    and any(
      isinstance(call, dict) and isinstance(call.get('function'), str)
      for call in calls
    )
  )


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or a part has no text.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  attachments = metadata.get('attachments')
  texts = attachments if isinstance(attachments, dict) else {}
  turns: list[Turn] = []
  for i, raw in enumerate(messages):
    # Assistant messages of the input are examples for the agent.
    author = None
    if raw.get('role') == 'assistant' and raw.get('source') == 'input':
      author = Provenance.DEMONSTRATION
    pieces = _pieces(raw, i, texts)
    if len(pieces) > 1 and raw.get('spans') is not None:
      raise Malformed(f'turn {i}: spans, but the turn has several texts')
    for message in pieces:
      turn = normalised(message, len(turns))
      # The author holds for pieces in the role of the message, not for results.
      by = author if message['role'] == raw.get('role') else None
      turns.append(Turn(turn, by, {**raw, 'role': message['role']}))
  return Chat(turns, tools or _tools(metadata.get('events')), metadata)


def _pieces(raw: Mapping, i: int, texts: Mapping) -> list[dict]:
  """Returns a message in OpenAI's form, or several if the provider ran tools.

  Args:
    raw: the message.
    i: its index, for messages.
    texts: attachments of the sample: texts that its messages refer to.
  """
  # Role and annotations, which all pieces in this role share.
  marks = {key: raw[key] for key in _FIELDS if key in raw}
  # A content is a text, or a list of parts.
  content = raw.get('content')
  parts = (
    content
    if isinstance(content, list)
    else [{'type': 'text', 'text': content if content is not None else ''}]
  )
  # Parts are added to the last piece. A tool that the provider ran ends it: its
  # result is a turn of the tool, and the parts after it begin another piece.
  pieces: list[dict] = [{**marks, 'content': []}]
  for j, part in enumerate(parts):
    where = f'turn {i}: part {j}'
    type_ = part.get('type') if isinstance(part, dict) else kind(part)
    message = pieces[-1]
    if type_ == 'text':
      text = _text(part.get('text'), texts, where)
      message['content'].append({'type': 'text', 'text': text})
    elif type_ == 'reasoning' and raw.get('role') == 'assistant':
      if message['content']:
        raise Malformed(
          f'{where} is reasoning after text; chat templates show it first'
        )
      thought = message.get('reasoning_content', '')
      message['reasoning_content'] = thought + _reasoning(part, texts, where)
    elif type_ == 'tool_use' and raw.get('role') == 'assistant':
      # A tool that the provider ran: one part has the call and its result.
      call = {
        'id': part.get('id'),
        'function': {
          'name': part.get('name'),
          'arguments': part.get('arguments') or {},
        },
      }
      message['tool_calls'] = [call]
      result = part.get('error') or part.get('result') or ''
      pieces.append(
        {
          'role': 'tool',
          'tool_call_id': part.get('id'),
          'content': _text(result, texts, where),
        }
      )
      pieces.append({**marks, 'content': []})
    else:
      raise Malformed(f'{where} is of type {quoted(type_)}, which has no text')
  # Other calls are beside the content.
  _add_calls(pieces[-1], raw, i, texts)
  # Nothing follows a tool of the provider.
  last = pieces[-1]
  is_empty = not last['content'] and last.keys() <= {*marks, 'content'}
  if len(pieces) > 1 and is_empty:
    pieces.pop()
  return pieces


def _add_calls(message: dict, raw: Mapping, i: int, texts: Mapping) -> None:
  """Adds the calls of a message, or the fields of a result."""
  if raw.get('role') == 'tool':
    message['tool_call_id'] = raw.get('tool_call_id')
    message['name'] = raw.get('function')
    error = raw.get('error')
    if error is not None:
      # The model sees the error in place of the result.
      words = error.get('message') if isinstance(error, dict) else error
      text = _text(words, texts, f'turn {i}: error')
      message['content'] = f'Error: {text}'
    return
  calls = raw.get('tool_calls')
  if not calls:
    return
  if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
    raise Malformed(f'turn {i}: tool_calls is {kind(calls)}, expected a list')
  # Inspect stores no text of a call that it could not parse.
  for j, call in enumerate(calls):
    if call.get('parse_error'):
      raise Malformed(
        f'turn {i}: tool call {j}: parse_error: the words of the agent are not '
        'in the row'
      )
  # Calls are in OpenAI's form, or have the name and arguments beside the id.
  message['tool_calls'] = [
    call
    if isinstance(call.get('function'), dict)
    else {
      'id': call.get('id'),
      'type': 'function',
      'function': {
        'name': call.get('function'),
        'arguments': call.get('arguments') or {},
      },
    }
    for call in calls
  ]


def _reasoning(part: Mapping, texts: Mapping, where: str) -> str:
  summary = part.get('summary')
  if part.get('redacted') is not True:
    return _text(part.get('reasoning') or summary, texts, where)
  # Encrypted, but some providers add a summary in words.
  if not isinstance(summary, str) or not summary:
    raise Malformed(
      f'{where} is redacted: the words of the agent are not in the row'
    )
  return _text(summary, texts, where)


def _text(value: object, texts: Mapping, where: str) -> str:
  """Returns a text, which may be an attachment of the sample."""
  if value is None:
    return ''
  if not isinstance(value, str):
    raise Malformed(f'{where}: text is {kind(value)}, expected a string')
  # Long texts are stored once per sample, as attachments.
  if not value.startswith(_ATTACHMENT):
    return value
  text = texts.get(value.removeprefix(_ATTACHMENT))
  if not isinstance(text, str):
    raise Malformed(f'{where}: {quoted(value)} is not among the attachments')
  return text


def _tools(events: object) -> list[dict] | None:
  """Returns the tools of a sample's model events, or None if they differ."""
  seen: list[object] = []
  for event in events if isinstance(events, list) else []:
    if isinstance(event, dict) and event.get('event') == 'model':
      tools = json_or_text(event.get('tools'))
      if tools and tools not in seen:
        seen.append(tools)
  # Chat templates show one list of tools, so that several are ambiguous.
  if len(seen) != 1:
    return None
  tools = seen[0]
  if not isinstance(tools, list) or not all(isinstance(t, dict) for t in tools):
    return None
  # `options` are settings of Inspect.
  return model_messages.schemas(
    [{k: v for k, v in tool.items() if k != 'options'} for tool in tools]
  )
