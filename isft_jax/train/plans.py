"""Keeps what a plan of rows was searched for, in the workdir.

The search for a budget of targets packs all records up to a dozen times. A
resumed run reads the budget from `plans.json` and packs them once. An entry is
used only for the same records and settings, and only if the plan then has the
digest of the entry.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Self

from etils import epath

from isft_jax import files, progress_bar
from isft_jax.data.batching.scored_rows import KnownPlans
from isft_jax.train import multihost

_FILE = 'plans.json'


def read(workdir: epath.PathLike | None) -> KnownPlans:
  """Returns the known plans of a workdir; none if the file is damaged."""
  plans: KnownPlans = {}
  if workdir is None:
    return plans
  try:
    stored = json.loads((epath.Path(workdir) / _FILE).read_text())
    for key, (targets_per_row, digest) in stored.items():
      if type(targets_per_row) is int and re.fullmatch('[0-9a-f]{64}', digest):
        plans[key] = targets_per_row, digest
  except (OSError, ValueError, TypeError, AttributeError, RecursionError):
    return {}
  return plans


def write(workdir: epath.PathLike, plans: Mapping) -> None:
  """Writes known plans into a workdir, unless they are there already."""
  if plans and plans != read(workdir):
    text = json.dumps(plans, indent=1) + '\n'
    files.write_atomically(epath.Path(workdir) / _FILE, text)


class Progress:
  """Context with a progress bar of the records that are packed."""

  def __init__(self) -> None:
    self._bar = progress_bar.Bar(
      'planning rows', unit='records', is_silent=not multihost.is_first()
    )
    self._before = self._passes = 0

  def __enter__(self) -> Self:
    self._bar.__enter__()
    return self

  def __exit__(self, *error: object) -> None:
    self._bar.__exit__(*error)

  def __call__(self, done: int, total: int) -> None:
    """Notes the entries that are placed, and their number."""
    # Each pass begins at 0 again, so that the time left is unknown.
    self._passes += done <= self._before
    self._before = done
    self._bar.update(done, f'pass {self._passes}', math.inf, total)
