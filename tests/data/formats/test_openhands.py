"""Events of OpenHands 0: actions, and observations of the tool."""

import pytest

from isft_jax.data.formats import openhands, registry
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import fields, segments
from tests.data.formats.log_rows import (
  ANSWER,
  CALL,
  OPENHANDS,
  SCHEMA,
  action,
  called,
  observation,
)

EXPORT = (
  'export the completions (log_completions of OpenHands), which have the '
  'messages'
)
USER = action('message', 'user', content='u')


def test_a_run():
  expected = [
    ('system', 'Be brief.', 'CONTEXT'),
    ('user', '2 + 2?', 'USER'),
    # The model's own response.
    ('assistant', 'Let me see.', 'AGENT'),
    ('tool', '4', 'TOOL'),
    # Without it, in CodeAct's markup.
    ('assistant', 'Hm.\n<execute_bash>\nls\n</execute_bash>', 'AGENT'),
    ('user', 'a.py', 'TOOL'),
    ('assistant', '4', 'AGENT'),
  ]
  assert segments(OPENHANDS) == expected
  assert openhands.read(OPENHANDS).tools == [
    {'type': 'function', 'function': SCHEMA}
  ]
  # The line of an evaluation.
  row = {'instance_id': 'i', 'history': OPENHANDS, 'test_result': {}}
  assert registry.matching(row) == ['openhands']
  assert segments(row) == expected
  assert openhands.read(row).metadata == {'instance_id': 'i', 'test_result': {}}


def test_pairs_of_the_first_versions():
  history = [
    [USER, observation('null', '')],
    [action('run', command='ls', thought=''), observation('run', 'a.py')],
  ]
  assert segments({'history': history}) == [
    ('user', 'u', 'USER'),
    ('assistant', '<execute_bash>\nls\n</execute_bash>', 'AGENT'),
    ('user', 'a.py', 'TOOL'),
  ]


def test_the_calls_of_a_response_are_one_turn():
  second = {**CALL, 'id': 'd'}
  both = {**ANSWER, 'tool_calls': [CALL, second]}
  events = [
    USER,
    {**action('read'), 'tool_call_metadata': called('c', message=both)},
    observation('read', '1', tool_call_metadata=called('c', message=both)),
    {**action('read'), 'tool_call_metadata': called('d', message=both)},
    observation('read', '2', tool_call_metadata=called('d', message=both)),
  ]
  assert segments(events) == [
    ('user', 'u', 'USER'),
    ('assistant', 'Let me see.', 'AGENT'),
    ('tool', '1', 'TOOL'),
    ('tool', '2', 'TOOL'),
  ]
  ids = [c['id'] for c in fields(events)[0]['tool_calls']]
  assert ids == ['c', 'd']
  assert [f['tool_call_id'] for f in fields(events)[1:]] == ['c', 'd']


def test_an_observation_finds_its_call_by_its_cause():
  events = [
    USER,
    {'id': 7, **action('think'), 'tool_call_metadata': called()},
    observation('think', 'Logged.', cause=7),
  ]
  assert segments(events)[2] == ('tool', 'Logged.', 'TOOL')
  assert fields(events)[1] == {'tool_call_id': 'c', 'name': 'f'}


@pytest.mark.parametrize(
  ('event', 'role', 'text', 'author'),
  [
    (observation('run', 'a'), 'user', 'a', 'TOOL'),
    (
      observation(
        'run',
        'a',
        extras={
          'metadata': {
            'prefix': '<',
            'suffix': '>',
            'working_dir': '/w',
            'py_interpreter_path': '/p',
            'exit_code': 1,
          }
        },
      ),
      'user',
      '<a>\n[Current working directory: /w]\n[Python interpreter: /p]\n'
      '[Command finished with exit code 1]',
      'TOOL',
    ),
    (
      observation('run', 'a', extras={'metadata': {'exit_code': -1}}),
      'user',
      'a',
      'TOOL',
    ),
    (
      observation('error', 'a'),
      'user',
      'a\n[Error occurred in processing last action]',
      'TOOL',
    ),
    (
      observation('user_rejected', 'a'),
      'user',
      'OBSERVATION:\na\n[Last action has been rejected by the user]',
      'HARNESS',
    ),
    (
      action('run_ipython', code='1', thought={'text': 'Hm.'}),
      'assistant',
      'Hm.\n<execute_ipython>\n1\n</execute_ipython>',
      'AGENT',
    ),
    (
      action('browse_interactive', browser_actions="goto('a')"),
      'assistant',
      "<execute_browse>\ngoto('a')\n</execute_browse>",
      'AGENT',
    ),
    (action('message', content='b'), 'assistant', 'b', 'AGENT'),
    (
      action('finish', thought='Hm.', final_thought='b'),
      'assistant',
      'Hm.\nb',
      'AGENT',
    ),
  ],
)
def test_texts_and_authors(event, role, text, author):
  assert segments([USER, event]) == [
    ('user', 'u', 'USER'),
    (role, text, author),
  ]


def test_reasoning_of_a_thought():
  thought = {'text': 't', 'reasoning_content': 'r'}
  events = [USER, action('run', command='ls', thought=thought)]
  assert fields(events) == [{'reasoning_content': 'r'}]


def test_events_that_no_prompt_has_are_counted():
  events = [
    USER,
    observation('agent_state_changed', ''),
    action('change_agent_state', 'user'),
    action('recall', 'user', query='q'),
    observation('recall', 'Added.', extras={'recall_type': 'knowledge'}),
    observation('null', ''),
    action('finish', 'user'),
    action('finish', outputs={}, thought=''),
  ]
  assert segments(events) == [('user', 'u', 'USER')]
  assert openhands.read(events).left_out == {
    'agent_state_changed': 1,
    'change_agent_state': 1,
    'recall': 2,
    'null': 1,
    'finish': 2,
  }


@pytest.mark.parametrize(
  ('event', 'error'),
  [
    (
      action('edit', path='a', content='b'),
      "event 1: action 'edit' has no text form without the model's response; "
      + EXPORT,
    ),
    (
      action('run', 'user', command='ls'),
      f"event 1: action 'run' of 'user' has no text form; {EXPORT}",
    ),
    (
      action('condensation', summary='s'),
      'event 1: condensation: the agent did not see the earlier events again; '
      + EXPORT,
    ),
    (
      observation('recall', 'a', extras={'repo_name': 'r'}),
      f'event 1: recall: OpenHands worded it from a template; {EXPORT}',
    ),
    (
      observation('edit', 'a', extras={'impl_source': 'llm_based_edit'}),
      f'event 1: edit: OpenHands worded it from a template; {EXPORT}',
    ),
    (
      {**action('run'), 'tool_call_metadata': {'tool_call_id': 'c'}},
      'event 1: no model_response: the words of the agent are not in the row; '
      + EXPORT,
    ),
    (
      action('message', 'user', content='a', image_urls=['data:']),
      'event 1: image_urls: an image has no text',
    ),
    (action('run', command=1), 'event 1: command is a number, expected text'),
    ({'source': 'agent'}, 'event 1 has neither action nor observation'),
    (7, 'event 1 is a number, expected an object'),
  ],
)
def test_malformed_events(event, error):
  with pytest.raises(Malformed) as raised:
    segments([USER, event])
  assert str(raised.value) == error
