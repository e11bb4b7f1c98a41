"""Format of nebius/SWE-agent-trajectories.

    {"instance_id": "...", "model_name": "...", "target": true,
     "trajectory": [
       {"role": "system", "system_prompt": "You are ...", "text": null},
       {"role": "user", "text": "We're solving this issue: ..."},
       {"role": "ai", "text": "Let me see.\\n```\\nls\\n```"},
       {"role": "user", "text": "a.py"}]}

As in SWE-agent's own files, messages of the role user are the task before the
first action, and the output of commands after it.
"""

from collections.abc import Mapping

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, quoted
from isft_jax.data.messages.normalize import find, normalised, take
from isft_jax.types import Provenance

KEYS = ('trajectory',)  # of a row
HAS = ('role', 'text')  # keys of a message
WANTS = 'trajectory: a list of {role: system, user or ai, text}'
USES = normalize.USES | {'text', 'system_prompt'}
# Roles, and their names in chat templates.
ROLES = {'system': 'system', 'user': 'user', 'ai': 'assistant'}


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, HAS)
  return match is not None and any(
    isinstance(message, dict)
    and (message.get('role') == 'ai' or 'system_prompt' in message)
    for message in match[1]
  )


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  turns: list[Turn] = []
  acted = False
  for i, raw in enumerate(messages):
    message = _message(raw, i)
    # The user's first messages are the task, and the others output of commands.
    author = None
    if message['role'] == 'user':
      author = Provenance.TOOL if acted else Provenance.CONTEXT
    turns.append(
      Turn(normalised(message, i), author, {**raw, 'role': message['role']})
    )
    acted |= message['role'] == 'assistant'
  return Chat(turns, tools, metadata)


def _message(raw: Mapping, i: int) -> dict:
  """Returns the message in OpenAI's form."""
  role = raw.get('role')
  if not isinstance(role, str) or role not in ROLES:
    known = ', '.join(ROLES)
    raise Malformed(f'turn {i}: role is {quoted(role)}, expected {known}')
  texts = [raw[k] for k in ('system_prompt', 'text') if raw.get(k) is not None]
  # Only the system prompt has a key of its own.
  if len(texts) != 1 or (raw.get('system_prompt') and role != 'system'):
    raise Malformed(f'turn {i}: expected one of text and system_prompt')
  marks = ('author', 'verdict', 'spans')
  message = {key: raw[key] for key in marks if key in raw}
  return {**message, 'role': ROLES[role], 'content': texts[0]}
