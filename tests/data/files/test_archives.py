"""Compressed files and members of archives, read as a stream."""

import csv
import gzip
import json
import os
import tracemalloc
import zipfile

import fsspec
import pytest
from etils.epath import backend

from isft_jax.data.files import archives, rows, text_lines
from tests.data.files.packing import zip_of, zip_of_zstd, zstd

GONE = 'the rest of the file is not read'
LINES = ''.join(f'{{"a": {i}}}\n' for i in range(20_000)).encode()


PACK = {'.gz': gzip.compress, '.zst': zstd}


def found(paths, folder):
  return [os.path.relpath(path, folder) for path in paths]


def values(path):
  return [row.value for row in rows.read(path)]


@pytest.mark.parametrize('suffix', ['.gz', '.zst', '.GZ'])
@pytest.mark.parametrize(
  ('name', 'text', 'expected'),
  [
    ('a.jsonl', '{"a": 1}\n{"a": 2}\n', [{'a': 1}, {'a': 2}]),
    ('a.json', '[{"a": 1}, {"a": 2}]', [{'a': 1}, {'a': 2}]),
    ('a.json', '{"a": 1}\n{"a": 2}\n', [{'a': 1}, {'a': 2}]),
    ('a.traj', '{"a":\n1}', [{'a': 1}]),
    ('a.csv', 'a,b\n1,x\n', [{'a': '1', 'b': 'x'}]),
    ('a.tsv', 'a\tb\n1\tx\n', [{'a': '1', 'b': 'x'}]),
    ('a', '{"a": 1}\n{"a": 2}\n', [{'a': 1}, {'a': 2}]),
  ],
)
def test_a_compressed_file_has_the_rows_of_its_text(
  name, text, expected, suffix, tmp_path
):
  path = tmp_path / (name + suffix)
  path.write_bytes(PACK[suffix.lower()](text.encode()))
  assert values(path) == expected
  assert {row.file for row in rows.read(path)} == {str(path)}


def test_a_folder_with_compressed_files_and_what_is_left_out(tmp_path):
  names = ['a.jsonl.gz', 'b.json.zst', 'c.CSV.gz', 'd.jsonl', 'e.eval']
  others = ['f.tar.gz', 'g.gz', 'h.txt', 'i', 'j/k.md', 'l.parquet.gz']
  hidden = ['.m.jsonl', '.n/o.txt', '.p']
  for name in (*names, *others, *hidden):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  assert found(rows.files(tmp_path), tmp_path) == names
  assert found(rows.unread(tmp_path), tmp_path) == others
  assert found(rows.unread(tmp_path / '*.tx*'), tmp_path) == ['h.txt']
  assert found(rows.files(tmp_path / '*.gz'), tmp_path) == [
    'a.jsonl.gz',
    'c.CSV.gz',
  ]
  assert rows.unread(tmp_path / 'h.txt') == []  # named itself, it is read
  assert rows.unread('hf://org/name') == []


def test_bookkeeping_of_the_datasets_library_is_not_counted(tmp_path):
  for name in ('a.arrow', 'state.json', 'dataset_info.json', 'cache-1.arrow'):
    (tmp_path / name).touch()
  assert found(rows.files(tmp_path), tmp_path) == ['a.arrow']
  assert rows.unread(tmp_path) == []


@pytest.mark.parametrize(
  ('files', 'stems'),
  [
    (['/r/a.jsonl.gz'], ['a']),
    (['/r/a.jsonl.gz', '/r/b.json', '/r/d/c.csv.ZST'], ['a', 'b', 'd/c']),
    (['/r/a.zip/b.jsonl', '/r/a.zip/c/d.json.gz'], ['b', 'c/d']),
    (['/r/a.zip/b.jsonl', '/r/e.jsonl'], ['a.zip/b', 'e']),
    (
      ['/r/a.json', '/r/a.jsonl.gz', '/r/b.json', '/r/c/a.json'],
      ['a.json', 'a.jsonl.gz', 'b', 'c/a'],
    ),
    (['gs://r/a.jsonl.gz', 'gs://r/d/b.json'], ['a', 'd/b']),
  ],
)
def test_stems_have_no_suffix_of_a_compression(files, stems):
  assert rows.stems(files) == stems


def test_members_of_an_archive_are_files(tmp_path):
  path = zip_of(
    tmp_path / 'a.zip',
    {
      'd/b.jsonl': '{"a": 1}\n{"a": 2}\n',
      'a.csv': 'a\n3\n',
      'c.json.gz': gzip.compress(b'[{"a": 4}]'),
      'README.md': 'x',
      'in.zip': 'x',
      '.e.json': '{}',
      '__MACOSX/._a.csv': 'x',
      'f/': '',
    },
  )
  files = rows.files(path)
  assert files == [
    f'{path}/a.csv',
    f'{path}/c.json.gz',
    f'{path}/d/b.jsonl',
  ]
  assert rows.unread(path) == [f'{path}/README.md', f'{path}/in.zip']
  assert [values(file) for file in files] == [
    [{'a': '3'}],
    [{'a': 4}],
    [{'a': 1}, {'a': 2}],
  ]
  assert [rows.size(file) for file in files] == [4, 30, 18]
  # A folder with the archive, the archive alone, and one of its members.
  assert rows.files(tmp_path) == files
  assert [(row.file, row.number) for row in rows.read(path)] == [
    (files[0], 1),
    (files[1], 1),
    (files[2], 1),
    (files[2], 2),
  ]
  assert rows.files(files[2]) == [files[2]]


def test_a_folder_may_be_called_zip(tmp_path):
  (tmp_path / 'a.zip').mkdir()
  (tmp_path / 'a.zip' / 'b.jsonl').write_text('1\n')
  (file,) = rows.files(tmp_path)
  assert (found([file], tmp_path), values(file)) == (['a.zip/b.jsonl'], [1])
  assert rows.size(file) == 2


def test_an_archive_that_was_replaced_is_read_again(tmp_path):
  path = zip_of(tmp_path / 'a.zip', {'a.jsonl': '1\n'})
  assert values(f'{path}/a.jsonl') == [1]
  zip_of(path, {'a.jsonl': '2\n', 'b.jsonl': '3\n'})
  assert values(path) == [2, 3]


def test_zstd_in_a_zip_and_its_checksum(tmp_path):
  path = zip_of_zstd(tmp_path / 'a.zip', {'a.jsonl': LINES})
  assert values(path) == [{'a': i} for i in range(20_000)]
  broken = path.read_bytes().replace(
    zipfile.crc32(LINES).to_bytes(4, 'little'), b'abcd'
  )
  (tmp_path / 'b.zip').write_bytes(broken)
  *_, last = rows.read(tmp_path / 'b.zip')
  assert (last.number, last.value) == (20_001, None)
  assert last.error == (
    f'the zstd data is damaged after the first {len(LINES):,} decompressed '
    f'bytes: wrong checksum; {GONE}'
  )


# -------------------------------------------------------------------- damage


@pytest.mark.parametrize(
  ('name', 'damage', 'error'),
  [
    ('a.jsonl.gz', lambda b: b[:-9], 'the gzip data is damaged after the f'),
    ('a.jsonl.gz', lambda b: b[:999] + b'\0' * 999, 'the gzip data is damag'),
    ('a.jsonl.gz', lambda b: b[:-8] + b'abcd', 'the gzip data is damaged aft'),
    ('a.jsonl.zst', lambda b: b[:-9], 'the zstd data is damaged after the fi'),
    ('a.jsonl.zst', lambda b: b[:99] + b[199:], 'the zstd data is damaged af'),
    (
      'a.jsonl.gz',
      lambda b: b'',
      'the gzip data is damaged after the first 0 ',
    ),
    (
      'a.jsonl.zst',
      lambda b: b'',
      'the zstd data is damaged after the first 0',
    ),
    (
      'a.json.gz',
      lambda b: b'[1, 2]',
      'the gzip data is damaged after the fir',
    ),
    ('a.csv.zst', lambda b: b'a,b\n', 'the zstd data is damaged after the fir'),
  ],
)
def test_damage_is_the_last_row(name, damage, error, tmp_path):
  path = tmp_path / name
  path.write_bytes(damage(PACK[path.suffix](LINES)))
  *good, last = rows.read(path)
  assert (last.file, last.value) == (str(path), None)
  assert last.error.startswith(error) and last.error.endswith(f'; {GONE}')
  assert [row.value for row in good] == [{'a': i} for i in range(len(good))]
  assert last.number == len(good) + 1


def test_damage_in_an_array_and_in_one_row(tmp_path):
  array = json.dumps([{'a': 'x' * 99}] * 999).encode()
  turn = {'role': 'user', 'content': 'x' * 99}
  one = json.dumps([turn] * 999).encode()
  path = tmp_path / 'a.json.gz'
  path.write_bytes(gzip.compress(array)[:-9])
  *good, last = rows.read(path)
  assert len(good) > 500 and last.value is None
  path.write_bytes(gzip.compress(one)[:-9])
  (only,) = rows.read(path)
  assert (only.number, only.value) == (1, None)
  assert only.error.startswith('the gzip data is damaged')


def test_a_damaged_archive_is_a_row(tmp_path):
  path = zip_of(tmp_path / 'a.zip', {'a.jsonl': LINES, 'b.jsonl': LINES})
  whole = path.read_bytes()
  # 1. A member.
  path.write_bytes(whole[:500] + bytes(20) + whole[520:])
  first, second = rows.files(path)
  assert [row.error[:23] for row in rows.read(first)][-1] == (
    'the zip data is damaged'
  )
  assert len(values(second)) == 20_000
  # 2. The list of members.
  path.write_bytes(whole[:-30])
  assert rows.files(path) == [str(path)]
  (row,) = rows.read(path)
  assert (row.file, row.number) == (str(path), 1)
  assert row.error == (
    f'the zip archive is damaged: File is not a zip file; {GONE}'
  )
  # 3. A member that is missing, as after a change.
  zip_of(path, {'c.jsonl': LINES})
  (row,) = rows.read(first)
  assert row.error == f"the archive has no member 'a.jsonl'; {GONE}"


def test_a_member_whose_place_is_wrong_is_a_row(tmp_path):
  path = zip_of(tmp_path / 'a.zip', {'a.jsonl': LINES})
  data = bytearray(path.read_bytes())
  at = data.index(b'PK\5\6') + 16  # where the list of members begins
  data[at : at + 4] = (2**31).to_bytes(4, 'little')
  path.write_bytes(data)
  (row,) = rows.read(path)
  assert row.error.startswith('the zip archive is damaged: ')


def test_an_encrypted_member_is_a_row(tmp_path):
  path = zip_of(tmp_path / 'a.zip', {'a.jsonl': LINES})
  data = bytearray(path.read_bytes())
  data[6] |= 1  # the flag, beside the member and in the list of members
  data[data.index(b'PK\1\2') + 8] |= 1
  path.write_bytes(data)
  (row,) = rows.read(path)
  assert 'is encrypted, password required' in row.error


def test_a_file_that_is_missing_is_no_damage(tmp_path):
  for name in ('a.jsonl.gz', 'a.zip', 'a.zip/b.jsonl', 'a.eval'):
    with pytest.raises(OSError):
      [*rows.read(tmp_path / name)]


# -------------------------------------------------------------------- memory


def test_memory_holds_one_row_of_a_compressed_file(tmp_path):
  line = json.dumps({'text': 'x' * 50_000}).encode() + b'\n'
  with gzip.open(tmp_path / 'a.jsonl.gz', 'wb', compresslevel=1) as stream:
    for _ in range(1_000):
      stream.write(line)
  assert (tmp_path / 'a.jsonl.gz').stat().st_size < 1_000_000
  tracemalloc.start()
  assert sum(1 for _ in rows.read(tmp_path / 'a.jsonl.gz')) == 1_000
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2_000_000


@pytest.mark.parametrize(
  ('name', 'start', 'piece', 'error'),
  [
    ('a.jsonl', '1\n', 'x', 'Longer than 100,000 characters'),
    ('a.json', '[1, "', 'x', 'Longer than 100,000 characters at character 5'),
    ('a.csv', 'a\n1\n"', 'x\n', 'field larger than field limit'),
    ('a.csv', 'a\n1\n', 'x', 'Longer than 100,000 characters'),
  ],
)
def test_a_value_without_end_is_an_error(
  name, start, piece, error, tmp_path, monkeypatch
):
  monkeypatch.setattr(text_lines, 'LONGEST', 100_000)
  monkeypatch.setattr(text_lines, 'TOO_LONG', 'Longer than 100,000 characters')
  old_limit = csv.field_size_limit(1_000)
  with gzip.open(tmp_path / f'{name}.gz', 'wb', compresslevel=1) as stream:
    stream.write(start.encode())
    for _ in range(60):
      stream.write(piece.encode() * (1_000_000 // len(piece)))
  tracemalloc.start()
  first, second = rows.read(tmp_path / f'{name}.gz')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  csv.field_size_limit(old_limit)
  assert (first.error, second.error[: len(error)]) == ('', error)
  # The first 4 MiB of a .json are looked at, to tell lines from a document.
  assert peak < 15_000_000


# -------------------------------------------------------------------- remote


def test_remote_archives(monkeypatch):
  """Through etils.epath; here, a bucket in memory."""
  bucket = fsspec.filesystem('memory')
  monkeypatch.setattr(
    type(backend.fsspec_backend), '_get_filesystem', lambda *_: bucket
  )
  base = 'gs://bucket/packed'
  with bucket.open(f'{base}/a.zip', 'wb') as file:
    zip_of(file, {'b.jsonl': '1\n2\n', 'c.txt': 'x'})
  bucket.pipe(f'{base}/d/e.jsonl.gz', gzip.compress(b'3\n'))
  bucket.pipe(f'{base}/d/f.csv.zst', zstd(b'a\n4\n'))
  bucket.pipe(f'{base}/g.md', b'x')
  files = rows.files(base)
  assert files == [
    f'{base}/a.zip/b.jsonl',
    f'{base}/d/e.jsonl.gz',
    f'{base}/d/f.csv.zst',
  ]
  assert rows.unread(base) == [f'{base}/a.zip/c.txt', f'{base}/g.md']
  assert rows.unread(f'{base}/*.md') == [f'{base}/g.md']
  assert [values(file) for file in files] == [[1, 2], [3], [{'a': '4'}]]
  assert rows.stems(files) == ['a.zip/b', 'd/e', 'd/f']
  assert rows.size(files[0]) == 4


def test_errors_of_the_connection_are_no_damage(tmp_path, monkeypatch):
  path = tmp_path / 'a.jsonl.zst'
  path.write_bytes(zstd(LINES))

  class Broken:
    closed = False

    def __init__(self):
      self.file = path.open('rb')

    def read(self, n=-1):
      raise ConnectionError('gone')

    def __getattr__(self, name):
      return getattr(self.file, name)

  monkeypatch.setattr(archives, 'open_bytes', lambda *_: Broken())
  with pytest.raises(ConnectionError, match='gone'):
    [*rows.read(path)]
