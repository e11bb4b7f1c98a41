"""Format of tau2-bench: one simulation of its result files.

    {"id": "s1", "task_id": "1",
     "messages": [
       {"role": "assistant", "content": "Hi.", "turn_idx": 0},
       {"role": "user", "content": "2 + 2?", "turn_idx": 1},
       {"role": "assistant", "content": null, "turn_idx": 2,
        "tool_calls": [{"id": "a", "name": "f", "arguments": {"x": 2},
                        "requestor": "assistant"}]},
       {"role": "tool", "id": "a", "content": "4", "requestor": "assistant"}]}

In some domains the user has tools too. The agent sees neither the user's calls
nor their results (`requestor` is user), so that they are left out.

Source: sierra-research/tau2-bench, src/tau2/data_model/message.py.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.messages import normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised, take

KEYS = ('messages',)  # of a row
HAS = ('role',)  # keys of a message
WANTS = 'messages: a list of {role, content, turn_idx}, tools have a requestor'
USES = normalize.USES | {'id', 'requestor', 'is_audio', 'tool_messages'}
# Keys of a message in OpenAI's form, and annotations.
_FIELDS = (
  *('role', 'content', 'author', 'verdict', 'spans'),
  *('tool_call_id', 'name', 'reasoning_content', 'refusal'),
)
_CALLS = "the user's tool calls (requestor: user)"
_RESULTS = "results of the user's tool calls (requestor: user)"


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, HAS)
  return match is not None and any(
    isinstance(message, dict)
    and ('turn_idx' in message or 'requestor' in message)
    for message in match[1]
  )


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or a message is audio.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  left_out: Counter[str] = Counter()
  turns: list[Turn] = []
  for i, message in enumerate(messages):
    for raw in _unpacked(message, i):
      if raw.get('is_audio') is True or raw.get('audio_content'):
        raise Malformed(f'turn {i}: is_audio: the words are not in the row')
      role = raw.get('role')
      # The agent sees no calls and results of the user's own tools.
      if role == 'user' and raw.get('tool_calls'):
        left_out[_CALLS] += 1
      elif role == 'tool' and raw.get('requestor') == 'user':
        left_out[_RESULTS] += 1
      else:
        turn = normalised(_message(raw, i), len(turns))
        turns.append(Turn(turn, None, raw))
  return Chat(turns, tools, metadata, left_out)


def _unpacked(message: Mapping, i: int) -> list[Mapping]:
  """Returns the results of a message with several, or the message."""
  results = message.get('tool_messages')
  if message.get('role') != 'tool' or results is None:
    return [message]
  if not isinstance(results, list) or not all(
    isinstance(result, dict) for result in results
  ):
    raise Malformed(f'turn {i}: tool_messages is {kind(results)}')
  return results


def _message(raw: Mapping, i: int) -> dict:
  """Returns the message in OpenAI's form."""
  message = {key: raw[key] for key in _FIELDS if key in raw}
  if raw.get('role') == 'tool':
    return {'tool_call_id': raw.get('id'), **message}
  calls = raw.get('tool_calls')
  if not calls:
    return message
  if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
    raise Malformed(f'turn {i}: tool_calls is {kind(calls)}, expected a list')
  drop = ('requestor',)  # always the assistant, in its own message
  message['tool_calls'] = [
    {k: v for k, v in call.items() if k not in drop} for call in calls
  ]
  return message
