"""Events of OpenHands 1."""

import copy

import pytest

from isft_jax.data.formats import openhands_sdk, registry
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import fields, segments
from tests.data.formats.log_rows import OPENHANDS_SDK, SCHEMA, text

SYSTEM, USER, ACTION, RESULT, _ = OPENHANDS_SDK['events']
TURNS = [
  ('system', 'Be brief.', 'CONTEXT'),
  ('user', '2 + 2?', 'USER'),
  ('assistant', 'Let me see.', 'AGENT'),
  ('tool', '4', 'TOOL'),
]


def call(id):
  return {
    'id': id,
    'name': 'f',
    'arguments': '{"x": 2}',
    'origin': 'completion',
  }


def test_a_run():
  assert segments(OPENHANDS_SDK) == TURNS
  assert segments(OPENHANDS_SDK['events']) == TURNS
  call = {
    'id': 'c',
    'type': 'function',
    'function': {'name': 'f', 'arguments': {'x': 2}},
  }
  assert fields(OPENHANDS_SDK) == [
    {'tool_calls': [call]},
    {'tool_call_id': 'c', 'name': 'f'},
  ]
  assert openhands_sdk.read(OPENHANDS_SDK).left_out == {'PauseEvent': 1}


def test_the_line_of_an_evaluation():
  row = {'instance_id': 'i', 'history': OPENHANDS_SDK['events']}
  assert registry.matching(row) == ['openhands_sdk']
  assert segments(row) == TURNS


def test_the_actions_of_a_response_are_one_turn():
  second = {**ACTION, 'thought': [], 'tool_call': call('d')}
  other = {**second, 'llm_response_id': 's'}
  events = [
    USER,
    ACTION,
    second,
    RESULT,
    {**RESULT, 'tool_call_id': 'd'},
    other,
  ]
  calls = [f['tool_calls'] for f in fields(events) if 'tool_calls' in f]
  assert [[c['id'] for c in turn] for turn in calls] == [['c', 'd'], ['d']]
  assert [role for role, _, _ in segments(events)] == [
    *('user', 'assistant', 'tool', 'tool', 'assistant')
  ]


@pytest.mark.parametrize(
  ('event', 'expected'),
  [
    (
      {**USER, 'extended_content': [text(' Know this.')]},
      ('user', '2 + 2? Know this.', 'USER'),
    ),
    ({**USER, 'source': 'environment'}, ('user', '2 + 2?', 'HARNESS')),
    (
      {
        'kind': 'MessageEvent',
        'source': 'agent',
        'llm_message': {'role': 'assistant', 'content': [text('a')]},
      },
      ('assistant', 'a', 'AGENT'),
    ),
    (
      {**RESULT, 'observation': {'content': [text('a')], 'is_error': True}},
      ('tool', '[An error occurred during execution.]\na', 'TOOL'),
    ),
    (
      {
        **RESULT,
        'observation': {
          'content': [text('a')],
          'metadata': {'exit_code': 0, 'working_dir': '/w'},
        },
      },
      (
        'tool',
        'a\n[Current working directory: /w]\n'
        '[Command finished with exit code 0]',
        'TOOL',
      ),
    ),
    (
      {'kind': 'AgentErrorEvent', 'source': 'agent', 'error': 'a'},
      ('tool', 'a', 'HARNESS'),
    ),
    (
      {
        'kind': 'UserRejectObservation',
        'source': 'environment',
        'rejection_reason': 'No.',
      },
      ('tool', 'Action rejected: No.', 'HARNESS'),
    ),
  ],
)
def test_texts_and_authors(event, expected):
  assert segments([SYSTEM, event])[1] == expected


@pytest.mark.parametrize(
  ('more', 'expected'),
  [
    ({'reasoning_content': 'r'}, 'r'),
    ({'thinking_blocks': [{'type': 'thinking', 'thinking': 'r'}]}, 'r'),
    ({'responses_reasoning_item': {'summary': ['r'], 'content': None}}, 'r'),
    (
      {'responses_reasoning_item': {'content': ['r'], 'summary': ['s']}},
      'r',
    ),
  ],
)
def test_reasoning(more, expected):
  assert fields([{**ACTION, **more}])[0]['reasoning_content'] == expected


def test_tools_with_parameters():
  row = copy.deepcopy(OPENHANDS_SDK)
  row['events'][0]['tools'] = [SCHEMA]
  chat = openhands_sdk.read(row)
  assert chat.tools == [{'type': 'function', 'function': SCHEMA}]
  # Later versions keep the name and the description only.
  row['events'][0]['tools'] = [{'title': 'f', 'description': 'F.'}]
  chat = openhands_sdk.read(row)
  assert chat.tools is None
  assert chat.left_out == {'PauseEvent': 1, 'tools without parameters': 1}


@pytest.mark.parametrize(
  ('event', 'error'),
  [
    (
      {'kind': 'Condensation', 'source': 'environment'},
      'event 1: Condensation: the agent did not see the earlier events again; '
      'export the completions (log_completions), which have the messages',
    ),
    (
      {**ACTION, 'thinking_blocks': [{'type': 'redacted_thinking'}]},
      "event 1: thinking_blocks has a block of type 'redacted_thinking': the "
      'words of the agent are not in the row',
    ),
    (
      {**ACTION, 'responses_reasoning_item': {'encrypted_content': 'x'}},
      'event 1: encrypted_content: the words of the agent are not in the row',
    ),
    (
      {**RESULT, 'observation': {'content': [{'type': 'image'}]}},
      "turn 1: part 0 is of type 'image', expected 'text'",
    ),
    (
      {**RESULT, 'observation': {'content': [], 'screenshot_data': 'x'}},
      'event 1: screenshot_data: an image has no text',
    ),
    (
      {**ACTION, 'tool_call': None},
      'event 1: tool_call is null, expected an object',
    ),
    (7, 'event 1 is a number, expected an object'),
  ],
)
def test_malformed_events(event, error):
  with pytest.raises(Malformed) as raised:
    segments([USER, event])
  assert str(raised.value) == error
