"""SWE-agent: one role, `user`, for the task, for outputs and for warnings."""

import pytest

from isft_jax.data.formats import swe_agent
from isft_jax.data.messages.conversation import Malformed
from isft_jax.types import Provenance as P

# role, message_type, is_demo and the author that follows; None is the role's.
TYPED = [
  ('system', 'system_prompt', None, P.CONTEXT),
  ('user', 'demonstration', True, P.DEMONSTRATION),
  ('user', 'observation', None, P.CONTEXT),  # the task
  ('assistant', 'action', None, None),
  ('user', 'observation', None, P.TOOL),
  ('assistant', 'thought', None, None),
  ('tool', 'observation', None, P.TOOL),
  ('assistant', 'assistant', False, None),
  ('user', 'user', None, P.HARNESS),  # asks again after a bad format
  ('user', 'no such type', None, P.TOOL),
]
# Demonstrations step by step: their actions are not the agent's first.
DEMOS = [
  ('system', None, None, None),
  ('user', None, True, P.DEMONSTRATION),
  ('assistant', 'action', True, P.DEMONSTRATION),
  ('user', 'observation', True, P.DEMONSTRATION),
  ('assistant', 'demonstration', None, P.DEMONSTRATION),
  ('user', 'observation', None, P.CONTEXT),
  ('user', None, False, P.CONTEXT),
  ('assistant', None, None, None),
  ('user', None, None, P.TOOL),
  ('tool', None, None, None),
]
# The agent begins.
FIRST = [
  ('assistant', 'action', None, None),
  ('user', 'observation', None, P.TOOL),
]


@pytest.mark.parametrize('table', [TYPED, DEMOS, FIRST])
@pytest.mark.parametrize('key', ['history', 'messages', ''])
def test_authors(table, key):
  history = [
    {'role': role, 'content': str(i), 'message_type': named, 'is_demo': demo}
    for i, (role, named, demo, _) in enumerate(table)
  ]
  row = {key: history, 'info': {'exit_status': 'submitted'}} if key else history
  assert swe_agent.matches(row)
  chat = swe_agent.read(row)
  assert [turn.author for turn in chat.turns] == [by for *_, by in table]
  assert [turn.message for turn in chat.turns] == [
    {'role': role, 'content': str(i)} for i, (role, *_) in enumerate(table)
  ]
  assert [turn.raw for turn in chat.turns] == history
  assert chat.metadata == ({'info': row['info']} if key else {})
  assert chat.tools is None


def test_what_reaches_a_template():
  call = {'id': 'c', 'function': {'name': 'f', 'arguments': '{"x": 1}'}}
  action = {
    'role': 'assistant',
    'content': [{'type': 'text', 'text': 'I look.'}],
    'thought': 'I look.',
    'action': 'ls',
    'agent': 'main',
    'message_type': 'action',
    'tool_calls': [call],
    'thinking_blocks': [{'type': 'thinking'}],
    'reasoning_content': 'why',
    'cache_control': {'type': 'ephemeral'},
    'tags': [],
    'verdict': 'right',
  }
  output = {
    'role': 'tool',
    'content': 'a.py',
    'name': 'f',
    'message_type': 'observation',
    'tool_call_ids': ['c'],
    'agent': 'main',
  }
  kept = {'role': 'tool', 'content': 'b', 'tool_call_id': 'c', 'agent': 'main'}
  chat = swe_agent.read({'history': [action, output, kept]})
  parsed = {'id': 'c', 'function': {'name': 'f', 'arguments': {'x': 1}}}
  assert [turn.message for turn in chat.turns] == [
    {
      'role': 'assistant',
      'content': 'I look.',
      'tool_calls': [parsed],
      'reasoning_content': 'why',
    },
    {'role': 'tool', 'content': 'a.py', 'name': 'f', 'tool_call_id': 'c'},
    {'role': 'tool', 'content': 'b', 'tool_call_id': 'c'},
  ]


USER = {'role': 'user', 'content': 'a'}


@pytest.mark.parametrize(
  ('row', 'matches'),
  [
    ({'history': [{**USER, 'message_type': 'observation'}]}, True),
    ({'history': [{**USER, 'agent': 'primary'}]}, True),
    ({'history': [{**USER, 'is_demo': True}]}, True),
    ({'messages': [USER, {**USER, 'message_type': 'action'}]}, True),
    # Histories of chats, whose user is a user.
    ({'history': [USER]}, False),
    ({'messages': [{**USER, 'message_type': 'user'}]}, False),
    ({'messages': [{**USER, 'agent': 'primary'}]}, False),
    ({'history': [['a', 'b']]}, False),
    ({'history': []}, False),
    ([], False),
    (7, False),
  ],
)
def test_only_what_bears_the_scaffold_s_own_words_matches(row, matches):
  assert swe_agent.matches(row) == matches


def test_asked_for_by_name_any_history_is_read():
  chat = swe_agent.read({'history': [USER]})
  assert [turn.author for turn in chat.turns] == [P.CONTEXT]


@pytest.mark.parametrize(
  ('fields', 'error'),
  [
    ({'role': None}, 'turn 1: role is null, expected a name'),
    ({'content': 7}, 'turn 1: content is a number, expected text'),
    ({'tool_call_ids': [7]}, 'turn 1: tool_call_ids is a list, expected names'),
    ({'tool_call_ids': 7}, 'turn 1: tool_call_ids is a number, expected names'),
  ],
)
def test_malformed_turns(fields, error):
  with pytest.raises(Malformed) as raised:
    swe_agent.read({'history': [USER, {**USER, **fields}]})
  assert str(raised.value) == error


@pytest.mark.parametrize('row', [None, {'history': []}, {'trajectory': [USER]}])
def test_a_row_without_a_history(row):
  with pytest.raises(
    Malformed, match=r'^no turns: .* under history, messages;'
  ):
    swe_agent.read(row)
