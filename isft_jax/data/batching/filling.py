"""Chooses the row of each entry of a plan, under the budgets of a row.

An entry is a number of tokens and of targets. Entries come in the order of
packing, and the result is the number of the row of each.

    best_fit           the fullest row that has room, of the last 64 rows
    grouped_best_fit   the same in many groups at once, for millions of entries
    next_fit           the row of the entry before, if it has room
    single_fit         a row for each
"""

import bisect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Number of rows that stay open while entries are placed.
OPEN_ROWS = 64

# Groups pay from this number of entries on. Below, seconds are enough.
_MANY = 1 << 20

# Maximum number of groups: more save no time. In a group of fewer entries, the
# rows that are open at the end would be a large share of all.
_MOST_GROUPS = 512
_GROUP_SIZE = 8192  # entries per group, at least

# A row that has less than this share of a budget left is not filled up again.
_ALMOST_FULL = 256

_BLOCK = 1 << 14  # entries that are Python numbers at a time, and per report

Progress = Callable[[int, int], None]


class Budgets(NamedTuple):
  """Maximum tokens, targets and entries per row; 0 entries mean no limit."""

  tokens: int
  targets: int
  documents: int = 0


def fill(
  tokens_E: np.ndarray,
  targets_E: np.ndarray,
  budgets: Budgets,
  in_order: bool,
  progress: Progress,
  most_rows: int = 0,
) -> np.ndarray | None:
  """Chooses the row of each entry by the method that fits their number.

  Args:
    tokens_E: tokens of each entry, at most the budget of a row.
    targets_E: targets of each entry, at most the budget of a row.
    budgets: of a row.
    in_order: whether rows keep the order of the entries.
    progress: called from time to time with the number of entries that are
      placed, and of all.
    most_rows: maximum number of rows; 0 means no limit. It saves time for up to
      a million entries.

  Returns:
    int32 [E]: the row of each entry; None if there are more rows than the
    maximum. Rows are numbered from 0, and none is empty.
  """
  limit = most_rows or len(tokens_E)
  if budgets.documents == 1:
    row_E = single_fit(len(tokens_E), 1 if in_order else OPEN_ROWS)
  elif in_order:
    row_E = next_fit(tokens_E, targets_E, budgets, progress)
  elif len(tokens_E) >= _MANY:
    groups = min(_MOST_GROUPS, max(1, len(tokens_E) // _GROUP_SIZE))
    row_E = grouped_best_fit(tokens_E, targets_E, budgets, groups, progress)
  else:
    return best_fit(tokens_E, targets_E, budgets, OPEN_ROWS, progress, limit)
  return row_E if row_E.max() < limit else None


def best_fit(
  tokens_E: np.ndarray,
  targets_E: np.ndarray,
  budgets: Budgets,
  most: int,
  progress: Progress,
  most_rows: int,
) -> np.ndarray | None:
  """Places each entry into the fullest open row that has room.

  If no row has room, a new one is opened. If as many rows are open as may be,
  the fullest is closed before. Rows are numbered in the order in which they are
  closed; those that are open at the end follow, by slot.

  Args:
    tokens_E: see `fill`.
    targets_E: see `fill`.
    budgets: see `fill`.
    most: maximum number of open rows.
    progress: see `fill`.
    most_rows: see `fill`, but 0 means no row.

  Returns:
    See `fill`.
  """
  # Rows are named in the order in which they are opened, until the end.
  opened_E = np.empty(len(tokens_E), np.int32)
  closed: list[int] = []
  row_of_slot: list[int] = []
  # The open rows, sorted by free tokens and then by slot: tokens * most + slot.
  # This code runs once per entry, and arrays would take ten times as long.
  free: list[int] = []
  free_targets = [0] * most
  documents = [0] * most
  for start in range(0, len(tokens_E), _BLOCK):
    progress(start, len(tokens_E))
    block = slice(start, start + _BLOCK)
    opened: list[int] = []
    for length, targets in zip(
      tokens_E[block].tolist(), targets_E[block].tolist(), strict=True
    ):
      # The first row with room for the tokens that also has room for the
      # targets.
      place = bisect.bisect_left(free, length * most)
      while place < len(free) and free_targets[free[place] % most] < targets:
        place += 1
      if place < len(free):
        tokens, slot = divmod(free.pop(place), most)
      else:
        row = len(closed) + len(row_of_slot)
        if len(row_of_slot) < most:
          slot = len(row_of_slot)
          row_of_slot.append(row)
        else:  # close the fullest
          slot = free.pop(0) % most
          closed.append(row_of_slot[slot])
          if len(closed) + most > most_rows:
            return None
          row_of_slot[slot] = row
        # A new row starts with both budgets unused.
        tokens, free_targets[slot] = budgets.tokens, budgets.targets
        documents[slot] = 0
      opened.append(row_of_slot[slot])
      free_targets[slot] -= targets
      documents[slot] += 1
      # A row with the maximum number of entries takes no more.
      is_full = documents[slot] == budgets.documents
      left = -1 if is_full else tokens - length
      bisect.insort(free, left * most + slot)
    opened_E[block] = opened
  order = closed + row_of_slot
  if len(order) > most_rows:
    return None
  rows = np.empty(len(order), np.int32)
  rows[order] = np.arange(len(order))
  return rows[opened_E]


def grouped_best_fit(
  tokens_E: np.ndarray,
  targets_E: np.ndarray,
  budgets: Budgets,
  groups: int,
  progress: Progress,
) -> np.ndarray:
  """Places entries by best fit in G groups at once, each with its own rows.

  Entry e belongs to group e mod G, and each step places one entry per group.
  In the end, open rows with more than 1/256 of both budgets left are emptied,
  and `best_fit` places their entries and the last E mod G ones. Rows are
  therefore as full as without groups. The rows of groups come first, in the
  order in which they were opened.

  Args:
    tokens_E: see `fill`.
    targets_E: see `fill`.
    budgets: see `fill`.
    groups: G.
    progress: see `fill`.

  Returns:
    See `fill`.
  """
  # The state of each open row: S slots for each of G groups. As in `best_fit`,
  # the key of a row is its free tokens * S + slot. The key of a slot without a
  # row is below all others, so that it is used before a row is closed.
  shape_SG = OPEN_ROWS, groups
  # 32 bits take half the time, and are enough for rows of 33 million tokens.
  is_short = (budgets.tokens + 1) * OPEN_ROWS < 2**31
  dtype = np.int32 if is_short else np.int64
  slot_S1 = np.arange(OPEN_ROWS, dtype=dtype)[:, np.newaxis]
  key_SG = np.broadcast_to(slot_S1 - 2 * OPEN_ROWS, shape_SG).copy()
  targets_SG = np.zeros(shape_SG, np.int32)  # free
  documents_SG = np.zeros(shape_SG, np.int32)
  row_SG = np.full(shape_SG, -1, np.int32)

  row_E = np.full(len(tokens_E), -1, np.int32)
  group_G = np.arange(groups)
  fits_SG = np.empty(shape_SG, bool)
  rows = 0  # opened so far
  whole = len(tokens_E) // groups * groups
  for start in range(0, whole, groups):
    if start % _BLOCK < groups:
      progress(start, len(tokens_E))
    needed_G = tokens_E[start : start + groups] * dtype(OPEN_ROWS)
    targets_G = targets_E[start : start + groups]
    # The fullest row of each group that has room.
    np.greater_equal(key_SG, needed_G, out=fits_SG)
    fits_SG &= targets_SG >= targets_G
    no_fit = np.iinfo(dtype).max
    key_G = np.where(fits_SG, key_SG, no_fit).min(axis=0)
    # Groups without such a row close the fullest and open a new one.
    new = np.flatnonzero(key_G == no_fit)
    slot_N = key_SG[:, new].min(axis=0) % OPEN_ROWS
    key_G[new] = budgets.tokens * OPEN_ROWS + slot_N
    targets_SG[slot_N, new] = budgets.targets
    documents_SG[slot_N, new] = 0
    row_SG[slot_N, new] = np.arange(rows, rows + len(new))
    rows += len(new)
    # Place the entries.
    slot_G = key_G % OPEN_ROWS
    place_G = slot_G, group_G
    row_E[start : start + groups] = row_SG[place_G]
    targets_SG[place_G] -= targets_G
    key_G -= needed_G
    # A row with the maximum number of entries takes no more.
    if budgets.documents:
      documents_SG[place_G] += 1
      is_full_G = documents_SG[place_G] == budgets.documents
      key_G = np.where(is_full_G, slot_G - OPEN_ROWS, key_G)
    key_SG[place_G] = key_G

  # Empty the open rows. The last row, -1, is that of entries without a row.
  almost_full = budgets.tokens // _ALMOST_FULL * OPEN_ROWS + OPEN_ROWS
  is_open_SG = np.greater_equal(key_SG, almost_full)
  is_open_SG &= targets_SG > budgets.targets // _ALMOST_FULL
  is_open = np.zeros(rows + 1, bool)
  is_open[row_SG[is_open_SG]] = is_open[-1] = True
  left = np.flatnonzero(is_open[row_E])
  row_of_left = best_fit(
    tokens_E[left], targets_E[left], budgets, OPEN_ROWS, progress, len(left)
  )
  assert row_of_left is not None  # without a limit of rows
  # Number the others without gaps, and then those of `best_fit`.
  number = np.cumsum(~is_open, dtype=np.int32) - np.int32(1)
  row_E = number[row_E]
  row_E[left] = number[-1] + np.int32(1) + row_of_left
  return row_E


def next_fit(
  tokens_E: np.ndarray,
  targets_E: np.ndarray,
  budgets: Budgets,
  progress: Progress,
) -> np.ndarray:
  """Places each entry into the row of the entry before it, if it has room.

  Args:
    tokens_E: see `fill`.
    targets_E: see `fill`.
    budgets: see `fill`.
    progress: see `fill`.

  Returns:
    See `fill`.
  """
  row_E = np.empty(len(tokens_E), np.int32)
  row = free_tokens = free_targets = -1  # the first entry opens row 0
  documents = 0
  for start in range(0, len(tokens_E), _BLOCK):
    progress(start, len(tokens_E))
    block = slice(start, start + _BLOCK)
    rows = []
    for tokens, targets in zip(
      tokens_E[block].tolist(), targets_E[block].tolist(), strict=True
    ):
      free_tokens -= tokens
      free_targets -= targets
      documents -= 1
      # Without a limit of entries, this number is never 0 again.
      if free_tokens < 0 or free_targets < 0 or documents == 0:
        row += 1
        free_tokens = budgets.tokens - tokens
        free_targets = budgets.targets - targets
        documents = budgets.documents
      rows.append(row)
    row_E[block] = rows
  return row_E


def single_fit(entries: int, most: int) -> np.ndarray:
  """Gives each entry a row, numbered as by `best_fit` with one entry per row.

  That closes the row of slot 0 for each entry from `most` on. The rows of the
  other slots stay open until the end.

  Args:
    entries: number of entries, E.
    most: maximum number of open rows.

  Returns:
    See `fill`.
  """
  order = np.arange(entries, dtype=np.int32)
  order = np.concatenate([order[:1], order[most:], order[1:most]])
  row_E = np.empty_like(order)
  row_E[order] = np.arange(entries)
  return row_E
