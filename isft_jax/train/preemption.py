"""Notice that a machine is about to be taken away: SIGTERM, to any host."""

import os
import signal
import threading
import types
from typing import Self

import jax
from jax.experimental import multihost_utils

# What a run then exits with: "temporary failure; the user is invited to retry"
# (sysexits.h). Whoever sees it starts the same command again.
EXIT_CODE = os.EX_TEMPFAIL


class Notice:
  """Waits for a notice while a run trains.

  Hosts that were joined agree on a step: one that is told tells the others.
  """

  def __enter__(self) -> Self:
    self._told = False
    self._before = None
    # Where hosts were joined, jax has put a handler of its own in this place.
    alone = not jax.distributed.is_initialized()
    if alone and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *error: object) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, signum: int, frame: types.FrameType | None) -> None:
    self._told = True

  def came(self, step: int) -> bool:
    """Returns whether to stop after this step, alike on all hosts.

    To be asked once after every step, by every host.
    """
    return self._told or multihost_utils.reached_preemption_sync_point(step)
