"""Format of logged API calls: the messages of a request, and its response.

    {"messages": [{"role": "user", "content": "2 + 2?"}],
     "response": {"choices": [{"message": {"role": "assistant", ...}}]},
     "kwargs": {"tools": [...]}}                  OpenHands, LiteLLM

    {"request": {"messages": [...], "tools": [...]},
     "response": {"choices": [...]}}

    {"messages": [...], "choices": [{"message": ...}]}   stored completions

The message of the response is the last turn, and the agent's. The response may
also be one of Anthropic's API.
"""

from collections.abc import Mapping

from isft_jax.data.formats import anthropic
from isft_jax.data.messages import model_messages
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import json_or_text, normalised

WANTS = 'messages (or request: {messages}) and response: {choices}'
USES = anthropic.USES | {'thinking_blocks', 'reasoning_details'}
PARTS = anthropic.PARTS  # keys of a part of a content
# Keys that may hold the request or the body of an envelope.
_REQUESTS = ('request', 'kwargs', 'body', 'request_body', 'input', 'inputs')
_RESPONSES = (
  *('raw_response', 'response', 'response_body', 'body'),
  *('output', 'outputs'),
)
# Keys of objects that may hold the tools of a request.
_SETTINGS = ('kwargs', 'model_parameters', 'optional_params')
_MOST = 3  # envelopes around a request or response


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  if not isinstance(value, dict) or not (
    'choices' in value or any(value.get(key) for key in _RESPONSES)
  ):
    return False
  request = _request(value)
  return request is not None and _response(value) is not None


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or the response has no
      message, or several.
  """
  # Find the request and the response, which may be in envelopes.
  request = _request(value) if isinstance(value, dict) else None
  if not isinstance(value, dict) or request is None:
    raise Malformed(f'expected {WANTS}')
  key_response = _response(value)
  if key_response is None:
    raise Malformed(f'expected {WANTS}')
  key, response = key_response
  messages = _messages(request)
  # Metadata are all keys that are not read.
  used = {
    'messages',
    'tools',
    'functions',
    'system',
    'response',
    'choices',
    key,
  }
  metadata = {
    k: v
    for k, v in value.items()
    if k not in used and not (k in _REQUESTS and _has_only(v, used))
  }
  # The prompt of a model without calls has the tools as text.
  tools = None
  if key != 'raw_response':
    tools = next(filter(None, map(_tools, [request, value])), None)
  # A response of Anthropic's API is read with the format of that API.
  if _is_anthropics(response):
    assert isinstance(response, dict)
    answer = {'role': 'assistant', 'content': response['content']}
    row = {'messages': [*messages, answer], 'system': request.get('system')}
    chat = anthropic.read(row | ({'tools': tools} if tools else {}))
    return Chat(chat.turns, chat.tools, metadata)

  # The message of an OpenAI response is the agent's last turn.
  last = {'role': 'assistant', **model_messages.answer(response, 'response')}
  # Some loggers add the answer to the messages before they write them.
  if not _is_same(messages[-1], last):
    messages = [*messages, last]
  # The system prompt may be beside the messages.
  system = request.get('system')
  if isinstance(system, str) and system:
    messages = [{'role': 'system', 'content': system}, *messages]
  turns = [
    Turn(normalised(model_messages.known(raw, f'turn {i}'), i), None, raw)
    for i, raw in enumerate(messages)
  ]
  return Chat(turns, model_messages.schemas(tools), metadata)


def _object(value: object) -> object:
  """Returns an object, which may be JSON text."""
  if isinstance(value, str) and value.lstrip()[:1] in ('{', '['):
    return json_or_text(value)
  return value


def _request(row: Mapping) -> Mapping | None:
  """Returns the object that has the messages, or None."""
  # Level by level: the outermost object with messages counts.
  candidates: list[object] = [row]
  for _ in range(_MOST):
    for candidate in candidates:
      if isinstance(candidate, dict) and _has_messages(candidate):
        return candidate
    candidates = [
      _object(candidate.get(key))
      for candidate in candidates
      if isinstance(candidate, dict)
      for key in _REQUESTS
    ]
  return None


def _has_messages(request: Mapping) -> bool:
  messages = _object(request.get('messages'))
  return isinstance(messages, list) and any(
    isinstance(message, dict) and 'role' in message for message in messages
  )


def _messages(request: Mapping) -> list[dict]:
  messages = _object(request['messages'])
  assert isinstance(messages, list)  # `_has_messages`
  for i, message in enumerate(messages):
    if not isinstance(message, dict):
      raise Malformed(f'turn {i}: is {kind(message)}, expected an object')
  return messages


def _response(row: Mapping) -> tuple[str, object] | None:
  """Returns the key of the row and the response, or None."""
  if isinstance(row.get('choices'), list):
    return 'choices', row
  for key in _RESPONSES:
    response = _object(row.get(key))
    # Envelopes of a response have it under `body`.
    for _ in range(_MOST):
      if not isinstance(response, dict):
        break
      if isinstance(response.get('choices'), list) or _is_anthropics(response):
        return key, response
      response = _object(response.get('body'))
  return None


def _is_anthropics(response: object) -> bool:
  return (
    isinstance(response, dict)
    and response.get('role') == 'assistant'
    and isinstance(response.get('content'), list)
  )


def _tools(holder: Mapping) -> object:
  """Returns the tools of a request, or None."""
  holders = (holder, *(_object(holder.get(key)) for key in _SETTINGS))
  for place in holders:
    if isinstance(place, dict):
      if place.get('tools'):
        return _object(place['tools'])
      if place.get('functions'):
        return _object(place['functions'])
  return None


def _has_only(value: object, keys: set[str]) -> bool:
  return isinstance(value, dict) and value.keys() <= keys


def _is_same(message: Mapping, last: Mapping) -> bool:
  """Returns whether a message is the answer itself."""
  return message.get('role') == 'assistant' and all(
    (message.get(key) or None) == (last.get(key) or None)
    for key in ('content', 'tool_calls')
  )
