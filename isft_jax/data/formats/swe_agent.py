"""Format of SWE-agent trajectories: the `history` of a .traj file.

    {"history": [{"role": "system", "message_type": "system_prompt", ...},
                 {"role": "user", "message_type": "observation", ...},
                 {"role": "assistant", "message_type": "action", ...},
                 {"role": "user", "message_type": "observation", ...}]}

The scaffold sends both the task and the output of commands with the role user
and the type observation. Observations before the first action are the task.
"""

from collections.abc import Mapping

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised, take
from isft_jax.types import Provenance

KEYS = ('history', 'messages')  # of a row
HAS = ('role',)  # keys of a message
WANTS = 'history: a list of {role, content, message_type}'
USES = normalize.USES | {'message_type', 'is_demo', 'tool_call_ids'}
# Types that only this scaffold uses. Other logs have the message_type 'user' or
# 'ai'.
_TYPES = ('system_prompt', 'demonstration', 'observation', 'action', 'thought')
# Fields of a message that are kept. `thought` and `action` repeat the content,
# and the others are bookkeeping.
_FIELDS = (
  'role',
  'content',
  'tool_calls',
  'tool_call_id',
  'name',
  'reasoning_content',
  'author',
  'verdict',
  'spans',
)


def matches(value: object) -> bool:
  """Returns whether a row has this format, and not another chat history."""
  match = find(value, KEYS, HAS)
  return match is not None and any(
    isinstance(message, dict)
    and (
      # One message with a mark of SWE-agent is enough.
      message.get('message_type') in _TYPES
      or 'is_demo' in message
      or (match[0] == 'history' and 'agent' in message)
    )
    for message in match[1]
  )


def read(value: object) -> Chat:
  """Reads a row; the types of its messages give the authors of most turns.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  turns = []
  acted = False  # whether the agent has acted, apart from demonstrations
  for i, raw in enumerate(messages):
    turn = Turn(normalised(_message(raw, i), i), _author(raw, acted), raw)
    turns.append(turn)
    # The author of a message depends on the actions before it.
    acted |= _acts(turn)
  return Chat(turns, tools, metadata)


def _acts(turn: Turn) -> bool:
  return (
    turn.message['role'] == 'assistant'
    and turn.author != Provenance.DEMONSTRATION
  )


def _author(raw: Mapping, acted: bool) -> Provenance | None:
  """Returns the author of a message, or None if its role decides.

  Args:
    raw: the message as it is in the row.
    acted: whether the agent has acted before this message.
  """
  # Demonstrations are marked, whatever their role.
  role, named = raw['role'], raw.get('message_type')
  if raw.get('is_demo') is True or named == 'demonstration':
    return Provenance.DEMONSTRATION
  if named == 'system_prompt':
    return Provenance.CONTEXT
  # Other roles decide the author, except for observations.
  if role != 'user':
    return Provenance.TOOL if named == 'observation' else None
  # Before the first action, the user's messages are the task.
  if not acted:
    return Provenance.CONTEXT
  # 'user' is the type of the scaffold's request to correct a bad format.
  return Provenance.HARNESS if named == 'user' else Provenance.TOOL


def _message(raw: Mapping, i: int) -> dict:
  """Returns the message in OpenAI's form."""
  message = {key: raw[key] for key in _FIELDS if key in raw}
  # A result has a list with the id of its call.
  ids = raw.get('tool_call_ids') or []
  if ids and message.get('tool_call_id') is None:
    if not isinstance(ids, list) or not isinstance(ids[0], str):
      raise Malformed(f'turn {i}: tool_call_ids is {kind(ids)}, expected names')
    message['tool_call_id'] = ids[0]
  return message
