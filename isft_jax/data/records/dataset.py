"""Reads and writes records: a TFDS data set in ArrayRecord files.

A record holds the author of each token and no loss mask, so that one data set
serves every objective. Neither writing nor reading needs TensorFlow.

An index beside the records is enough to plan an epoch for any objective without
reading a record. Another file has the checksum of every file.
"""

import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from isft_jax import files
from isft_jax.data.records import index as index_lib
from isft_jax.data.records import shard_buffer, shards
from isft_jax.data.records.index import Index
from isft_jax.data.records.shards import Trajectories
from isft_jax.types import Example

__all__ = ['Index', 'Records', 'Trajectories', 'Writer', 'write']

_STAGING = 'incomplete'  # subfolder in which a data set is built
SHARD_RECORDS = 8192


class Records:
  """One split of a data set: `records[i]` is an `Example`."""

  def __init__(self, folder: str, split: str = 'train') -> None:
    """Opens a data set.

    Args:
      folder: its folder.
      split: 'train' or 'heldout'.

    Raises:
      ValueError: the folder has no data set, or the data set no such split.
    """
    path = find_version(folder)
    builder = shards.open_folder(path)
    self.folder, self.split, self._path = str(folder), split, path
    self.metadata = dict(builder.info.metadata)
    self.splits = tuple(builder.info.splits)
    if split not in self.splits:
      raise ValueError(
        f'{folder}: no split {split!r} there, but {", ".join(self.splits)}'
      )
    # Records are read one by one; the index is read, or mapped, as a whole.
    self._source = shards.reader(builder, split)
    self._features = builder.info.features
    self.index = index_lib.read(
      path / shards.INDEX.format(split=split), len(self)
    )

  def __len__(self) -> int:
    return len(self._source)

  def digest(self) -> str:
    """Returns a SHA-256 of the records of the split, without reading them.

    It covers the index and the checksums of the shards. Other files, such as
    the description for TFDS, may change without a change of the records.
    """
    return self._digest

  @functools.cached_property
  def _digest(self) -> str:
    digest = hashlib.sha256()
    # Data sets without checksums are known by their index only.
    sums = shards.checksums(self._path) or {}
    for name in sorted(sums):
      if shards.is_shard(name, self.split):
        digest.update(f'{name} {sums[name]}\n'.encode())
    # The index in use: it may not be the one that the shards were made with.
    for name in Index._fields:
      for block in index_lib.blocks(self.index):
        array = np.ascontiguousarray(getattr(block, name), '<i4')
        digest.update(array.data)
    return digest.hexdigest()

  def __getitem__(self, number: int) -> Example:
    # Negative numbers would count from the end.
    if not 0 <= number < len(self):
      raise IndexError(f'{self.folder}: record {number} of {len(self)}')
    # Damaged shards raise, and shards of another preparation differ from the
    # index.
    try:
      record = self._features.deserialize_example_np(self._source[int(number)])
      error = index_lib.mismatch(self.index, int(number), record)
    except Exception as cause:  # C++ and protocol buffers raise many kinds
      place = self._place_of(int(number))
      raise ValueError(
        f'{place} cannot be read ({type(cause).__name__}); isft-prepare '
        f'--verify={self.folder} lists all damages'
      ) from cause
    if error:
      raise ValueError(
        f'{self._place_of(int(number))} {error}: the shard or the index '
        f'belongs to another preparation; isft-prepare --verify={self.folder} '
        'lists all damages'
      )
    return Example(
      id=record['id'].decode(),
      tokens_T=record['tokens'],
      provenance_T=record['provenance'],
      segment_T=record['segment'],
      verdict_T=record['verdict'],
      scored_from=int(record['scored_from']),
      window=int(record['window']),
    )

  def _place_of(self, number: int) -> str:
    """Returns the shard of a record, and its number there."""
    shard, number = self._source.place(number)
    name = find_version(self.folder) / shards.name(self.split, shard)
    return f'{name}: record {number}'


class Writer:
  """Writes records into shards; the data set appears only after `finish`."""

  def __init__(
    self,
    folder: str,
    metadata: Mapping,
    num_shards: int = 0,
    extends: str = '',
  ) -> None:
    """Begins a data set and removes the remains of an interrupted run.

    Args:
      folder: the folder of the data set.
      metadata: JSON values. `Renderer.metadata` describes how the tokens were
        made.
      num_shards: maximum number of shards per split; a hash of its key chooses
        the shard of a trajectory. 0 fills shards with 8,192 records each, in
        the order of writing.
      extends: the folder of a data set to extend. Its shards become the first
        ones of this data set, and its version number is increased by one.

    Raises:
      ValueError: the data set to extend is damaged.
    """
    # Start from an empty folder.
    self.folder = folder
    staging = epath.Path(folder) / _STAGING
    # An interrupted run leaves its staging folder.
    if staging.exists():
      staging.rmtree()

    # A TFDS builder for the staging folder; `_place` is for the final one.
    base = find_version(extends) if extends else None
    version = _next_version(base.name) if base else ''
    place: dict[str, Any]
    place = {'metadata': dict(metadata), 'version': version}
    self._place = place | {'data_dir': os.fspath(folder)}
    self._builder = Trajectories(**place, data_dir=os.fspath(staging))
    self.staging = epath.Path(self._builder.data_path)
    self.staging.mkdir(parents=True)

    # Shards of the extended data set come first. Own shards are numbered from
    # `first` on.
    self.infos, self._bases = _linked(base, self.staging) if base else ([], {})
    self.first = {
      split: sum(info.split == split for info in self.infos)
      for split in shards.SPLITS
    }
    self.num_shards = num_shards

    # With a given number of shards, records wait on a local disk.
    self._codec = shards.Codec()
    self._open: dict[str, shards.Shard] = {}
    self._written = dict.fromkeys(shards.SPLITS, 0)
    # Remote folders cannot hold the spool; None is the system's folder.
    here = None if '://' in os.fspath(folder) else self.staging
    self._scratch = tempfile.TemporaryDirectory(dir=here)
    self._spool = shard_buffer.Spool(pathlib.Path(self._scratch.name))

  def encode(self, example: Example) -> bytes:
    """Returns an example as the bytes of a record, for `add`."""
    return self._codec.write(example)

  def add(
    self, split: str, records: Iterable[bytes], key: tuple[int, int] = (0, 0)
  ) -> None:
    """Writes the records of one trajectory.

    Args:
      split: its split.
      records: its records, encoded.
      key: unique key of the trajectory, which determines the shard.
    """
    for record in records:
      if self.num_shards:
        # With a given number of shards, records are sorted by shard before
        # writing.
        self._spool.add((split, choose_shard(key, self.num_shards)), record)
        continue
      # Every 8,192 records, close the shard and open the next one.
      number, full = divmod(self._written[split], SHARD_RECORDS)
      if not full:
        self._close(split)
        self._open[split] = self._shard(split, number)
      self._open[split].add(record)
      self._written[split] += 1

  def _shard(self, split: str, number: int) -> shards.Shard:
    return shards.Shard(self.staging, split, self.first[split] + number)

  def _close(self, split: str) -> None:
    if split in self._open:
      self.infos.append(self._open.pop(split).close(self._codec))

  def finish(self) -> None:
    """Completes the data set and moves it to its place.

    Raises:
      ValueError: the split 'train' has no record.
    """
    # The last shard of each split is still open.
    for split in shards.SPLITS:
      self._close(split)
    # Write the shards one after another, so that only one is open.
    for queue in self._spool:
      shard = self._shard(*queue)
      for record in self._spool.take(queue):
        shard.add(record)
      self.infos.append(shard.close(self._codec))
    self._scratch.cleanup()
    # isft-train needs the split 'train'.
    if not any(info.split == 'train' for info in self.infos):
      self.staging.rmtree()
      raise ValueError(f'{self.folder}: no example to write')
    # Metadata, index and checksums; then one rename makes the data set visible.
    shards.assemble(self._builder, self.staging, self.infos, self._bases)
    path = epath.Path(Trajectories(**self._place).data_path)
    # Both folders are in `folder`, so that a rename works. A bucket has no
    # empty folders: the first version is moved with the folder around it.
    if path.parent.exists():
      self.staging.rename(path)
    else:
      self.staging.parent.rename(path.parent)
    if (left := epath.Path(self.folder) / _STAGING).exists():
      left.rmtree()


def write(
  folder: str,
  examples: Callable[[], Iterable[Example]],
  metadata: Mapping,
  heldout: Callable[[], Iterable[Example]] | None = None,
) -> Records:
  """Writes a data set with its index, and opens it.

  A complete data set in the folder is kept. An incomplete one is written again.

  Args:
    folder: the folder of the data set.
    examples: returns the examples of the split 'train', in order.
    metadata: JSON values. `Renderer.metadata` describes how the tokens were
      made.
    heldout: returns the examples of the split 'heldout', which does not exist
      if there are none.

  Returns:
    The records of the split 'train'.

  Raises:
    ValueError: there is no example.
  """
  # `where` raises ValueError if no finished data set exists.
  try:
    path = find_version(folder)
  except ValueError:
    writer = Writer(folder, metadata)
    for split, make in zip(shards.SPLITS, (examples, heldout), strict=True):
      for example in make() if make else ():
        writer.add(split, [writer.encode(example)])
    writer.finish()
    return Records(folder)
  # The data set exists. Rebuild an index that is missing or damaged.
  builder = shards.open_folder(path)
  for split in builder.info.splits:
    source = shards.reader(builder, split)
    index = path / shards.INDEX.format(split=split)
    try:
      index_lib.read(index, len(source))
    except ValueError:
      records = map(builder.info.features.deserialize_example_np, source)
      index_lib.save(index, index_lib.from_records(records, len(source)))
  return Records(folder)


def find_version(folder: str | os.PathLike) -> epath.Path:
  """Returns the folder of the files of a data set.

  Args:
    folder: the folder given to `write` or to isft-prepare.

  Raises:
    ValueError: the data set does not exist.
  """
  # TFDS names the folder after the version, and writes dataset_info.json last.
  infos = sorted(
    epath.Path(folder).glob('trajectories/[0-9]*/dataset_info.json')
  )
  if not infos:
    raise ValueError(f'{folder}: no records there; prepare them first')
  return infos[-1].parent


def choose_shard(key: tuple[int, int], num_shards: int) -> int:
  """Returns the shard of a trajectory, which is the same on every machine.

  Args:
    key: unique key of the trajectory.
    num_shards: number of shards.
  """
  # Python's own hash differs between processes.
  digest = hashlib.sha256(f'{key[0]}:{key[1]}'.encode()).digest()
  return int.from_bytes(digest[:8], 'big') % num_shards


def _next_version(version: str) -> str:
  major, minor, patch = version.split('.')
  return f'{major}.{minor}.{int(patch) + 1}'


def _verified_checksums(base: epath.Path) -> dict[str, str]:
  """Returns the checksums of a data set, after comparing every file.

  Raises:
    ValueError: a file is damaged. Otherwise it would get a new checksum in the
      extended data set, and the damage could no longer be detected.
  """
  # A data set without a file of checksums counts as damaged.
  sums = shards.checksums(base) or {shards.CHECKSUMS: ''}
  for name, sum in sums.items():
    if not (base / name).exists() or files.sha256(base / name) != sum:
      raise ValueError(
        f'{base / name} is damaged; prepare that data set again '
        '(isft-prepare --verify lists all damages)'
      )
  return sums


def _linked(
  base: epath.Path, folder: epath.Path
) -> tuple[list[shards.Info], dict[str, epath.Path]]:
  """Links the shards of a data set into another folder.

  Returns:
    The descriptions of the shards, and the index file of each split.
  """
  infos, indices, sums = [], {}, _verified_checksums(base)
  for split, info in shards.open_folder(base).info.splits.items():
    indices[split] = base / shards.INDEX.format(split=split)
    for number, length in enumerate(info.shard_lengths):
      name = shards.name(split, number)
      try:
        os.link(base / name, folder / name)  # a hard link takes no space
      except OSError:  # another file system
        (base / name).copy(folder / name)
      # TFDS knows only the bytes of the whole split.
      size = info.num_bytes if number == 0 else 0
      infos.append(shards.Info(split, number, length, size, sums[name]))
  return infos, indices
