"""Trajectories that scaffolds wrote: nothing of them is lost."""

import json
import pathlib

import pytest

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.types import Provenance as P

FOLDER = pathlib.Path(__file__).parents[4] / 'shared' / 'trajectories'

pytestmark = pytest.mark.skipif(
  not FOLDER.is_dir(), reason=f'no real trajectories in {FOLDER}'
)


def raw(name):
  text = (FOLDER / name).read_text()
  if name.endswith('.jsonl'):
    return [json.loads(line) for line in text.splitlines()]
  value = json.loads(text)
  return value if isinstance(value, list) else [value]


def read(name, format='auto'):
  found = [*rows.read(FOLDER / name)]
  assert [row.error for row in found] == [''] * len(found)
  return [registry.read(r.value, 'x', format, Rules.default()) for r in found]


def calls(segment):
  """Names and arguments."""
  functions = [c['function'] for c in segment.fields.get('tool_calls', [])]
  return [(f['name'], f['arguments']) for f in functions]


@pytest.mark.parametrize(
  ('name', 'format', 'key', 'count'),
  [
    ('tau_bench_airline.jsonl', 'openai', 'messages', 50),
    ('glaive_toolcall_sharegpt.json', 'sharegpt', 'conversations', 150),
    ('swe_agent_function_calling.traj', 'swe_agent', 'history', 1),
    ('swe_agent_thought_action.traj', 'swe_agent', 'history', 1),
  ],
)
def test_every_row_and_every_turn_is_read(name, format, key, count):
  trajectories = read(name)
  assert len(trajectories) == count
  assert trajectories == read(name, format)
  turns = [len(row[key]) for row in raw(name)]
  assert [len(t.segments) for t in trajectories] == turns


@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('tau_bench_airline.jsonl', 'messages'),
    ('swe_agent_function_calling.traj', 'history'),
    ('swe_agent_thought_action.traj', 'history'),
  ],
)
def test_every_character_of_openai_s_messages_is_kept(name, key):
  nulls = 0
  for trajectory, row in zip(read(name), raw(name), strict=True):
    for segment, message in zip(trajectory.segments, row[key], strict=True):
      assert segment.text == (message['content'] or '')
      assert segment.role == message['role']
      called = [c['function'] for c in message.get('tool_calls') or []]
      assert calls(segment) == [
        (f['name'], json.loads(f['arguments'])) for f in called
      ]
      nulls += message['content'] is None
  assert nulls == (280 if name.startswith('tau') else 0)


def test_every_character_of_sharegpt_s_turns_is_kept():
  name = 'glaive_toolcall_sharegpt.json'
  roles = {'human': 'user', 'gpt': 'assistant', 'observation': 'tool'}
  for trajectory, row in zip(read(name), raw(name), strict=True):
    assert [*(trajectory.tools or [])] == json.loads(row['tools'] or '[]')
    pairs = zip(trajectory.segments, row['conversations'], strict=True)
    for segment, turn in pairs:
      if turn['from'] == 'function_call':
        call = json.loads(turn['value'])
        assert (segment.role, segment.text) == ('assistant', '')
        assert calls(segment) == [(call['name'], call['arguments'])]
      else:
        assert segment.role == roles[turn['from']]
        assert (segment.text, segment.fields) == (turn['value'], {})


ROLES = {
  'system': P.CONTEXT,
  'user': P.USER,
  'assistant': P.AGENT,
  'tool': P.TOOL,
}


@pytest.mark.parametrize(
  'name', ['tau_bench_airline.jsonl', 'glaive_toolcall_sharegpt.json']
)
def test_authors_of_conversations_follow_the_roles(name):
  for trajectory in read(name):
    for segment in trajectory.segments:
      assert segment.provenance == ROLES[segment.role]


def test_authors_where_a_tool_answers_as_a_tool():
  (trajectory,) = read('swe_agent_function_calling.traj')
  authors = [(s.role, s.provenance) for s in trajectory.segments]
  assert authors == [
    ('system', P.CONTEXT),
    ('user', P.CONTEXT),
    *[('assistant', P.AGENT), ('tool', P.TOOL)] * 11,
  ]


def test_authors_where_a_tool_answers_as_the_user():
  (trajectory,) = read('swe_agent_thought_action.traj')
  authors = [(s.role, s.provenance) for s in trajectory.segments]
  assert authors == [
    ('system', P.CONTEXT),
    ('user', P.CONTEXT),
    *[('assistant', P.AGENT), ('user', P.TOOL)] * 10,
    ('assistant', P.AGENT),
  ]
  assert {key for s in trajectory.segments for key in s.fields} == set()


def test_a_tool_s_answer_names_its_call():
  (trajectory,) = read('swe_agent_function_calling.traj')
  (row,) = raw('swe_agent_function_calling.traj')
  assert [s.fields.get('tool_call_id') for s in trajectory.segments] == [
    (message.get('tool_call_ids') or [None])[0] for message in row['history']
  ]
