"""Format of OpenAI's chat API, in which most scaffolds store messages.

    {"messages": [{"role": "user", "content": "2 + 2?"},
                  {"role": "assistant", "content": null, "tool_calls": [...]},
                  {"role": "tool", "tool_call_id": "a", "content": "4"}],
     "tools": [...]}

Any role is accepted. The author rules decide the author of each role.
"""

from isft_jax.data.formats import normalize
from isft_jax.data.formats.conversation import Chat, Turn
from isft_jax.data.formats.normalize import find, normalised, system_turn, take

KEYS = ('messages', 'traj', 'conversation', 'conversations')  # of a row
HAS = ('role',)  # keys of a message; the content may be missing
# For error messages.
WANTS = 'messages, traj or conversation(s): a list of {role, content}'
USES = normalize.USES  # keys of a message


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
  messages = [*system_turn(metadata, 'role', 'content'), *messages]
  # The format knows no authors (None).
  turns = [
    Turn(normalised(raw, i), None, raw) for i, raw in enumerate(messages)
  ]
  return Chat(turns, tools, metadata)
