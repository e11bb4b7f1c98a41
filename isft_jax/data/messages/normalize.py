"""Finds the messages of a row, and normalises them for chat templates.

In a normalised message the content is text, the arguments of tool calls are
objects, and fields that are null are absent, as chat templates expect.
"""

import functools
from collections.abc import Collection, Mapping

from isft_jax.data.messages import media, roles, tools
from isft_jax.data.messages.annotations import is_mark
from isft_jax.data.messages.conversation import (
  Malformed,
  Turn,
  kind,
  outline,
  quoted,
)
from isft_jax.data.messages.tools import json_or_text

# Keys of a message in OpenAI's form that are rendered, or counted as a loss.
# Whether `name`, ids and other keys are used depends on the chat template.
USES = frozenset(
  (
    *('role', 'content', 'refusal', 'tool_calls', 'function_call'),
    *('reasoning_content', 'thinking', 'reasoning'),
  )
)
# Keys of a part of a content that are read.
PARTS = frozenset(('type', 'text', 'refusal'))
# Keys of text in other formats. A message with one of them and without content
# is an error, and not an empty message.
_NOT_CONTENT = ('text', 'value', 'parts')
# Keys of a system prompt beside the messages.
_SYSTEM = ('system', 'system_prompt', 'system_message')
# Types of parts whose text is the content.
_TEXT_TYPES = ('text', 'input_text', 'output_text')
# Keys of the agent's reasoning in pieces, as OpenRouter and LiteLLM log it, and
# keys of a piece's words.
_PIECES = ('reasoning_details', 'thinking_blocks')
_REASONING = ('reasoning_content', 'thinking', 'reasoning')
_WORDS = ('text', 'thinking', 'summary')


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
  fields = row if isinstance(row, dict) else {'': row}
  for key in keys if fields is row else ('',):
    items = _unpacked(fields.get(key))
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
  # The list is under one of the keys, or it is the row itself.
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
  metadata = dict(row) if isinstance(row, dict) else {}
  metadata.pop(key, None)
  return messages, tools.take(metadata), metadata


def system_turn(
  metadata: dict, role: str, content: str, messages: list[dict]
) -> list[dict]:
  """Moves a row's system prompt out of its metadata, into a list of messages.

  A system turn of the messages counts more than a `system_prompt` beside them,
  which then stays in the metadata unless it is the same text.

  Args:
    metadata: fields of the row; the prompt is removed if it is used.
    role: key of the role in messages of the format.
    content: key of the content in messages of the format.
    messages: the messages of the row.

  Returns:
    One message, or an empty list.

  Raises:
    Malformed: the prompt is not text.
  """
  keys = [key for key in _SYSTEM if metadata.get(key)]
  if not keys:
    return []
  key = keys[0]
  prompt = metadata[key]
  if not isinstance(prompt, str):
    raise Malformed(f'{key} is {kind(prompt)}, expected text')
  # `system` is part of the formats, and the other keys are notes of a program:
  # they may repeat a prompt, or give another form of it.
  first = messages[0]
  if key != 'system' and first.get(role) == 'system':
    if first.get(content) == prompt:
      del metadata[key]
    return []
  del metadata[key]
  return [{role: 'system', content: prompt}]


def normalised(raw: Mapping, i: int) -> dict:
  """Returns a message normalised for chat templates.

  Args:
    raw: the message in OpenAI's form. It is not changed.
    i: index of its turn, for messages.

  Raises:
    Malformed: a field has the wrong type or is missing.
  """
  media.check_message(raw, f'turn {i}:')
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
  name, role = role, roles.for_template(role)
  # A text under another key would be lost.
  if 'content' not in raw:
    for key in _NOT_CONTENT:
      if key in message:
        raise Malformed(f'turn {i}: has {key}, expected content')
  content = _text(message.pop('content', ''), i)
  if 'refusal' in message:
    content = _refusal(message.pop('refusal'), content, i)
  # Reasoning in pieces becomes one text.
  for key in _PIECES:
    if key in message:
      _take_reasoning(message, key, i)

  # Tool calls. `function_call` is OpenAI's old name of a single call.
  calls = _unpacked(message.pop('tool_calls', ''))
  calls = [] if calls == '' else calls
  if role == 'assistant' and 'function_call' in message:
    if calls:
      raise Malformed(f'turn {i}: has both tool_calls and function_call')
    calls = [message.pop('function_call')]
  # The role of a call that is a turn of its own. Other text stays content.
  if not calls and name != role and roles.is_call(name):
    calls = tools.calls_in_text(content) or []
    content = '' if calls else content
  if not isinstance(calls, list):
    raise Malformed(f'turn {i}: tool_calls is {kind(calls)}, expected a list')
  if calls:
    message['tool_calls'] = [
      tools.call(call, f'turn {i}: tool call {j}')
      for j, call in enumerate(calls)
    ]
  return {'role': role, 'content': content, **message}


def joined_calls(turns: list[Turn]) -> list[Turn]:
  """Joins turns of the role 'tool_call' with the agent's turn before them.

  ms-swift writes an agent's message and each of its parallel calls as messages
  of their own. An agent writes them in one turn.

  Args:
    turns: the turns of a row.
  """
  speakers = [t.raw.get('role') or t.raw.get('from') for t in turns]
  if 'tool_call' not in speakers:
    return turns
  joined: list[Turn] = []
  for turn, speaker in zip(turns, speakers, strict=True):
    before = joined[-1] if joined else None
    # Only a call right after an agent's message joins it, and only if neither
    # has annotations.
    if (
      speaker != 'tool_call'
      or 'tool_calls' not in turn.message
      or before is None
      or before.message['role'] != 'assistant'
      or _is_marked(turn)
      or _is_marked(before)
    ):
      joined.append(turn)
      continue
    # The call joins those of the message before it.
    calls = before.message.get('tool_calls', []) + turn.message['tool_calls']
    message = {**turn.message, **before.message, 'tool_calls': calls}
    joined[-1] = before._replace(message=message)
  return joined


def _is_marked(turn: Turn) -> bool:
  # Annotated turns may have different authors.
  return any(is_mark(key, value) for key, value in turn.raw.items())


def _unpacked(value: object) -> object:
  # Tables of text columns store lists as JSON. Most strings are not lists.
  # The bracket avoids an attempt to parse every text.
  if isinstance(value, str) and value.lstrip().startswith('['):
    return _parsed(value)
  return value


# Each format looks for its messages in the same columns of a row.
@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> object:
  return json_or_text(text)


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
  media.check_message(part, where)
  type_ = part.get('type')
  if type_ == 'refusal' and isinstance(part.get('refusal'), str):
    return part['refusal']
  # Qwen-Agent's parts have no type, and one key that says what they are.
  is_text = type_ in _TEXT_TYPES or (type_ is None and 'text' in part)
  # Only text is supported, not images or audio.
  if not is_text:
    raise Malformed(f"{where} is of type {quoted(type_)}, expected 'text'")
  if not isinstance(part.get('text'), str):
    raise Malformed(
      f'{where}: text is {kind(part.get("text"))}, expected a string'
    )
  return part['text']


def _refusal(refusal: object, content: str, i: int) -> str:
  """Returns a content, which may be under `refusal` instead."""
  if not isinstance(refusal, str):
    raise Malformed(f'turn {i}: refusal is {kind(refusal)}, expected text')
  if content and refusal and content != refusal:
    raise Malformed(f'turn {i}: has both content and refusal')
  return content or refusal


def _take_reasoning(message: dict, key: str, i: int) -> None:
  """Moves pieces of reasoning to `reasoning_content`, if it is not there.

  Args:
    message: the message; it is changed.
    key: the key of the pieces.
    i: index of its turn, for messages.

  Raises:
    Malformed: the reasoning is encrypted, so that its words are missing.
  """
  pieces = message[key]
  if not isinstance(pieces, list) or not pieces:
    return
  # The same words are usually there as one text, too.
  if any(message.get(name) for name in _REASONING):
    return
  # The words of each block, under the names that providers use.
  texts = [
    piece[name]
    for piece in pieces
    if isinstance(piece, dict)
    for name in _WORDS
    if isinstance(piece.get(name), str)
  ]
  if not ''.join(texts):
    raise Malformed(
      f'turn {i}: {key} is encrypted: the words of the agent are not in the row'
    )
  del message[key]
  message['reasoning_content'] = ''.join(texts)
