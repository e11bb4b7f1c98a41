"""Buffers records on disk until their shard is written.

An ArrayRecord writer needs 16 MiB of memory and an open file. Hundreds of open
shards would need more memory than a machine has. Records therefore wait on disk
and the shards are written one after another.
"""

import pathlib
from collections.abc import Iterator

Queue = tuple[str, int]  # a split and the number of a shard

_BUFFER = 1 << 16  # bytes per shard in memory, before they go to disk
_LENGTH = 8  # bytes of the length before each record


class Spool:
  """Queues of records on disk, one per shard."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Creates an empty spool.

    Args:
      folder: an empty local folder.
    """
    self._folder = folder
    self._buffers: dict[Queue, bytearray] = {}

  def __iter__(self) -> Iterator[Queue]:
    """Yields the existing queues, sorted."""
    return iter(sorted(self._buffers))

  def add(self, queue: Queue, record: bytes) -> None:
    """Appends a record to a queue."""
    buffer = self._buffers.setdefault(queue, bytearray())
    buffer += len(record).to_bytes(_LENGTH, 'little') + record
    # No file stays open: there may be more queues than file descriptors.
    if len(buffer) > _BUFFER:
      with self._path(queue).open('ab') as file:
        file.write(buffer)
      buffer.clear()

  def take(self, queue: Queue) -> Iterator[bytes]:
    """Yields the records of a queue in order, and then deletes the queue."""
    with self._path(queue).open('a+b') as file:
      file.write(self._buffers.pop(queue))
      file.seek(0)
      while length := file.read(_LENGTH):
        yield file.read(int.from_bytes(length, 'little'))
    self._path(queue).unlink()

  def _path(self, queue: Queue) -> pathlib.Path:
    return self._folder / '-'.join(map(str, queue))
