"""OpenAI's messages, wherever a row keeps them."""

import pytest

from isft_jax.data.formats import openai
from isft_jax.data.messages.conversation import Malformed

CALLS = [
  {'id': 'a', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}},
  {'id': 'b', 'type': 'function', 'function': {'name': 'g', 'arguments': {}}},
]
PARSED = [
  {'id': 'a', 'type': 'function', 'function': {'name': 'f', 'arguments': {}}},
  CALLS[1],
]
FOUND = [
  {'role': 'developer', 'content': 'd'},
  {'role': 'user', 'content': [{'type': 'text', 'text': 'u'}]},
  {'role': 'assistant', 'content': None, 'tool_calls': CALLS},
  {'role': 'tool', 'content': '1', 'tool_call_id': 'a', 'name': None},
  {'role': 'tool', 'content': '2', 'tool_call_id': 'b'},
  {'role': 'assistant', 'content': 'a', 'reasoning_content': 'r'},
  {'role': 'critic', 'content': 'c', 'author': 'user'},
]
MESSAGES = [
  {'role': 'developer', 'content': 'd'},
  {'role': 'user', 'content': 'u'},
  {'role': 'assistant', 'content': '', 'tool_calls': PARSED},
  {'role': 'tool', 'content': '1', 'tool_call_id': 'a'},
  {'role': 'tool', 'content': '2', 'tool_call_id': 'b'},
  {'role': 'assistant', 'content': 'a', 'reasoning_content': 'r'},
  {'role': 'critic', 'content': 'c'},
]


@pytest.mark.parametrize(
  ('row', 'metadata'),
  [
    ({'messages': FOUND, 'id': 7}, {'id': 7}),
    ({'traj': FOUND, 'reward': 1.0, 'messages': None}, 'reward messages'),
    ({'conversation': FOUND}, {}),
    ({'conversations': FOUND}, {}),
    (FOUND, {}),
  ],
)
def test_turns(row, metadata):
  assert openai.matches(row)
  chat = openai.read(row)
  assert [turn.message for turn in chat.turns] == MESSAGES
  assert [turn.author for turn in chat.turns] == [None] * 7
  assert [turn.raw for turn in chat.turns] == FOUND
  if isinstance(metadata, str):
    metadata = {key: row[key] for key in metadata.split()}
  assert chat.metadata == metadata
  assert chat.tools is None


@pytest.mark.parametrize(
  'row',
  [
    None,
    7,
    'messages',
    [],
    {},
    {'messages': []},
    {'messages': {'role': 'user'}},
    {'conversations': [{'from': 'human', 'value': 'a'}]},
    {'notes': FOUND},
  ],
)
def test_rows_of_no_such_format(row):
  assert not openai.matches(row)
  with pytest.raises(Malformed, match=r'^no turns: expected a list'):
    openai.read(row)


def test_a_turn_that_cannot_be_read_is_named():
  with pytest.raises(Malformed) as raised:
    openai.read([*FOUND, {'role': 'user', 'content': 7}])
  assert str(raised.value) == 'turn 7: content is a number, expected text'


def test_a_rows_own_system_prompt_is_its_first_turn():
  """Some store it beside the messages. Left there, it would not be said."""
  row = {'system': 'Be brief.', 'messages': FOUND[1:2], 'id': 7}
  chat = openai.read(row)
  assert [turn.message for turn in chat.turns] == [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'u'},
  ]
  assert chat.metadata == {'id': 7}
  assert row['system'] == 'Be brief.'
  with pytest.raises(Malformed, match='system is a number, expected text'):
    openai.read({'system': 7, 'messages': FOUND})


@pytest.mark.parametrize('key', openai.KEYS)
def test_messages_under_any_key_of_a_conversation(key):
  chat = openai.read({key: FOUND, 'reward': 1})
  assert [turn.message for turn in chat.turns] == MESSAGES
  assert chat.metadata == {'reward': 1}


@pytest.mark.parametrize(
  ('rest', 'is_whole'),
  [
    ({'answer': '4'}, True),
    ({'completion': ''}, True),
    # A repeated question.
    ({'question': 'u'}, True),
    ({'question': 'v'}, False),
    ({'output': {'score': 1}}, True),
    ({'output': {'role': 'assistant', 'content': 'a'}}, False),
    ({'response': 'It is 4.'}, False),
    ({'chosen': [FOUND[5]], 'rejected': [FOUND[5]]}, False),
  ],
)
def test_a_beginning_without_its_end_is_malformed(rest, is_whole):
  row = {'prompt': [{'role': 'user', 'content': [{'text': 'So: u'}]}], **rest}
  if is_whole:
    assert openai.read(row).metadata == rest
    return
  with pytest.raises(Malformed, match=r'^prompt may be only the beginning: '):
    openai.read(row)


@pytest.mark.parametrize(
  ('first', 'roles', 'metadata'),
  [
    ({'role': 'user', 'content': 'u'}, ['system', 'user'], {}),
    ({'role': 'system', 'content': 'Be brief.'}, ['system'], {}),
    (
      {'role': 'system', 'content': 'Be nice.'},
      ['system'],
      {'system_prompt': 'Be brief.'},
    ),
  ],
)
def test_a_system_prompt_beside_messages(first, roles, metadata):
  """That of the messages counts, and the other one is reported."""
  chat = openai.read({'system_prompt': 'Be brief.', 'messages': [first]})
  assert [turn.message['role'] for turn in chat.turns] == roles
  assert chat.metadata == metadata


def call(name, **fields):
  content = f'{{"name": "{name}", "arguments": {{}}}}'
  return {'role': 'tool_call', 'content': content, **fields}


def test_parallel_calls_are_one_turn_of_the_agent():
  found = [
    {'role': 'user', 'content': 'u'},
    {'role': 'assistant', 'content': 'a'},
    call('f'),
    call('g'),
    {'role': 'tool_response', 'content': '1'},
    {'role': 'tool_response', 'content': '2'},
    call('h', author='demonstration'),
    call('i'),
  ]
  turns = openai.read(found).turns
  assert [
    (
      turn.message['role'],
      turn.message['content'],
      [c['function']['name'] for c in turn.message.get('tool_calls', [])],
    )
    for turn in turns
  ] == [
    ('user', 'u', []),
    ('assistant', 'a', ['f', 'g']),
    ('tool', '1', []),
    ('tool', '2', []),
    ('assistant', '', ['h']),
    ('assistant', '', ['i']),
  ]
