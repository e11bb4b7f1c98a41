"""Writes metrics of a run: metrics.jsonl, loggers and lines of progress."""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from isft_jax import files
from isft_jax.metrics_file import read
from isft_jax.train import history, multihost, pace
from isft_jax.train.history import Totals
from isft_jax.train.loggers import Loggers
from isft_jax.types import Provenance, PyTree

__all__ = ['Metrics', 'NotFiniteError', 'read']

# Metric -> its words in messages.
_MUST_BE_FINITE = {'loss': 'loss', 'grad_norm': 'norm of the gradient'}


class NotFiniteError(FloatingPointError):
  """A loss, gradient or state is not finite. `step` is the first such step."""

  def __init__(self, message: str, step: int) -> None:
    super().__init__(message)
    self.step = step


class Metrics:
  """Collects the metrics of steps without making the devices wait.

  Values stay on the devices until `flush` fetches those of many steps at once.
  Every host collects them. Only the first host writes and prints.
  """

  def __init__(
    self,
    folder: epath.Path,
    name: str,
    done: int,
    steps: int,
    loggers: Loggers | None,
    components: Sequence[str] = (),
    ideal_seconds: float = 0.0,
    whole: Callable[[int, float], str] | None = None,
    steps_per_epoch: int = 0,
    stored: Mapping[str, Any] | None = None,
  ) -> None:
    """Opens and repairs metrics.jsonl, and deletes rows of steps after `done`.

    Args:
      folder: folder of the run.
      name: name of the run, for lines of progress.
      done: steps done. A resumed run repeats the steps after its checkpoint.
      steps: steps of the whole run.
      loggers: of the run, on the first host; None on the others.
      components: names of the mixture components.
      ideal_seconds: seconds per step at the devices' peak rate; 0 if unknown.
        Divided by the seconds measured, it is the MFU (model FLOPs
        utilization).
      whole: (steps done, seconds per step) -> text at the end of a line of
        progress.
      steps_per_epoch: number of steps whose mean is the final loss; 0 means all
        of them.
      stored: `totals` at the step `done`, from its checkpoint.
    """
    # `_pending` holds (step, metrics) whose values are still on the devices.
    self._name, self._steps, self._done = name, steps, done
    self._components, self._ideal_seconds = components, ideal_seconds
    self._whole = whole
    self._pending: list[tuple[int, dict[str, PyTree]]] = []
    self._evaluated: dict[int, Sequence[jax.Array]] = {}
    # The first flush measures its seconds from here.
    self._since = time.perf_counter()
    self._loggers = loggers
    self._file: IO[bytes] | None = None
    self._totals = Totals(steps - (steps_per_epoch or steps))
    self._shown = ''  # text about the whole experiment
    self._pace = pace.Pace(name, done, steps, lambda: self._shown)
    if loggers:
      self._open(folder / 'metrics.jsonl', stored)

  def _open(self, path: epath.Path, stored: Mapping[str, Any] | None) -> None:
    self._path = self._draft = path
    # Files in a bucket cannot be appended to: write a local one, and copy it.
    if '://' in str(path):
      self._draft = epath.Path(tempfile.mkdtemp()) / path.name
      if path.exists():
        path.copy(self._draft)
    # A resumed run writes the steps after its checkpoint again.
    warning = history.resume(self._draft, self._done, self._totals, stored)
    if warning:
      print(warning, flush=True)
    # Opened for appending: each flush adds its rows.
    self._file = files.open_bytes(self._draft, 'ab')

  def __enter__(self) -> Self:
    self._pace.__enter__()
    return self

  def __exit__(self, *error: object) -> None:
    self._pace.__exit__(*error)
    # Loggers are closed even if the file cannot be written, as on a full disk.
    try:
      if self._file:
        with files.named(self._draft):
          self._file.close()
    finally:
      if self._loggers:
        self._loggers.close()

  def summary(self) -> dict[str, float]:
    """Returns totals of all steps so far, including those before a resumption.

    On the first host only; see `Totals.summary`.
    """
    return self._totals.summary()

  def totals(self) -> dict[str, Any]:
    """Returns what a checkpoint keeps of the rows that are written.

    On the first host only; see `Totals.state`.
    """
    return self._totals.state()

  def add(self, step: int, metrics: dict[str, PyTree]) -> None:
    """Adds the metrics of a step, which may still be running."""
    self._pending.append((step, metrics))
    self._pace.look(self._pending)

  def add_evaluated(self, step: int, batches: Sequence[jax.Array]) -> None:
    """Adds a result of each held-out batch of a step, to show progress."""
    self._evaluated[step] = batches

  def flush(self, keep: int = 0) -> None:
    """Writes pending metrics, and prints a line of progress.

    In a bucket, metrics.jsonl is updated only by a flush with `keep=0`.

    Args:
      keep: number of newest steps that stay pending.

    Raises:
      NotFiniteError: the loss of a step, or the norm of its gradient, is not
        finite. It names the step.
    """
    # Fetch the values of finished steps: this waits for the last of them.
    count = len(self._pending) - keep
    ready, self._pending = self._pending[:count], self._pending[count:]
    if not ready:
      return
    self._pace.wait(ready, self._evaluated)
    steps, values = zip(*ready, strict=True)
    values = jax.device_get(values)
    # The time of a single step is unknown, because steps are dispatched ahead.
    # Rows get the mean over the steps since the last flush.
    now = time.perf_counter()
    seconds = (now - self._since) / count  # per step, mean since last flush
    self._since = now
    speed = {'seconds': seconds}
    if self._ideal_seconds:
      speed['mfu'] = self._ideal_seconds / seconds
    rows = [
      {'step': step, **_plain_row(row, self._components), **speed}
      for step, row in zip(steps, values, strict=True)
    ]

    # Write before the check of the loss, so that the file shows the bad step.
    if self._file and self._loggers:
      with files.named(self._draft):
        lines = [json.dumps(row).encode() + b'\n' for row in rows]
        self._file.writelines(lines)
        self._file.flush()
        # A checkpoint follows: its rows must not be lost with the power.
        if not keep:
          os.fsync(self._file.fileno())
      # Loggers draw one curve per scalar.
      for row, line in zip(rows, lines, strict=True):
        self._totals.add(row, line)
        self._loggers.add(row['step'], _scalars(row))
      # A file in a bucket can only be replaced as a whole.
      if not keep and self._draft != self._path:
        self._draft.copy(self._path, overwrite=True)
    for row in rows:
      # The update with this gradient has already been applied, so the run
      # cannot continue. The loss may be finite and its gradient not.
      for name, words in _MUST_BE_FINITE.items():
        if not math.isfinite(row.get(name, 0.0)):
          raise NotFiniteError(
            f'{self._name}: the {words} of step {row["step"]} is {row[name]}',
            row['step'],
          )
    multihost.tell(self._progress(rows))
    for text in filter(None, map(self._evaluation, rows)):
      multihost.tell(text)
    self._pace.line_printed()

  def _progress(self, rows: Sequence[dict[str, Any]]) -> str:
    # Rates and the mean loss cover the steps of this flush.
    seconds = sum(row['seconds'] for row in rows)
    tokens = sum(row['tokens'] for row in rows) / seconds
    targets = sum(row['targets'] for row in rows) / seconds
    loss = sum(row['loss'] for row in rows) / len(rows)
    step = rows[-1]['step']
    # The remaining time uses the speed of the newest steps.
    left = (self._steps - step) * rows[-1]['seconds']
    # Text about the experiment that the run is part of.
    whole = ''
    if self._whole:
      self._shown = f'(all: {self._whole(step, rows[-1]["seconds"])})'
      whole = f'  {self._shown}'
    mfu = f'MFU {rows[-1]["mfu"]:.1%}  ' if 'mfu' in rows[-1] else ''
    return (
      f'  {self._name:<16} step {step:>5}/{self._steps}  loss {loss:7.4f}  '
      f'{tokens:>7,.0f} tokens/s {targets:>7,.0f} targets/s  {mfu}'
      f'ETA {left // 60:.0f}:{left % 60:02.0f}{whole}'
    )

  def _evaluation(self, row: dict[str, Any]) -> str:
    """Returns the line of an evaluation; '' for a step without one."""
    parts = [
      f'{author} {loss:.4f}'
      for author, loss in row.get('heldout_nll_by_author', {}).items()
    ]
    # The loss of the objective, which `config.keep_best` compares.
    if 'heldout_loss' in row:
      parts.insert(0, f'scored {row["heldout_loss"]:.4f}')
    said = [f'held-out loss  {"  ".join(parts)}'] if parts else []
    if 'probe' in row:
      numbers = (f'{name} {value:.4g}' for name, value in row['probe'].items())
      said.append(f'probe  {"  ".join(numbers)}')
    if not said:
      return ''
    step = f'{row["step"]:>5}/{self._steps}'
    return f'  {self._name:<16} step {step}  {"; ".join(said)}'


def _plain_row(
  row: dict[str, PyTree], components: Sequence[str]
) -> dict[str, Any]:
  """Converts a row to JSON values.

  Scalars become floats, arrays [provenance] become {author: nll}, and arrays
  [component, provenance] become {component: {author: nll}}.
  """
  return {name: _plain(value, components) for name, value in row.items()}


def _plain(value: PyTree, components: Sequence[str]) -> float | dict[str, Any]:
  if isinstance(value, dict):
    # Held-out losses by component, or the numbers of a probe.
    return _plain_row(value, components)
  if np.ndim(value) == 0:
    return float(value)
  if np.ndim(value) == 2:
    return {
      name: _plain(each, components)
      for name, each in zip(components, value, strict=True)
    }
  # Authors without a target have a loss of exactly 0, and are left out.
  return {
    author.name: float(value[author])
    for author in Provenance
    if author != Provenance.PAD and value[author] != 0
  }


def _scalars(row: dict[str, Any]) -> dict[str, float]:
  """Flattens a row of metrics.jsonl to scalars: {'loss': ..., 'A/B': ...}."""
  # metrics.jsonl has counts and seconds per step; curves show rates.
  curves = {name: value for name, value in row.items() if name != 'step'}
  for unit in ('tokens', 'targets'):
    curves[f'{unit}_per_second'] = row[unit] / row['seconds']
  return traverse_util.flatten_dict(curves, sep='/')
