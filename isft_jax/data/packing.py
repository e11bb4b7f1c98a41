"""Packing as a plan: which records share a row, decided before any is read.

A plan is a pure function of the index, the objective, the two budgets of a row
(L tokens and K scored targets) and the seed. So a step's rows are known from
its number alone, and runs that must see identical rows share one plan.
"""

import dataclasses
import itertools

import numpy as np

from isft_jax.data.records import Index

# Rows that stay open while records are placed, in a random order, each into the
# fullest row that still holds it: constant time a record.
_OPEN_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Plan:
  """Rows of entries. Row r holds entries[starts[r]:starts[r + 1]].

  entries_E3: (record, first, stop). The entry scores the record's targets
    number first to stop - 1, counted under the objective of the plan. A record
    with more targets than a row's budget has several entries.
  starts: int64, one more than there are rows.
  empty: records without any target under the objective: in no row.
  """

  entries_E3: np.ndarray
  starts: np.ndarray
  empty: int

  def __len__(self) -> int:
    return len(self.starts) - 1

  def row(self, number: int) -> np.ndarray:
    """Returns the entries of a row, [entries, 3]."""
    return self.entries_E3[self.starts[number] : self.starts[number + 1]]


def targets_of_records(index: Index, table_PV: np.ndarray) -> np.ndarray:
  """Returns int64 [N]: each record's targets under a weight table."""
  return (index.counts_NPV * (table_PV != 0)).sum(axis=(1, 2), dtype=np.int64)


def make_plan(
  index: Index,
  table_PV: np.ndarray,
  row_length: int,
  row_targets: int,
  seed: int,
) -> Plan:
  """Packs records into rows under two budgets; covers every target once.

  An entry needs as many columns as there are tokens before its last target;
  what follows is trimmed, which is exact under causal attention. The index
  knows the position of a record's last target only, so that an entry which
  stops earlier counts its length from above.

  table_PV: the objective's weights, by provenance and verdict.

  Raises ValueError if no record has a target, or if a record is too long.
  """
  targets_N = targets_of_records(index, table_PV)
  if not targets_N.any():
    raise ValueError(
      f'none of {len(targets_N)} records has a token that the objective '
      'scores: nothing to learn from; choose another objective or other records'
    )
  # Inputs end before the last target, which sits at the last scored position.
  columns_N = np.where(table_PV != 0, index.last_NPV, -1).max(axis=(1, 2))
  too_long = np.flatnonzero(columns_N > row_length)
  if too_long.size:
    worst = too_long[columns_N[too_long].argmax()]
    raise ValueError(
      f'{too_long.size} records are longer than a row of {row_length} '
      f'tokens; the longest, record {worst}, needs {columns_N[worst]}: raise '
      'row_length or prepare the records in windows'
    )

  entries = []
  order = np.random.default_rng([seed, 0]).permutation(len(targets_N))
  for record in order[targets_N[order] > 0]:
    total = int(targets_N[record])
    parts = -(-total // row_targets)
    bounds = [total * part // parts for part in range(parts + 1)]
    for first, stop in itertools.pairwise(bounds):
      length = int(columns_N[record]) - (total - stop)
      entries.append((int(record), first, stop, length))
  rows = _fill(entries, row_length, row_targets)
  sizes = [len(row) for row in rows]
  return Plan(
    entries_E3=np.asarray(
      list(itertools.chain.from_iterable(rows)), np.int64
    ).reshape(-1, 3),
    starts=np.cumsum([0] + sizes),
    empty=int((targets_N == 0).sum()),
  )


def _fill(entries, row_length, row_targets):
  """Places each entry into the fullest open row that holds it (best fit)."""
  rows, open_rows = [], []
  free_length = np.full(_OPEN_ROWS, -1)
  free_targets = np.full(_OPEN_ROWS, -1)
  for record, first, stop, length in entries:
    targets = stop - first
    fits = (free_length >= length) & (free_targets >= targets)
    if fits.any():
      slot = int(np.where(fits, free_length, row_length + 1).argmin())
    else:
      if len(open_rows) < _OPEN_ROWS:
        slot = len(open_rows)
        open_rows.append([])
      else:  # close the fullest
        slot = int(free_length.argmin())
        rows.append(open_rows[slot])
        open_rows[slot] = []
      free_length[slot], free_targets[slot] = row_length, row_targets
    open_rows[slot].append((record, first, stop))
    free_length[slot] -= length
    free_targets[slot] -= targets
  return rows + open_rows


def row_order(rows: int, seed: int, epoch: int) -> np.ndarray:
  """Returns the order in which an epoch visits the rows of a plan."""
  return np.random.default_rng([seed, 1, epoch]).permutation(rows)
