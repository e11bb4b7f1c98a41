"""Records that wait for their shard, on disk.

A writer of ArrayRecord keeps 16 MiB of its file to itself, and a file open. Of
hundreds of shards that fill at once, that is more memory than a machine has; so
records wait here, and one shard after the other is written.
"""

import pathlib
from collections.abc import Iterator

Queue = tuple[str, int]  # a split, and the number of its shard

_HELD = 1 << 16  # bytes of each shard that wait in memory
_LENGTH = 8  # bytes of a record's length, before it


class Spool:
  """Queues of records, each as long as the disk has room for."""

  def __init__(self, folder: pathlib.Path) -> None:
    """folder: an empty one, of this machine."""
    self._folder = folder
    self._held: dict[Queue, bytearray] = {}

  def __iter__(self) -> Iterator[Queue]:
    """Yields the queues that there are, sorted."""
    return iter(sorted(self._held))

  def add(self, queue: Queue, record: bytes) -> None:
    """Puts a record at the end of a queue."""
    held = self._held.setdefault(queue, bytearray())
    held += len(record).to_bytes(_LENGTH, 'little') + record
    if len(held) > _HELD:
      with self._path(queue).open('ab') as file:
        file.write(held)
      held.clear()

  def take(self, queue: Queue) -> Iterator[bytes]:
    """Yields the records of a queue, in their order, and lets go of them."""
    with self._path(queue).open('a+b') as file:
      file.write(self._held.pop(queue))
      file.seek(0)
      while length := file.read(_LENGTH):
        yield file.read(int.from_bytes(length, 'little'))
    self._path(queue).unlink()

  def _path(self, queue: Queue) -> pathlib.Path:
    return self._folder / '-'.join(map(str, queue))
