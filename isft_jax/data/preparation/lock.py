"""Lock that keeps two preparations from writing into one folder.

The kernel releases the lock when its process ends, even if it was killed. The
file of the lock may stay behind, and does not block anybody.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def locked(output: epath.PathLike) -> Iterator[None]:
  """Locks the output of a preparation. A remote output has no lock.

  Args:
    output: the folder to prepare. It need not exist.

  Raises:
    ValueError: another process has the lock.
  """
  # Object stores have no file locks.
  if '://' in os.fspath(output):
    yield
    return
  # A folder has one lock, whatever links lead to it.
  folder, name = os.path.split(os.path.realpath(os.fspath(output)))
  path = os.path.join(folder, f'.{name}.lock')
  file = _opened(path, output)
  try:
    yield
  finally:
    # Removed first, because another process may lock it from then on.
    if file is not None:
      with contextlib.suppress(OSError):
        os.unlink(path)
      os.close(file)


def _opened(path: str, output: epath.PathLike) -> int | None:
  """Returns the opened and locked file; None where there can be none."""
  # Repeated until the lock is on the file that has the path now.
  while True:
    try:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # a finished data set in a folder that cannot be changed
      return None
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(file)
      raise ValueError(
        f'another process is preparing {os.fspath(output)}; wait for it, or '
        'name another --output'
      ) from None
    except OSError:  # a file system without locks
      os.close(file)
      return None
    # The process that had the lock may have removed the file meanwhile.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file), os.stat(path)):
        return file
    os.close(file)
