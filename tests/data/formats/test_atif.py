"""ATIF's steps: who acted, and what the environment said to it."""

import pytest

from isft_jax.data.formats import atif
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed


def step(source, message, **more):
  return {'source': source, 'message': message, **more}


def saw(*results):
  return {'results': [*results]}


def results(*contents):
  return saw(*({'content': content} for content in contents))


CALL = {'tool_call_id': 'a', 'function_name': 'f', 'arguments': {'x': 1}}
RUN = {
  'schema_version': 'ATIF-v1.7',
  'session_id': 's',
  'agent': {
    'name': 'terminus',
    'version': '2.0.0',
    'model_name': 'm',
    'tool_definitions': [{'type': 'function', 'function': {'name': 'f'}}],
  },
  'steps': [
    step('system', 'Be brief.', step_id=1),
    step('user', [{'type': 'text', 'text': '2 + 2?'}], step_id=2),
    step(
      'agent',
      'Let me see.',
      step_id=3,
      timestamp='2026-10-05T12:00:00Z',
      reasoning_content='hm',
      tool_calls=[CALL],
      observation=saw({'source_call_id': 'a', 'content': '4'}),
      metrics={'prompt_tokens': 5},
      extra={'n': 1},
    ),
    step('agent', '4', step_id=4, llm_call_count=1, tool_calls=None),
  ],
  'final_metrics': {'total_steps': 4},
}


def segments(*steps, **row):
  chat = atif.read({'steps': [*steps], **row})
  found = Rules.default().trajectory('x', chat).segments
  return [(s.role, s.text, s.provenance.name) for s in found]


def test_a_run():
  chat = atif.read(RUN)
  assert [turn.message for turn in chat.turns] == [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': '2 + 2?'},
    {
      'role': 'assistant',
      'content': 'Let me see.',
      'reasoning_content': 'hm',
      'tool_calls': [
        {
          'id': 'a',
          'type': 'function',
          'function': {'name': 'f', 'arguments': {'x': 1}},
        }
      ],
    },
    {'role': 'tool', 'content': '4', 'tool_call_id': 'a'},
    {'role': 'assistant', 'content': '4'},
  ]
  assert chat.tools == RUN['agent']['tool_definitions']
  assert chat.metadata == {k: v for k, v in RUN.items() if k != 'steps'}


@pytest.mark.parametrize(
  ('steps', 'expected'),
  [
    (
      [step('system', 's'), step('user', 'u'), step('agent', 'a')],
      [
        ('system', 's', 'CONTEXT'),
        ('user', 'u', 'USER'),
        ('assistant', 'a', 'AGENT'),
      ],
    ),
    # A turn of the tool for each result, whoever's step it follows.
    (
      [step('agent', 'a', observation=results('1', None, '2'))],
      [
        ('assistant', 'a', 'AGENT'),
        ('tool', '1', 'TOOL'),
        ('tool', '', 'TOOL'),
        ('tool', '2', 'TOOL'),
      ],
    ),
    (
      [step('system', 's', observation=results('1')), step('agent', 'a')],
      [
        ('system', 's', 'CONTEXT'),
        ('tool', '1', 'TOOL'),
        ('assistant', 'a', 'AGENT'),
      ],
    ),
    # No model was asked: the scaffold wrote it, but not what came back.
    (
      [step('agent', 'ls', llm_call_count=0, observation=results('b'))],
      [('assistant', 'ls', 'HARNESS'), ('tool', 'b', 'TOOL')],
    ),
    (
      [step('user', 'u', llm_call_count=0), step('agent', 'a', spans=None)],
      [('user', 'u', 'USER'), ('assistant', 'a', 'AGENT')],
    ),
    # Copied from another run, where it is trained on.
    (
      [
        step('agent', 'a', is_copied_context=True, observation=results('1')),
        step('agent', 'b', is_copied_context=False),
      ],
      [
        ('assistant', 'a', 'CONTEXT'),
        ('tool', '1', 'CONTEXT'),
        ('assistant', 'b', 'AGENT'),
      ],
    ),
    # Our own marks come before what the format knows.
    (
      [step('agent', 'a', author='demonstration', llm_call_count=0)],
      [('assistant', 'a', 'DEMONSTRATION')],
    ),
  ],
)
def test_who_wrote_a_step(steps, expected):
  assert segments(*steps) == expected


def test_rules_see_the_step_under_its_role(tmp_path):
  (tmp_path / 'rules.json').write_text(
    '{"rules": [{"when": {"role": "assistant", "model_name": "expert",'
    ' "row.agent.name": "t"}, "author": "DEMONSTRATION"}]}'
  )
  rules = Rules.load(tmp_path / 'rules.json')
  steps = [step('agent', 'a', model_name='expert'), step('agent', 'b')]
  chat = atif.read({'agent': {'name': 't'}, 'steps': steps})
  found = rules.trajectory('x', chat).segments
  assert [s.provenance.name for s in found] == ['DEMONSTRATION', 'AGENT']


@pytest.mark.parametrize(
  ('found', 'error'),
  [
    (
      step('robot', 'a'),
      "step 1: source is 'robot', expected system, user, agent",
    ),
    ({'source': 'user'}, 'step 1: no message'),
    (
      step('user', 'a', tool_calls=[CALL]),
      'step 1: tool_calls, but the source is user',
    ),
    (
      step('system', 'a', reasoning_content='b'),
      'step 1: reasoning_content, but the source is system',
    ),
    (
      step('user', [{'type': 'image', 'source': {}}]),
      "turn 1: part 0 is of type 'image', expected 'text'",
    ),
    (
      step('agent', 'a', tool_calls=[{'function_name': ''}]),
      'turn 1: tool call 0: name is an empty string, expected a name',
    ),
    (
      step('agent', 'a', tool_calls=[7]),
      'turn 1: tool call 0 is a number, expected an object',
    ),
    (
      step('agent', 'a', observation='4'),
      'step 1: observation is a string, expected results',
    ),
    (
      step('agent', 'a', observation=saw('4')),
      'step 1: result 0 is a string',
    ),
    (
      step(
        'agent',
        'a',
        observation=saw({'subagent_trajectory_ref': [{'trajectory_id': 'b'}]}),
      ),
      'step 1: result 0 is in another trajectory: its text is not in the row',
    ),
  ],
)
def test_malformed_steps(found, error):
  with pytest.raises(Malformed) as raised:
    atif.read({'steps': [step('user', 'u'), found]})
  assert str(raised.value) == error


def test_embedded_trajectories_are_not_passed_over():
  row = {**RUN, 'subagent_trajectories': [RUN]}
  with pytest.raises(Malformed, match=r'make each of them a row of its own'):
    atif.read(row)


def test_definitions_that_are_none_are_malformed():
  row = {**RUN, 'agent': {'tool_definitions': 'f'}}
  with pytest.raises(Malformed, match=r'^tool_definitions is a string, expec'):
    atif.read(row)


@pytest.mark.parametrize(
  'row',
  [
    None,
    {'steps': []},
    {'steps': [{'action': 'a'}]},
    {'messages': [step('user', 'a')]},
    [{'source': 'user'}],
  ],
)
def test_rows_of_no_such_format(row):
  assert not atif.matches(row)
