"""Traces a few training steps with the JAX profiler, for xprof."""

import contextlib
from collections.abc import Iterator
from typing import Self

import jax
from etils import epath

from isft_jax.train import multihost
from isft_jax.types import PyTree


class Profile:
  """Traces a range of steps. Other steps run at full speed.

  Args:
    steps: (first, last), or () for none.
    workdir: folder of the run. The trace is written to its folder `profile`.
  """

  def __init__(self, steps: tuple[int, ...], workdir: epath.Path) -> None:
    self._first, self._last = steps or (0, 0)
    self._folder = str(workdir / 'profile')
    self._running = False

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error: object) -> None:
    # The run may end, or fail, inside the traced range.
    if self._running:
      self._stop()

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Context of one step's dispatch. Starts the trace at the first step."""
    if number == self._first:
      jax.profiler.start_trace(self._folder)
      self._running = True
    # xprof groups device operations by this annotation.
    with jax.profiler.StepTraceAnnotation('train', step_num=number):
      yield

  def end_step(self, number: int, values: PyTree) -> None:
    """Ends the trace after the last step."""
    if self._running and number >= self._last:
      # Dispatch is asynchronous: without the wait, the last step would be cut.
      jax.block_until_ready(values)
      self._stop()

  def _stop(self) -> None:
    self._running = False
    jax.profiler.stop_trace()
    multihost.tell(
      f'steps {self._first} to {self._last} are traced; view them with xprof '
      f'--logdir={self._folder}'
    )
