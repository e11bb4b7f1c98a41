"""Locks what only one process may write."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator

_LONGEST_HOLDER = 200  # bytes of a lock file that are read
_held: set[int] = set()  # descriptors of the locks of this process


@contextlib.contextmanager
def locked(
  path: os.PathLike | str, refusal: Callable[[str], str]
) -> Iterator[None]:
  """Holds the lock of a file, which only one process has at a time.

  The kernel releases the lock when its process ends, even if it was killed. The
  file may stay behind, and does not block anybody. There is no lock in a
  bucket, in a folder that cannot be changed, or on a file system without locks.

  Args:
    path: the file, which is made and at the end removed.
    refusal: (holder) -> message of the error. The holder is named by its
      process, machine and time of start.

  Raises:
    ValueError: another process has the lock.
  """
  if '://' in os.fspath(path):
    yield
    return
  file = _lock(os.fspath(path), refusal)
  try:
    yield
  finally:
    # Removed first, because another process may lock it from then on.
    if file in _held:
      with contextlib.suppress(OSError):
        os.unlink(path)
      _held.discard(file)
      os.close(file)


def _lock(path: str, refusal: Callable[[str], str]) -> int | None:
  """Returns the opened and locked file; None where there can be none."""
  while True:
    try:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # a finished result in a folder that cannot be changed
      return None
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.read(file, _LONGEST_HOLDER).decode(errors='replace')
      os.close(file)
      raise ValueError(
        refusal(' '.join(holder.split()) or 'an unknown process')
      ) from None
    except OSError:  # a file system without locks
      os.close(file)
      return None
    # The process that had the lock may have removed the file meanwhile.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file), os.stat(path)):
        _held.add(file)
        _name_holder(file)
        return file
    os.close(file)


def _name_holder(file: int) -> None:
  now = time.strftime('%Y-%m-%d %H:%M:%S')
  text = f'process {os.getpid()} on {socket.gethostname()}, since {now}\n'
  with contextlib.suppress(OSError):  # the lock holds even on a full disk
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)


def _leave_to_parent() -> None:
  # A child that outlives its parent would keep the lock.
  while _held:
    os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)
