"""Reads single records of many shards, with only some of the files open.

A data set may have more shards than a process may open files. To open a shard
again takes less than a millisecond.
"""

import bisect
import collections
import itertools
import resource
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from tensorflow_datasets.core.utils.lazy_imports_utils import (
  array_record_module,
)

_MOST = 128  # open shards of a process


class ShardReader:
  """The records of a split as bytes, by number."""

  def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
    """Opens no file yet.

    Args:
      paths: paths of the shards.
      lengths: number of records of each shard.
    """
    self._paths = list(paths)
    # Another file may have the same path later, in the same process.
    self._key = object()
    weakref.finalize(self, _open.forget, self._key)
    # Number of the first record of each shard, and the number of all records.
    self._starts = [0, *itertools.accumulate(lengths)]

  def __len__(self) -> int:
    return self._starts[-1]

  def __getitem__(self, number: int) -> bytes:
    shard, position = self.place(number)
    reader = _open.reader((self._key, shard), self._paths[shard])
    return reader.read([position])[0]

  def __iter__(self) -> Iterator[bytes]:
    return (self[number] for number in range(len(self)))

  def place(self, number: int) -> tuple[int, int]:
    """Returns the shard of a record, and its number there.

    Args:
      number: number of the record.

    Raises:
      IndexError: the index is out of range.
    """
    if not 0 <= number < len(self):
      raise IndexError(f'record {number} of {len(self)}')
    # The last shard that starts at or before the record; others are empty.
    shard = bisect.bisect_right(self._starts, number) - 1
    return shard, number - self._starts[shard]


class _OpenShards:
  """The readers that a process used last. Threads share them."""

  def __init__(self) -> None:
    self._readers: collections.OrderedDict[tuple[object, int], Any]
    self._readers = collections.OrderedDict()
    # Reentrant, because a garbage collection may call `forget` at any time.
    self._lock = threading.RLock()

  def forget(self, key: object) -> None:
    """Closes the files of a `ShardReader` that is no longer used."""
    with self._lock:
      for each in [each for each in self._readers if each[0] is key]:
        self._readers.pop(each, None)

  def reader(self, key: tuple[object, int], path: str) -> Any:
    """Returns the reader of a file, which is opened if it was not."""
    with self._lock:
      reader = self._readers.pop(key, None)
      if reader is None:
        # A reader closes its file when nobody refers to it any more, which
        # another thread may still do.
        while len(self._readers) >= _most_open():
          self._readers.popitem(last=False)
        # Records are read one by one, so that nothing is read ahead.
        reader = array_record_module.ArrayRecordReader(
          path, 'readahead_buffer_size:0'
        )
      self._readers[key] = reader
    return reader


def _most_open() -> int:
  # The rest is left to checkpoints, loggers and connections.
  limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  return _MOST if limit < 0 else max(1, min(_MOST, limit // 4))


_open = _OpenShards()
