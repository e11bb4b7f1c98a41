"""Format of Codex's rollouts: a list of the lines of one file.

    {"type": "session_meta", "payload": {"base_instructions": {"text": "..."}}}
    {"type": "response_item", "payload": {"type": "message", ...}}
    {"type": "event_msg", "payload": {"type": "user_message", ...}}
    {"type": "response_item", "payload": {"type": "function_call", ...}}

The items are those of the Responses API. Events and turn contexts repeat them
or are bookkeeping, so they are left out and counted. In a user's message, texts
that Codex inserts are CONTEXT (AGENTS.md, the environment) or HARNESS (an
interrupted turn, a notification). The first rollouts have bare items after a
line of metadata.

Source: openai/codex, codex-rs/protocol/src/protocol.rs and models.rs, and
codex-rs/core/src/contextual_user_message.rs.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from isft_jax.data.formats import response_items
from isft_jax.data.messages.agent_items import Items
from isft_jax.data.messages.conversation import Chat, Malformed, kind, outline
from isft_jax.types import Provenance

WANTS = 'a list of {type, payload}, the lines of a rollout of Codex'
USES = response_items.USES  # keys of an item
# Types of the lines of a rollout.
_TYPES = (
  *('session_meta', 'response_item', 'compacted', 'turn_context', 'event_msg'),
  *('world_state', 'ghost_snapshot'),
)
# Beginnings of texts that Codex inserts into the user's messages.
_CONTEXT = (
  '# AGENTS.md instructions for ',
  '<user_instructions>',
  '<environment_context>',
  '<skill>',
  '<plugins>',
)
# Beginnings of notes that Codex writes in the user's role.
_HARNESS = (
  '<turn_aborted>',
  '<user_shell_command>',
  '<user_action>',
  '<subagent_notification>',
  '<hook_prompt',
)


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  if not isinstance(value, list):
    return False
  if any(_is_line(line) and line['type'] == 'response_item' for line in value):
    return True
  return _is_first_line(value) and any(map(response_items.is_item, value))


def read(value: object) -> Chat:
  """Reads a row; the type of a line decides what becomes of it.

  Raises:
    Malformed: the row does not follow the format, or it lacks words that the
      agent wrote.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  assert isinstance(value, list)
  # Each text is a separate message.
  turns, left_out = Items(joined=False), Counter[str]()
  metadata: dict | None = None
  for line, (type_, payload) in enumerate(_lines(value)):
    if type_ == 'response_item':
      response_items.read([payload], turns, [], left_out, _author, line)
    elif type_ == 'session_meta' and metadata is None:
      metadata = {**payload}
      _instructions(metadata, turns)
    elif type_ == 'compacted' and payload.get('message'):
      # The agent's own summary of earlier turns, which are in the row.
      message = {'role': 'user', 'content': payload['message']}
      turns.message(message, payload, Provenance.CONTEXT)
    elif type_ == 'event_msg' and payload.get('type') == 'thread_rolled_back':
      left_out['rolled back'] += _roll_back(turns, payload.get('num_turns'))
    else:
      left_out[type_[:40]] += 1  # a name, and not a text
  return Chat(turns.turns(), None, metadata or {}, left_out)


def _is_line(line: object) -> bool:
  return (
    isinstance(line, dict)
    and line.get('type') in _TYPES
    and isinstance(line.get('payload'), dict)
  )


def _is_first_line(lines: list) -> bool:
  """Returns whether the lines begin with metadata in the oldest form."""
  first = lines[0] if lines else None
  return isinstance(first, dict) and {'id', 'timestamp', 'instructions'} <= (
    first.keys()
  )


def _lines(lines: list) -> Iterator[tuple[str, Mapping]]:
  """Yields the type and the payload of each line."""
  # The oldest rollouts have items without an envelope.
  bare = not any(map(_is_line, lines))
  for i, line in enumerate(lines):
    if not isinstance(line, dict):
      raise Malformed(f'line {i} is {kind(line)}, expected an object')
    if not bare:
      type_, payload = line.get('type'), line.get('payload')
      if not isinstance(type_, str):
        raise Malformed(f'line {i}: type is {kind(type_)}, expected a name')
      if not isinstance(payload, dict):
        raise Malformed(f'line {i}: payload is {kind(payload)}')
      yield type_, payload
    elif line.get('type') is not None or line.get('role') is not None:
      yield 'response_item', line
    else:
      yield ('record_type' if line.get('record_type') else 'session_meta'), line


def _instructions(metadata: dict, turns: Items) -> None:
  """Moves the system prompt of a session out of its metadata."""
  base = metadata.get('base_instructions')
  text = base.get('text') if isinstance(base, dict) else base
  if isinstance(text, str) and text:
    del metadata['base_instructions']
    turns.message({'role': 'system', 'content': text}, {'content': text})


def _author(text: str) -> Provenance | None:
  """Returns the author of a text in a user's message, or None for the user."""
  text = text.lstrip()
  if text.startswith(_CONTEXT):
    return Provenance.CONTEXT
  return Provenance.HARNESS if text.startswith(_HARNESS) else None


def _roll_back(turns: Items, number: object) -> int:
  """Removes the last messages of the user, and all turns after each of them.

  Args:
    turns: the turns so far.
    number: number of messages of the user.

  Returns:
    The number of turns that are removed.
  """
  if type(number) is not int or number < 1:
    raise Malformed(f'num_turns is {kind(number)}, expected a number')
  users = [
    i
    for i, turn in enumerate(turns.turns())
    if turn.message['role'] == 'user' and turn.author is None
  ]
  # What Codex inserted before the first message stays.
  return turns.cut(users[max(-number, -len(users))]) if users else 0
