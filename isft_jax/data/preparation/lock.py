"""Lock that keeps two preparations from writing into one folder."""

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from isft_jax import locks


@contextlib.contextmanager
def locked(output: epath.PathLike) -> Iterator[None]:
  """Locks the output of a preparation; see `locks.locked`.

  Args:
    output: the folder to prepare. It need not exist.

  Raises:
    ValueError: another process has the lock.
  """
  place = os.fspath(output)
  # A folder has one lock, whatever links lead to it. It is beside the folder,
  # which appears only when it is complete.
  folder, name = os.path.split(
    place if '://' in place else os.path.realpath(place)
  )
  with locks.locked(
    os.path.join(folder, f'.{name}.lock'),
    lambda holder: (
      f'another process is preparing {place}; wait for it, or name another '
      '--output'
    ),
  ):
    yield
