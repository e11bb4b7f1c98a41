"""The index beside records: all that planning an epoch needs of them.

It is made a shard at a time and joined on disk, so that no size is too large.
"""

import zipfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from isft_jax import files
from isft_jax.types import Provenance, Verdict


class Index(NamedTuple):
  """What planning needs to know of each of N records.

  length_N: tokens.
  counts_NPV: scorable positions by provenance and verdict. A position is
    scorable from max(1, scored_from) on: the first token has no context.
  last_NPV: the last such position, or -1.
  trajectory_N: the number of its trajectory: windows of one share it.
  """

  length_N: np.ndarray
  counts_NPV: np.ndarray
  last_NPV: np.ndarray
  trajectory_N: np.ndarray


def of(records: Iterable[dict], number: int) -> Index:
  """Returns the index of so many records, as features read them."""
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
    author_T = record['provenance'][first:].astype(np.int64)
    cell_T = author_T * len(Verdict) + record['verdict'][first:]
    index.counts_NPV[n].ravel()[:] = np.bincount(
      cell_T, minlength=index.counts_NPV[n].size
    )
    # Of assignments to one cell the last one, the latest position, stays.
    index.last_NPV[n].ravel()[cell_T] = np.arange(first, first + len(cell_T))
    index.trajectory_N[n] = record['window'] == 0
  # The windows of a trajectory follow its window 0.
  np.cumsum(index.trajectory_N, out=index.trajectory_N)
  return index


def read(path: epath.Path, records: int) -> Index:
  """Returns the index of a file. Raises ValueError if it is damaged."""
  try:
    with files.open_bytes(path, 'rb') as file:
      index = Index(**np.load(file, allow_pickle=False))
    if {len(array) for array in index} != {records}:
      raise ValueError('it is of another number of records')
  except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as e:
    raise ValueError(
      f'{path}: missing or damaged; prepare the records again'
    ) from e
  return index


def save(path: epath.Path, index: Index) -> None:
  """Writes an index as a file, whole or not at all."""
  with files.replacing(path) as part, files.open_bytes(part, 'wb') as file:
    np.savez(file, **index._asdict())


def join(path: epath.Path, parts: Sequence[epath.Path]) -> None:
  """Writes one index of many, in their order; holds one of them at a time."""
  lengths = [len(_field(part, 'length_N')) for part in parts]
  with (
    files.replacing(path) as joined,
    files.open_bytes(joined, 'wb') as file,
    zipfile.ZipFile(file, 'w') as archive,
  ):
    for name in Index._fields:
      # A ZipInfo of its own would carry the time of day.
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        trajectories = 0
        for i, part in enumerate(parts):
          array = _field(part, name)
          if name == 'trajectory_N':
            array = array + np.int32(trajectories)
            trajectories = array[-1] if len(array) else trajectories
          if i == 0:
            shape = (sum(lengths), *array.shape[1:])
            header = {'descr': '<i4', 'fortran_order': False, 'shape': shape}
            np.lib.format.write_array_header_1_0(member, header)
          member.write(np.ascontiguousarray(array, '<i4').tobytes())


def _field(path: epath.Path, name: str) -> np.ndarray:
  with (
    files.open_bytes(path, 'rb') as file,
    np.load(file, allow_pickle=False) as arrays,
  ):
    return arrays[name]
