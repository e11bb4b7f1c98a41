"""Repairs metrics.jsonl for a run that resumes, and sums its rows."""

import json
import os
from collections.abc import Callable
from typing import Any

from etils import epath

from isft_jax import files
from isft_jax.metrics_file import has_numbers, lines


class Totals:
  """Sums over the rows of a run.

  Attributes:
    step: newest step.
    rows: number of rows.
  """

  def __init__(self, steps: int, steps_per_epoch: int) -> None:
    """Starts at zero.

    Args:
      steps: steps of the whole run.
      steps_per_epoch: number of steps whose mean is the final loss.
    """
    self.step = self.rows = 0
    self._before_last_epoch = steps - steps_per_epoch
    self._targets = self._seconds = 0.0
    # Sums over the last epoch.
    self._loss = self._weight = 0.0

  def add(self, row: dict[str, Any]) -> None:
    """Adds a row, after the rows of earlier steps."""
    self.step = row['step']
    self.rows += 1
    self._targets += row['targets']
    self._seconds += row['seconds']
    if self.step > self._before_last_epoch:
      # Old versions wrote the sum of the weights as `targets`.
      weight = row.get('weight', row['targets'])
      self._loss += row['loss'] * weight
      self._weight += weight

  def summary(self) -> dict[str, float]:
    """Returns `steps`, `scored_tokens`, `seconds` and `final_loss`."""
    return {
      'steps': self.step,
      'scored_tokens': round(self._targets),
      'seconds': round(self._seconds, 2),
      # The mean over the last epoch, weighted like the loss itself.
      'final_loss': self._loss / self._weight if self._weight else float('nan'),
    }


def resume(path: epath.Path, done: int, totals: Totals) -> str:
  """Repairs metrics.jsonl; see `cut`.

  Args:
    path: a local file, which is made if it does not exist.
    done: steps done.
    totals: gets the rows that stay.

  Returns:
    A warning about the damage; '' if there is none.
  """
  damaged = cut(path, done, totals.add)
  return _warning(path, damaged, done - totals.rows)


def cut(
  path: epath.Path,
  done: int,
  add: Callable[[dict[str, Any]], None],
  is_row: Callable[[dict[str, Any]], bool] = has_numbers,
) -> int:
  """Removes the rows after a step and all damage, without losing a whole row.

  Memory does not grow with the file. An undamaged file is only cut.

  Args:
    path: a local file, which is made if it does not exist.
    done: steps done.
    add: gets each row that stays, in order.
    is_row: see `metrics_file.lines`.

  Returns:
    The number of damaged lines.
  """
  damaged = end = position = 0  # lines, and bytes
  is_prefix = True  # all that stays is at the beginning
  if not path.exists():
    path.write_text('')
  for line in lines(path, is_row):
    position += len(line.raw)
    damaged += line.is_damaged
    kept = [row for row in line.rows if row['step'] <= done]
    for row in kept:
      add(row)
    if kept:
      is_prefix &= not line.is_damaged and end == position - len(line.raw)
      end = position

  # Cutting a file is one operation, which no kill sees half done.
  if is_prefix:
    os.truncate(path, end)
  else:
    with files.replacing(path) as part, files.open_bytes(part, 'wb') as file:
      for line in lines(path, is_row):
        kept = [row for row in line.rows if row['step'] <= done]
        # The bytes of an undamaged line stay as they are.
        for row in kept:
          text = json.dumps(row).encode() + b'\n'
          file.write(text if line.is_damaged else line.raw)
  return damaged


def repaired(damaged: int) -> str:
  """Returns a phrase such as '3 damaged lines repaired'."""
  return f'{damaged:,} damaged line{"s" if damaged > 1 else ""} repaired'


def _warning(path: epath.Path, damaged: int, missing: int) -> str:
  facts = []
  if damaged:
    facts.append(repaired(damaged))
  if missing > 0:
    facts.append(
      f'{missing:,} step{"s have" if missing > 1 else " has"} no metrics'
    )
  return f'warning: {path}: {", ".join(facts)}' if facts else ''
