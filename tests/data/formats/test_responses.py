"""Rows of the Responses API: where their items, tools and instructions are."""

import pytest

from isft_jax.data.formats import responses
from isft_jax.data.messages.conversation import Malformed

USER = {'role': 'user', 'content': [{'type': 'input_text', 'text': 'a'}]}
ITEM = {
  'type': 'message',
  'role': 'assistant',
  'content': [{'type': 'output_text', 'text': 'b'}],
}
TOOL = {'type': 'function', 'name': 'f'}
BOTH = [('user', 'a'), ('assistant', 'b')]


def said(row):
  turns = responses.read(row).turns
  return [(turn.message['role'], turn.message['content']) for turn in turns]


@pytest.mark.parametrize(
  'row',
  [
    [USER, ITEM],
    {'input': [USER, ITEM]},
    {'messages': [USER, ITEM]},
    {'items': [USER, ITEM]},
    {'input': [USER], 'output': [ITEM]},
    {'input': 'a', 'output': [ITEM]},
    {'input': [USER], 'output': 'b'},
    {'input': [USER], 'response': {'output': [ITEM]}},
    {'request': {'input': 'a'}, 'response': {'output': [ITEM]}},
    # NeMo Gym.
    {
      'responses_create_params': {'input': [USER]},
      'response': {'output': [ITEM]},
    },
    # An input of plain messages.
    {'input': [{'role': 'user', 'content': 'a'}], 'output': [ITEM]},
  ],
)
def test_places_of_items(row):
  assert responses.matches(row)
  assert said(row) == BOTH


@pytest.mark.parametrize(
  'row',
  [
    {'input': [USER], 'instructions': 's'},
    {'request': {'input': [USER], 'instructions': 's'}, 'response': {}},
    {'input': [USER], 'response': {'output': [], 'instructions': 's'}},
    {
      'input': [USER],
      'instructions': 's',
      'response': {'output': [], 'instructions': 's'},
    },
    {'input': [USER], 'instructions': [{'role': 'system', 'content': 's'}]},
  ],
)
def test_instructions_are_the_first_turn(row):
  assert said(row) == [('system', 's'), ('user', 'a')]


def test_what_is_not_used_is_metadata():
  row = {
    'id': 7,
    'reward': 1.0,
    'responses_create_params': {
      'input': [USER],
      'tools': [TOOL],
      'temperature': 1.0,
    },
    'response': {'output': [ITEM], 'tools': [TOOL], 'model': 'm'},
  }
  chat = responses.read(row)
  assert chat.tools == [{'type': 'function', 'function': {'name': 'f'}}]
  assert chat.metadata == {
    'id': 7,
    'reward': 1.0,
    'responses_create_params': {'temperature': 1.0},
    'response': {'model': 'm'},
  }
  # A request of which everything is used is not metadata.
  row = {'request': {'input': [USER]}, 'response': {'output': [ITEM]}}
  assert responses.read(row).metadata == {}


@pytest.mark.parametrize(
  ('row', 'error'),
  [
    (
      {'input': [USER], 'previous_response_id': 'r'},
      'previous_response_id: the turns of that response are not in the row',
    ),
    (
      {'input': [USER], 'output': [], 'response': {'output': [ITEM]}},
      'the row has two outputs, expected one',
    ),
    ({'input': [USER], 'output': 7}, 'output is a number, expected a list of'),
    ({'input': [USER], 'tools': 'f'}, 'tools is a string, expected a list of'),
    (
      {'a': 1},
      'expected input, output, messages or items: a list of Responses',
    ),
  ],
)
def test_malformed_rows(row, error):
  with pytest.raises(Malformed) as raised:
    responses.read(row)
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  'row',
  [
    None,
    [],
    {'input': 'a', 'output': 'b'},
    {'input': [{'role': 'user', 'content': 'a'}], 'output': 'b'},
    {'messages': [{'role': 'user', 'content': 'a'}]},
    {
      'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}]}]
    },
    # A message of Anthropic's API.
    [
      {
        'type': 'message',
        'role': 'assistant',
        'content': [{'type': 'text', 'text': 'a'}],
      }
    ],
  ],
)
def test_rows_of_no_such_format(row):
  assert not responses.matches(row)
