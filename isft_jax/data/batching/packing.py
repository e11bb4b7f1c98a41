"""Packs records into rows, as a plan that is made before any record is read.

A plan is a pure function of the index, the objective, the two budgets of a row
(L tokens and K scored targets) and the seed. The rows of a step follow from the
number of the step, and runs that must see identical rows use the same plan.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable

import numpy as np

from isft_jax.data.records.dataset import Index

# Number of rows that stay open while records are placed. Each record goes into
# the fullest open row that has room, in constant time per record. Without
# shuffling only one row is open.
_OPEN_ROWS = 64

# Row lengths and target budgets that are chosen automatically are multiples of
# this.
_STEP = 8

# An automatic budget of targets may add one row per 100: a row costs the time
# of the whole model, an unused target only that of the output head.
_ONE_MORE_ROW_IN = 100

_REPORT_EVERY = 1 << 14  # entries
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Plan:
  """Rows of entries. Row r holds entries[starts[r]:starts[r + 1]]."""

  # (record, first, stop): the entry scores the record's targets number `first`
  # to `stop` - 1, counted under the objective of the plan. A record with more
  # targets than the budget of a row has several entries.
  entries_E3: np.ndarray
  starts: np.ndarray  # int64 [rows + 1]
  seq_len: int  # L, budget of tokens per row
  targets_per_row: int  # K, budget of targets per row
  tokens: int  # used, in all rows
  targets: int  # used, in all rows
  split: int  # number of records with several entries
  empty: int  # number of records without any target, which are in no row

  def __len__(self) -> int:
    return len(self.starts) - 1

  def row(self, number: int) -> np.ndarray:
    """Returns the entries of a row, [entries, 3]."""
    return self.entries_E3[self.starts[number] : self.starts[number + 1]]

  def digest(self) -> str:
    """Returns a SHA-256 of the rows and both budgets."""
    digest = hashlib.sha256(f'{self.seq_len} {self.targets_per_row} '.encode())
    for array in (self.entries_E3, self.starts):
      digest.update(np.ascontiguousarray(array, '<i8').data)
    return digest.hexdigest()

  def describe(self) -> str:
    """Returns one line with the number of rows and how full they are."""
    tokens = self.tokens / (len(self) * self.seq_len)
    targets = self.targets / (len(self) * self.targets_per_row)
    return (
      f'{len(self):,} rows per epoch, of {self.seq_len:,} tokens '
      f'({tokens:.1%} used) and {self.targets_per_row:,} targets '
      f'({targets:.1%} used); records split: {self.split:,}, without a target: '
      f'{self.empty:,}'
    )


def count_targets(index: Index, table_PV: np.ndarray) -> np.ndarray:
  """Returns int64 [N]: number of targets of each record.

  Args:
    index: the index of N records.
    table_PV: weights by provenance and verdict; 0 means no target.
  """
  return (index.counts_NPV * (table_PV != 0)).sum(axis=(1, 2), dtype=np.int64)


def make_plan(
  index: Index,
  table_PV: np.ndarray,
  seq_len: int,
  targets_per_row: int,
  seed: int,
  documents_per_row: int = 0,
  shuffle: bool = True,
  progress: Progress = lambda done, total: None,
) -> Plan:
  """Packs records into rows under two budgets; covers every target once.

  An entry needs as many columns as there are tokens before its last target. The
  tokens after it are trimmed, which is exact under causal attention. The index
  has only the position of a record's last target, so that the length of an
  entry that stops earlier is an upper bound.

  Args:
    index: the index of N records.
    table_PV: the objective's weights, by provenance and verdict.
    seq_len: L. 0 takes the longest record, rounded up to a multiple of 8.
    targets_per_row: K. 0 takes the smallest budget that needs at most 1 % more
      rows than K = L: a multiple of 128 (of 8 if rows are shorter than 1,024
      tokens), at most L. If a row is one record, 0 takes the largest number of
      targets of a record, rounded up to a multiple of 8, so that no record is
      split.
    seed: of the order in which records are packed.
    documents_per_row: maximum number of entries per row. 0 means no limit.
    shuffle: False packs the records in their own order, each into the row of
      its predecessor if that row has room.
    progress: called from time to time with the entries that are placed, and
      their number. The search for a budget places them several times.

  Returns:
    The plan.

  Raises:
    ValueError: no record has a target, or a record is too long.
  """
  # Targets and tokens that each record needs.
  targets_N = count_targets(index, table_PV)
  if not targets_N.any():
    raise ValueError(
      f'none of {len(targets_N)} records has a token that the objective '
      'scores: nothing to learn from; choose another objective or other records'
    )
  # A record's inputs end before its last target, at the last scored position.
  columns_N = np.where(table_PV != 0, index.last_NPV, -1).max(axis=(1, 2))
  if seq_len == 0:
    seq_len = _round_up(columns_N.max(), _STEP)
  too_long = np.flatnonzero(columns_N > seq_len)
  if too_long.size:
    worst = too_long[columns_N[too_long].argmax()]
    raise ValueError(
      f'{too_long.size} records are longer than a row of {seq_len} '
      f'tokens; the longest, record {worst}, needs {columns_N[worst]}: raise '
      'seq_len or prepare the records in windows'
    )

  # The order of packing. Records without a target are left out.
  order = np.arange(len(targets_N))
  if shuffle:
    # The second number of the seed separates this stream from `row_order`'s,
    # which has 1.
    order = np.random.default_rng([seed, 0]).permutation(order)
  order = order[targets_N[order] > 0]
  place = functools.partial(
    _place,
    order,
    targets_N[order],
    columns_N[order],
    empty=int((targets_N == 0).sum()),
    seq_len=seq_len,
    documents_per_row=documents_per_row,
    open_rows=_OPEN_ROWS if shuffle else 1,
    progress=progress,
  )
  # Choose the budget of targets: 1. one record per row, 2. given, 3. searched.
  if documents_per_row == 1 and not targets_per_row:
    targets_per_row = min(_round_up(targets_N.max(), _STEP), seq_len)
  if targets_per_row:
    plan = place(targets_per_row=targets_per_row)
    assert plan is not None  # without a limit of rows
    return plan
  # The reference: with K = L, the tokens limit a row, never the targets.
  widest = place(targets_per_row=seq_len)
  assert widest is not None
  most = len(widest) + len(widest) // _ONE_MORE_ROW_IN
  step = 128 if seq_len >= 1024 else _STEP
  # A smaller budget would need more than `most` rows for the targets only.
  least = _round_up(-(-widest.targets // most), step)
  for targets_per_row in range(least, seq_len, step):
    plan = place(targets_per_row=targets_per_row, most_rows=most)
    if plan is not None:
      return plan
  return widest


def _round_up(number: int, step: int) -> int:
  return -(-int(number) // step) * step


def _place(
  records_N: np.ndarray,
  targets_N: np.ndarray,
  columns_N: np.ndarray,
  *,
  seq_len: int,
  targets_per_row: int,
  documents_per_row: int,
  open_rows: int,
  empty: int,
  progress: Progress,
  most_rows: int = 0,
) -> Plan | None:
  """Splits records that exceed the budget of targets, and packs the entries.

  Returns None if that takes more than `most_rows` rows; 0 means no limit.
  """
  entries, split = [], 0
  for record, total, columns in zip(
    records_N.tolist(), targets_N.tolist(), columns_N.tolist(), strict=True
  ):
    if total <= targets_per_row:
      entries.append((record, 0, total, columns))
      continue
    # Split into pieces of equal size, up to rounding.
    pieces = -(-total // targets_per_row)
    split += 1
    bounds = [total * piece // pieces for piece in range(pieces + 1)]
    for first, stop in itertools.pairwise(bounds):
      # Between `stop` and the last target there are at least total - stop
      # tokens, which this piece need not see.
      entries.append((record, first, stop, columns - (total - stop)))
  rows = _fill(
    entries,
    seq_len,
    targets_per_row,
    documents_per_row,
    open_rows,
    progress,
    most_rows or len(entries),
  )
  if rows is None:
    return None
  # Entries of all rows one after the other; `starts` says where each row
  # begins.
  return Plan(
    entries_E3=np.asarray(
      list(itertools.chain.from_iterable(rows)), np.int64
    ).reshape(-1, 3),
    starts=np.cumsum([0] + [len(row) for row in rows]),
    seq_len=seq_len,
    targets_per_row=targets_per_row,
    tokens=sum(length for *_, length in entries),
    targets=int(targets_N.sum()),
    split=split,
    empty=empty,
  )


def _fill(
  entries: list[tuple[int, int, int, int]],
  seq_len: int,
  targets_per_row: int,
  documents_per_row: int,
  most: int,
  progress: Progress,
  most_rows: int,
) -> list[list[tuple[int, int, int]]] | None:
  """Places each entry into the fullest open row that has room (best fit).

  Args:
    entries: (record, first, stop, length) of each entry, in order.
    seq_len: budget of tokens per row.
    targets_per_row: budget of targets per row.
    documents_per_row: maximum number of entries per row; 0 means no limit.
    most: maximum number of open rows; with 1 the entries keep their order.
    progress: see `make_plan`.
    most_rows: maximum number of rows.

  Returns:
    The entries (record, first, stop) of each row; None if there are more rows
    than the maximum.
  """
  rows: list[list[tuple[int, int, int]]] = []
  open_rows: list[list[tuple[int, int, int]]] = []
  # The open rows, sorted by free tokens and then by slot: tokens * most + slot.
  # This code runs once per entry, and arrays would take ten times as long.
  free: list[int] = []
  free_targets = [0] * most
  for number, (record, first, stop, length) in enumerate(entries):
    if number % _REPORT_EVERY == 0:
      progress(number, len(entries))
    targets = stop - first
    # The first row with room for the tokens that also has room for the targets.
    place = bisect.bisect_left(free, length * most)
    while place < len(free) and free_targets[free[place] % most] < targets:
      place += 1
    if place < len(free):
      tokens, slot = divmod(free.pop(place), most)
    else:
      if len(open_rows) < most:
        slot = len(open_rows)
        open_rows.append([])
      else:  # close the fullest
        slot = free.pop(0) % most
        rows.append(open_rows[slot])
        if len(rows) + most > most_rows:
          return None
        open_rows[slot] = []
      # A new row starts with both budgets unused.
      tokens, free_targets[slot] = seq_len, targets_per_row
    open_rows[slot].append((record, first, stop))
    free_targets[slot] -= targets
    # A row with the maximum number of entries takes no more.
    is_full = len(open_rows[slot]) == documents_per_row
    left = -1 if is_full else tokens - length
    bisect.insort(free, left * most + slot)
  rows += open_rows
  return rows if len(rows) <= most_rows else None


def row_order(
  rows: int, seed: int, epoch: int, shuffle: bool = True
) -> np.ndarray:
  """Returns the order in which an epoch visits the rows of a plan.

  Args:
    rows: number of rows.
    seed: of the permutation.
    epoch: number of the epoch; each epoch has its own order.
    shuffle: False returns the order of the plan for every epoch.

  Returns:
    int64 [rows], a permutation.
  """
  if not shuffle:
    return np.arange(rows)
  # The second number of the seed separates this stream from that of
  # `make_plan`, which has 0.
  return np.random.default_rng([seed, 1, epoch]).permutation(rows)
