"""Format of dialogues between a user and an agent.

{"id": "a", "turns": [{"role": "user", "text": "Tell me about gold."},
                      {"role": "agent", "text": "Its symbol is Go.",
                       "verdict": "wrong"}]}
"""

from collections.abc import Mapping

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, quoted
from isft_jax.data.messages.normalize import find, normalised, system_turn, take

KEYS = ('turns',)  # of a row
HAS = ('role', 'text')  # keys of a message
WANTS = 'turns: a list of {role, text}'
USES = normalize.USES | {'text'}  # keys of a message
# Roles of this format, and their names in chat templates.
ROLES = {
  'system': 'system',
  'user': 'user',
  'agent': 'assistant',
  'assistant': 'assistant',
  'tool': 'tool',
}


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Reads a row. Its `system`, if any, becomes the first turn.

  Raises:
    Malformed: the row does not follow the format.
  """
  turns, tools, metadata = take(value, KEYS, HAS)
  turns = [*system_turn(metadata, 'role', 'text', turns), *turns]
  return Chat(
    [
      Turn(normalised(_message(raw, i), i), None, raw)
      for i, raw in enumerate(turns)
    ],
    tools,
    metadata,
  )


def _message(raw: Mapping, i: int) -> dict:
  """Returns the turn as a message in OpenAI's form."""
  speaker = raw.get('role')
  if not isinstance(speaker, str) or speaker not in ROLES:
    known = ', '.join(ROLES)
    raise Malformed(f'turn {i}: role is {quoted(speaker)}, expected {known}')
  if 'text' not in raw:
    raise Malformed(f'turn {i}: no text')
  # Two texts in one turn are ambiguous.
  if raw.get('content') is not None:
    raise Malformed(f'turn {i}: has both text and content')
  # Other fields, such as annotations, are kept.
  message = {k: v for k, v in raw.items() if k not in HAS}
  return message | {'role': ROLES[speaker], 'content': raw['text']}
