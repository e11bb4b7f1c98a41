"""Format of OpenHands' events (version 1, the software agent SDK).

    [{"kind": "SystemPromptEvent", "source": "agent",
      "system_prompt": {"type": "text", "text": "..."}, "tools": [...]},
     {"kind": "MessageEvent", "source": "user",
      "llm_message": {"role": "user", "content": [{"type": "text", ...}]}},
     {"kind": "ActionEvent", "source": "agent", "llm_response_id": "r",
      "thought": [{"type": "text", "text": "..."}], "tool_call_id": "a",
      "tool_call": {"id": "a", "name": "terminal", "arguments": "{...}"}},
     {"kind": "ObservationEvent", "source": "environment", "tool_call_id": "a",
      "tool_name": "terminal", "observation": {"content": [...]}}]

Actions with the same `llm_response_id` are one turn of the agent. Other kinds
of events are left out, except that a condensation makes the row malformed:
after it, the agent did not see the earlier events again.

Source: openhands-sdk 1.58, event/llm_convertible and tool/schema.py;
openhands-tools 1.58, terminal/definition.py.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.formats.openhands import with_shell_state
from isft_jax.data.messages import model_messages, normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised
from isft_jax.types import Provenance

KEYS = ('history', 'events', 'trajectory')  # of a row
_HAS = ('kind', 'source')  # keys of an event
WANTS = 'events: a list of {kind: MessageEvent, ActionEvent, ..., source}'
USES = normalize.USES | {
  *('kind', 'source', 'system_prompt', 'dynamic_context', 'tools'),
  *('llm_message', 'extended_content', 'thought', 'thinking_blocks'),
  *('responses_reasoning_item', 'tool_call', 'llm_response_id'),
  *('tool_call_id', 'tool_name', 'observation', 'error', 'rejection_reason'),
}
# Text that the SDK adds before the output of a failed call.
_ERROR = '[An error occurred during execution.]\n'
# Authors of messages, by source and role of the message.
_AUTHORS = {
  ('user', 'user'): Provenance.USER,
  ('agent', 'assistant'): None,
  ('environment', 'user'): Provenance.HARNESS,
  ('hook', 'user'): Provenance.HARNESS,
}
# Name under which tools without schemas are counted.
_SILENT_TOOLS = 'tools without parameters'


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, _HAS)
  return match is not None and any(
    isinstance(event, dict)
    and isinstance(event.get('kind'), str)
    and event['kind'].endswith('Event')
    for event in match[1]
  )


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or an event has no text.
  """
  match = find(value, KEYS, _HAS)
  if match is None:
    raise Malformed(f'expected {WANTS}')
  key, events = match
  turns: list[Turn] = []
  tools: object = None
  left_out: Counter[str] = Counter()
  response: object = None  # of the last turn
  for i, event in enumerate(events):
    where = f'event {i}'
    if not isinstance(event, dict):
      raise Malformed(f'{where} is {kind(event)}, expected an object')
    name = event.get('kind')
    name = name if isinstance(name, str) else kind(name)
    # A condensation replaces earlier events by a summary.
    if name.startswith('Condensation') and name != 'CondensationRequest':
      raise Malformed(
        f'{where}: {name}: the agent did not see the earlier events again; '
        'export the completions (log_completions), which have the messages'
      )
    # Events of the scaffold, such as pauses, are no turns.
    if name not in _READERS:
      left_out[name] += 1
      continue
    message, author = _READERS[name](event, where)
    # Calls of one response are one turn.
    id = event.get('llm_response_id')
    if name == 'ActionEvent' and id is not None and id == response:
      calls = turns[-1].message['tool_calls'] + message['tool_calls']
      both = {**turns[-1].message, 'tool_calls': calls}
      turns[-1] = turns[-1]._replace(message=normalised(both, len(turns) - 1))
      continue
    response = id if name == 'ActionEvent' else None
    # The system prompt comes with the schemas of the tools.
    if name == 'SystemPromptEvent':
      tools = event.get('tools')
    turn = normalised(message, len(turns))
    turns.append(Turn(turn, author, {**event, 'role': turn['role']}))
  if not turns:
    raise Malformed('no turns: no event is a message, an action or its result')
  # Tools without schemas cannot be shown. They are counted.
  schemas = _schemas(tools)
  if tools and schemas is None:
    left_out[_SILENT_TOOLS] += 1
  # Metadata are all keys but the events.
  row = value if isinstance(value, dict) else {}
  metadata = {k: v for k, v in row.items() if k != key}
  return Chat(turns, schemas, metadata, left_out)


def _system(event: Mapping, where: str) -> tuple[dict, None]:
  parts = [event.get('system_prompt'), event.get('dynamic_context')]
  content = [part for part in parts if part is not None]
  return {'role': 'system', 'content': content}, None


def _message(event: Mapping, where: str) -> tuple[dict, Provenance | None]:
  raw = event.get('llm_message')
  if not isinstance(raw, dict):
    raise Malformed(f'{where}: llm_message is {kind(raw)}, expected an object')
  message = _with_reasoning(model_messages.known(raw, where), raw, where)
  message['content'] = _parts(raw.get('content'), where) + _parts(
    event.get('extended_content'), where
  )
  source, role = event.get('source'), raw.get('role')
  if not isinstance(source, str) or not isinstance(role, str):
    raise Malformed(f'{where}: expected a source and a role')
  return message, _AUTHORS.get((source, role))


def _action(event: Mapping, where: str) -> tuple[dict, None]:
  call = event.get('tool_call')
  if not isinstance(call, dict):
    raise Malformed(f'{where}: tool_call is {kind(call)}, expected an object')
  # Early versions have the call in OpenAI's form.
  if not isinstance(call.get('function'), dict):
    function = {k: call.get(k) for k in ('name', 'arguments')}
    call = {'id': call.get('id'), 'type': 'function', 'function': function}
  message = {
    'role': 'assistant',
    'content': _parts(event.get('thought'), where),
    'tool_calls': [call],
  }
  return _with_reasoning(message, event, where), None


def _with_reasoning(message: dict, raw: Mapping, where: str) -> dict:
  """Returns a message with the reasoning of an event or message."""
  text = model_messages.reasoning(raw, where)
  item = raw.get('responses_reasoning_item')
  if not text and isinstance(item, dict):
    # The text, or the summary of an encrypted text.
    parts = item.get('content') or item.get('summary') or []
    if not isinstance(parts, list) or not all(
      isinstance(part, str) for part in parts
    ):
      raise Malformed(f'{where}: responses_reasoning_item has no text')
    text = ''.join(parts)
    if not text and item.get('encrypted_content'):
      raise Malformed(
        f'{where}: encrypted_content: the words of the agent are not in the row'
      )
  return message | ({'reasoning_content': text} if text else {})


def _result(event: Mapping, content: object) -> dict:
  return {
    'role': 'tool',
    'tool_call_id': event.get('tool_call_id'),
    'name': event.get('tool_name'),
    'content': content,
  }


def _observation(event: Mapping, where: str) -> tuple[dict, None]:
  observation = event.get('observation')
  if not isinstance(observation, dict):
    raise Malformed(
      f'{where}: observation is {kind(observation)}, expected an object'
    )
  for key in ('screenshot_data', 'image_urls'):
    if observation.get(key):
      raise Malformed(f'{where}: {key}: an image has no text')
  # Early versions have a text in one of these keys.
  content = observation.get('content')
  if content is None:
    content = observation.get('output')
  parts = _parts(content, where)
  # OpenHands adds the state of the shell to the text that the agent sees.
  metadata = observation.get('metadata')
  if isinstance(metadata, dict) and 'exit_code' in metadata:
    text = ''.join(part['text'] for part in parts if _is_text(part))
    if len([*filter(_is_text, parts)]) == len(parts):
      parts = _parts(with_shell_state(text, metadata), where)
  if observation.get('is_error') is True:
    parts = _parts(_ERROR, where) + parts
  parts = parts + _parts(event.get('extended_content'), where)
  return _result(event, parts), None


def _error(event: Mapping, where: str) -> tuple[dict, Provenance]:
  return _result(event, event.get('error')), Provenance.HARNESS


def _rejection(event: Mapping, where: str) -> tuple[dict, Provenance]:
  reason = event.get('rejection_reason', 'User rejected the action')
  if not isinstance(reason, str):
    raise Malformed(f'{where}: rejection_reason is {kind(reason)}')
  return _result(event, f'Action rejected: {reason}'), Provenance.HARNESS


# Events that are turns. All others are left out and counted.
_READERS = {
  'SystemPromptEvent': _system,
  'MessageEvent': _message,
  'ActionEvent': _action,
  'ObservationEvent': _observation,
  'AgentErrorEvent': _error,
  'UserRejectObservation': _rejection,
}


def _is_text(part: object) -> bool:
  return isinstance(part, dict) and isinstance(part.get('text'), str)


def _parts(content: object, where: str) -> list:
  """Returns a content as a list of parts; `normalised` checks their types."""
  if content is None:
    return []
  if isinstance(content, str):
    return [{'type': 'text', 'text': content}]
  if not isinstance(content, list):
    raise Malformed(f'{where}: content is {kind(content)}, expected a list')
  return content


def _schemas(tools: object) -> list[dict] | None:
  """Returns the tools that have parameters, if all have."""
  if not isinstance(tools, list) or not all(
    isinstance(tool, dict)
    and ('parameters' in tool or isinstance(tool.get('function'), dict))
    for tool in tools
  ):
    return None
  return model_messages.schemas(tools)
