"""Repairs metrics.jsonl for a run that resumes, and sums its rows."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from isft_jax import files
from isft_jax.metrics_file import Line, has_numbers, lines

_BLOCK = 1 << 20  # bytes per read for the checksum


@dataclasses.dataclass
class Totals:
  """Sums over the rows of a run, and size and SHA-256 of their lines.

  A checkpoint keeps them, so that a run that resumes need not parse the lines
  before it: those of a million steps would take ten seconds.

  Attributes:
    before_last_epoch: steps before the last epoch, whose mean loss is the final
      loss.
    step: newest step.
    rows: number of rows.
    targets: number of scored tokens.
    seconds: time of the steps.
    loss: sum of weighted losses over the last epoch.
    weight: sum of weights over the last epoch.
    size: bytes of the lines.
  """

  before_last_epoch: int
  step: int = 0
  rows: int = 0
  targets: float = 0.0
  seconds: float = 0.0
  loss: float = 0.0
  weight: float = 0.0
  size: int = 0

  def __post_init__(self) -> None:
    self._digest = hashlib.sha256()

  def add(self, row: dict[str, Any], line: bytes) -> None:
    """Adds a row and its line, after those of earlier steps."""
    self.step = row['step']
    self.rows += 1
    self.targets += row['targets']
    self.seconds += row['seconds']
    if self.step > self.before_last_epoch:
      # Old versions wrote the sum of the weights as `targets`.
      weight = row.get('weight', row['targets'])
      self.loss += row['loss'] * weight
      self.weight += weight
    self.size += len(line)
    self._digest.update(line)

  def summary(self) -> dict[str, float]:
    """Returns `steps`, `scored_tokens`, `seconds` and `final_loss`."""
    return {
      'steps': self.step,
      'scored_tokens': round(self.targets),
      'seconds': round(self.seconds, 2),
      # The mean over the last epoch, weighted like the loss itself.
      'final_loss': self.loss / self.weight if self.weight else float('nan'),
    }

  def state(self) -> dict[str, Any]:
    """Returns what a checkpoint keeps, as JSON values."""
    return dataclasses.asdict(self) | {'sha256': self._digest.hexdigest()}

  def restore(
    self, path: epath.Path, done: int, stored: Mapping[str, Any]
  ) -> None:
    """Takes the sums of a checkpoint, if the file still begins with its lines.

    Args:
      path: a local file.
      done: steps done.
      stored: what `state` returned at that step; {} in an old checkpoint.
    """
    if stored.keys() != self.state().keys():  # of another version
      return
    # More steps than before move the last epoch.
    if (stored['before_last_epoch'], stored['step']) != (
      self.before_last_epoch,
      done,
    ):
      return
    digest, left = hashlib.sha256(), stored['size']
    with files.open_bytes(path, 'rb') as file:
      while block := file.read(min(left, _BLOCK)):
        digest.update(block)
        left -= len(block)
    if digest.hexdigest() == stored['sha256']:
      self._digest = digest
      for field in dataclasses.fields(self):
        setattr(self, field.name, stored[field.name])


def resume(
  path: epath.Path,
  done: int,
  totals: Totals,
  stored: Mapping[str, Any] | None = None,
) -> str:
  """Repairs metrics.jsonl; see `cut`.

  Args:
    path: a local file, which is made if it does not exist.
    done: steps done.
    totals: gets the rows that stay.
    stored: `Totals.state` of that step; None in an old checkpoint. Its lines
      are not parsed if they are unchanged.

  Returns:
    A warning about the damage; '' if there is none.
  """
  if stored and path.exists():
    totals.restore(path, done, stored)
  damaged = cut(path, done, totals.add, start=totals.size)
  return _warning(path, damaged, done - totals.rows)


def cut(
  path: epath.Path,
  done: int,
  add: Callable[[dict[str, Any], bytes], None],
  is_row: Callable[[dict[str, Any]], bool] = has_numbers,
  start: int = 0,
) -> int:
  """Removes the rows after a step and all damage, without losing a whole row.

  Memory does not grow with the file. An undamaged file is only cut.

  Args:
    path: a local file, which is made if it does not exist.
    done: steps done.
    add: gets each row that stays, and its line, in order.
    is_row: see `metrics_file.lines`.
    start: bytes at the beginning that stay as they are.

  Returns:
    The number of damaged lines.
  """
  damaged = 0  # lines
  end = position = start  # bytes
  is_prefix = True  # all that stays is at the beginning
  if not path.exists():
    path.write_text('')
  for line in lines(path, is_row, start):
    position += len(line.raw)
    damaged += line.is_damaged
    kept = _kept(line, done)
    for row, text in kept:
      add(row, text)
    if kept:
      is_prefix &= not line.is_damaged and end == position - len(line.raw)
      end = position

  # Cutting a file is one operation, which no kill sees half done.
  if is_prefix:
    os.truncate(path, end)
  else:
    with files.replacing(path) as part, files.open_bytes(part, 'wb') as file:
      for line in lines(path, is_row):
        file.writelines(text for _, text in _kept(line, done))
  return damaged


def _kept(line: Line, done: int) -> list[tuple[dict[str, Any], bytes]]:
  """Returns the rows of a line that stay, each with its new line."""
  # The bytes of an undamaged line stay as they are.
  return [
    (row, json.dumps(row).encode() + b'\n' if line.is_damaged else line.raw)
    for row in line.rows
    if row['step'] <= done
  ]


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
