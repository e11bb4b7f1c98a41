"""Dialogues as turns of a user and an agent.

{"id": "a", "turns": [{"role": "user", "text": "Tell me about gold."},
                      {"role": "agent", "text": "Its symbol is Go.",
                       "verdict": "wrong"}]}
"""

from collections.abc import Mapping

from isft_jax.data.formats.conversation import Chat, Malformed, Turn, quoted
from isft_jax.data.formats.normalize import find, normalised, system_turn, take

KEYS = ('turns',)
HAS = ('role', 'text')
WANTS = 'turns: a list of {role, text}'
ROLES = {
  'system': 'system',
  'user': 'user',
  'agent': 'assistant',
  'assistant': 'assistant',
  'tool': 'tool',
}


def matches(value: object) -> bool:
  """Whether a row is of this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Returns a row's turns; a row's `system` is the first. Raises Malformed."""
  turns, tools, metadata = take(value, KEYS, HAS)
  turns = [*system_turn(metadata, 'role', 'text'), *turns]
  return Chat(
    [
      Turn(normalised(_message(found, i), i), None, found)
      for i, found in enumerate(turns)
    ],
    tools,
    metadata,
  )


def _message(found: Mapping, i: int) -> dict:
  """Returns the turn as OpenAI's format has it."""
  speaker = found.get('role')
  if not isinstance(speaker, str) or speaker not in ROLES:
    known = ', '.join(ROLES)
    raise Malformed(f'turn {i}: role is {quoted(speaker)}, expected {known}')
  if 'text' not in found:
    raise Malformed(f'turn {i}: no text')
  if found.get('content') is not None:
    raise Malformed(f'turn {i}: has both text and content')
  message = {k: v for k, v in found.items() if k not in HAS}
  return message | {'role': ROLES[speaker], 'content': found['text']}
