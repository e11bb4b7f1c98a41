"""SWE-agent trajectories: the `history` of a .traj file.

    {"history": [{"role": "system", "message_type": "system_prompt", ...},
                 {"role": "user", "message_type": "observation", ...},
                 {"role": "assistant", "message_type": "action", ...},
                 {"role": "user", "message_type": "observation", ...}]}

The scaffold sends the task and the output of commands alike as the user, and
calls both an observation: what came before the first action is the task.
"""

from collections.abc import Mapping

from isft_jax.data.formats.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.formats.normalize import find, normalised, take
from isft_jax.types import Provenance

KEYS = ('history', 'messages')
HAS = ('role',)
WANTS = 'history: a list of {role, content, message_type}'
# The scaffold's own words. Other logs have a message_type too: 'user', 'ai'.
_TYPES = ('system_prompt', 'demonstration', 'observation', 'action', 'thought')
# `thought` and `action` repeat the content; the rest is bookkeeping.
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
  """Whether a row is of this format, and not any other history of a chat."""
  found = find(value, KEYS, HAS)
  return found is not None and any(
    isinstance(message, dict)
    and (
      message.get('message_type') in _TYPES
      or 'is_demo' in message
      or (found[0] == 'history' and 'agent' in message)
    )
    for message in found[1]
  )


def read(value: object) -> Chat:
  """Returns a row's turns, with their authors. Raises Malformed."""
  messages, tools, metadata = take(value, KEYS, HAS)
  turns = []
  acted = False
  for i, found in enumerate(messages):
    turn = Turn(normalised(_message(found, i), i), _author(found, acted), found)
    turns.append(turn)
    acted |= _acts(turn)
  return Chat(turns, tools, metadata)


def _acts(turn: Turn) -> bool:
  return (
    turn.message['role'] == 'assistant'
    and turn.author != Provenance.DEMONSTRATION
  )


def _author(found: Mapping, acted: bool) -> Provenance | None:
  """Who wrote a message, or None where its role says it.

  acted: whether the agent has, before.
  """
  role, named = found['role'], found.get('message_type')
  if found.get('is_demo') is True or named == 'demonstration':
    return Provenance.DEMONSTRATION
  if named == 'system_prompt':
    return Provenance.CONTEXT
  if role != 'user':
    return Provenance.TOOL if named == 'observation' else None
  if not acted:
    return Provenance.CONTEXT
  # The scaffold names its own text so, when it asks again after a bad format.
  return Provenance.HARNESS if named == 'user' else Provenance.TOOL


def _message(found: Mapping, i: int) -> dict:
  message = {key: found[key] for key in _FIELDS if key in found}
  ids = found.get('tool_call_ids') or []
  if ids and message.get('tool_call_id') is None:
    if not isinstance(ids, list) or not isinstance(ids[0], str):
      raise Malformed(f'turn {i}: tool_call_ids is {kind(ids)}, expected names')
    message['tool_call_id'] = ids[0]
  return message
