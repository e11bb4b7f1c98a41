"""A large index is mapped, checked, and passed over in blocks."""

import mmap
import pathlib

import numpy as np
import pytest
from etils import epath

from isft_jax.config import RunConfig
from isft_jax.data.batching import packing, pipeline
from isft_jax.data.records import dataset
from isft_jax.data.records import index as index_lib
from isft_jax.data.records.index import Index
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Verdict
from tests.dialogues import dialogues, write_records


def random_index(number, seed=0):
  rng = np.random.default_rng(seed)
  shape = number, len(Provenance), len(Verdict)
  arrays = (
    rng.integers(0, 1 << 20, shape[: 1 if i in (0, 3) else 3]) for i in range(4)
  )
  return Index(*(array.astype(np.int32) for array in arrays))


def assert_equal(one, other):
  for a, b in zip(one, other, strict=True):
    np.testing.assert_array_equal(a, b, strict=True)


@pytest.fixture
def mapped(monkeypatch):
  """Every index file counts as large."""
  monkeypatch.setattr(index_lib, '_MAPPED', 0)
  monkeypatch.setattr(index_lib, '_READ', 100)


@pytest.mark.parametrize('number', [1, 7, 1000])
def test_a_mapped_index_is_that_of_its_file(number, mapped, tmp_path):
  path, index = epath.Path(tmp_path / 'index.npz'), random_index(number)
  index_lib.save(path, index)
  again = index_lib.read(path, number)
  assert_equal(again, index)
  for array in again:
    assert isinstance(array.base, mmap.mmap)
    assert not array.flags.writeable
  # The file may be replaced, such as by another preparation.
  index_lib.save(path, random_index(number, seed=1))
  assert_equal(again, index)


def test_a_joined_index_is_mapped(mapped, tmp_path):
  parts = [random_index(number) for number in (3, 1, 5)]
  paths = [epath.Path(tmp_path / f'{i}.npz') for i in range(3)]
  for path, part in zip(paths, parts, strict=True):
    index_lib.save(path, part)
  joined = epath.Path(tmp_path / 'joined.npz')
  index_lib.join(joined, paths)
  for name in ('length_N', 'counts_NPV', 'last_NPV'):
    np.testing.assert_array_equal(
      getattr(index_lib.read(joined, 9), name),
      np.concatenate([getattr(part, name) for part in parts]),
      strict=True,
    )


def test_small_files_are_in_memory(tmp_path):
  path = epath.Path(tmp_path / 'index.npz')
  index_lib.save(path, random_index(9))
  assert not any(
    isinstance(array.base, mmap.mmap) for array in index_lib.read(path, 9)
  )


def flip(path):
  """Changes one bit of the array in the middle."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def cut(path):
  path.write_bytes(path.read_bytes()[:-1000])


def compress(path):
  np.savez_compressed(path, **random_index(50)._asdict())


def turn(path):
  """Has the right shapes, in another order of memory."""
  index = random_index(50)._asdict()
  turned = np.asfortranarray(index['last_NPV'])
  np.savez(path, **index | {'last_NPV': turned})


def widen(path):
  index = random_index(50)._asdict()
  np.savez(path, **index | {'length_N': index['length_N'].astype(np.int64)})


@pytest.mark.parametrize('damage', [flip, cut, compress, turn, widen])
def test_a_damaged_file_is_refused(damage, mapped, tmp_path):
  path = tmp_path / 'index.npz'
  index_lib.save(epath.Path(path), random_index(50))
  damage(path)
  with pytest.raises(ValueError) as error:
    index_lib.read(epath.Path(path), 50)
  assert str(error.value) == (
    f'{path}: missing or damaged; prepare the records again'
  )


@pytest.mark.parametrize('number', [0, 1, 6, 7, 8, 100])
def test_blocks_are_the_index(number, monkeypatch):
  monkeypatch.setattr(index_lib, '_BLOCK', 7)
  index = random_index(number)
  blocks = [*index_lib.blocks(index)]
  assert [len(block.length_N) for block in blocks] == (
    [7] * (number // 7) + [number % 7] * (number % 7 > 0 or number == 0)
  )
  assert_equal(Index(*map(np.concatenate, zip(*blocks, strict=True))), index)


def loaded(index):
  """Bytes of an index file that are in the memory of this process."""
  lines = pathlib.Path('/proc/self/smaps').read_text().split('\n')
  at = [i for i, line in enumerate(lines) if line.endswith(str(index))]
  sizes = [next(x for x in lines[i:] if x.startswith('Rss:')) for i in at]
  return sum(1024 * int(size.split()[1]) for size in sizes)


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/smaps').exists(), reason='needs Linux'
)
def test_passed_blocks_of_a_mapped_index_leave_memory(
  mapped, tmp_path, monkeypatch
):
  monkeypatch.setattr(index_lib, '_BLOCK', 10_000)
  path, number = tmp_path / 'index.npz', 50_000
  index_lib.save(epath.Path(path), random_index(number))
  index = index_lib.read(epath.Path(path), number)
  assert sum(array.sum() for array in index) > 0
  assert loaded(path) > 190 * number
  packing.count_targets(index, weight_table('observational'))
  assert loaded(path) == 0
  for array in index:
    array[number // 2].sum()
  assert loaded(path) > 0


def test_a_run_on_a_mapped_index_is_the_same(tmp_path, monkeypatch):
  """Digest, plan and weights, with blocks of a few records."""
  write_records(tmp_path / 'records', dialogues())
  sources = []
  for _ in range(2):
    records = dataset.Records(str(tmp_path / 'records'))
    config = RunConfig(
      records=str(tmp_path / 'records'),
      seq_len=256,
      normalize='trajectory',
      objective='weighted(0.3)',
    )
    sources.append(pipeline.BatchSource(records, config))
    monkeypatch.setattr(index_lib, '_MAPPED', 0)
    monkeypatch.setattr(index_lib, '_BLOCK', 7)
  records = [source.components[0].records for source in sources]
  assert isinstance(records[1].index.length_N.base, mmap.mmap)
  assert records[0].digest() == records[1].digest()
  digests = {source.plan.plans[0].digest() for source in sources}
  assert len(digests) == 1
  for step in range(len(sources[0])):
    for a, b in zip(*(source[step] for source in sources), strict=True):
      np.testing.assert_array_equal(a, b, strict=True)
