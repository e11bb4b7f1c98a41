"""Records: rendered trajectories as a TFDS data set in ArrayRecord files.

A record holds who wrote each token and never a loss mask: one data set serves
every objective. No TensorFlow is involved, in writing or in reading.

Beside the records lies an index, from which an epoch can be planned for any
objective without reading a record.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from isft_jax.types import Example, Provenance, Verdict

_INDEX = 'index-{split}.npz'
_STAGING = 'incomplete'
_SHARD_RECORDS = 8192
_BATCH = 64  # records; the writer notes what it has after each batch

tfds.disable_progress_bar()


def _int_array(dtype):
  # Raw bytes: read 7 times as fast as a list of integers in a tf.Example.
  return tfds.features.Tensor(
    shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
  )


class Trajectories(tfds.core.GeneratorBasedBuilder):
  """The builder. Its schema is the file format: change it with the version."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, splits=None, metadata=None, **kwargs):
    self._splits = splits
    self._metadata = metadata
    super().__init__(file_format='array_record', **kwargs)

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description='Agent trajectories as tokens with their authors.',
      features=tfds.features.FeaturesDict(
        {
          'tokens': _int_array(np.int32),
          'provenance': _int_array(np.uint8),
          'segment': _int_array(np.int32),
          'verdict': _int_array(np.uint8),
          'scored_from': np.int32,
          'window': np.int32,
          'id': tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(self._metadata or {}),
      disable_shuffling=True,  # a record keeps the number it was written with
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    generators = {}
    for split, make in self._splits.items():
      examples = iter(make())
      first = list(itertools.islice(examples, 1))
      if first:  # TFDS has no empty splits
        examples = itertools.chain(first, examples)
        generators[split] = self._generate_examples(examples)
    return generators

  def _generate_examples(self, examples):
    for number, example in enumerate(examples):
      yield (
        number,
        {
          'tokens': example.tokens_T,
          'provenance': example.provenance_T,
          'segment': example.segment_T,
          'verdict': example.verdict_T,
          'scored_from': example.scored_from,
          'window': example.window,
          'id': example.id,
        },
      )


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


class Records:
  """An opened data set: `records[i]` is an `Example`, `records.index` plans."""

  def __init__(self, folder: str, split: str = 'train'):
    """Opens what `write` made. Raises ValueError where there is none."""
    builders = sorted(
      epath.Path(folder).glob('trajectories/[0-9]*/*_info.json')
    )
    if not builders:
      raise ValueError(f'{folder}: no records there; prepare them first')
    path = builders[-1].parent
    builder = tfds.builder_from_directory(path)
    self.folder = str(folder)
    self.metadata = dict(builder.info.metadata)
    self.splits = tuple(builder.info.splits)
    if split not in self.splits:
      raise ValueError(
        f'{folder}: no split {split!r} there, but {", ".join(self.splits)}'
      )
    self._source = builder.as_data_source(split)
    self.index = _read_index(path / _INDEX.format(split=split), len(self))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, number: int) -> Example:
    if not 0 <= number < len(self):
      raise IndexError(f'{self.folder}: record {number} of {len(self)}')
    record = self._source[int(number)]
    return Example(
      id=record['id'].decode(),
      tokens_T=record['tokens'],
      provenance_T=record['provenance'],
      segment_T=record['segment'],
      verdict_T=record['verdict'],
      scored_from=int(record['scored_from']),
      window=int(record['window']),
    )


def write(
  folder: str,
  examples: Callable[[], Iterable[Example]],
  metadata: Mapping,
  heldout: Callable[[], Iterable[Example]] | None = None,
) -> Records:
  """Writes a data set and its index, and opens it.

  A data set that is already whole is left as it is. One that was cut while
  being written leaves a folder that is not opened, and is written anew.

  examples: called to get the examples, in the order of the records.
  metadata: JSON values; `Renderer.metadata` says how the tokens were made.
  heldout: the same for a second split, which is left out if it is empty.

  Raises ValueError if there is no example.
  """
  splits = {'train': examples} | ({'heldout': heldout} if heldout else {})
  place = {'metadata': dict(metadata), 'data_dir': os.fspath(folder)}
  path = epath.Path(Trajectories(**place).data_path)
  if not path.exists():
    staging = epath.Path(folder) / _STAGING
    if staging.exists():  # of a run that was cut
      staging.rmtree()
    place['data_dir'] = os.fspath(staging)
    staged = _write_splits(Trajectories(splits=splits, **place), folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(path)
    staging.rmtree()
  builder = tfds.builder_from_directory(path)
  for split in builder.info.splits:
    source = builder.as_data_source(split)
    index = path / _INDEX.format(split=split)
    try:
      _read_index(index, len(source))
    except ValueError:
      part = index.with_suffix('.part')
      with part.open('wb') as file:
        np.savez(file, **_make_index(source)._asdict())
      part.replace(index)
  return Records(folder)


def _write_splits(builder: Trajectories, folder: str) -> epath.Path:
  """Writes a builder's examples, a shard at a time; returns the folder.

  TFDS's own way sorts all examples first: in memory up to a gigabyte, and
  beyond that with TensorFlow.
  """
  splits = builder._split_generators(None)
  if 'train' not in splits:
    raise ValueError(f'{folder}: no example to write')
  path = epath.Path(builder.data_path)
  path.mkdir(parents=True)
  writer = tfds.core.SequentialWriter(
    builder.info, _SHARD_RECORDS, file_format='array_record'
  )
  for split, records in splits.items():
    writer.initialize_splits([split])
    while batch := [record for _, record in itertools.islice(records, _BATCH)]:
      writer.add_examples({split: batch})
  writer.close_all()
  return path


def _read_index(path: epath.Path, records: int) -> Index:
  try:
    with path.open('rb') as file:
      index = Index(**np.load(file, allow_pickle=False))
    if {len(array) for array in index} != {records}:
      raise ValueError('it is of another number of records')
  except (OSError, EOFError, TypeError, ValueError, BadZipFile) as error:
    raise ValueError(
      f'{path}: missing or damaged; prepare the records again'
    ) from error
  return index


def _make_index(source) -> Index:
  shape_NPV = (len(source), len(Provenance), len(Verdict))
  index = Index(
    length_N=np.zeros(len(source), np.int32),
    counts_NPV=np.zeros(shape_NPV, np.int32),
    last_NPV=np.full(shape_NPV, -1, np.int32),
    trajectory_N=np.zeros(len(source), np.int32),
  )
  for n, record in enumerate(source):
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
