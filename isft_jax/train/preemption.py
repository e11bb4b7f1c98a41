"""Detects preemption: SIGTERM to any host of a run."""

import os
import signal
import threading
import types
from typing import Self

import jax
from jax.experimental import multihost_utils

# Exit status of a preempted run, 75: "temporary failure; the user is invited to
# retry" (sysexits.h). The same command resumes the run.
EXIT_CODE = os.EX_TEMPFAIL


class Notice:
  """Context in which SIGTERM does not end the process, but is noted.

  Joined hosts agree on the step after which all of them stop.
  """

  def __enter__(self) -> Self:
    self._is_signalled = False
    self._previous = None
    # After jax.distributed.initialize, jax handles SIGTERM itself, and
    # reached_preemption_sync_point reports it. Python lets only the main thread
    # set a handler.
    is_single = not jax.distributed.is_initialized()
    if is_single and threading.current_thread() is threading.main_thread():
      self._previous = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *error: object) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)

  def _note(self, signum: int, frame: types.FrameType | None) -> None:
    self._is_signalled = True

  def should_stop(self, step: int) -> bool:
    """Returns whether to stop after this step: the same on all hosts.

    Every host must call it exactly once after every step.
    """
    if self._is_signalled:
      return True
    return multihost_utils.reached_preemption_sync_point(step)
