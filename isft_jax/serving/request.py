"""Reads requests of OpenAI's chat API, and refuses what cannot be honoured."""

import json
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

from isft_jax import files

ROLES = ('system', 'developer', 'user', 'assistant', 'tool')
# Fields that have no effect on a reply.
HARMLESS = frozenset(
  (
    *('user', 'metadata', 'store', 'safety_identifier', 'prompt_cache_key'),
    'service_tier',
  )
)
# Fields that are accepted with these values only, which change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
  'frequency_penalty': (0,),
  'presence_penalty': (0,),
  'logit_bias': ({},),
  'logprobs': (False,),
  'tools': ([],),
  'tool_choice': ('none', 'auto'),
  'parallel_tool_calls': (True, False),
  'functions': ([],),
  'response_format': ({'type': 'text'},),
  'modalities': (['text'],),
}
# The same for fields of a message.
_NEUTRAL_OF_MESSAGE: dict[str, tuple[object, ...]] = {
  'tool_calls': ([],),
  'annotations': ([],),
}
_MOST_CHOICES = 16  # rows of one batch
_MOST_STOPS = 16
_MOST_TOKENS = 1 << 24


class ApiError(Exception):
  """An error with the status and the fields of OpenAI's error objects."""

  def __init__(
    self,
    message: str,
    param: str | None = None,
    code: str | None = None,
    status: int = 400,
    type: str = 'invalid_request_error',
  ) -> None:
    super().__init__(message)
    self.status = status
    self.fields = {
      'message': message,
      'type': type,
      'param': param,
      'code': code,
    }


class ChatRequest(NamedTuple):
  """A request for replies to a conversation.

  Attributes:
    messages: dicts with a role, a text as content, and of a tool perhaps an id
      and a name.
    number: number of replies.
    max_new_tokens: maximum tokens per reply; None: the default.
    temperature, top_p, seed: of the sampling; None: the default.
    stop_texts: texts that end a reply.
    stream: whether the reply is streamed.
    include_usage: whether the stream ends with the numbers of tokens.
  """

  messages: list[dict[str, str]]
  number: int = 1
  max_new_tokens: int | None = None
  temperature: float | None = None
  top_p: float | None = None
  seed: int | None = None
  stop_texts: tuple[str, ...] = ()
  stream: bool = False
  include_usage: bool = False


def parse(body: bytes, model: str, template_names: Set[str]) -> ChatRequest:
  """Reads the body of a request.

  Args:
    body: JSON in UTF-8.
    model: name of the model that is served.
    template_names: names in the chat template, which may use a message's name.

  Raises:
    ApiError: the body is not valid, or asks for something that this server
      cannot do. No field is ignored, except those of `HARMLESS`.
  """
  try:
    value = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise ApiError(
      f'the body is not JSON in UTF-8 ({files.one_line(error)})'
    ) from None
  if not isinstance(value, dict):
    raise ApiError('the body must be a JSON object')
  # Null means that a field is not set.
  fields = {key: v for key, v in value.items() if v is not None}
  requested = fields.pop('model', model)
  if requested != model:
    raise ApiError(
      f'the model {files.shorten(requested)} does not exist; this server has '
      f'{model!r}',
      'model',
      'model_not_found',
      404,
    )
  messages = _messages(fields.pop('messages', None), template_names)
  stream = _boolean(fields, 'stream')
  # Both names of one limit; the older one has been replaced by OpenAI.
  limits = [
    _integer(fields, key, 1, _MOST_TOKENS)
    for key in ('max_completion_tokens', 'max_tokens')
  ]
  if None not in limits and limits[0] != limits[1]:
    raise ApiError(
      'max_tokens and max_completion_tokens differ; set one of them',
      'max_tokens',
    )
  request = ChatRequest(
    messages,
    number=_integer(fields, 'n', 1, _MOST_CHOICES) or 1,
    max_new_tokens=limits[0] or limits[1],
    temperature=_number(fields, 'temperature', 0, 2),
    top_p=_number(fields, 'top_p', 0, 1),
    seed=_integer(fields, 'seed', -(1 << 63), (1 << 63) - 1),
    stop_texts=_stops(fields.pop('stop', ())),
    stream=stream,
    include_usage=_include_usage(fields.pop('stream_options', {}), stream),
  )
  if request.top_p == 0:
    raise ApiError('top_p must be above 0', 'top_p')
  for key, v in fields.items():
    if key not in HARMLESS and not _is_neutral(key, v, _NEUTRAL):
      raise _unsupported(key, v, _NEUTRAL)
  return request


def _messages(value: object, template_names: Set[str]) -> list[dict[str, str]]:
  if not isinstance(value, list) or not value:
    raise ApiError('messages must be a list with a message', 'messages')
  messages = [
    _message(each, f'messages[{i}]', template_names)
    for i, each in enumerate(value)
  ]
  if messages[-1]['role'] == 'assistant':
    raise ApiError(
      'the last message is by the assistant, and there is nothing to answer; '
      'end with another role',
      f'messages[{len(messages) - 1}]',
    )
  return messages


def _message(
  value: object, where: str, template_names: Set[str]
) -> dict[str, str]:
  if not isinstance(value, dict):
    raise ApiError(f'{where} must be an object', where)
  fields = {key: v for key, v in value.items() if v is not None}
  role = fields.pop('role', None)
  if role not in ROLES:
    raise ApiError(
      f'{where}.role must be one of {", ".join(ROLES)} '
      f'(got {files.shorten(role)})',
      f'{where}.role',
    )
  message = {'role': role, 'content': _content(fields, where)}
  # Most templates have no role of this newer name.
  if role == 'developer' and 'developer' not in template_names:
    message['role'] = 'system'
  if role == 'tool' or 'name' in template_names:
    for key in ('name', 'tool_call_id') if role == 'tool' else ('name',):
      if key in fields:
        message[key] = _text(fields.pop(key), f'{where}.{key}')
  for key, v in fields.items():
    if not _is_neutral(key, v, _NEUTRAL_OF_MESSAGE):
      raise _unsupported(f'{where}.{key}', v, {})
  return message


def _content(fields: dict[str, Any], where: str) -> str:
  content, where = fields.pop('content', None), f'{where}.content'
  if not isinstance(content, list):
    return _text(content, where)
  texts = []
  for j, part in enumerate(content):
    if not isinstance(part, dict) or part.get('type') != 'text':
      raise ApiError(
        f'{where}[{j}] must be a part of type text; this server reads only '
        'text',
        f'{where}[{j}]',
      )
    if others := part.keys() - {'type', 'text'}:
      raise _unsupported(f'{where}[{j}].{min(others)}', part[min(others)], {})
    texts.append(_text(part.get('text'), f'{where}[{j}].text'))
  return ''.join(texts)


def _text(value: object, where: str) -> str:
  if not isinstance(value, str):
    raise ApiError(f'{where} must be a text', where)
  return value


def _stops(value: Any) -> tuple[str, ...]:
  stops = [value] if isinstance(value, str) else value
  is_list = isinstance(stops, list | tuple) and len(stops) <= _MOST_STOPS
  if not is_list or not all(isinstance(s, str) and s for s in stops):
    raise ApiError(
      f'stop must be a text that is not empty, or at most {_MOST_STOPS} of '
      'them',
      'stop',
    )
  return tuple(stops)


def _include_usage(options: object, stream: bool) -> bool:
  if not isinstance(options, dict):
    raise ApiError('stream_options must be an object', 'stream_options')
  if options and not stream:
    raise ApiError('stream_options needs "stream": true', 'stream_options')
  options = {key: v for key, v in options.items() if v is not None}
  include_usage = _boolean(options, 'include_usage')
  # Padding against observers of encrypted connections, which this has not.
  _boolean(options, 'include_obfuscation')
  for key, v in options.items():
    raise _unsupported(f'stream_options.{key}', v, {})
  return include_usage


def _boolean(fields: dict[str, Any], key: str) -> bool:
  value = fields.pop(key, False)
  if not isinstance(value, bool):
    raise ApiError(f'{key} must be true or false', key)
  return value


def _integer(
  fields: dict[str, Any], key: str, least: int, most: int
) -> int | None:
  value = fields.pop(key, None)
  if value is None:
    return None
  # `type` excludes booleans.
  if type(value) is not int or not least <= value <= most:
    raise ApiError(
      f'{key} must be an integer from {least} to {most} '
      f'(got {files.shorten(value)})',
      key,
    )
  return value


def _number(
  fields: dict[str, Any], key: str, least: float, most: float
) -> float | None:
  value = fields.pop(key, None)
  if value is None:
    return None
  # NaN is not between any two numbers.
  if type(value) not in (int, float) or not least <= value <= most:
    raise ApiError(
      f'{key} must be a number from {least} to {most} '
      f'(got {files.shorten(value)})',
      key,
    )
  return float(value)


def _is_neutral(
  key: str, value: object, neutral: Mapping[str, tuple[object, ...]]
) -> bool:
  return any(value == each for each in neutral.get(key, ()))


def _unsupported(
  key: str, value: object, neutral: Mapping[str, tuple[object, ...]]
) -> ApiError:
  values = ' or '.join(map(json.dumps, neutral.get(key, ())))
  remedy = f'leave it out, or set {values}' if values else 'leave it out'
  shown = files.shown(key)
  return ApiError(
    f'{shown}={files.shorten(value)} is not supported; {remedy}',
    shown,
    'unsupported_parameter',
  )
