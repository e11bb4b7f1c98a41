"""Metrics: a line of JSON a step, TensorBoard, a line of progress at times."""

import json
import math
import pathlib
import time

import jax
import tensorboardX

from isft_jax.types import Provenance


class NotFiniteError(FloatingPointError):
  """A loss is nan or infinite. `step` is the first whose loss is."""

  def __init__(self, message: str, step: int):
    super().__init__(message)
    self.step = step


def read(path: pathlib.Path) -> list[dict]:
  """Returns the whole lines of a metrics file; a cut last line is left out."""
  if not path.exists():
    return []
  lines = path.read_text().split('\n')[:-1]
  return [json.loads(line) for line in lines]


class Metrics:
  """Collects what the steps return, without making the devices wait.

  Values stay on the devices until `flush`, which fetches those of finished
  steps in one go.
  """

  def __init__(self, folder: pathlib.Path, name: str, done: int, steps: int):
    """Opens metrics.jsonl, and drops lines of steps that will be done again."""
    path = folder / 'metrics.jsonl'
    kept = [row for row in read(path) if row['step'] <= done]
    part = path.with_suffix('.part')
    part.write_text(''.join(json.dumps(row) + '\n' for row in kept))
    part.replace(path)
    self._file = path.open('a')
    self._board = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'), purge_step=done + 1
    )
    self._name, self._steps = name, steps
    self._pending = []
    self._since = time.perf_counter()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._file.close()
    self._board.close()

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Notes the metrics of a step that may still be running."""
    self._pending.append((step, metrics))

  def flush(self, keep: int = 0) -> None:
    """Writes what is pending, but for the newest `keep`, and prints a line.

    Raises NotFiniteError, naming the step, if a loss is not finite.
    """
    count = len(self._pending) - keep
    ready, self._pending = self._pending[:count], self._pending[count:]
    if not ready:
      return
    steps, values = zip(*ready, strict=True)
    values = jax.device_get(values)
    now = time.perf_counter()
    seconds = (now - self._since) / count  # a step, in the mean since the last
    self._since = now
    rows = [
      {'step': step, **_plain(row), 'seconds': seconds}
      for step, row in zip(steps, values, strict=True)
    ]
    self._file.writelines(json.dumps(row) + '\n' for row in rows)
    self._file.flush()
    for row in rows:
      for name, value in _flat(row).items():
        self._board.add_scalar(name, value, row['step'])
    for row in rows:
      if not math.isfinite(row['loss']):
        raise NotFiniteError(
          f'{self._name}: the loss of step {row["step"]} is {row["loss"]}',
          row['step'],
        )
    self._print(rows)

  def _print(self, rows):
    seconds = sum(row['seconds'] for row in rows)
    tokens = sum(row['tokens'] for row in rows) / seconds
    targets = sum(row['targets'] for row in rows) / seconds
    loss = sum(row['loss'] for row in rows) / len(rows)
    step = rows[-1]['step']
    left = (self._steps - step) * rows[-1]['seconds']
    print(
      f'  {self._name:<16} step {step:>5}/{self._steps}  loss {loss:7.4f}  '
      f'{tokens:>7,.0f} tokens/s {targets:>7,.0f} targets/s  '
      f'ETA {left // 60:.0f}:{left % 60:02.0f}',
      flush=True,
    )


def _plain(row: dict) -> dict:
  """Makes floats of scalars, and {author: nll} of arrays by provenance."""
  plain = {}
  for name, value in row.items():
    if value.ndim:
      value = {
        author.name: float(value[author])
        for author in Provenance
        if author != Provenance.PAD and value[author] != 0
      }
    plain[name] = value if isinstance(value, dict) else float(value)
  return plain


def _flat(row: dict) -> dict[str, float]:
  flat = {}
  for name, value in row.items():
    if isinstance(value, dict):
      flat |= {f'{name}/{author}': nll for author, nll in value.items()}
    elif name != 'step':
      flat[name] = value
  return flat
