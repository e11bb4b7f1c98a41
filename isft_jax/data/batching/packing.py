"""Packs records into rows, as a plan that is made before any record is read.

A plan is a pure function of the index, the objective, the two budgets of a row
(L tokens and K scored targets) and the seed. The rows of a step follow from the
number of the step, and runs that must see identical rows use the same plan.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from isft_jax.data.batching import filling
from isft_jax.data.batching.filling import Budgets, Progress
from isft_jax.data.records import index as index_lib
from isft_jax.data.records.index import Index

# Row lengths and target budgets that are chosen automatically are multiples of
# this.
_STEP = 8

# An automatic budget of targets may add one row per 100: a row costs the time
# of the whole model, an unused target only that of the output head.
_ONE_MORE_ROW_IN = 100

# An automatic budget is searched for with at most so many records: stretches of
# the order of packing, evenly spread over it.
_SAMPLE = 64, 2048

_HASHED = 1 << 20  # numbers at a time, as 64 bits each


@dataclasses.dataclass(frozen=True)
class Plan:
  """Rows of entries. Row r holds entries[starts[r]:starts[r + 1]]."""

  # (record, first, stop): the entry scores the record's targets number `first`
  # to `stop` - 1, counted under the objective of the plan. A record with more
  # targets than the budget of a row has several entries. int32.
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
    for array in (self.entries_E3.reshape(-1), self.starts):
      for start in range(0, len(array), _HASHED):
        block = array[start : start + _HASHED]
        digest.update(np.ascontiguousarray(block, '<i8').data)
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
  is_target_PV = table_PV != 0
  return np.concatenate(
    [
      (block.counts_NPV * is_target_PV).sum(axis=(1, 2), dtype=np.int64)
      for block in index_lib.blocks(index)
    ]
  )


def _count_columns(index: Index, table_PV: np.ndarray) -> np.ndarray:
  """Returns int32 [N]: tokens before the last target of each record, or -1."""
  # Inputs end before the last target, at the last scored position.
  return np.concatenate(
    [
      np.where(table_PV != 0, block.last_NPV, np.int32(-1)).max(axis=(1, 2))
      for block in index_lib.blocks(index)
    ]
  )


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
      tokens), at most L. Above 131,072 records, rows are counted for a sample
      of that many. If a row is one record, 0 takes the largest number of
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
  columns_N = _count_columns(index, table_PV)
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
  order = np.arange(len(targets_N), dtype=np.int32)
  if shuffle:
    # The second number of the seed separates this stream from `row_order`'s,
    # which has 1.
    np.random.default_rng([seed, 0]).shuffle(order)
  order = order[targets_N[order] > 0]
  empty = len(targets_N) - len(order)
  demand = _Demand(order, targets_N[order].astype(np.int32), columns_N[order])
  place = functools.partial(
    _place,
    seq_len=seq_len,
    documents_per_row=documents_per_row,
    shuffle=shuffle,
    empty=empty,
    progress=progress,
  )
  # Choose the budget of targets: 1. one record per row, 2. given, 3. searched.
  if documents_per_row == 1 and not targets_per_row:
    targets_per_row = min(_round_up(targets_N.max(), _STEP), seq_len)
  if not targets_per_row:
    sample = demand.sample()
    best = _search(functools.partial(place, sample), seq_len)
    if sample is demand:
      return best
    targets_per_row = best.targets_per_row
  plan = place(demand, targets_per_row=targets_per_row)
  assert plan is not None  # without a limit of rows
  return plan


class _Demand(NamedTuple):
  """Targets and tokens that records need, in the order of packing; int32."""

  record_N: np.ndarray
  targets_N: np.ndarray
  columns_N: np.ndarray

  def sample(self) -> '_Demand':
    """Returns some of the records: all if they are few."""
    stretches, length = _SAMPLE
    last = len(self.record_N) - length  # the start of the last stretch
    if len(self.record_N) <= stretches * length:
      return self
    # Neighbours stay together, because unshuffled rows hold neighbours.
    starts = np.arange(stretches) * last // (stretches - 1)
    chosen = (starts[:, np.newaxis] + np.arange(length)).reshape(-1)
    return _Demand(*(array[chosen] for array in self))


def _search(place: Callable[..., 'Plan | None'], seq_len: int) -> Plan:
  """Returns the plan with the fewest targets per row; see `make_plan`.

  Args:
    place: makes the plan of a budget of targets, or None if it has too many
      rows.
    seq_len: budget of tokens per row.
  """
  # The reference: with K = L, the tokens limit a row, never the targets.
  widest = place(targets_per_row=seq_len)
  assert widest is not None  # without a limit of rows
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
  demand: _Demand,
  *,
  seq_len: int,
  targets_per_row: int,
  documents_per_row: int,
  shuffle: bool,
  empty: int,
  progress: Progress,
  most_rows: int = 0,
) -> Plan | None:
  """Splits records that exceed the budget of targets, and packs the entries.

  Returns None if that takes more than `most_rows` rows; 0 means no limit.
  """
  # A row has no more targets than tokens.
  budgets = Budgets(seq_len, min(targets_per_row, seq_len), documents_per_row)
  entries_E3, columns_E, split = _split(demand, budgets.targets)
  row_E = filling.fill(
    columns_E,
    entries_E3[:, 2] - entries_E3[:, 1],
    budgets,
    in_order=not shuffle,
    progress=progress,
    most_rows=most_rows,
  )
  if row_E is None:
    return None
  # Entries of all rows one after the other; `starts` says where each row
  # begins. Within a row they keep their order.
  starts = np.concatenate([[0], np.cumsum(np.bincount(row_E))])
  return Plan(
    entries_E3=entries_E3[np.argsort(row_E, kind='stable')],
    starts=starts,
    seq_len=seq_len,
    targets_per_row=targets_per_row,
    tokens=int(columns_E.sum(dtype=np.int64)),
    targets=int(demand.targets_N.sum(dtype=np.int64)),
    split=split,
    empty=empty,
  )


def _split(
  demand: _Demand, targets_per_row: int
) -> tuple[np.ndarray, np.ndarray, int]:
  """Splits each record into the fewest entries, of equal size up to rounding.

  Args:
    demand: what N records need.
    targets_per_row: maximum number of targets per entry.

  Returns:
    int32 [E, 3]: the entries, as in a plan.
    int32 [E]: tokens that each needs.
    Number of records with several entries.
  """
  pieces_N = -(-demand.targets_N // np.int32(targets_per_row))
  columns_E = demand.columns_N.repeat(pieces_N)
  entries_E3 = np.zeros((len(columns_E), 3), np.int32)
  entries_E3[:, 0] = demand.record_N.repeat(pieces_N)
  entries_E3[:, 2] = demand.targets_N.repeat(pieces_N)
  # Entries of the records that are split, and which piece each of them is.
  split_N = pieces_N > 1
  several = np.flatnonzero(split_N.repeat(pieces_N))
  pieces_S = pieces_N[split_N].astype(np.int64)
  piece = np.arange(len(several))
  piece -= np.repeat(np.cumsum(pieces_S) - pieces_S, pieces_S)
  pieces = pieces_S.repeat(pieces_S)
  total = entries_E3[several, 2]
  stop = total * (piece + 1) // pieces
  entries_E3[several, 1] = total * piece // pieces
  entries_E3[several, 2] = stop
  # Between `stop` and the last target there are at least total - stop tokens,
  # which this piece need not see.
  columns_E[several] -= (total - stop).astype(np.int32)
  return entries_E3, columns_E, int(split_N.sum())


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
    int32 [rows], a permutation.
  """
  order = np.arange(rows, dtype=np.int32)
  # The second number of the seed separates this stream from that of
  # `make_plan`, which has 0.
  if shuffle:
    np.random.default_rng([seed, 1, epoch]).shuffle(order)
  return order
