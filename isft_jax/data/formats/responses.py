"""Format of OpenAI's Responses API and of its Agents SDK: a list of items.

    {"instructions": "...", "tools": [{"type": "function", "name": "f", ...}],
     "input": [{"role": "user", "content": "2 + 2?"},
               {"type": "reasoning", "summary": [...]},
               {"type": "function_call", "call_id": "a", "name": "f", ...},
               {"type": "function_call_output", "call_id": "a", ...}],
     "output": [{"type": "message", "role": "assistant", "content": [...]}]}

The items are those of `input` and then of `output`. They may also be under
`messages` or `items`, or be the row itself. A request and its response may be
under `responses_create_params` or `request`, and `response`.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.formats import codex, response_items
from isft_jax.data.messages.agent_items import Items
from isft_jax.data.messages.conversation import Chat, Malformed, kind, outline
from isft_jax.data.messages.normalize import find
from isft_jax.data.messages.tools import json_or_text

WANTS = 'input, output, messages or items: a list of Responses API items'
USES = response_items.USES  # keys of an item
_LISTS = ('input', 'messages', 'items')  # keys of items; the first counts
_REQUESTS = ('responses_create_params', 'request')  # keys of a request


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  # Rollouts of Codex are lists of such items, too.
  if isinstance(value, list):
    return _has_items(value) and not codex.matches(value)
  if not isinstance(value, dict):
    return False
  request, response = _parts(value)
  places = [(request, key) for key in _LISTS]
  places += [(value, 'output'), (response, 'output')]
  return any(_has_items(_listed(*place)) for place in places)


def read(value: object) -> Chat:
  """Reads a row. Its `instructions`, if any, become the first turn.

  Raises:
    Malformed: the row does not follow the format, or it lacks words that the
      agent wrote or saw.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  row = {'input': value} if isinstance(value, list) else value
  assert isinstance(row, dict)
  # What is not used stays metadata. A nested request or response too.
  metadata = dict(row)
  request, response = metadata, {}
  for key in _REQUESTS:
    if isinstance(row.get(key), dict):
      request = metadata[key] = dict(row[key])
      break
  if isinstance(row.get('response'), dict):
    response = metadata['response'] = dict(row['response'])
  for place in (request, response):
    if place.get('previous_response_id') is not None:
      raise Malformed(
        'previous_response_id: the turns of that response are not in the row'
      )

  # Items of the request, and then those of the response.
  items: list = []
  keys = [key for key in _LISTS if request.get(key) is not None]
  if keys:
    items += _as_items(keys[0], request.pop(keys[0]), 'user')
  # A row may repeat the output of its response. Both must be equal.
  outputs = [
    place.pop('output')
    for place in (response, metadata)
    if place.get('output') is not None
  ]
  if outputs:
    if outputs[-1] != outputs[0]:
      raise Malformed('the row has two outputs, expected one')
    items += _as_items('output', outputs[0], 'assistant')
  # A response repeats the instructions and the tools of its request.
  instructions = _first(request, response, 'instructions')
  if instructions is not None:
    items = [*_as_items('instructions', instructions, 'system'), *items]
  tools = response_items.schemas(
    json_or_text(_first(request, response, 'tools'))
  )
  # An object whose keys were all read leaves no metadata.
  for key in (*_REQUESTS, 'response'):
    if metadata.get(key) == {}:
      del metadata[key]
  turns, left_out = Items(joined=False), Counter[str]()
  response_items.read(items, turns, tools, left_out)
  return Chat(turns.turns(), tools or None, metadata, left_out)


def _has_items(value: object) -> bool:
  return isinstance(value, list) and any(map(response_items.is_item, value))


def _parts(row: Mapping) -> tuple[Mapping, Mapping]:
  """Returns the request and the response of a row."""
  nested = [row[k] for k in _REQUESTS if isinstance(row.get(k), dict)]
  response = row.get('response')
  return (
    nested[0] if nested else row,
    response if isinstance(response, dict) else {},
  )


def _listed(holder: Mapping, key: str) -> object:
  """Returns the list under a key, which may be JSON text, or the value."""
  match = find(holder, (key,), ())
  return match[1] if match else holder.get(key)


def _as_items(key: str, value: object, role: str) -> list:
  """Returns the items under a key; a text is a message of the role."""
  value = _listed({key: value}, key)
  if isinstance(value, str):
    return [{'role': role, 'content': value}] if value else []
  if not isinstance(value, list):
    raise Malformed(f'{key} is {kind(value)}, expected a list of items')
  return value


def _first(request: dict, response: dict, key: str) -> object:
  """Removes a key from both; returns the first value that is not null."""
  values = [request.pop(key, None), response.pop(key, None)]
  return next((value for value in values if value is not None), None)
