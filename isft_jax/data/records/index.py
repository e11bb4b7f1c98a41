"""Index of records, from which an epoch is planned without reading them.

The index is built shard by shard and joined on disk, so that memory does not
limit the size of a data set. A large index is mapped into memory, so that the
system loads what is read, and may drop it.
"""

import mmap
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from isft_jax import files
from isft_jax.types import Provenance, Verdict

# Larger index files are mapped: those of more than about 300,000 records.
_MAPPED = 1 << 26  # bytes
_BLOCK = 1 << 17  # records per block
_READ = 1 << 20  # bytes


class Index(NamedTuple):
  """Lengths and counts of each of N records; all arrays are int32."""

  length_N: np.ndarray  # tokens
  # Number of scorable positions by provenance and verdict. A position is
  # scorable from max(1, scored_from) on, because the first token has no
  # context.
  counts_NPV: np.ndarray
  last_NPV: np.ndarray  # the last such position, or -1
  # Number of the trajectory; the windows of one trajectory have the same.
  trajectory_N: np.ndarray


def from_records(records: Iterable[dict], number: int) -> Index:
  """Returns the index of records.

  Args:
    records: the fields of each record, as `Codec.read` returns them.
    number: number of records.
  """
  shape_NPV = (number, len(Provenance), len(Verdict))
  index = Index(
    length_N=np.zeros(number, np.int32),
    counts_NPV=np.zeros(shape_NPV, np.int32),
    last_NPV=np.full(shape_NPV, -1, np.int32),
    trajectory_N=np.zeros(number, np.int32),
  )
  for n, record in enumerate(records):
    first = max(1, int(record['scored_from']))
    index.length_N[n] = len(record['tokens'])
    # Histogram over pairs (author, verdict) with a joint index.
    author_T = record['provenance'][first:].astype(np.int64)
    cell_T = author_T * len(Verdict) + record['verdict'][first:]
    index.counts_NPV[n].ravel()[:] = np.bincount(
      cell_T, minlength=index.counts_NPV[n].size
    )
    # Several assignments to one cell keep the last one: the latest position.
    index.last_NPV[n].ravel()[cell_T] = np.arange(first, first + len(cell_T))
    index.trajectory_N[n] = record['window'] == 0
  # The windows of a trajectory follow its window 0, so that counting the
  # windows 0 gives the number of the trajectory, from 1.
  np.cumsum(index.trajectory_N, out=index.trajectory_N)
  return index


def mismatch(index: Index, number: int, record: dict) -> str:
  """Returns how a record differs from its place in an index, or ''.

  Args:
    index: the index of all records.
    number: number of the record.
    record: its fields, as `Codec.read` returns them.
  """
  length = len(record['tokens'])
  for name in ('provenance', 'segment', 'verdict'):
    if len(record[name]) != length:
      return f'has {length} tokens, but {len(record[name])} values of {name}'
  if length != index.length_N[number]:
    return f'has {length} tokens, but {index.length_N[number]} in the index'
  own = from_records([record], 1)
  if not np.array_equal(own.counts_NPV[0], index.counts_NPV[number]):
    scorable, expected = own.counts_NPV.sum(), index.counts_NPV[number].sum()
    if scorable == expected:
      return 'has other authors or verdicts than in the index'
    return f'has {scorable} scorable tokens, but {expected} in the index'
  if not np.array_equal(own.last_NPV[0], index.last_NPV[number]):
    return 'has its authors in another order than in the index'
  # Only window 0 begins a trajectory.
  before = index.trajectory_N[number - 1] if number else 0
  if own.trajectory_N[0] != index.trajectory_N[number] - before:
    return f'is window {record["window"]}, which is not that of the index'
  return ''


def blocks(index: Index) -> Iterator[Index]:
  """Yields an index in blocks of records, for passes over all of them.

  Only one block of a mapped index stays in memory, and no array of the size of
  the index is made.

  Args:
    index: the index of N records. With N = 0 there is one empty block.
  """
  for start in range(0, max(1, len(index.length_N)), _BLOCK):
    block = slice(start, start + _BLOCK)
    yield Index(*(array[block] for array in index))
    for array in index:
      if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def read(path: epath.Path, records: int) -> Index:
  """Reads an index file, or maps it if it is large and local.

  Args:
    path: the file.
    records: expected number of records.

  Raises:
    ValueError: the file is missing or damaged.
  """
  cells = len(Provenance), len(Verdict)
  shapes = {'length_N': (), 'trajectory_N': ()} | dict.fromkeys(
    ('counts_NPV', 'last_NPV'), cells
  )
  try:
    is_remote = '://' in os.fspath(path)
    if is_remote or path.stat().length <= _MAPPED:
      with files.open_bytes(path, 'rb') as file:
        index = Index(**np.load(file, allow_pickle=False))
    else:
      index = _mapped(path)
    for name, shape in shapes.items():
      array = getattr(index, name)
      if (array.dtype, array.shape) != (np.int32, (records, *shape)):
        raise ValueError(f'{name} has another shape or type')
  except Exception as error:  # damaged archives raise many kinds
    raise ValueError(
      f'{path}: missing or damaged; prepare the records again'
    ) from error
  return index


def _mapped(path: epath.Path) -> Index:
  """Maps the arrays of an index file, after comparing their checksums."""
  arrays = {}
  with files.open_bytes(path, 'rb') as file, zipfile.ZipFile(file) as archive:
    for info in archive.infolist():
      if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f'{info.filename} is compressed')
      # Reading to the end compares the CRC.
      with archive.open(info) as member:
        while member.read(_READ):
          pass
      # The data follow a header of 30 bytes, which ends in the lengths of a
      # name and of further fields.
      file.seek(info.header_offset + 26)
      file.seek(sum(struct.unpack('<HH', file.read(4))), os.SEEK_CUR)
      np.lib.format.read_magic(file)
      shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
      if is_fortran:
        raise ValueError(f'{info.filename} is in Fortran order')
      arrays[info.filename.removesuffix('.npy')] = np.memmap(
        os.fspath(path), dtype, 'r', file.tell(), shape
      )
  return Index(**arrays)


def save(path: epath.Path, index: Index) -> None:
  """Writes an index file atomically.

  Args:
    path: the file.
    index: the index.
  """
  with files.replacing(path) as part, files.open_bytes(part, 'wb') as file:
    np.savez(file, **index._asdict())


def join(path: epath.Path, parts: Sequence[epath.Path]) -> None:
  """Joins index files into one, with one of them in memory at a time.

  Args:
    path: the file to write.
    parts: the files to join, in order.
  """
  lengths = [len(_field(part, 'length_N')) for part in parts]
  with (
    files.replacing(path) as joined,
    files.open_bytes(joined, 'wb') as file,
    zipfile.ZipFile(file, 'w') as archive,
  ):
    for name in Index._fields:
      # Opening a member by name gives it a constant date, so that the file has
      # the same bytes on every day.
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        trajectories = 0
        for i, part in enumerate(parts):
          array = _field(part, name)
          # Numbers of trajectories continue from the part before.
          if name == 'trajectory_N':
            array = array + np.int32(trajectories)
            trajectories = array[-1] if len(array) else trajectories
          # The header of the joined array comes before the first part.
          if i == 0:
            shape = (sum(lengths), *array.shape[1:])
            header = {'descr': '<i4', 'fortran_order': False, 'shape': shape}
            np.lib.format.write_array_header_1_0(member, header)
          member.write(np.ascontiguousarray(array, '<i4').tobytes())


def _field(path: epath.Path, name: str) -> np.ndarray:
  """Reads one array of an index file."""
  with (
    files.open_bytes(path, 'rb') as file,
    np.load(file, allow_pickle=False) as arrays,
  ):
    return arrays[name]
