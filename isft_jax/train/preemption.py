"""Agrees on the step after which all hosts of a run stop."""

import os
import signal
import types
from typing import Self

import jax
from jax.experimental import multihost_utils

from isft_jax.train import signals

EXIT_CODE = signals.EXIT_CODE
_BY_JAX = signal.SIGHUP, signal.SIGINT  # passed on to the handler of jax


class Notice(signals.Signals):
  """Context in which SIGTERM, SIGHUP and Ctrl-C end a run in order.

  Joined hosts agree on the step after which all of them stop.
  """

  def __init__(self) -> None:
    # After jax.distributed.initialize, jax handles SIGTERM itself, and
    # reached_preemption_sync_point reports it.
    self._is_joined = jax.distributed.is_initialized()
    if self._is_joined:
      super().__init__(_BY_JAX)
    else:
      super().__init__()

  def __enter__(self) -> Self:
    super().__enter__()
    # A signal in the last step of the run before this one.
    if _missed:
      _missed.clear()
      self.__exit__()
      raise signals.StoppedEarly
    return self

  def __exit__(self, *error: object) -> None:
    super().__exit__(*error)
    # The run has ended by itself, and its program may begin another.
    if self.noted and not any(error):
      if self.noted == signal.SIGINT:
        raise KeyboardInterrupt
      _missed.append(self.noted)

  def should_stop(self, step: int) -> bool:
    """Returns whether to stop after this step: the same on all hosts.

    Every host must call it exactly once after every step.
    """
    if self._is_joined:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.noted is not None

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    is_passed_on = self._is_joined and self.noted is None
    if self._is_joined and number == signal.SIGHUP:
      self.noted = self.noted or number
    else:
      super()._handle(number, frame)
    # The other hosts hear of a signal only through jax.
    if is_passed_on and self.noted:
      os.kill(os.getpid(), signal.SIGTERM)


_missed: list[int] = []  # signals that came too late to stop a run
