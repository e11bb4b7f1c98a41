"""Records: rendered trajectories as a TFDS data set in ArrayRecord files.

A record holds who wrote each token and never a loss mask: one data set serves
every objective. No TensorFlow is involved, in writing or in reading.

Beside the records lies an index, from which an epoch can be planned for any
objective without reading a record, and the checksum of every file.
"""

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from isft_jax.data.records import index as index_lib
from isft_jax.data.records import shard_buffer, shards
from isft_jax.data.records.index import Index
from isft_jax.data.records.shards import Trajectories
from isft_jax.types import Example

__all__ = ['Index', 'Records', 'Trajectories', 'Writer', 'write']

_STAGING = 'incomplete'
SHARD_RECORDS = 8192


class Records:
  """An opened data set: `records[i]` is an `Example`, `records.index` plans."""

  def __init__(self, folder: str, split: str = 'train') -> None:
    """Opens what `write` made. Raises ValueError where there is none."""
    path = where(folder)
    builder = tfds.builder_from_directory(path)
    self.folder, self.split = str(folder), split
    self.metadata = dict(builder.info.metadata)
    self.splits = tuple(builder.info.splits)
    if split not in self.splits:
      raise ValueError(
        f'{folder}: no split {split!r} there, but {", ".join(self.splits)}'
      )
    self._source = builder.as_data_source(split)
    self.index = index_lib.read(
      path / shards.INDEX.format(split=split), len(self)
    )

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


class Writer:
  """Writes records into shards; nothing is opened before `finish`."""

  def __init__(
    self,
    folder: str,
    metadata: Mapping,
    num_shards: int = 0,
    extends: str = '',
  ) -> None:
    """Begins a data set; what a run that was cut left there is cleared away.

    metadata: JSON values; `Renderer.metadata` says how the tokens were made.
    num_shards: of a split, at most: a record's shard is chosen by its key. 0:
      as many as there are, of 8,192 records each, in the order of writing.
    extends: the folder of a data set whose shards are the first of this one;
      its version is followed by the next.

    Raises ValueError if that one is damaged.
    """
    self.folder = folder
    staging = epath.Path(folder) / _STAGING
    if staging.exists():
      staging.rmtree()
    base = where(extends) if extends else None
    version = _next_version(base.name) if base else ''
    place: dict[str, Any]
    place = {'metadata': dict(metadata), 'version': version}
    self._place = place | {'data_dir': os.fspath(folder)}
    self._builder = Trajectories(**place, data_dir=os.fspath(staging))
    self.staging = epath.Path(self._builder.data_path)
    self.staging.mkdir(parents=True)
    self.infos, self._bases = _linked(base, self.staging) if base else ([], {})
    self.first = {
      split: sum(info.split == split for info in self.infos)
      for split in shards.SPLITS
    }
    self.num_shards = num_shards
    self._codec = shards.Codec()
    self._open: dict[str, shards.Shard] = {}
    self._written = dict.fromkeys(shards.SPLITS, 0)
    here = None if '://' in os.fspath(folder) else self.staging
    self._scratch = tempfile.TemporaryDirectory(dir=here)
    self._spool = shard_buffer.Spool(pathlib.Path(self._scratch.name))

  def encode(self, example: Example) -> bytes:
    """Returns the bytes that `add` takes."""
    return self._codec.write(example)

  def add(
    self, split: str, records: Iterable[bytes], key: tuple[int, int] = (0, 0)
  ) -> None:
    """Writes records of one trajectory. key: unique to it; chooses a shard."""
    for record in records:
      if self.num_shards:
        self._spool.add((split, shard_of(key, self.num_shards)), record)
        continue
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
    """Puts the data set in its place, whole.

    Raises ValueError if there is no record to train on.
    """
    for split in shards.SPLITS:
      self._close(split)
    for queue in self._spool:
      shard = self._shard(*queue)
      for record in self._spool.take(queue):
        shard.add(record)
      self.infos.append(shard.close(self._codec))
    self._scratch.cleanup()
    if not any(info.split == 'train' for info in self.infos):
      self.staging.rmtree()
      raise ValueError(f'{self.folder}: no example to write')
    shards.assemble(self._builder, self.staging, self.infos, self._bases)
    path = epath.Path(Trajectories(**self._place).data_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    self.staging.rename(path)
    (epath.Path(self.folder) / _STAGING).rmtree()


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
  try:
    path = where(folder)
  except ValueError:
    writer = Writer(folder, metadata)
    for split, make in zip(shards.SPLITS, (examples, heldout), strict=True):
      for example in make() if make else ():
        writer.add(split, [writer.encode(example)])
    writer.finish()
    return Records(folder)
  builder = tfds.builder_from_directory(path)
  for split in builder.info.splits:
    source = builder.as_data_source(split)
    index = path / shards.INDEX.format(split=split)
    try:
      index_lib.read(index, len(source))
    except ValueError:
      index_lib.save(index, index_lib.of(source, len(source)))
  return Records(folder)


def where(folder: str | os.PathLike) -> epath.Path:
  """Returns where the files of a data set lie. Raises ValueError if nowhere."""
  found = sorted(
    epath.Path(folder).glob('trajectories/[0-9]*/dataset_info.json')
  )
  if not found:
    raise ValueError(f'{folder}: no records there; prepare them first')
  return found[-1].parent


def shard_of(key: tuple[int, int], num_shards: int) -> int:
  """Returns the shard of a trajectory: the same wherever it is prepared."""
  digest = hashlib.sha256(f'{key[0]}:{key[1]}'.encode()).digest()
  return int.from_bytes(digest[:8], 'big') % num_shards


def _next_version(version: str) -> str:
  major, minor, patch = version.split('.')
  return f'{major}.{minor}.{int(patch) + 1}'


def _whole(base: epath.Path) -> dict[str, str]:
  """Returns the checksums of a data set.

  Raises ValueError if one is wrong: in another data set the file would get a
  new one, and its damage would no longer be seen.
  """
  sums = shards.checksums(base) or {shards.CHECKSUMS: ''}
  for name, sum in sums.items():
    if not (base / name).exists() or shards.sha256(base / name) != sum:
      raise ValueError(
        f'{base / name} is damaged; isft-prepare --verify tells more; prepare '
        'that data set anew'
      )
  return sums


def _linked(
  base: epath.Path, folder: epath.Path
) -> tuple[list[shards.Info], dict[str, epath.Path]]:
  """Puts the shards of a data set into another: one file in two places."""
  infos, indices, sums = [], {}, _whole(base)
  for split, info in tfds.builder_from_directory(base).info.splits.items():
    indices[split] = base / shards.INDEX.format(split=split)
    for number, length in enumerate(info.shard_lengths):
      name = shards.name(split, number)
      try:
        os.link(base / name, folder / name)
      except OSError:  # another file system
        (base / name).copy(folder / name)
      size = info.num_bytes if number == 0 else 0  # of the split as a whole
      infos.append(shards.Info(split, number, length, size, sums[name]))
  return infos, indices
