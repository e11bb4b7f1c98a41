"""Logs of many runs: one row per run, with what the file says of all."""

import gzip
import json
import tracemalloc

import pytest

from isft_jax.data.files import rows
from tests.data.files.packing import zip_of, zip_of_zstd

NAN = float('nan')  # which json.dumps writes
TURNS = [{'role': 'user', 'content': 'a'}]
GONE = '; the rest of the file is not read'


def read(path, value):
  path.write_text(json.dumps(value))
  return [row[1:] for row in rows.read(path)]


@pytest.mark.parametrize('name', ['x.json', 'x.txt'])
@pytest.mark.parametrize(
  ('document', 'expected'),
  [
    # tau2-bench.
    (
      {
        'timestamp': 't',
        'info': {'seed': 1},
        'tasks': [{'id': '1'}],
        'simulations': [{'id': 's', 'messages': TURNS}, {'id': 't'}, 7],
      },
      [
        {'id': 's', 'messages': TURNS, 'info': {'seed': 1}},
        {'id': 't', 'info': {'seed': 1}},
        7,
      ],
    ),
    ({'tasks': [], 'simulations': [{'id': 's'}]}, [{'id': 's'}]),
    # inspect_ai.
    (
      {
        'version': 2,
        'status': 'success',
        'eval': {'task': 'x'},
        'samples': [{'id': 1, 'messages': TURNS}, {'id': 2}],
      },
      [
        {'id': 1, 'messages': TURNS, 'eval': {'task': 'x'}},
        {'id': 2, 'eval': {'task': 'x'}},
      ],
    ),
    ({'version': 2, 'status': 'x', 'samples': [{'id': 1}]}, [{'id': 1}]),
    # Logs in an array.
    (
      [{'eval': 1, 'samples': [{}]}, {'eval': 2, 'samples': [{}, {}]}],
      [{'eval': 1}, {'eval': 2}, {'eval': 2}],
    ),
    # One row: lists of such a name that hold no runs, or not for this format.
    *(
      (document, [document])
      for document in (
        {'messages': TURNS, 'samples': [{}]},
        {'messages': TURNS, 'simulations': [{}]},
        {'eval': {}, 'samples': [1, 2]},
        {'eval': {}, 'samples': []},
        {'eval': {}, 'samples': None},
        {'info': {}, 'simulations': {'a': {}}},
      )
    ),
  ],
)
def test_a_document_with_many_runs_is_a_row_for_each(
  document, expected, name, tmp_path
):
  assert read(tmp_path / name, document) == [
    (number, value, '') for number, value in enumerate(expected, 1)
  ]


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize(
  'document',
  [
    {'info': {'a': [NAN]}, 'tasks': [1], 'simulations': [{'id': 1}, 7, {}]},
    {'eval': {'a': {}}, 'plan': {}, 'samples': [{'id': 1}, {'id': 2}]},
    {'version': 2, 'status': 's', 'samples': [{'id': 1, 'x': NAN}]},
    {'eval': 1, 'simulations': [{}], 'samples': [{'id': 1}]},
    {'info': 1, 'simulations': 'a', 'samples': [], 'a,]}': {'"': '\\"}'}},
    {'info': 1, 'simulations': [], 'eval': 2, 'samples': [1]},
    {'samples': [{'id': 1}]},
    {'messages': [{'role': 'user', 'content': 'a'}]},
    {},
  ],
)
def test_a_large_document_has_the_same_rows(
  document, reverse, tmp_path, monkeypatch
):
  if reverse:
    document = dict(reversed(document.items()))
  small = read(tmp_path / 'x.json', document)
  monkeypatch.setattr(rows, '_LARGE', 1)
  monkeypatch.setattr(rows, '_CHUNK', 2)
  assert read(tmp_path / 'x.json', document) == small
  packed = gzip.compress((tmp_path / 'x.json').read_bytes())
  (tmp_path / 'x.json.gz').write_bytes(packed)
  assert [row[1:] for row in rows.read(tmp_path / 'x.json.gz')] == small


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (
      '{"eval": 1, "samples": [{}, {"a" 1}, {}]}',
      [
        (1, {'eval': 1}, ''),
        (2, None, f"Expecting ':' delimiter at character 34{GONE}"),
      ],
    ),
    (
      r'{"eval": 1, "samples": [{}, {"a": "\ud800"}, {}]}',
      [
        (1, {'eval': 1}, ''),
        (2, None, 'Not text that can be encoded: a lone surrogate at character '
         '36'),
        (3, {'eval': 1}, ''),
      ],
    ),
    (
      '{"eval": 1, "samples": [{}, 2',
      [
        (1, {'eval': 1}, ''),
        (2, 2, ''),
        (3, None, f"Expecting ',' or ']' at character 30{GONE}"),
      ],
    ),
    (
      '{"eval": 1, "samples": [{}], 2}',
      [
        (1, {'eval': 1}, ''),
        (2, None, 'Expecting property name enclosed in double quotes at '
         f'character 30{GONE}'),
      ],
    ),
    (
      '{"eval": 1, "samples": [{}]} x',
      [
        (1, {'eval': 1}, ''),
        (2, None, f'More text after the end at character 30{GONE}'),
      ],
    ),
    (
      '{"eval": 1 "samples": [{}]}',
      [(1, None, f"Expecting ',' delimiter at character 12{GONE}")],
    ),
  ],
)  # fmt: skip
def test_a_large_document_keeps_the_rows_before_an_error(
  text, expected, tmp_path, monkeypatch
):
  monkeypatch.setattr(rows, '_LARGE', 1)
  monkeypatch.setattr(rows, '_CHUNK', 2)
  (tmp_path / 'x.json').write_text(text)
  assert [row[1:] for row in rows.read(tmp_path / 'x.json')] == expected


def test_memory_holds_one_run_of_a_large_document(tmp_path, monkeypatch):
  monkeypatch.setattr(rows, '_LARGE', 1_000_000)
  sample = {'messages': [{'role': 'user', 'content': 'x' * 20_000}]}
  path = tmp_path / 'x.json'
  path.write_text(json.dumps({'eval': {}, 'samples': [sample] * 1_000}))
  tracemalloc.start()
  assert sum(1 for row in rows.read(path) if row.value['eval'] == {}) == 1_000
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert path.stat().st_size > 20_000_000
  # The first 4 MiB are looked at, to tell lines from a document.
  assert peak < 15_000_000


def test_a_large_document_that_is_damaged(tmp_path, monkeypatch):
  monkeypatch.setattr(rows, '_LARGE', 1)
  monkeypatch.setattr(rows, '_CHUNK', 2)
  text = json.dumps({'eval': {}, 'samples': [{'x': 'y' * 99}] * 9_999})
  path = tmp_path / 'x.json.gz'
  path.write_bytes(gzip.compress(text.encode())[:-9])
  *good, last = rows.read(path)
  assert len(good) > 5_000 and last.number == len(good) + 1
  assert last.error.startswith('the gzip data is damaged after')


def test_a_line_of_json_lines_stays_one_row(tmp_path):
  log = {'eval': 1, 'samples': [{}, {}]}
  assert read(tmp_path / 'x.jsonl', log) == [(1, log, '')]


def test_text_after_a_log_is_an_error_of_its_own(tmp_path):
  path = tmp_path / 'x.json'
  path.write_text('{"eval": 1, "samples": [{}]} x')
  assert [row[1:] for row in rows.read(path)] == [
    (1, {'eval': 1}, ''),
    (2, None, f'More text after the end at character 30{GONE}'),
  ]


# ------------------------------------------------------ inspect_ai's archives


@pytest.mark.parametrize('write', [zip_of, zip_of_zstd])
@pytest.mark.parametrize(
  ('header', 'about'),
  [
    ('header.json', {'eval': {'task': 'x'}}),
    ('_journal/start.json', {'eval': {'task': 'x'}}),  # interrupted
    ('start.json', {'eval': {'task': 'x'}}),  # the first versions
    ('other.json', {}),
  ],
)
def test_samples_of_an_archive(write, header, about, tmp_path):
  path = tmp_path / 'log.eval'
  members = {
    '_journal/summaries/1.json': [],
    'samples/b_epoch_1.json': {'id': 'b', 'messages': TURNS},
    'samples/a_epoch_1.json': {'id': 'a'},
    'summaries.json': [],
    header: {'version': 2, 'eval': {'task': 'x'}},
  }
  write(path, {name: json.dumps(v).encode() for name, v in members.items()})
  assert rows.files(tmp_path) == [str(path)]
  assert rows.unread(tmp_path) == []
  assert [*rows.read(path)] == [
    rows.Row(str(path), 1, {'id': 'b', 'messages': TURNS, **about}),
    rows.Row(str(path), 2, {'id': 'a', **about}),
  ]


def test_errors_of_an_archive_say_the_member(tmp_path):
  path = tmp_path / 'log.eval'
  zip_of(
    path,
    {
      'header.json': '{"eval"',
      'samples/1_epoch_1.json': '{"id": ',
      'samples/2_epoch_1.json': '[1, 2]',
      'samples/3_epoch_1.json': '{"id": 3} x',
      'samples/4_epoch_1/sample.json': '{"id": 4}',
      'samples/4_epoch_1/messages/0.json': '[]',
      'samples/5_epoch_1.json': '{"id": 5}',
    },
  )
  assert [row[1:] for row in rows.read(path)] == [
    (1, None, f"header.json: Expecting ':' delimiter at character 8{GONE}"),
    (2, None, 'samples/1_epoch_1.json: Expecting value at character 8'
      + GONE),
    (3, None, 'samples/2_epoch_1.json: expected an object'),
    (4, None, 'samples/3_epoch_1.json: More text after the end at character 11'
      + GONE),
    (5, None, 'samples/4_epoch_1/sample.json: samples in chunks are not '
      'supported'),
    (6, {'id': 5}, ''),
  ]  # fmt: skip


def test_a_damaged_archive_is_a_row(tmp_path):
  path = tmp_path / 'log.eval'
  sample = json.dumps({'id': 1, 'text': 'x' * 9999})
  zip_of(path, {'samples/1.json': sample, 'samples/2.json': '{}'})
  whole = path.read_bytes()
  path.write_bytes(whole[:-30])
  (row,) = rows.read(path)
  assert row[1:] == (
    1,
    None,
    f'the zip archive is damaged: File is not a zip file{GONE}',
  )
  path.write_bytes(whole[:50] + b'\xff\xff' + whole[52:])
  first, second = rows.read(path)
  assert first.error.startswith('samples/1.json: the zip data is damaged after')
  assert second[1:] == (2, {}, '')
