"""Format of OpenAI's chat API, in which most scaffolds store messages.

    {"messages": [{"role": "user", "content": "2 + 2?"},
                  {"role": "assistant", "content": null, "tool_calls": [...]},
                  {"role": "tool", "tool_call_id": "a", "content": "4"}],
     "tools": [...]}

Any role is accepted. The author rules decide the author of each role.
"""

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn
from isft_jax.data.messages.normalize import (
  find,
  joined_calls,
  normalised,
  system_turn,
  take,
)

# Keys of a row, the usual ones first.
KEYS = (
  *('messages', 'traj', 'conversation', 'conversations', 'trajectory'),
  *('dialog', 'dialogue', 'chat', 'turns', 'message_log', 'transcript'),
  *('msgs', 'chat_messages', 'history', 'chat_history', 'message_history'),
  *('conversation_history', 'prompt'),
)
HAS = ('role',)  # keys of a message; the content may be missing
# For error messages.
WANTS = 'messages, conversation(s), trajectory, ...: a list of {role, content}'
USES = normalize.USES  # keys of a message
PARTS = normalize.PARTS  # keys of a part of a content
# Keys of lists that may be only the beginning of a conversation, and keys of
# the rest.
_BEGINNINGS = KEYS[KEYS.index('history') :]
_RESTS = (
  *('completion', 'completions', 'response', 'responses', 'chosen', 'rejected'),
  *('output', 'query', 'question', 'instruction', 'input'),
)


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  # Some data sets keep the system prompt beside the messages.
  system = system_turn(metadata, 'role', 'content', messages)
  messages = [*system, *messages]
  # The format knows no authors (None).
  turns = [
    Turn(normalised(raw, i), None, raw) for i, raw in enumerate(messages)
  ]
  _check_whole(value, metadata, [turn.message['content'] for turn in turns])
  return Chat(joined_calls(turns), tools, metadata)


def _check_whole(value: object, metadata: dict, texts: list[str]) -> None:
  """Checks that the messages are not only the beginning of a conversation.

  Args:
    value: the row.
    metadata: its other fields.
    texts: contents of its messages.

  Raises:
    Malformed: another key holds words that are in none of the messages.
  """
  match = find(value, KEYS, HAS)
  if match is None or match[0] not in _BEGINNINGS:
    return
  for key in _RESTS:
    rest = metadata.get(key)
    # Some data sets repeat the question in a column of its own. An object may
    # hold anything, unless it is a message.
    is_said = isinstance(rest, str) and any(rest.strip() in t for t in texts)
    is_other = isinstance(rest, dict) and not rest.keys() >= {*HAS}
    if rest and not is_said and not is_other:
      raise Malformed(
        f'{match[0]} may be only the beginning: the row also has {key}; put '
        'all messages into one list'
      )
