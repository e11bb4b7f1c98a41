"""Records of more shards than a process may open files."""

import dataclasses
import gc
import resource
import subprocess
import sys
import types

import pytest

from isft_jax.data.records import dataset, shard_reader
from tests.commands import ROOT
from tests.dialogues import dialogues, write_records

SHARDS, OPEN_FILES = 150, 64


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """300 records in about 130 shards; each record has its number as id."""
  path = tmp_path_factory.mktemp('many')
  write_records(path / 'few', dialogues()[:4])
  records = dataset.Records(str(path / 'few'))
  few = [*records]
  writer = dataset.Writer(
    str(path / 'many'), records.metadata, num_shards=SHARDS
  )
  for number in range(300):
    example = dataclasses.replace(few[number % len(few)], id=str(number))
    writer.add('train', [writer.encode(example)], (0, number))
  writer.finish()
  return path / 'many'


READS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
from isft_jax.data.preparation import verify
from isft_jax.data.records import dataset
records = dataset.Records(sys.argv[1])
ids = [records[n].id for n in range(len(records))]
ids += [records[n].id for n in reversed(range(len(records)))]
print(len(set(ids)), len(ids), len(os.listdir('/proc/self/fd')))
print([*verify.damages(sys.argv[1])])
"""


def test_every_record_is_read_with_few_open_files(folder):
  assert len([*folder.glob('trajectories/*/*array_record-*')]) > OPEN_FILES
  done = subprocess.run(
    [sys.executable, '-c', READS, folder, str(OPEN_FILES)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  numbers, damages = done.stdout.splitlines()
  different, read, open_files = map(int, numbers.split())
  assert (different, read) == (300, 600)
  assert open_files < OPEN_FILES // 2
  # The tokenizer and the report of a preparation are not there.
  assert 'array_record' not in damages


def test_several_data_sets_share_the_limit(folder, monkeypatch):
  monkeypatch.setattr(shard_reader, '_MOST', 3)
  opened = [dataset.Records(str(folder)) for _ in range(4)]
  for number in range(0, 300, 7):
    assert len({records[number].id for records in opened}) == 1
  assert len(shard_reader._open._readers) <= 3


@pytest.mark.parametrize(
  ('limit', 'most'), [(1024, 128), (256, 64), (10, 2), (3, 1), (1 << 20, 128)]
)
def test_a_quarter_of_the_files_may_be_shards(limit, most, monkeypatch):
  monkeypatch.setattr(resource, 'getrlimit', lambda which: (limit, limit))
  assert shard_reader._most_open() == most


@pytest.mark.parametrize(
  ('lengths', 'places'),
  [
    ([2, 1], [(0, 0), (0, 1), (1, 0)]),
    ([0, 2, 0, 0, 1, 0], [(1, 0), (1, 1), (4, 0)]),
  ],
)
def test_a_record_has_a_place_in_a_shard_that_is_not_empty(lengths, places):
  reader = shard_reader.ShardReader([''] * len(lengths), lengths)
  assert [reader.place(number) for number in range(len(reader))] == places
  for number in (-1, 3):
    with pytest.raises(IndexError):
      reader.place(number)


def test_files_are_closed_with_their_data_set(folder):
  records = dataset.Records(str(folder))
  other = dataset.Records(str(folder))
  other[0]
  before = {*shard_reader._open._readers}
  records[0]
  assert len(shard_reader._open._readers) == len(before) + 1
  del records
  gc.collect()
  assert {*shard_reader._open._readers} == before


def test_the_shard_that_was_read_longest_ago_is_closed(monkeypatch):
  monkeypatch.setattr(shard_reader, '_MOST', 2)
  monkeypatch.setattr(
    shard_reader,
    'array_record_module',
    types.SimpleNamespace(ArrayRecordReader=lambda *_: object()),
  )
  opened = shard_reader._OpenShards()
  for number in (0, 1, 0, 2):
    opened.reader((None, number), '')
  assert [number for _, number in opened._readers] == [0, 2]
