"""Lock that keeps two trainings from writing into one workdir."""

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from isft_jax import locks
from isft_jax.train import multihost


@contextlib.contextmanager
def locked(workdir: epath.PathLike) -> Iterator[None]:
  """Locks the workdir of a run; see `locks.locked`.

  The hosts of a run share its workdir, so only the first of them locks it.

  Args:
    workdir: folder of the run. It is made if it does not exist, and removed if
      nothing was written into it.

  Raises:
    ValueError: another process has the lock. All hosts raise it.
  """
  place = os.fspath(workdir)
  # A folder has one lock, whatever links lead to it.
  folder = place if '://' in place else os.path.realpath(place)
  refused = ''
  with contextlib.ExitStack() as stack:
    if multihost.is_first():
      if not os.path.exists(folder):
        stack.callback(_remove_empty, folder)
      try:
        stack.enter_context(
          locks.locked(
            os.path.join(folder, '.lock'),
            lambda holder: (
              f'{place}: another training is writing there ({holder}); wait '
              'for it, or name another --workdir'
            ),
          )
        )
      except ValueError as error:
        refused = str(error)
    multihost.raise_on_all(refused)
    yield


def _remove_empty(folder: str) -> None:
  with contextlib.suppress(OSError):  # not empty, or never made
    os.rmdir(folder)
