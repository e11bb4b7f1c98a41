"""mini-swe-agent: who wrote a user's message, and how a run ended."""

import pytest

from isft_jax.data.formats import mini_swe_agent, registry
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import segments
from tests.data.formats.log_rows import MINI_SWE_AGENT


def said(role, content, **extra):
  return {
    'role': role,
    'content': content,
    **({'extra': extra} if extra else {}),
  }


TASK = [said('system', 's'), said('user', 't'), said('assistant', 'a')]
BEFORE = [
  ('system', 's', 'CONTEXT'),
  ('user', 't', 'USER'),
  ('assistant', 'a', 'AGENT'),
]


def run(*messages, version='1.1', **info):
  name = f'mini-swe-agent-{version}'
  return {'trajectory_format': name, 'info': info, 'messages': [*messages]}


def test_a_run():
  assert registry.matching(MINI_SWE_AGENT) == ['mini_swe_agent']
  assert segments(MINI_SWE_AGENT) == [
    ('system', 'Use bash.', 'CONTEXT'),
    ('user', 'Fix it.', 'USER'),
    ('assistant', 'Let me see.', 'AGENT'),
    ('tool', '4', 'TOOL'),
  ]
  chat = mini_swe_agent.read(MINI_SWE_AGENT)
  assert chat.left_out == {'exit': 1}
  assert chat.metadata.keys() == {'trajectory_format', 'info'}
  # Bookkeeping is no part of a message.
  assert all('extra' not in turn.message for turn in chat.turns)


@pytest.mark.parametrize(
  ('message', 'author'),
  [
    (said('user', 'b', returncode=0, raw_output='b'), 'TOOL'),
    (said('user', 'b', interrupt_type='FormatError'), 'HARNESS'),
    (said('user', 'b', interrupt_type='UserInterruption'), 'USER'),
    (said('user', 'b', interrupt_type='UserRejection'), 'USER'),
    (said('user', 'b'), 'TOOL'),
    (said('tool', 'b'), 'TOOL'),
    (said('user', 'Please always give one action.'), 'HARNESS'),
    ({**said('user', 'b'), 'author': 'user'}, 'USER'),
  ],
)
def test_who_wrote_a_message_after_an_action(message, author):
  template = 'Please always give {{ n }} action.'
  row = run(
    *TASK, message, config={'agent': {'format_error_template': template}}
  )
  assert segments(row) == [
    *BEFORE,
    (message['role'], message['content'], author),
  ]


@pytest.mark.parametrize(
  ('last', 'info'),
  [
    (said('exit', 'diff', exit_status='Submitted'), {}),
    # Version 1 sent it with the role user.
    (said('user', 'diff'), {'submission': 'diff'}),
    (said('user', ''), {'submission': '', 'exit_status': 'LimitsExceeded'}),
    (said('user', 'LimitsExceeded'), {'exit_status': 'LimitsExceeded'}),
  ],
)
def test_the_end_of_a_run_is_left_out(last, info):
  row = run(*TASK, last, version='1', **info)
  assert segments(row) == BEFORE
  assert mini_swe_agent.read(row).left_out == {'exit': 1}


def test_a_task_that_is_the_submission_stays():
  row = run(*TASK[:2], version='1', submission='t')
  assert segments(row) == BEFORE[:2]


def test_messages_without_the_name_of_the_format():
  row = {'messages': [*TASK, said('exit', 'b')]}
  assert registry.matching(row) == ['mini_swe_agent']
  assert segments(row) == BEFORE


def test_a_run_with_the_responses_api():
  call = {
    'type': 'function_call',
    'call_id': 'c',
    'name': 'bash',
    'arguments': '{"command": "ls"}',
  }
  said_by_model = {'type': 'message', 'role': 'assistant'}
  output = [
    {'type': 'reasoning', 'summary': [{'type': 'summary_text', 'text': 'Hm.'}]},
    {**said_by_model, 'content': [{'type': 'output_text', 'text': 'a'}]},
    call,
  ]
  result = {'type': 'function_call_output', 'call_id': 'c', 'output': 'a.py'}
  wrong = {
    'type': 'message',
    'role': 'user',
    'content': [{'type': 'input_text', 'text': 'No call.'}],
    'extra': {'interrupt_type': 'FormatError'},
  }
  response = {'object': 'response', 'id': 'r', 'output': output}
  row = run(*TASK[:2], response, result, wrong, said('exit', 'b'))
  assert registry.matching(row) == ['mini_swe_agent']
  assert segments(row) == [
    *BEFORE,
    ('tool', 'a.py', 'TOOL'),
    ('user', 'No call.', 'HARNESS'),
  ]
  agent = mini_swe_agent.read(row).turns[2].message
  assert agent['reasoning_content'] == 'Hm.'
  assert agent['tool_calls'][0]['function']['arguments'] == {'command': 'ls'}
  assert mini_swe_agent.read(row).left_out == {'exit': 1}


def test_a_response_without_output_is_malformed():
  row = run(*TASK[:2], {'object': 'response', 'output': None})
  with pytest.raises(Malformed) as raised:
    segments(row)
  assert str(raised.value) == 'turn 2: output is null, expected a list'
