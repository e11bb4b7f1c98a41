"""Harbor's Agent Trajectory Interchange Format (ATIF), versions 1.0 to 1.8.

    {"schema_version": "ATIF-v1.7", "agent": {"tool_definitions": [...]},
     "steps": [
       {"step_id": 1, "source": "user", "message": "2 + 2?"},
       {"step_id": 2, "source": "agent", "message": "Let me see.",
        "tool_calls": [{"tool_call_id": "a", "function_name": "f",
                        "arguments": {"x": 2}}],
        "observation": {"results": [{"source_call_id": "a",
                                     "content": "4"}]}}]}

An observation is what the environment said after the step: a turn of the tool
for each of its results. A step of the agent with `llm_call_count` 0 was written
by its scaffold, and one with `is_copied_context` is there as context alone.

Source: harbor-framework/harbor, rfcs/0001-trajectory-format.md.
"""

from collections.abc import Mapping

from isft_jax.data.formats.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.formats.normalize import find, normalised, take
from isft_jax.types import Provenance

KEYS = ('steps',)
HAS = ('source', 'message')
WANTS = 'steps: a list of {source, message, observation}'
ROLES = {'system': 'system', 'user': 'user', 'agent': 'assistant'}
_AGENTS_ALONE = ('reasoning_content', 'tool_calls')
# Our own marks, which any message may carry.
_MARKS = ('author', 'verdict', 'spans')


def matches(value: object) -> bool:
  """Whether a row is of this format."""
  return find(value, KEYS, HAS) is not None


def read(value: object) -> Chat:
  """Returns a row's turns, with their authors. Raises Malformed."""
  steps, tools, metadata = take(value, KEYS, HAS)
  if metadata.get('subagent_trajectories'):
    raise Malformed(
      'subagent_trajectories are rows of their own: put each on its own line'
    )
  agent = metadata.get('agent')
  if tools is None and isinstance(agent, dict):
    tools = _definitions(agent.get('tool_definitions'))
  turns: list[Turn] = []
  for step, found in enumerate(steps):
    author = _author(found)
    message = _message(found, step)
    turns.append(Turn(normalised(message, len(turns)), author, _view(found)))
    for result in _results(found, step):
      message = {
        'role': 'tool',
        'tool_call_id': result.get('source_call_id'),
        'content': result.get('content'),
      }
      turn = normalised(message, len(turns))
      # A copied step is context with all that it holds.
      copied = author if author == Provenance.CONTEXT else None
      turns.append(Turn(turn, copied, {**result, 'role': 'tool'}))
  return Chat(turns, tools, metadata)


def _author(found: Mapping) -> Provenance | None:
  if found.get('is_copied_context') is True:
    return Provenance.CONTEXT
  calls = found.get('llm_call_count')
  if found.get('source') == 'agent' and calls == 0 and calls is not False:
    return Provenance.HARNESS
  return None


def _view(found: Mapping) -> dict:
  """The step as rules see it: under the role that its source has."""
  return {**found, 'role': ROLES[found['source']]}


def _message(found: Mapping, step: int) -> dict:
  """The step as OpenAI's API has it."""
  source = found.get('source')
  if not isinstance(source, str) or source not in ROLES:
    raise Malformed(
      f'step {step}: source is {quoted(source)}, expected {", ".join(ROLES)}'
    )
  if 'message' not in found:
    raise Malformed(f'step {step}: no message')
  message = {key: found[key] for key in _MARKS if key in found}
  message |= {'role': ROLES[source], 'content': found['message']}
  for key in _AGENTS_ALONE:
    if found.get(key):
      if source != 'agent':
        raise Malformed(f'step {step}: {key}, but the source is {source}')
      message[key] = found[key]
  calls = message.get('tool_calls')
  if isinstance(calls, list):
    message['tool_calls'] = [_call(call) for call in calls]
  return message


def _call(call: object) -> object:
  if not isinstance(call, dict) or 'function_name' not in call:
    return call  # what is wrong with it is said where it is normalised
  return {
    'id': call.get('tool_call_id'),
    'type': 'function',
    'function': {
      'name': call['function_name'],
      'arguments': call.get('arguments', {}),
    },
  }


def _results(found: Mapping, step: int) -> list[dict]:
  observation = found.get('observation')
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
        f'step {step}: result {i} is in another trajectory: what the agent '
        'read of it is not in the row'
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
