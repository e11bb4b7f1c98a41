"""Shows the finished steps of a run, and says how long a step takes.

Steps are dispatched ahead of the devices, which finish them in order. Finished
ones are found without waiting for the devices, or while the run waits for them
anyway.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax

from isft_jax import progress_bar
from isft_jax.train import multihost
from isft_jax.types import PyTree

# Steps after the first that are enough to tell their pace, and seconds left
# that are worth a line.
_ENOUGH, _LEAST = 2, 1.0


class Pace:
  """Context with the progress bar of a run."""

  def __init__(
    self,
    name: str,
    done: int,
    steps: int,
    whole: Callable[[], str] = lambda: '',
  ) -> None:
    """Makes a bar for the steps after `done`.

    Args:
      name: name of the run.
      done: steps done.
      steps: steps of the whole run.
      whole: returns text about the experiment that the run is part of.
    """
    self._name, self._steps, self._whole = name, steps, whole
    # The newest finished step, and the first one of this process: it includes
    # the compilation.
    self._finished, self._first = done, (0, 0.0)
    self._seconds: float | None = None  # per step
    self._is_told = False
    self._bar = progress_bar.Bar(
      name,
      *(steps, 'steps', done),
      is_silent=not multihost.is_first(),
      has_lines=True,
    )

  def __enter__(self) -> Self:
    self._bar.__enter__()
    return self

  def __exit__(self, *error: object) -> None:
    self._bar.__exit__(*error)

  def look(self, pending: Sequence[tuple[int, dict[str, PyTree]]]) -> None:
    """Shows which of the dispatched steps are finished, without waiting.

    Args:
      pending: (step, metrics on the devices), in order.
    """
    for step, values in pending:
      if step <= self._finished:
        continue
      loss = values.get('loss')
      # A number that is on no device is ready.
      is_ready = getattr(loss, 'is_ready', None)
      if is_ready and not is_ready():
        break
      self._finish(step, loss)

  def wait(
    self,
    pending: Sequence[tuple[int, dict[str, PyTree]]],
    evaluated: dict[int, Sequence[jax.Array]],
  ) -> None:
    """Waits for steps and their evaluations, and shows each that is finished.

    Args:
      pending: as for `look`.
      evaluated: a result of each held-out batch, by step.
    """
    for step, values in pending:
      loss = jax.block_until_ready(values.get('loss'))
      if step > self._finished:
        self._finish(step, loss)
      if batches := evaluated.pop(step, ()):
        for batch in progress_bar.track(
          batches, 'held-out loss', len(batches), 'batches'
        ):
          batch.block_until_ready()

  def line_printed(self) -> None:
    """Notes that a line with the state of the run is printed."""
    self._bar.line_printed()

  def _finish(self, step: int, loss: Any) -> None:
    now = time.monotonic()
    self._finished = step
    first, since = self._first
    if not first:
      self._first = step, now
    elif step - first >= _ENOUGH:
      self._seconds = (now - since) / (step - first)
    left = math.inf
    if self._seconds is not None:
      left = self._seconds * (self._steps - step)
      self._tell(left)
    # The loss is fetched only for a bar that is drawn.
    if self._bar.is_due():
      note = f'loss {float(loss):.4f}' if loss is not None else ''
      self._bar.update(
        step, '  '.join(filter(None, (note, self._whole()))), left
      )

  def _tell(self, left: float) -> None:
    """Prints the pace, once, if the rest takes a while."""
    if self._is_told or left < _LEAST:
      return
    self._is_told = True
    multihost.tell(
      f'  {self._name:<16} {_seconds(self._seconds or 0.0)} per step after the '
      f'first, about {duration(left)} left'
    )


def duration(seconds: float) -> str:
  """Returns a rounded time: '12 seconds', '4 minutes', '2 hours 5 minutes'."""
  if seconds < 100:
    return _plural(max(round(seconds), 1), 'second')
  minutes = round(seconds / 60)
  if minutes < 100:
    return _plural(minutes, 'minute')
  hours, minutes = divmod(minutes, 60)
  if hours >= 48:
    return _plural(round(hours / 24), 'day')
  rest = f' {_plural(minutes, "minute")}' if minutes else ''
  return _plural(hours, 'hour') + rest


def _plural(number: int, unit: str) -> str:
  return f'{number} {unit}{"s" * (number != 1)}'


def _seconds(seconds: float) -> str:
  """Returns seconds with two digits, or three from 10 seconds."""
  return f'{seconds:.3g} s' if seconds >= 10 else f'{seconds:.2g} s'
