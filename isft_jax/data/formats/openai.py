"""Chat messages as OpenAI's API has them, and most scaffolds store them.

    {"messages": [{"role": "user", "content": "2 + 2?"},
                  {"role": "assistant", "content": null, "tool_calls": [...]},
                  {"role": "tool", "tool_call_id": "a", "content": "4"}],
     "tools": [...]}

Any role is passed on: the authorship rules say who stands behind it.
"""

from isft_jax.data.formats.conversation import Chat, Turn
from isft_jax.data.formats.normalize import find, normalised, system_turn, take

KEYS = ('messages', 'traj', 'conversation', 'conversations')
HAS = ('role',)
WANTS = 'messages, traj or conversation(s): a list of {role, content}'


def matches(value: object) -> bool:
  """Whether a row is of this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Returns a row's turns; a row's `system` is the first. Raises Malformed."""
  messages, tools, metadata = take(value, KEYS, HAS)
  messages = [*system_turn(metadata, 'role', 'content'), *messages]
  turns = [
    Turn(normalised(found, i), None, found) for i, found in enumerate(messages)
  ]
  return Chat(turns, tools, metadata)
