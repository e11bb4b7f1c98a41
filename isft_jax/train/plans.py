"""Keeps what a plan of rows was searched for, in the workdir.

The search for a budget of targets packs all records up to a dozen times. A
resumed run reads the budget from `plans.json` and packs them once. An entry is
used only for the same records and settings, and only if the plan then has the
digest of the entry.
"""

import json
import re
import time
from collections.abc import Mapping

from etils import epath

from isft_jax import files
from isft_jax.data.batching.scored_rows import KnownPlans
from isft_jax.train import multihost

_FILE = 'plans.json'
_EVERY = 5.0  # seconds between lines of progress


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
  """Prints how many records are packed, at most every five seconds."""

  def __init__(self) -> None:
    self._next = time.monotonic() + _EVERY
    self._before = self._passes = 0

  def __call__(self, done: int, total: int) -> None:
    """Notes the entries that are placed, and their number."""
    # Each pass begins at 0 again.
    self._passes += done <= self._before
    self._before = done
    now = time.monotonic()
    if now >= self._next:
      self._next = now + _EVERY
      multihost.tell(
        f'  planning rows: {done:,} of {total:,} records are packed, pass '
        f'{self._passes}'
      )
