"""Shards: the same bytes in every process, and parts of an index that join."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import zipfile

import fsspec
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from etils.epath import backend
from tensorflow_datasets.core.utils.lazy_imports_utils import (
  array_record_module,
)

from isft_jax.data.preparation import verify
from isft_jax.data.records import dataset, shards
from isft_jax.data.records import index as index_lib
from isft_jax.types import Example, Provenance, Verdict

SCRIPT = """
import hashlib
import numpy as np
from isft_jax.data.records import shards
from isft_jax.types import Example

array = np.arange(5, dtype=np.int32)
codes = np.full(5, 3, np.uint8)
example = Example('x', array, codes, array, codes, 2, 1)
print(hashlib.sha256(shards.Codec().write(example)).hexdigest())
"""


def made(number, length=9):
  rng = np.random.default_rng(number)
  return Example(
    id=f'é {number}',
    tokens_T=rng.integers(0, 99, length).astype(np.int32),
    provenance_T=rng.integers(0, len(Provenance), length).astype(np.uint8),
    segment_T=np.sort(rng.integers(0, 9, length)).astype(np.int32),
    verdict_T=rng.integers(0, len(Verdict), length).astype(np.uint8),
    scored_from=number % 4,
    window=number % 3,
  )


def test_the_bytes_of_a_record_follow_from_its_example_alone():
  """Python's hashes, and with them a map's order, differ by process."""
  digests = set()
  for seed in ('1', '2', '3'):
    done = subprocess.run(
      [sys.executable, '-c', SCRIPT],
      env=os.environ | {'PYTHONHASHSEED': seed},
      capture_output=True,
      check=True,
      text=True,
    )
    digests.add(done.stdout)
  assert len(digests) == 1


def test_a_record_is_read_as_it_was_written():
  codec = shards.Codec()
  example = made(7)
  record = codec.read(codec.write(example))
  assert record['id'].decode() == example.id
  assert (record['scored_from'], record['window']) == (3, 1)
  for field in ('tokens', 'provenance', 'segment', 'verdict'):
    expected = getattr(example, f'{field}_T')
    np.testing.assert_array_equal(record[field], expected, strict=True)


@pytest.mark.parametrize('sizes', [[7], [3, 4], [1, 0, 5, 1]])
def test_parts_of_an_index_join_to_that_of_all_records(sizes, tmp_path):
  codec = shards.Codec()
  found = [codec.read(codec.write(made(n))) for n in range(7)]
  parts, first = [], 0
  for number, size in enumerate(sizes):
    path = epath.Path(tmp_path) / f'{number}.npz'
    part = found[first : first + size]
    index_lib.save(path, index_lib.from_records(part, size))
    parts.append(path)
    first += size
  joined = epath.Path(tmp_path) / 'all.npz'
  index_lib.join(joined, parts)
  index = index_lib.read(joined, 7)
  for name, array in index_lib.from_records(found, 7)._asdict().items():
    np.testing.assert_array_equal(getattr(index, name), array, strict=True)
  assert index.trajectory_N.tolist() == [1, 1, 1, 2, 2, 2, 3]


def test_an_index_above_2_gib_is_joined(tmp_path, monkeypatch):
  """Zip files have another format then; here from one byte on."""
  codec, part = shards.Codec(), epath.Path(tmp_path) / 'part.npz'
  records = [codec.read(codec.write(made(n))) for n in range(7)]
  index_lib.save(part, index_lib.from_records(records, 7))
  monkeypatch.setattr(zipfile, 'ZIP64_LIMIT', 1)
  joined = epath.Path(tmp_path) / 'all.npz'
  index_lib.join(joined, [part])
  both = [index_lib.read(path, 7) for path in (joined, part)]
  for one, other in zip(*both, strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_remote_shard_that_is_written_again(monkeypatch):
  """As a runner does with what it is not sure of. Here, a bucket in memory."""
  monkeypatch.setattr(
    type(backend.fsspec_backend),
    '_get_filesystem',
    lambda _, name: fsspec.filesystem('memory' if name == 'gcs' else name),
  )
  folder, codec = epath.Path('gs://bucket/shards'), shards.Codec()
  folder.mkdir(parents=True)
  found = [codec.write(made(n)) for n in range(3)]
  infos = []
  for _ in range(2):
    shard = shards.Shard(folder, 'train', 7)
    for record in found:
      shard.add(record)
    infos.append(shard.close(codec))
    path = folder / shards.name('train', 7)
    assert [*shards.read(path)] == found
    assert len(index_lib.read(shards.index_section(path), 3).length_N) == 3
  assert infos[0] == infos[1]


def written(folder, numbers, num_shards=0, extends=''):
  writer = dataset.Writer(str(folder), {'a': 1}, num_shards, extends)
  for n in numbers:
    split = 'heldout' if n % 5 == 4 else 'train'
    writer.add(split, [writer.encode(made(n))], (0, n))
  writer.finish()
  return dataset.Records(str(folder))


def names(folder):
  path = dataset.find_version(folder)
  return sorted(p.name for p in path.iterdir() if 'array_record' in p.name)


def test_a_number_of_shards_and_which_each_record_is_in(tmp_path):
  data = written(tmp_path, range(40), num_shards=4)
  assert names(tmp_path) == [
    f'trajectories-{split}.array_record-0000{n}'
    for split in ('heldout', 'train')
    for n in range(4)
  ]
  trained = [n for n in range(40) if n % 5 != 4]
  expected = sorted(trained, key=lambda n: (dataset.choose_shard((0, n), 4), n))
  assert [data[i].id for i in range(32)] == [made(n).id for n in expected]


def test_a_shard_that_would_be_empty_is_none(tmp_path):
  data = written(tmp_path, range(3), num_shards=50)
  assert names(tmp_path) == [
    f'trajectories-train.array_record-0000{n}' for n in range(3)
  ]
  assert {data[i].id for i in range(3)} == {made(n).id for n in range(3)}


def edited(path, edit):
  path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def test_opening_imports_no_module_that_the_files_name(tmp_path, monkeypatch):
  dataset.write(str(tmp_path), lambda: [made(0)], {})
  path = dataset.find_version(tmp_path)
  (tmp_path / 'guest_module.py').write_text('raise SystemExit(3)')
  monkeypatch.syspath_prepend(tmp_path)

  def with_guest(features):
    text = features['featuresDict']['features']['id']
    text['pythonClassName'] = 'guest_module.Guest'
    return features

  edited(path / 'features.json', with_guest)
  with pytest.raises(ValueError, match=r'features.json: not the schema of rec'):
    dataset.Records(str(tmp_path))
  assert 'guest_module' not in sys.modules
  damages = [*verify.damages(str(tmp_path))]
  assert f'{path / "features.json"}: its bytes have changed' in damages
  assert 'guest_module' not in sys.modules


@pytest.mark.parametrize('text', ['', '[]', '{}', '[' * 10_000, '\\0'])
@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
def test_metadata_that_cannot_be_read_are_named(name, text, tmp_path):
  dataset.write(str(tmp_path), lambda: [made(0)], {})
  path = dataset.find_version(tmp_path)
  (path / name).write_text(text)
  with pytest.raises(ValueError) as raised:
    dataset.Records(str(tmp_path))
  assert str(raised.value).startswith(str(path))
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  ('metadata', 'is_known'),
  [
    ({}, True),  # of an old version
    ({'fingerprint': 'f', 'rendering': {}}, True),
    ({'rendering': {'template': {'tool': 'x'}, 'values': None}}, True),
    ({'fingerprint': 7}, False),
    ({'rendering': []}, False),
    ({'rendering': {'template': 7}}, False),
    ({'rendering': {'values': []}}, False),
    ({'rendering': {'special_text': None}}, False),
    ({'rendering': {'piecewise': 0}}, False),
    ({'rendering': {'call_id_digits': '9'}}, False),
  ],
)
def test_metadata_of_other_types_are_refused(metadata, is_known, tmp_path):
  dataset.write(str(tmp_path), lambda: [made(0)], {})
  path = dataset.find_version(tmp_path) / 'metadata.json'
  path.write_text(json.dumps(metadata))
  if is_known:
    assert dataset.Records(str(tmp_path)).metadata == metadata
    return
  with pytest.raises(ValueError) as raised:
    dataset.Records(str(tmp_path))
  assert str(raised.value) == (
    f'{path}: not the metadata of records; prepare them again'
  )


@pytest.mark.parametrize(
  'edit',
  [
    {'filepathTemplate': '../../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}'},
    {'filepathTemplate': '/etc/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}'},
    {'name': '../train'},
    {'name': 'other'},
  ],
)
def test_paths_of_shards_stay_in_the_folder(edit, tmp_path):
  dataset.write(str(tmp_path), lambda: [made(0)], {})
  path = dataset.find_version(tmp_path)

  def with_path(info):
    info['splits'][0].update(edit)
    return info

  edited(path / 'dataset_info.json', with_path)
  with pytest.raises(ValueError) as raised:
    dataset.Records(str(tmp_path))
  assert str(raised.value).startswith(str(path))
  assert '\n' not in str(raised.value)


def test_every_file_has_its_checksum(tmp_path):
  written(tmp_path, range(20), num_shards=2)
  path = dataset.find_version(tmp_path)
  sums = json.loads((path / shards.CHECKSUMS).read_text())
  assert sums == {
    file.name: hashlib.sha256(file.read_bytes()).hexdigest()
    for file in path.iterdir()
    if file.name != shards.CHECKSUMS
  }


@pytest.mark.parametrize('num_shards', [0, 2])
def test_a_data_set_that_begins_with_another(num_shards, tmp_path):
  """The shards of the first are those of the second: the very files."""
  old = written(tmp_path / 'old', range(10), num_shards)
  before = {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in (tmp_path / 'old').rglob('*')
    if path.is_file()
  }
  new = written(tmp_path / 'new', range(10, 33), num_shards, tmp_path / 'old')
  assert dataset.find_version(tmp_path / 'old').name == '1.0.0'
  assert dataset.find_version(tmp_path / 'new').name == '1.0.1'
  assert before == {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in (tmp_path / 'old').rglob('*')
    if path.is_file()
  }
  for split, number in (('train', 27), ('heldout', 6)):
    old = dataset.Records(str(tmp_path / 'old'), split)
    new = dataset.Records(str(tmp_path / 'new'), split)
    assert [new[i].id for i in range(len(old))] == [e.id for e in old]
    assert len(new) == number
    codec = shards.Codec()
    all_records = [codec.read(codec.write(new[i])) for i in range(number)]
    for name, array in (
      index_lib.from_records(all_records, number)._asdict().items()
    ):
      np.testing.assert_array_equal(getattr(new.index, name), array)
  for name in names(tmp_path / 'old'):
    places = [dataset.find_version(tmp_path / f) / name for f in ('old', 'new')]
    assert os.path.samefile(*places)
  written(tmp_path / 'next', range(33, 35), 0, tmp_path / 'new')
  assert dataset.find_version(tmp_path / 'next').name == '1.0.2'
  assert len(dataset.Records(str(tmp_path / 'next'))) == 28


def test_a_data_set_that_is_damaged_begins_no_other(tmp_path):
  """Its damage would get a checksum of its own, and be seen no more."""
  written(tmp_path / 'old', range(10))
  path = dataset.find_version(tmp_path / 'old')
  for file in [*path.iterdir()]:
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=f'^{file} is damaged; prepare that'):
      dataset.Writer(str(tmp_path / 'new'), {}, extends=tmp_path / 'old')
    file.write_bytes(data)
  written(tmp_path / 'new', range(10, 12), 0, tmp_path / 'old')


def test_more_shards_than_files_that_may_be_open(tmp_path):
  """They are written one by one: a writer keeps a file open, and 16 MiB."""
  before = resource.getrlimit(resource.RLIMIT_NOFILE)
  used = len(os.listdir('/proc/self/fd'))
  resource.setrlimit(resource.RLIMIT_NOFILE, (used + 50, before[1]))
  try:
    data = written(tmp_path, range(200), num_shards=90)
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
  assert len(names(tmp_path)) > 100
  assert len({data[i].id for i in range(160)}) == 160


def test_the_shard_of_a_trajectory_is_fixed_for_good():
  """It follows from the number of its file and of its row, and from no seed:
  machines that prepare parts of a data set agree, and so do versions."""
  choose_shard = dataset.choose_shard
  assert [choose_shard((0, row), 4) for row in range(8)] == [
    1,
    1,
    3,
    3,
    0,
    0,
    3,
    3,
  ]
  assert [choose_shard((file, 7), 1000) for file in range(4)] == [
    819,
    991,
    388,
    933,
  ]


def bytes_of(folder):
  path = dataset.find_version(folder)
  return {file.name: file.read_bytes() for file in path.iterdir()}


def test_where_files_cannot_be_linked_they_are_copied(tmp_path, monkeypatch):
  """As between two disks. The data set is the same to the byte."""
  written(tmp_path / 'old', range(10))
  written(tmp_path / 'linked', range(10, 20), 0, tmp_path / 'old')

  def link(*paths):
    raise OSError('another file system')

  monkeypatch.setattr(os, 'link', link)
  written(tmp_path / 'copied', range(10, 20), 0, tmp_path / 'old')
  assert bytes_of(tmp_path / 'copied') == bytes_of(tmp_path / 'linked')
  for name in names(tmp_path / 'old'):
    old, copied = (
      dataset.find_version(tmp_path / folder) / name
      for folder in ('old', 'copied')
    )
    assert not os.path.samefile(old, copied)


@pytest.mark.parametrize('num_shards', [0, 3])
def test_an_extended_data_set_knows_the_bytes_of_both(num_shards, tmp_path):
  written(tmp_path / 'old', range(10), num_shards)
  new = written(tmp_path / 'new', range(10, 33), num_shards, tmp_path / 'old')
  codec = shards.Codec()
  splits = tfds.builder_from_directory(
    dataset.find_version(new.folder)
  ).info.splits
  for split in shards.SPLITS:
    records = dataset.Records(new.folder, split)
    sizes = [len(codec.write(records[i])) for i in range(len(records))]
    assert splits[split].num_bytes == sum(sizes)
    assert sum(splits[split].shard_lengths) == len(sizes)


@pytest.mark.parametrize('text', ['', '{', '[]', '"name"', 'null'])
def test_checksums_that_cannot_be_read_are_lost(text, tmp_path):
  (tmp_path / shards.CHECKSUMS).write_text(text)
  assert shards.checksums(epath.Path(tmp_path)) is None
  assert shards.checksums(epath.Path(tmp_path / 'none')) is None


def test_a_record_is_read_without_its_neighbours(tmp_path):
  """ArrayRecord reads whole groups: rows in a random order would read 65,536
  records for each."""
  written(tmp_path, range(4))
  (name,) = (name for name in names(tmp_path) if 'train' in name)
  reader = array_record_module.ArrayRecordReader(
    os.fspath(dataset.find_version(tmp_path) / name)
  )
  assert 'group_size:1,' in reader.writer_options_string() + ','
  reader.close()


def test_records_that_wait_for_their_shard_lie_beside_it(tmp_path):
  """Where the data set has room: a machine's folder for scratch may not."""
  writer = dataset.Writer(str(tmp_path), {}, num_shards=2)
  for n in range(9):
    # More than the 64 KiB that a queue keeps in memory.
    writer.add('train', [writer.encode(made(n, length=30_000))], (0, n))
  waiting = [path for path in tmp_path.rglob('train-*') if path.is_file()]
  assert len(waiting) == 2
  assert sum(path.stat().st_size for path in waiting) > 9 * 30_000 * 8
  writer.finish()
  assert not any(path.exists() for path in waiting)
  assert len(dataset.Records(str(tmp_path))) == 9
