"""Format of Harbor's Agent Trajectory Interchange Format, ATIF 1.0 to 1.8.

    {"schema_version": "ATIF-v1.7", "agent": {"tool_definitions": [...]},
     "steps": [
       {"step_id": 1, "source": "user", "message": "2 + 2?"},
       {"step_id": 2, "source": "agent", "message": "Let me see.",
        "tool_calls": [{"tool_call_id": "a", "function_name": "f",
                        "arguments": {"x": 2}}],
        "observation": {"results": [{"source_call_id": "a",
                                     "content": "4"}]}}]}

An observation is the environment's answer to a step. Each of its results
becomes a turn of the tool. A step of the agent with `llm_call_count` 0 was
written by its scaffold, and a step with `is_copied_context` is only context.

Token ids in the metrics of a step, if there are any, are read by `atif_tokens`.

Source: harbor-framework/harbor, rfcs/0001-trajectory-format.md.
"""

from collections.abc import Mapping, Sequence

from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.messages.normalize import find, normalised, take
from isft_jax.types import Provenance

KEYS = ('steps',)  # of a row
HAS = ('source', 'message')  # keys of a step
WANTS = 'steps: a list of {source, message, observation}'
# Keys of a step, and of a result in its observation.
USES = frozenset(
  (
    *('source', 'message', 'reasoning_content', 'tool_calls', 'observation'),
    *('is_copied_context', 'llm_call_count'),
    *('role', 'content', 'source_call_id'),
  )
)
# Sources of steps, and their roles in chat templates.
ROLES = {'system': 'system', 'user': 'user', 'agent': 'assistant'}
_AGENT_FIELDS = ('reasoning_content', 'tool_calls')
# Annotations, which any message may have; see `annotations`.
_MARKS = ('author', 'verdict', 'spans')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Reads a row; its steps give the authors of some turns.

  Raises:
    Malformed: the row does not follow the format.
  """
  steps, tools, metadata = take(value, KEYS, HAS)
  if metadata.get('subagent_trajectories'):
    raise Malformed(
      'the row has subagent_trajectories; make each of them a row of its own'
    )
  # Schemas of tools are under `agent`.
  agent = metadata.get('agent')
  if tools is None and isinstance(agent, dict):
    tools = _definitions(agent.get('tool_definitions'))
  turns = [turn for of_step in turns_of_steps(steps) for turn in of_step]
  return Chat(turns, tools, metadata)


def turns_of_steps(steps: Sequence[Mapping]) -> list[list[Turn]]:
  """Returns the turns of each step: its own, and one for each of its results.

  Raises:
    Malformed: a step does not follow the format.
  """
  steps_turns: list[list[Turn]] = []
  number = 0  # of the turn, for messages
  for step, raw in enumerate(steps):
    author = _author(raw)
    message = normalised(_message(raw, step), number)
    turns = [Turn(message, author, _view(raw))]
    # Each result of an observation becomes a turn of a tool.
    for result in _results(raw, step):
      message = {
        'role': 'tool',
        'tool_call_id': result.get('source_call_id'),
        'content': result.get('content'),
      }
      turn = normalised(message, number + len(turns))
      # The results of a copied step are context too.
      copied = author if author == Provenance.CONTEXT else None
      turns.append(Turn(turn, copied, {**result, 'role': 'tool'}))
    steps_turns.append(turns)
    number += len(turns)
  return steps_turns


def _author(raw: Mapping) -> Provenance | None:
  """Returns the author of a step, or None if its source decides."""
  if raw.get('is_copied_context') is True:
    return Provenance.CONTEXT
  # False equals 0 in Python, but it is not a count.
  calls = raw.get('llm_call_count')
  if raw.get('source') == 'agent' and calls == 0 and calls is not False:
    return Provenance.HARNESS
  return None


def _view(raw: Mapping) -> dict:
  """Returns the step for author rules, with the role of its source."""
  return {**raw, 'role': ROLES[raw['source']]}


def _message(raw: Mapping, step: int) -> dict:
  """Returns the step as a message in OpenAI's form."""
  source = raw.get('source')
  if not isinstance(source, str) or source not in ROLES:
    raise Malformed(
      f'step {step}: source is {quoted(source)}, expected {", ".join(ROLES)}'
    )
  if 'message' not in raw:
    raise Malformed(f'step {step}: no message')
  # Annotations, role and content.
  message = {key: raw[key] for key in _MARKS if key in raw}
  message |= {'role': ROLES[source], 'content': raw['message']}
  # Reasoning and calls of another source than the agent are an error.
  for key in _AGENT_FIELDS:
    if raw.get(key):
      if source != 'agent':
        raise Malformed(f'step {step}: {key}, but the source is {source}')
      message[key] = raw[key]
  # Calls in OpenAI's form.
  calls = message.get('tool_calls')
  if isinstance(calls, list):
    message['tool_calls'] = [_call(call) for call in calls]
  return message


def _call(call: object) -> object:
  if not isinstance(call, dict) or 'function_name' not in call:
    return call  # `normalised` reports the error
  return {
    'id': call.get('tool_call_id'),
    'type': 'function',
    'function': {
      'name': call['function_name'],
      'arguments': call.get('arguments', {}),
    },
  }


def _results(raw: Mapping, step: int) -> list[dict]:
  observation = raw.get('observation')
  # The observation is optional.
  if observation is None:
    return []
  results = observation.get('results') if isinstance(observation, dict) else 0
  if not isinstance(results, list):
    raise Malformed(
      f'step {step}: observation is {kind(observation)}, expected results'
    )
  for i, result in enumerate(results):
    if not isinstance(result, dict):
      raise Malformed(f'step {step}: result {i} is {kind(result)}')
    if result.get('content') is None and result.get('subagent_trajectory_ref'):
      raise Malformed(
        f'step {step}: result {i} is in another trajectory: its text is not in '
        'the row'
      )
  return results


def _definitions(tools: object) -> list[dict] | None:
  if not tools:
    return None
  if not isinstance(tools, list) or not all(isinstance(t, dict) for t in tools):
    raise Malformed(
      f'tool_definitions is {kind(tools)}, expected a list of schemas'
    )
  return tools
