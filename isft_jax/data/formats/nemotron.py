"""Format of prompts with an output, as NVIDIA's post-training data.

    {"input": [{"role": "user", "content": "2 + 2?"}], "output": "4",
     "system_prompt": "detailed thinking on", "category": "math", ...}

`input` is a list of messages or one text of the user, and `output` is the
agent's text.

Source: nvidia/Llama-Nemotron-Post-Training-Dataset.
"""

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised, take

KEYS = ('input',)  # of a row
HAS = ('role',)  # keys of a message
WANTS = 'input: a list of {role, content} or a text, and output: a text'
USES = normalize.USES
PARTS = normalize.PARTS  # keys of a part of a content
# Keys of other formats, whose `output` is another answer.
_OTHERS = ('instruction', 'messages', 'conversations', 'conversation', 'prompt')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return (
    isinstance(value, dict)
    and isinstance(value.get('output'), str)
    and (
      find(value, KEYS, HAS) is not None
      or (isinstance(value.get('input'), str) and value['input'] != '')
    )
    and not any(value.get(key) for key in _OTHERS)
  )


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format.
  """
  if not isinstance(value, dict) or not matches(value):
    raise Malformed(f'expected {WANTS}')
  # A text in place of messages is the user's.
  if find(value, KEYS, HAS) is None:
    value = {**value, 'input': [{'role': 'user', 'content': value['input']}]}
  messages, tools, metadata = take(value, KEYS, HAS)
  # The system prompt is beside the messages, unless it is one of them.
  system = metadata.pop('system_prompt', None)
  if system is not None and not isinstance(system, str):
    raise Malformed(f'system_prompt is {kind(system)}, expected text')
  first = {'role': 'system', 'content': system}
  if system and messages[0] != first:
    messages = [first, *messages]
  # The output is the agent's last turn.
  messages = [
    *messages,
    {'role': 'assistant', 'content': metadata.pop('output')},
  ]
  turns = [
    Turn(normalised(raw, i), None, raw) for i, raw in enumerate(messages)
  ]
  return Chat(turns, tools, metadata)
