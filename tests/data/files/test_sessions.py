"""Session files of Claude Code and Codex: one row per trajectory.

A table below has a line of a file per line, and the row that gets it: the
number of the row's first line, and '-' for a line that is in no row.
"""

import gzip
import json
import random
import tracemalloc

import pytest

from isft_jax.data.files import rows, sessions

GONE = 'the rest of the file is not read'


def claude(uuid, parent=None, session='s', **more):
  return {
    'type': 'user',
    'uuid': uuid,
    'parentUuid': parent,
    'isSidechain': False,
    'sessionId': session,
    'message': {'role': 'user', 'content': 'a'},
    **more,
  }


def side(uuid, parent=None, session='s', **more):
  return claude(uuid, parent, session, isSidechain=True, **more)


def streamed(type, caller=None, session='s', **more):
  """A line of claude --output-format stream-json."""
  return {
    'type': type,
    'session_id': session,
    'parent_tool_use_id': caller,
    **more,
  }


def codex(type, /, **payload):
  return {'timestamp': 't', 'type': type, 'payload': payload}


SUMMARY = {'type': 'summary', 'summary': 'x', 'leafUuid': 'y'}
SNAPSHOT = {'type': 'file-history-snapshot', 'messageId': 'm', 'snapshot': {}}
ITEM = codex('response_item', type='message', role='user', content=[])
OLD_META = {'id': 'i', 'timestamp': 't', 'instructions': None, 'git': {}}
OLD_ITEM = {'type': 'message', 'role': 'user', 'content': []}
ROW = {'messages': [{'role': 'user', 'content': 'a'}]}


def queue(session):
  return {'type': 'queue-operation', 'sessionId': session, 'operation': 'x'}


def read(path, lines):
  """Number, value and error of each row of a file with these lines."""
  text = '\n'.join(x if isinstance(x, str) else json.dumps(x) for x in lines)
  path.write_text(text + '\n')
  return [row[1:] for row in rows.read(path)]


TABLES = {
  'one session with lines about it': [
    (SUMMARY, 1),
    (SNAPSHOT, 1),
    (queue('s'), 1),
    (claude('a'), 1),
    (claude('b', 'a', type='assistant'), 1),
    (claude('c', 'b', type='system', message=None), 1),
    (SNAPSHOT, 1),
    ({'type': 'custom-title', 'sessionId': 's', 'customTitle': 'x'}, 1),
  ],
  'sidechains by agentId, which interleave': [
    (claude('a'), 1),
    (side('b', agentId='1'), 2),
    (side('c', agentId='2'), 3),
    (side('d', 'b', agentId='1'), 2),
    (claude('e', 'a'), 1),
    (side('f', 'c', agentId='2'), 3),
    (SNAPSHOT, 3),
    (queue('s'), 1),
  ],
  'sidechains by parentUuid, as older versions have them': [
    (claude('a'), 1),
    (side('b'), 2),
    (side('c', 'a'), 3),  # begins at an event of the main chain
    (side('d', 'b'), 2),
    (side('e', 'c'), 3),
    (claude('f', 'a'), 1),
    (side('g', 'd'), 2),
  ],
  'a file of an agent': [
    (side('a', agentId='1'), 1),
    (queue('s'), 1),
    (side('b', 'a', agentId='1'), 1),
  ],
  'several sessions': [
    (queue('s'), 1),
    (claude('a'), 1),
    (queue('t'), 3),
    (claude('b', session='t'), 3),
    (SUMMARY, 3),
    (claude('c', 'a'), 1),
    (side('d', session='t'), 7),
    (claude('e', 'b', 't'), 3),
  ],
  'a session that was resumed under another id': [
    (claude('a'), 1),
    (claude('b', 'a', 't'), 1),
    (claude('c', None, 't'), 1),
    (claude('d', None, 'u'), 4),
  ],
  'messages without uuid or session': [
    (claude('a', session=None), 1),
    (claude('b', 'a', session=None), 1),
    ({'type': 'assistant', 'sessionId': 's', 'message': {}}, 3),
    ({'type': 'assistant', 'sessionId': 't', 'message': {}}, 4),
  ],
  'lines about a session and nothing else': [(SUMMARY, 1), (queue('s'), 1)],
  'stream-json': [
    (streamed('system', subtype='init', tools=['x']), 1),
    (streamed('assistant', message={}), 1),
    (streamed('user', 'call', message={}), 3),
    (streamed('assistant', 'call', message={}), 3),
    (streamed('result', subtype='success', uuid='u'), 1),
  ],
  'a rollout of Codex': [
    (codex('session_meta', id='i'), 1),
    (ITEM, 1),
    (codex('turn_context', cwd='/'), 1),
    (codex('event_msg', type='agent_message'), 1),
    (codex('something_new'), 1),
    (codex('session_meta', id='i'), 1),  # of the same session
  ],
  'two rollouts': [
    (codex('session_meta', id='i'), 1),
    (ITEM, 1),
    (codex('session_meta', id='j'), 3),
    (ITEM, 3),
  ],
  'a fork with the metadata of its parent': [
    (codex('session_meta', id='i', forked_from_id='j'), 1),
    (codex('session_meta', id='j'), 1),
    (ITEM, 1),
    (codex('session_meta', id='j'), 4),
    (ITEM, 4),
  ],
  'a rollout without its first line': [(ITEM, 1), (ITEM, 1)],
  'the oldest rollouts, with bare items': [
    (OLD_META, 1),
    (OLD_ITEM, 1),
    ({'record_type': 'state'}, 1),
    ({'type': 'function_call_output', 'call_id': 'c', 'output': ''}, 1),
    (OLD_META, 5),
    (OLD_ITEM, 5),
    (ROW, 7),
  ],
  'other rows between events': [
    (ROW, 1),
    (claude('a'), 2),
    (ROW, 3),
    (7, 4),
    (claude('b', 'a'), 2),
    (codex('session_meta', id='i'), 6),
    (ROW, 7),
    (ITEM, 6),
  ],
}


@pytest.mark.parametrize('name', ['x.jsonl', 'x.txt'])
@pytest.mark.parametrize('table', TABLES.values(), ids=TABLES)
def test_the_row_of_each_line(table, name, tmp_path):
  numbers = sorted({number for _, number in table})
  expected = []
  for number in numbers:
    events = [line for line, n in table if n == number]
    alone = events in ([ROW], [7])
    expected.append((number, events[0] if alone else events, ''))
  assert read(tmp_path / name, [line for line, _ in table]) == expected


@pytest.mark.parametrize(
  'line',
  [
    ROW,
    {'type': 'chat', 'sessionId': 's', 'messages': []},
    {'type': 'chat', 'uuid': 'u', 'messages': []},
    {'type': 'user', 'message': 'a'},
    {'type': 'message', 'role': 'user', 'content': 'a'},
    {'type': ['user'], 'sessionId': 's'},
    {'payload': {}, 'timestamp': 't'},
    {'type': 'x', 'payload': {}},
    {**OLD_META, 'text': 'User: a'},
    {'sessionId': 's'},
    [claude('a')],
    7,
    None,
  ],
)
def test_other_rows_stay_lines(line, tmp_path):
  assert not sessions.is_event(line)
  assert read(tmp_path / 'x.jsonl', [line, line]) == [
    (1, line, ''),
    (2, line, ''),
  ]


def test_a_file_that_begins_with_other_rows_stays_lines(tmp_path):
  lines = [*[ROW] * 8, claude('a'), claude('b', 'a')]
  assert [row[1] for row in read(tmp_path / 'x.jsonl', lines)] == lines


# A line that cannot be read.
BAD = '{"type": "user", '
WHY = 'Expecting property name enclosed in double quotes at character 17'


def test_an_unreadable_line_spoils_the_trajectories_around_it(tmp_path):
  lines = [
    claude('a'),  # 1, 3, 7, 9
    side('b', agentId='1'),  # 2, 4: ends before it
    claude('c', 'a'),
    side('d', 'b', agentId='1'),
    side('e', agentId='2'),  # 5, 8
    BAD,
    claude('f', 'c'),
    side('g', 'e', agentId='2'),
    claude('h', 'f'),
    BAD,  # 10: in no trajectory
    claude('i', session='t'),
  ]
  assert read(tmp_path / 'x.jsonl', lines) == [
    (1, None, f'line 6: {WHY}'),
    (2, [lines[1], lines[3]], ''),
    (5, None, f'line 6: {WHY}'),
    (10, None, WHY),
    (11, [lines[10]], ''),
  ]


def test_an_unreadable_line_at_either_end(tmp_path):
  lines = [BAD, claude('a'), claude('b', 'a'), BAD]
  assert read(tmp_path / 'x.jsonl', lines) == [
    (1, None, WHY),
    (2, lines[1:3], ''),
    (4, None, WHY),
  ]


@pytest.mark.parametrize('seed', range(30))
def test_every_line_is_in_one_row_whatever_their_order(seed, tmp_path):
  dice = random.Random(seed)
  table = [line for table in TABLES.values() for line, _ in table if line != 7]
  lines = [{**line, 'n': n} for n, line in enumerate(dice.sample(table, 60))]
  found = read(tmp_path / 'x.jsonl', lines)
  numbers = [number for number, _, _ in found]
  assert numbers == sorted(set(numbers)) and len(numbers) < 60
  values = []
  for number, value, error in found:
    row = value if isinstance(value, list) else [value]
    assert (row[0]['n'], error) == (number - 1, '')
    values += row
  assert sorted(value['n'] for value in values) == [*range(60)]


def test_blank_lines_are_counted(tmp_path):
  lines = ['', claude('a'), '', '', claude('b', 'a'), '']
  assert read(tmp_path / 'x.jsonl', lines) == [(2, [lines[1], lines[4]], '')]


def test_a_compressed_session_and_its_damage(tmp_path):
  lines = [claude(f'{i}', f'{i - 1}', note='x' * 99) for i in range(999)]
  whole = gzip.compress('\n'.join(map(json.dumps, lines)).encode())
  path = tmp_path / 'x.jsonl.gz'
  path.write_bytes(whole)
  assert [row[1:] for row in rows.read(path)] == [(1, lines, '')]
  path.write_bytes(whole[:-9])
  first, last = rows.read(path)
  assert first.value == lines[: last.number - 1]
  assert last.value is None and last.error.endswith(GONE)


@pytest.mark.parametrize('key', ['sessionId', 'uuid', 'parentUuid', 'agentId'])
@pytest.mark.parametrize('value', [None, 1, [1], {'a': 1}, True])
def test_ids_of_any_type_lose_no_line(key, value, tmp_path):
  lines = [side('a', agentId='1'), side('b', 'a', agentId='1')]
  lines += [{**line, key: value} for line in lines] + [claude('c')]
  found = read(tmp_path / 'x.jsonl', lines)
  values = []
  for _, row, error in found:
    assert not error
    values += row if isinstance(row, list) else [row]
  assert len(values) == len(lines)


def test_a_file_that_changes_between_the_two_passes(tmp_path):
  first = [(1, claude('a'), ''), (2, claude('b', 'a'), '')]
  passes = iter([first, first[:1]])
  assert [*sessions.rows(lambda: iter(next(passes)))] == [
    (1, [first[0][1]], 'The file has changed while it was read')
  ]
  more = [*first, (3, claude('c', 'b'), '')]
  passes = iter([first, more])
  assert [*sessions.rows(lambda: iter(next(passes)))] == [
    (1, [first[0][1], first[1][1]], ''),
    (3, more[2][1], ''),
  ]


def test_memory_holds_one_session_of_many(tmp_path):
  path = tmp_path / 'x.jsonl'
  with path.open('w') as file:
    for session in range(100):
      for i in range(20):
        line = claude(f'{session} {i}', None, f'{session}', note='x' * 10_000)
        file.write(json.dumps(line) + '\n')
  tracemalloc.start()
  assert sum(len(row.value) for row in rows.read(path)) == 2_000
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert path.stat().st_size > 20_000_000
  assert peak < 2_000_000
