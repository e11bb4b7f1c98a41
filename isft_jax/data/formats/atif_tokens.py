"""Token ids of Harbor's trajectories (ATIF 1.4 to 1.8), taken as they are.

    {"schema_version": "ATIF-v1.8", "agent": {...},
     "steps": [
       {"source": "user", "message": "2 + 2?"},
       {"source": "agent", "message": "4",
        "metrics": {"prompt_token_ids": [1, 5, 7],
                    "completion_token_ids": [9, 2]}}]}

The prompt of a call must begin with the prompt and the completion of the call
before. What is new in it was written by the steps and results between the two;
see `token_ids.join`.

`--format=atif` reads the text of the same rows.

Source: harbor-framework/harbor, rfcs/0001-trajectory-format.md.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.formats import atif
from isft_jax.data.formats.token_ids import (
  Sample,
  TokenChat,
  check_ids,
  join,
)
from isft_jax.data.messages.conversation import Malformed
from isft_jax.data.messages.normalize import find

WANTS = 'steps with metrics: {prompt_token_ids, completion_token_ids}'
USES = atif.USES | {'metrics'}
_IDS = ('prompt_token_ids', 'completion_token_ids')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, atif.KEYS, atif.HAS)
  return match is not None and any(
    isinstance(step, dict) and all(_metrics(step).get(key) for key in _IDS)
    for step in match[1]
  )


def read(value: object) -> TokenChat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, a step of the agent has no
      token ids, or the calls are not one sequence.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}')
  # Turns are read from the text, and tokens from the agent's metrics.
  chat = atif.read(value)
  match = find(value, atif.KEYS, atif.HAS)
  steps = match[1] if match else []
  samples: list[Sample] = []
  turn = done = 0  # index of the step's turn; turns before a completion
  for i, (step, turns) in enumerate(
    zip(steps, atif.turns_of_steps(steps), strict=True)
  ):
    if _is_sampled(step):
      samples.append(_sample(step, i, turn, tuple(range(done, turn))))
      done = turn + 1
    turn += len(turns)
  # No prompt has the results of the last step.
  late = turn - done
  left_out = Counter({'turns after the last completion': late} if late else {})
  return TokenChat(
    chat._replace(left_out=left_out), join(samples, bool(chat.tools))
  )


def _metrics(step: Mapping) -> Mapping:
  metrics = step.get('metrics')
  return metrics if isinstance(metrics, dict) else {}


def _is_sampled(step: Mapping) -> bool:
  """Returns whether the model wrote a step, in this trajectory."""
  calls = step.get('llm_call_count')
  return (
    step.get('source') == 'agent'
    and step.get('is_copied_context') is not True
    and (calls != 0 or calls is False)
  )


def _sample(
  step: Mapping, i: int, turn: int, before: tuple[int, ...]
) -> Sample:
  calls = step.get('llm_call_count')
  if calls is not None and calls != 1:
    raise Malformed(
      f'step {i}: is several calls of the model, and no token says of which it '
      'is; --format=atif reads the text'
    )
  metrics = _metrics(step)
  for key in _IDS:
    if not metrics.get(key):
      raise Malformed(f'step {i}: no {key}; --format=atif reads the text')
  prompt, completion = (
    check_ids(metrics[key], f'step {i}: {key}') for key in _IDS
  )
  return Sample(f'step {i}', prompt, [(completion, (turn,))], before)
