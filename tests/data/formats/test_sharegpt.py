"""ShareGPT's turns, each of them, in the roles that templates know."""

import json

import pytest

from isft_jax.data.formats import sharegpt
from isft_jax.data.messages.conversation import Malformed


def message(role, content='', **fields):
  return {'role': role, 'content': content, **fields}


def call(name, **arguments):
  return {
    'type': 'function',
    'function': {'name': name, 'arguments': arguments},
  }


def turns(*pairs, key='conversations', **row):
  row[key] = [{'from': who, 'value': what} for who, what in pairs]
  return [turn.message for turn in sharegpt.read(row).turns]


@pytest.mark.parametrize(
  ('speaker', 'role'),
  [
    ('system', 'system'),
    ('human', 'user'),
    ('user', 'user'),
    ('gpt', 'assistant'),
    ('assistant', 'assistant'),
    ('model', 'assistant'),
    ('chatgpt', 'assistant'),
    ('observation', 'tool'),
    ('tool', 'tool'),
    ('function_response', 'tool'),
  ],
)
def test_roles(speaker, role):
  assert turns((speaker, 'a')) == [message(role, 'a')]
  assert turns((speaker, None)) == [message(role, '')]


ONE = '{"name": "f", "arguments": {"x": 1}}'
TEXT = '{"name": "f", "arguments": "{\\"x\\": 1}"}'
NESTED = (
  '{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}'
)
F, G = call('f', x=1), call('g')


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    (ONE, message('assistant', tool_calls=[F])),
    (TEXT, message('assistant', tool_calls=[F])),
    (NESTED, message('assistant', tool_calls=[F])),
    (json.loads(ONE), message('assistant', tool_calls=[F])),
    (
      f'[{ONE}, {{"name": "g", "arguments": {{}}}}]',
      message('assistant', tool_calls=[F, G]),
    ),
    # What is no call is what the agent wrote, to the letter.
    ('f(x=1)', message('assistant', 'f(x=1)')),
    ('{"name": "f"', message('assistant', '{"name": "f"')),
    ('[]', message('assistant', '[]')),
    ('[7]', message('assistant', '[7]')),
    ('{"x": 1}', message('assistant', '{"x": 1}')),
    ('{"name": ""}', message('assistant', '{"name": ""}')),
    (
      '{"name": "f", "x": NaN}',
      message('assistant', '{"name": "f", "x": NaN}'),
    ),
  ],
)
def test_function_calls(value, expected):
  assert turns(('function_call', value)) == [expected]


def test_neighbours_stay_turns_of_their_own():
  assert turns(
    ('human', 'u'),
    ('gpt', 'thinking'),
    ('function_call', ONE),
    ('function_call', ONE),
    ('observation', '1'),
    ('observation', '1'),
    ('gpt', 'a'),
  ) == [
    message('user', 'u'),
    message('assistant', 'thinking'),
    message('assistant', tool_calls=[F]),
    message('assistant', tool_calls=[F]),
    message('tool', '1'),
    message('tool', '1'),
    message('assistant', 'a'),
  ]


@pytest.mark.parametrize('key', ['conversations', 'conversation', 'messages'])
def test_a_row_with_system_and_tools(key):
  found = {'from': 'gpt', 'value': 'a', 'weight': 0, 'author': 'demonstration'}
  row = {'id': 1, key: [found], 'system': 's', 'tools': '[{"name": "f"}]'}
  assert sharegpt.matches(row)
  chat = sharegpt.read(row)
  assert [turn.message for turn in chat.turns] == [
    message('system', 's'),
    message('assistant', 'a', weight=0),
  ]
  assert [turn.raw for turn in chat.turns] == [
    {'from': 'system', 'value': 's'},
    found,
  ]
  assert [turn.author for turn in chat.turns] == [None, None]
  assert chat.tools == [{'name': 'f'}]
  assert chat.metadata == {'id': 1}


@pytest.mark.parametrize('system', [None, ''])
def test_a_system_that_says_nothing_is_no_turn(system):
  assert turns(('human', 'u'), system=system) == [message('user', 'u')]


def test_a_system_and_a_system_turn_are_both_kept():
  assert turns(('system', 'b'), ('human', 'u'), system='a') == [
    message('system', 'a'),
    message('system', 'b'),
    message('user', 'u'),
  ]


KNOWN = ', '.join(sharegpt.ROLES)


@pytest.mark.parametrize(
  ('turn', 'error'),
  [
    (
      {'from': 'bing', 'value': 'a'},
      f"turn 1: from is 'bing', expected {KNOWN}",
    ),
    ({'from': 7, 'value': 'a'}, f'turn 1: from is a number, expected {KNOWN}'),
    ({'value': 'a'}, f'turn 1: from is null, expected {KNOWN}'),
    ({'from': 'human'}, 'turn 1: no value'),
    (
      {'from': 'human', 'value': 7},
      'turn 1: content is a number, expected text',
    ),
    (
      {'from': 'human', 'value': 'a', 'content': 'b'},
      'turn 1: has both value and content',
    ),
  ],
)
def test_malformed_turns(turn, error):
  with pytest.raises(Malformed) as raised:
    sharegpt.read({'conversations': [{'from': 'gpt', 'value': 'a'}, turn]})
  assert str(raised.value) == error


def test_a_system_that_is_no_text_is_malformed():
  with pytest.raises(Malformed, match=r'^system is an object, expected text$'):
    turns(('human', 'u'), system={'os': 'linux'})


@pytest.mark.parametrize(
  'row',
  [
    None,
    'conversations',
    {'conversations': []},
    {'conversations': [{'role': 'user', 'content': 'a'}]},
  ],
)
def test_rows_of_no_such_format(row):
  assert not sharegpt.matches(row)
  with pytest.raises(Malformed, match=r'^no turns: '):
    sharegpt.read(row)
