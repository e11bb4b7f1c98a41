"""Files to rows: every row is read, or is there with its error."""

import json
import os

import fsspec
import pytest
from etils.epath import backend

from isft_jax.data.files import rows
from isft_jax.data.files.strict_json import NoJson

GONE = '; the rest of the file is not read'
TURN = {'role': 'user', 'content': 'a'}


def read(path, content):
  """Number, value and error of each row of a file of that content."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  found = [*rows.read(path)]
  assert all(row.file == str(path) for row in found)
  return [row[1:] for row in found]


# ---------------------------------------------------------------------- files


def test_files_of_a_path_a_folder_and_a_glob(tmp_path):
  names = ['b.jsonl', 'a.json', 'c.txt', 'd/e.traj', 'd/f/G.JSON', '.h/i.json']
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / 'folder.json').mkdir()

  def found(pattern):
    paths = rows.files(tmp_path / pattern)
    return [os.path.relpath(path, tmp_path) for path in paths]

  assert found('c.txt') == ['c.txt']
  assert found('.') == ['a.json', 'b.jsonl', 'd/e.traj', 'd/f/G.JSON']
  assert found('*') == ['a.json', 'b.jsonl']
  assert found('**/*.traj') == ['d/e.traj']
  assert found('**') == ['a.json', 'b.jsonl', 'd/e.traj', 'd/f/G.JSON']
  assert rows.files(str(tmp_path / 'a.json')) == [str(tmp_path / 'a.json')]


def test_files_that_are_read_with_archives_as_they_are(tmp_path):
  names = ['b.jsonl', 'a.zip', 'c.txt', 'd/e.traj.gz', '.h/i.json', 'f.json']
  names += ['prepare_report.json', 'config.json']
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"seed": 0, "model": 0, "mesh": 0}')
  (tmp_path / 'g.json').symlink_to(tmp_path / 'f.json')
  (tmp_path / 'folder.json').mkdir()
  assert rows.readable(tmp_path) == [
    str(tmp_path / name)
    for name in (
      *('a.zip', 'b.jsonl', 'config.json', 'd/e.traj.gz', 'f.json'),
      'prepare_report.json',
    )
  ]
  assert rows.readable(tmp_path / 'folder.json') == []


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
  (tmp_path / 'run[1].json').touch()
  found = rows.files(tmp_path / 'run[1].json')
  assert found == [str(tmp_path / 'run[1].json')]


def linked(folder, *links):
  """Two folders of files, and links: (name, target)."""
  for name in ('runs/a.jsonl', 'runs/day/b.jsonl', 'other/c.jsonl', 'blob'):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
  for name, target in links:
    (folder / name).symlink_to(target)


@pytest.mark.parametrize('pattern', ['runs', 'runs/**', 'runs/**/*.jsonl'])
@pytest.mark.parametrize(
  ('links', 'files'),
  [
    # Links to a folder above, of which two would have 2**40 paths.
    ([('runs/self', '.')], ['runs/a.jsonl', 'runs/day/b.jsonl']),
    (
      [('runs/self', '.'), ('runs/day/up', '..'), ('runs/day/self', '.')],
      ['runs/a.jsonl', 'runs/day/b.jsonl'],
    ),
    # A second name of a folder or a file, before or after the first.
    ([('runs/all', 'day')], ['runs/a.jsonl', 'runs/day/b.jsonl']),
    ([('runs/latest', 'day')], ['runs/a.jsonl', 'runs/day/b.jsonl']),
    (
      [('runs/0.jsonl', 'a.jsonl'), ('runs/z.jsonl', 'day/b.jsonl')],
      ['runs/a.jsonl', 'runs/day/b.jsonl'],
    ),
    # Names of what lies elsewhere are kept, one for each file.
    (
      [('runs/more', '../other'), ('runs/day/x.jsonl', '../../other/c.jsonl')],
      ['runs/a.jsonl', 'runs/day/b.jsonl', 'runs/day/x.jsonl'],
    ),
    (
      [('runs/x.jsonl', '../blob'), ('runs/y.jsonl', 'x.jsonl')],
      ['runs/a.jsonl', 'runs/day/b.jsonl', 'runs/x.jsonl'],
    ),
    # Links to nothing, and to themselves.
    (
      [('runs/gone.jsonl', 'absent'), ('runs/loop.jsonl', 'loop.jsonl')],
      ['runs/a.jsonl', 'runs/day/b.jsonl'],
    ),
  ],
)
def test_a_file_has_one_path_however_many_links_lead_to_it(
  links, files, pattern, tmp_path
):
  linked(tmp_path, *links)
  found = rows.files(tmp_path / pattern)
  assert [os.path.relpath(path, tmp_path) for path in found] == files


def test_a_link_as_the_input_is_what_it_leads_to(tmp_path):
  linked(tmp_path, ('now', 'runs'), ('c', 'other/c.jsonl'), ('runs/up', '..'))
  for pattern, files in {
    'now': ['now/a.jsonl', 'now/day/b.jsonl', 'now/up/other/c.jsonl'],
    'c': ['c'],
    '*/*.jsonl': ['other/c.jsonl', 'runs/a.jsonl'],
    '**/b.jsonl': ['runs/day/b.jsonl'],
    '**/day/**/*.jsonl': ['runs/day/b.jsonl'],
  }.items():
    found = rows.files(tmp_path / pattern)
    assert [os.path.relpath(path, tmp_path) for path in found] == files


def test_a_file_that_is_read_by_another_name_is_not_called_unread(tmp_path):
  linked(tmp_path, ('runs/x.jsonl', '../blob'), ('runs/self', '..'))
  (tmp_path / 'runs' / 'notes.txt').touch()
  (tmp_path / 'runs' / 'more.txt').symlink_to('notes.txt')
  assert rows.unread(tmp_path) == [str(tmp_path / 'runs' / 'notes.txt')]


@pytest.mark.parametrize('pattern', ['absent', '*.jsonl', 'empty', 'c*'])
def test_no_files_are_an_error_that_says_what_to_give(pattern, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'c.txt').touch()
  pattern = str(tmp_path / pattern)
  with pytest.raises(ValueError) as raised:
    rows.files(pattern)
  assert str(raised.value) == (
    f'no trajectories in {pattern!r}: give a file, a folder or a quoted glob '
    'with files that end in .json, .jsonl, .traj, .csv, .tsv, .parquet, '
    '.arrow, .eval, .zip; texts may also be compressed (.gz, .zst)'
  )


@pytest.mark.parametrize(
  ('files', 'stems'),
  [
    (['/r/a.json'], ['a']),
    (['/r/a.json', '/r/d/b.jsonl'], ['a', 'd/b']),
    (['a.json', 'b.c.json'], ['a', 'b.c']),
    (['gs://r/a.json', 'gs://r/d/b.json'], ['a', 'd/b']),
    (['hf://org/name:train'], ['org/name:train']),
  ],
)
def test_what_rows_without_an_id_are_named_after(files, stems):
  assert rows.stems(files) == stems


def test_remote_paths(monkeypatch):
  """Through etils.epath; here, a bucket in memory."""
  bucket = fsspec.filesystem('memory')
  monkeypatch.setattr(
    type(backend.fsspec_backend), '_get_filesystem', lambda *_: bucket
  )
  for name in ('b.jsonl', 'd/a.json', '.h/c.json', 'e.txt'):
    bucket.pipe(f'gs://bucket/runs/{name}', b'[{"a": "\xff"}, 1]')
  base = 'gs://bucket/runs'
  assert rows.files(base) == [f'{base}/b.jsonl', f'{base}/d/a.json']
  assert rows.files(f'{base}/*.jsonl') == [f'{base}/b.jsonl']
  assert rows.files(f'{base}/d/a.json') == [f'{base}/d/a.json']
  assert rows.size(f'{base}/b.jsonl') == 15
  assert [row.value for row in rows.read(f'{base}/d/a.json')] == [None, 1]
  with pytest.raises(ValueError, match=r'name the folder; \*\* is for local'):
    rows.files(f'{base}/**/*.json')
  with pytest.raises(ValueError, match="no trajectories in 'gs://bucket/n"):
    rows.files('gs://bucket/none')
  assert rows.readable(base) == [f'{base}/b.jsonl', f'{base}/d/a.json']
  assert rows.readable('gs://bucket/none') == []


# ----------------------------------------------------------------------- rows

LONG = 'x' * 1_000_000
SURROGATE = 'Not text that can be encoded: a lone surrogate at character'


@pytest.mark.parametrize(
  ('line', 'error'),
  [
    ('{"a": ', 'Expecting value at character 6'),
    ('{"a": "\0"}', 'Invalid control character at character 8'),
    (b'{"a": "\xff"}', 'Byte 0xff is not UTF-8 at character 8'),
    (r'{"a": "\ud800"}', f'{SURROGATE} 8'),
    ('[' * 10_000, 'Nested deeper than 256 levels at character 1'),
    ('{} {}', 'More text after the value at character 3'),
    ('{"a": "' + LONG, 'Unterminated string starting at character 7'),
    ('\u2028', 'Expecting value at character 1'),
  ],
)
def test_a_bad_line_is_one_error_between_good_rows(line, error, tmp_path):
  line = line if isinstance(line, bytes) else line.encode()
  content = b'{"a": 1}\n' + line + b'\n\n{"b": "\xe2\x80\xa8"}\r\n'
  assert read(tmp_path / 'x.jsonl', content) == [
    (1, {'a': 1}, ''),
    (2, None, error),
    (4, {'b': '\u2028'}, ''),
  ]


def test_a_long_line_a_byte_order_mark_and_a_missing_newline(tmp_path):
  long = json.dumps(LONG)
  content = '\ufeff\n \t\n{"a": 1}\n' + long
  assert read(tmp_path / 'x.jsonl', content) == [
    (3, {'a': 1}, ''),
    (4, LONG, ''),
  ]
  assert read(tmp_path / 'x.jsonl', '\ufeff1') == [(1, 1, '')]
  assert read(tmp_path / 'x.json', '\ufeff[1]') == [(1, 1, '')]
  assert read(tmp_path / 'x.jsonl', '') == []


@pytest.mark.parametrize(
  ('content', 'expected'),
  [
    # An array of rows.
    ('[{"a": 1},\n {"a": 2}]', [(1, {'a': 1}, ''), (2, {'a': 2}, '')]),
    ('[]', []),
    (
      r'[{"a": 1}, {"\ud800": 2}, {"a": 3}, {"a"',
      [
        (1, {'a': 1}, ''),
        (2, None, f'{SURROGATE} 14'),
        (3, {'a': 3}, ''),
        (4, None, f"Expecting ':' delimiter at character 41{GONE}"),
      ],
    ),
    (
      b'[{"a": 1}, {"a": "\xff"}, {"a": 3}]',
      [
        (1, {'a': 1}, ''),
        (2, None, 'Byte 0xff is not UTF-8 at character 19'),
        (3, {'a': 3}, ''),
      ],
    ),
    # One row.
    ('{\n "a": 1\n}\n', [(1, {'a': 1}, '')]),
    ('{"a":\n{}\n}', [(1, {'a': {}}, '')]),
    ('12', [(1, 12, '')]),
    ('', [(1, None, 'The file is empty')]),
    (
      '{"a": 1} x',
      [
        (1, {'a': 1}, ''),
        (2, None, f'More text after the end at character 10{GONE}'),
      ],
    ),
    # A row a line.
    ('{"a": 1}\n\n{"a": 2}\n', [(1, {'a': 1}, ''), (3, {'a': 2}, '')]),
    ('[1]\n[2]', [(1, [1], ''), (2, [2], '')]),
    (
      '{"a": 1}\n{"a": \n{"a": 3}',
      [
        (1, {'a': 1}, ''),
        (2, None, 'Expecting value at character 6'),
        (3, {'a': 3}, ''),
      ],
    ),
    (
      '{"a" 1}\n{"a": 2}\n',
      [
        (1, None, "Expecting ':' delimiter at character 6"),
        (2, {'a': 2}, ''),
      ],
    ),
    # Chat messages: one row.
    (json.dumps([TURN, TURN]), [(1, [TURN, TURN], '')]),
    (
      '[{"from": "human", "value": "a"}]',
      [(1, [{'from': 'human', 'value': 'a'}], '')],
    ),
    (
      '[{"role": "assistant", "tool_calls": []}, 7]',
      [(1, [{'role': 'assistant', 'tool_calls': []}, 7], '')],
    ),
    (
      r'[{"role": "user", "content": "a"}, "\ud800", {"role"',
      [(1, None, f'{SURROGATE} 37')],
    ),
    (
      '[{"role": "user", "messages": []}]',
      [(1, {'role': 'user', 'messages': []}, '')],
    ),
  ],
)
@pytest.mark.parametrize('name', ['x.json', 'x.traj', 'x.txt'])
def test_rows_of_a_file_that_is_not_called_jsonl(
  content, expected, name, tmp_path
):
  assert read(tmp_path / name, content) == expected


@pytest.mark.parametrize('name', ['x.json', 'x.jsonl'])
@pytest.mark.parametrize('number', ['NaN', 'Infinity', '-Infinity', '1e999'])
def test_numbers_that_json_lacks_are_kept_as_such(number, name, tmp_path):
  rest = f'{{"messages": [], "rewards": [1.5, {number}]}}'
  assert read(tmp_path / name, rest) == [
    (1, {'messages': [], 'rewards': [1.5, NoJson(number)]}, '')
  ]


@pytest.mark.parametrize(
  'event',
  [
    {'id': 0, 'source': 'user', 'action': 'message', 'args': {}},  # OpenHands
    {'id': 0, 'source': 'agent', 'observation': 'run', 'content': ''},
    {'kind': 'SystemPromptEvent', 'source': 'agent'},
    {'role': 'user', 'parts': [{'text': 'a'}]},  # Gemini
    {'type': 'human', 'data': {'content': 'a'}},  # LangChain
    {'type': 'ai', 'content': 'a'},
    {'lc': 1, 'type': 'constructor', 'id': [], 'kwargs': {}},
    {'type': 'TextMessage', 'source': 'user', 'content': 'a'},  # AutoGen
    {'type': 'reasoning', 'summary': []},  # Responses
    {'type': 'user', 'sessionId': 's', 'message': {}},  # Claude Code
    {'type': 'response_item', 'payload': {}},  # Codex
  ],
)
def test_an_array_of_events_is_one_row(event, tmp_path):
  content = json.dumps([event, {'x': 1}])
  assert read(tmp_path / 'x.json', content) == [(1, [event, {'x': 1}], '')]


@pytest.mark.parametrize(
  'row',
  [
    {'type': 'chat', 'messages': []},
    {'type': 'reasoning', 'messages': []},
    {'source': 'gpt', 'content': 'a'},
    {'role': 'user'},
  ],
)
def test_an_array_of_other_objects_is_a_row_for_each(row, tmp_path):
  content = json.dumps([row, row])
  assert read(tmp_path / 'x.json', content) == [(1, row, ''), (2, row, '')]


@pytest.mark.parametrize('name', ['x.json', 'x.jsonl'])
def test_a_file_that_cannot_be_opened_is_no_row(name, tmp_path):
  with pytest.raises(OSError):
    [*rows.read(tmp_path / name)]
