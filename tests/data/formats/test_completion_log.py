"""Logged calls of an API: the response is the agent's last turn."""

import json

import pytest

from isft_jax.data.formats import completion_log, registry
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import fields, segments
from tests.data.formats.log_rows import ANSWER, COMPLETION_LOG, SCHEMA

USER = {'role': 'user', 'content': 'u'}
SAID = {'role': 'assistant', 'content': 'a'}
TOOL = {'type': 'function', 'function': SCHEMA}
TURNS = [('user', 'u', 'USER'), ('assistant', 'a', 'AGENT')]


def response(*messages):
  return {'id': 'r', 'choices': [{'message': m} for m in messages]}


def test_a_row():
  assert segments(COMPLETION_LOG) == [
    ('system', 'Be brief.', 'CONTEXT'),
    ('user', '2 + 2?', 'USER'),
    ('assistant', 'Let me see.', 'AGENT'),
  ]
  chat = completion_log.read(COMPLETION_LOG)
  assert chat.tools == [TOOL]
  assert chat.metadata == {'cost': 0.0}


@pytest.mark.parametrize(
  'row',
  [
    {'messages': [USER], 'response': response(SAID)},
    {'messages': [USER], 'response': json.dumps(response(SAID))},
    {'messages': json.dumps([USER]), 'response': response(SAID)},
    {'request': {'messages': [USER]}, 'response': response(SAID)},
    {
      'request': {'body': {'messages': [USER]}},
      'response': {'status_code': 200, 'body': response(SAID)},
    },
    {'body': {'messages': [USER]}, 'response': {'body': response(SAID)}},
    {'kwargs': {'messages': [USER]}, 'response': response(SAID)},
    {'input': {'messages': [USER]}, 'output': response(SAID)},
    {'inputs': {'messages': [USER]}, 'outputs': response(SAID)},
    # A stored completion with its messages.
    {'object': 'chat.completion', 'messages': [USER], **response(SAID)},
    # The logger added the answer to the messages.
    {'messages': [USER, SAID], 'response': response({**SAID, 'audio': None})},
  ],
)
def test_places_of_the_request_and_the_response(row):
  assert registry.matching(row) == ['completion_log']
  assert segments(row) == TURNS


@pytest.mark.parametrize(
  'row',
  [
    {'tools': [TOOL]},
    {'tools': json.dumps([SCHEMA])},
    {'functions': [SCHEMA]},
    {'kwargs': {'tools': [TOOL]}},
    {'kwargs': json.dumps({'tools': [TOOL]})},
    {'model_parameters': {'tools': [TOOL]}},
    {'optional_params': {'tools': [TOOL]}},
  ],
)
def test_places_of_the_tools(row):
  chat = completion_log.read(
    {'messages': [USER], 'response': response(SAID), **row}
  )
  assert chat.tools == [TOOL]


def test_tools_of_the_request():
  request = {'messages': [USER], 'tools': [TOOL], 'model': 'm'}
  chat = completion_log.read({'request': request, 'response': response(SAID)})
  assert chat.tools == [TOOL]
  # Other keys of the request stay, for author rules.
  assert chat.metadata == {'request': request}


def test_a_model_without_calls_has_its_tools_in_the_prompt():
  """OpenHands 1 logs the response before and after it finds the calls."""
  row = {
    'messages': [USER],
    'tools': [TOOL],
    'response': response(ANSWER),
    'raw_response': response(SAID),
  }
  assert segments(row) == TURNS
  assert completion_log.read(row).tools is None


@pytest.mark.parametrize(
  ('message', 'expected'),
  [
    ({'reasoning_content': 'r'}, {'reasoning_content': 'r'}),
    ({'reasoning': 'r'}, {'reasoning_content': 'r'}),
    (
      {'reasoning': 'r', 'reasoning_content': 'r'},
      {'reasoning_content': 'r'},
    ),
    (
      {'thinking_blocks': [{'type': 'thinking', 'thinking': 'r'}]},
      {'reasoning_content': 'r'},
    ),
    (
      {
        'reasoning_details': [
          {'type': 'reasoning.summary', 'summary': 'r'},
          {'type': 'reasoning.encrypted', 'data': 'x'},
        ]
      },
      {'reasoning_content': 'r'},
    ),
    ({'function_call': None, 'provider_specific_fields': {'a': 1}}, None),
    ({'refusal': None, 'annotations': []}, None),
  ],
)
def test_fields_that_clients_add(message, expected):
  row = {'messages': [USER], 'response': response({**SAID, **message})}
  assert fields(row) == ([expected] if expected else [])


def test_a_response_of_anthropics_api():
  blocks = [
    {'type': 'thinking', 'thinking': 'Hm.'},
    {'type': 'text', 'text': 'a'},
    {'type': 'tool_use', 'id': 'c', 'name': 'f', 'input': {'x': 2}},
  ]
  tools = [{'name': 'f', 'input_schema': {'type': 'object'}}]
  row = {
    'request': {'system': 's', 'messages': [USER], 'tools': tools},
    'response': {'type': 'message', 'role': 'assistant', 'content': blocks},
  }
  assert registry.matching(row) == ['completion_log']
  assert segments(row) == [('system', 's', 'CONTEXT'), *TURNS]
  assert fields(row)[0]['reasoning_content'] == 'Hm.'
  assert [
    tool['function']['name'] for tool in completion_log.read(row).tools
  ] == ['f']


@pytest.mark.parametrize(
  ('answer', 'error'),
  [
    (
      {'choices': []},
      'response has 0 choices, expected one; make each a row of its own',
    ),
    (
      response(SAID, SAID),
      'response has 2 choices, expected one; make each a row of its own',
    ),
    (
      {'choices': [{'delta': {}}]},
      'response: message is null, expected an object',
    ),
    (
      response(
        {
          **SAID,
          'thinking_blocks': [{'type': 'redacted_thinking', 'data': 'x'}],
        }
      ),
      "turn 1: thinking_blocks has a block of type 'redacted_thinking': the "
      'words of the agent are not in the row',
    ),
    (
      response(
        {**SAID, 'reasoning_details': [{'type': 'reasoning.encrypted'}]}
      ),
      "turn 1: reasoning_details has a block of type 'reasoning.encrypted': "
      'the words of the agent are not in the row',
    ),
    (response({**SAID, 'audio': {'id': 'a'}}), 'turn 1: audio has no text'),
  ],
)
def test_malformed_responses(answer, error):
  with pytest.raises(Malformed) as raised:
    segments({'messages': [USER], 'response': answer})
  assert str(raised.value) == error


@pytest.mark.parametrize(
  'row',
  [
    {'messages': [USER, SAID]},
    {'messages': [USER, SAID], 'response': None},
    # A text is no response of an API.
    {'messages': [USER], 'response': 'a'},
    {'messages': [USER, SAID], 'response': {'status': 200}},
    {'response': response(SAID)},
  ],
)
def test_rows_of_no_such_format(row):
  assert not completion_log.matches(row)
