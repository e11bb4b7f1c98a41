"""Rewrites messages for chat templates that want another form of tool calls."""

import json
from collections.abc import Mapping, Sequence

from isft_jax.types import JsonObject


def with_text_arguments(messages: Sequence[dict]) -> list[dict] | None:
  """Returns messages whose tool calls have their arguments as JSON text.

  Some templates, such as DeepSeek-V3's, concatenate the arguments as text.

  Args:
    messages: messages in OpenAI's form.

  Returns:
    The messages with the text that stands in the row, or with new JSON text if
    the row has an object. None if no call has an object.
  """
  rewritten = []
  for message in messages:
    calls = message.get('tool_calls')
    if isinstance(calls, list):
      message = {**message, 'tool_calls': [*map(_with_text, calls)]}
    rewritten.append(message)
  return None if rewritten == [*messages] else rewritten


def _with_text(call: object) -> object:
  function = call.get('function') if isinstance(call, Mapping) else None
  arguments = function.get('arguments') if isinstance(function, dict) else None
  if not isinstance(call, Mapping) or not isinstance(function, dict):
    return call
  if not isinstance(arguments, dict):
    return call
  # The text of the row itself, so that no character changes.
  if isinstance(arguments, JsonObject):
    text = arguments.text
  else:
    text = json.dumps(arguments, ensure_ascii=False)
  return {**call, 'function': {**function, 'arguments': text}}


def with_call_ids(messages: Sequence[dict], digits: int) -> list[dict]:
  """Renumbers the ids of tool calls as 000000000, 000000001, ...

  Mistral's templates refuse ids that do not have nine letters or digits. A call
  without an id gets one, and a tool's answer without an id gets that of the
  oldest call without an answer.

  Args:
    messages: messages in OpenAI's form.
    digits: number of digits of an id.
  """
  ids: dict[object, str] = {}
  number = 0  # of calls so far
  unanswered: list[str] = []
  rewritten = []
  for message in messages:
    # Calls are numbered in order, and their numbers become the ids.
    calls = []
    for call in message.get('tool_calls') or ():
      short = f'{number:0{digits}d}'
      number += 1
      unanswered.append(short)
      if isinstance(call, Mapping):
        ids[call.get('id')] = short
        call = {**call, 'id': short}
      calls.append(call)
    message = {**message, 'tool_calls': calls} if calls else message
    # An answer gets the id of its call, or of the oldest call without one.
    if message['role'] == 'tool':
      oldest = unanswered[0] if unanswered else None
      id = message.get('tool_call_id')
      answered = oldest if id is None else ids.get(id, oldest)
      if answered is not None:
        message = {**message, 'tool_call_id': answered}
        unanswered = [other for other in unanswered if other != answered]
    rewritten.append(message)
  return rewritten
