"""Packing as a plan: which records share a row, decided before any is read.

A plan is a pure function of the index, the objective, the two budgets of a row
(L tokens and K scored targets) and the seed. So a step's rows are known from
its number alone, and runs that must see identical rows share one plan.
"""

import dataclasses
import functools
import itertools

import numpy as np

from isft_jax.data.records.dataset import Index

# Rows that stay open while records are placed, in a random order, each into the
# fullest row that still holds it: constant time a record. If the records keep
# their order, only one row is open.
_OPEN_ROWS = 64

# Row lengths and target budgets that the records choose are multiples of it.
_STEP = 8

# A budget of targets that the records choose may cost one more row in so many:
# a row costs the whole model's time, an unused target the head's alone.
_ONE_MORE_ROW_IN = 100


@dataclasses.dataclass(frozen=True)
class Plan:
  """Rows of entries. Row r holds entries[starts[r]:starts[r + 1]].

  entries_E3: (record, first, stop). The entry scores the record's targets
    number first to stop - 1, counted under the objective of the plan. A record
    with more targets than a row's budget has several entries.
  starts: int64, one more than there are rows.
  row_length, row_targets: the budgets of a row, L and K.
  tokens, targets: what of the budgets all rows use.
  split: records with several entries.
  empty: records without any target under the objective: in no row.
  """

  entries_E3: np.ndarray
  starts: np.ndarray
  row_length: int
  row_targets: int
  tokens: int
  targets: int
  split: int
  empty: int

  def __len__(self) -> int:
    return len(self.starts) - 1

  def row(self, number: int) -> np.ndarray:
    """Returns the entries of a row, [entries, 3]."""
    return self.entries_E3[self.starts[number] : self.starts[number + 1]]

  def describe(self) -> str:
    """Returns a line: the rows of an epoch, and how full they are."""
    tokens = self.tokens / (len(self) * self.row_length)
    targets = self.targets / (len(self) * self.row_targets)
    return (
      f'{len(self):,} rows an epoch, of {self.row_length:,} tokens '
      f'({tokens:.1%} used) and {self.row_targets:,} targets ({targets:.1%} '
      f'used); records split: {self.split:,}, without a target: {self.empty:,}'
    )


def targets_of_records(index: Index, table_PV: np.ndarray) -> np.ndarray:
  """Returns int64 [N]: each record's targets under a weight table."""
  return (index.counts_NPV * (table_PV != 0)).sum(axis=(1, 2), dtype=np.int64)


def make_plan(
  index: Index,
  table_PV: np.ndarray,
  row_length: int,
  row_targets: int,
  seed: int,
  row_documents: int = 0,
  shuffle: bool = True,
) -> Plan:
  """Packs records into rows under two budgets; covers every target once.

  An entry needs as many columns as there are tokens before its last target;
  what follows is trimmed, which is exact under causal attention. The index
  knows the position of a record's last target only, so that an entry which
  stops earlier counts its length from above.

  table_PV: the objective's weights, by provenance and verdict.
  row_length: L. 0: that of the longest record, rounded up to a multiple of 8.
  row_targets: K. 0: as few as cost at most 1 % more rows than K = L does, a
    multiple of 128 (of 8 if rows are shorter than 1,024 tokens), at most L.
    Where a row is one record: as many as the record with the most targets has,
    rounded up to a multiple of 8, so that none is split.
  row_documents: entries in a row, at most. 0: as many as fit.
  shuffle: False packs the records in their own order, each into the row of its
    predecessor if that still holds it.

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
  if row_length == 0:
    row_length = _round_up(columns_N.max(), _STEP)
  too_long = np.flatnonzero(columns_N > row_length)
  if too_long.size:
    worst = too_long[columns_N[too_long].argmax()]
    raise ValueError(
      f'{too_long.size} records are longer than a row of {row_length} '
      f'tokens; the longest, record {worst}, needs {columns_N[worst]}: raise '
      'row_length or prepare the records in windows'
    )

  order = np.arange(len(targets_N))
  if shuffle:
    order = np.random.default_rng([seed, 0]).permutation(order)
  order = order[targets_N[order] > 0]
  place = functools.partial(
    _place,
    order,
    targets_N[order],
    columns_N[order],
    empty=int((targets_N == 0).sum()),
    row_length=row_length,
    row_documents=row_documents,
    open_rows=_OPEN_ROWS if shuffle else 1,
  )
  if row_documents == 1 and not row_targets:
    row_targets = min(_round_up(targets_N.max(), _STEP), row_length)
  if row_targets:
    return place(row_targets=row_targets)
  widest = place(row_targets=row_length)
  most = len(widest) + len(widest) // _ONE_MORE_ROW_IN
  step = 128 if row_length >= 1024 else _STEP
  # With fewer, the targets alone would need more rows than that.
  least = _round_up(-(-widest.targets // most), step)
  for row_targets in range(least, row_length, step):
    plan = place(row_targets=row_targets)
    if len(plan) <= most:
      return plan
  return widest


def _round_up(number: int, step: int) -> int:
  return -(-int(number) // step) * step


def _place(
  records_N: np.ndarray,
  targets_N: np.ndarray,
  columns_N: np.ndarray,
  *,
  row_length: int,
  row_targets: int,
  row_documents: int,
  open_rows: int,
  empty: int,
) -> Plan:
  """Splits records whose targets exceed a row's, and packs the entries."""
  entries, split = [], 0
  for record, total, columns in zip(
    records_N.tolist(), targets_N.tolist(), columns_N.tolist(), strict=True
  ):
    parts = -(-total // row_targets)
    split += parts > 1
    bounds = [total * part // parts for part in range(parts + 1)]
    for first, stop in itertools.pairwise(bounds):
      entries.append((record, first, stop, columns - (total - stop)))
  rows = _fill(entries, row_length, row_targets, row_documents, open_rows)
  return Plan(
    entries_E3=np.asarray(
      list(itertools.chain.from_iterable(rows)), np.int64
    ).reshape(-1, 3),
    starts=np.cumsum([0] + [len(row) for row in rows]),
    row_length=row_length,
    row_targets=row_targets,
    tokens=sum(length for *_, length in entries),
    targets=int(targets_N.sum()),
    split=split,
    empty=empty,
  )


def _fill(
  entries: list[tuple[int, int, int, int]],
  row_length: int,
  row_targets: int,
  row_documents: int,
  most: int,
) -> list[list[tuple[int, int, int]]]:
  """Places each entry into the fullest open row that holds it (best fit).

  most: rows that are open at a time; with 1 the entries keep their order.
  """
  rows: list[list[tuple[int, int, int]]] = []
  open_rows: list[list[tuple[int, int, int]]] = []
  free_length = np.full(most, -1)
  free_targets = np.full(most, -1)
  for record, first, stop, length in entries:
    targets = stop - first
    fits = (free_length >= length) & (free_targets >= targets)
    if fits.any():
      slot = int(np.where(fits, free_length, row_length + 1).argmin())
    else:
      if len(open_rows) < most:
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
    if len(open_rows[slot]) == row_documents:
      free_length[slot] = -1
  return rows + open_rows


def row_order(
  rows: int, seed: int, epoch: int, shuffle: bool = True
) -> np.ndarray:
  """Returns the order in which an epoch visits the rows of a plan.

  shuffle: False visits them as they lie in the plan, in every epoch.
  """
  if not shuffle:
    return np.arange(rows)
  return np.random.default_rng([seed, 1, epoch]).permutation(rows)
