"""Rows of entries, by methods that are compared with slow ones."""

import functools

import numpy as np
import pytest

from isft_jax.data.batching import filling
from isft_jax.data.batching.filling import Budgets


def ignore(done, total):
  """A progress that nobody sees."""


def random_entries(number, seed=0, longest=100, most_targets=100):
  rng = np.random.default_rng(seed)
  tokens_E = rng.integers(1, longest + 1, number)
  targets_E = rng.integers(1, np.minimum(tokens_E, most_targets) + 1)
  return tokens_E.astype(np.int32), targets_E.astype(np.int32)


def place_slowly(slots, most, budgets, entry, tokens, targets):
  """Best fit, by looking at every open row: (tokens left, slot) decides.

  A slot is [tokens left, targets left, entries]. Returns the entries of a row
  that is closed, or None.
  """
  fits = [
    (tokens_left, slot)
    for slot, (tokens_left, targets_left, _) in enumerate(slots)
    if tokens_left >= tokens and targets_left >= targets
  ]
  closed = None
  if fits:
    slot = min(fits)[1]
  elif len(slots) < most:
    slot = len(slots)
    slots.append([budgets.tokens, budgets.targets, []])
  else:
    slot = min((left, slot) for slot, (left, _, _) in enumerate(slots))[1]
    closed = slots[slot][2]
    slots[slot] = [budgets.tokens, budgets.targets, []]
  row = slots[slot]
  row[2].append(entry)
  row[0] = -1 if len(row[2]) == budgets.documents else row[0] - tokens
  row[1] -= targets
  return closed


def fill_slowly(entries, budgets, most):
  """Returns the entries of each row; `entries` are (entry, tokens, targets)."""
  closed, slots = [], []
  for entry in entries:
    row = place_slowly(slots, most, budgets, *entry)
    closed += [row] if row else []
  return closed + [row for _, _, row in slots]


def fill_groups_slowly(entries, budgets, most, groups):
  """Best fit of every group by itself, then of what is left by all groups."""
  whole = len(entries) // groups * groups
  slots = [[] for _ in range(groups)]
  rows = []
  for entry in entries[:whole]:
    row = place_slowly(slots[entry[0] % groups], most, budgets, *entry)
    rows += [row] if row else []
  # Rows with less than 1/256 of a budget left are not emptied.
  left = {entry for entry, _, _ in entries[whole:]}
  for tokens, targets, row in (row for group in slots for row in group):
    if tokens <= budgets.tokens // 256 or targets <= budgets.targets // 256:
      rows.append(row)
    else:
      left.update(row)
  # A row is opened by its first entry.
  return sorted(rows) + fill_slowly(
    [entry for entry in entries if entry[0] in left], budgets, most
  )


def numbered(tokens_E, targets_E):
  entries = range(len(tokens_E))
  return list(zip(entries, tokens_E.tolist(), targets_E.tolist(), strict=True))


def rows_of(row_E):
  """The entries of each row."""
  assert row_E.dtype == np.int32
  rows = [[] for _ in range(row_E.max() + 1)]
  for entry, row in enumerate(row_E.tolist()):
    rows[row].append(entry)
  return rows


BUDGETS = [
  Budgets(100, targets, documents)
  for targets in (10, 25, 100)
  for documents in (0, 1, 2, 5)
]


@pytest.mark.parametrize('most', [1, 3, 64])
@pytest.mark.parametrize('budgets', BUDGETS)
def test_rows_are_those_of_a_slow_best_fit(budgets, most, monkeypatch):
  monkeypatch.setattr(filling, '_BLOCK', 64)
  entries = random_entries(400, most, most_targets=budgets.targets)
  expected = fill_slowly(numbered(*entries), budgets, most)
  fill = functools.partial(filling.best_fit, *entries, budgets, most, ignore)
  assert rows_of(fill(len(expected))) == expected
  assert fill(len(expected) - 1) is None


@pytest.mark.parametrize('groups', [1, 2, 7, 50])
@pytest.mark.parametrize('number', [1, 49, 400])
@pytest.mark.parametrize('budgets', BUDGETS)
def test_rows_of_groups_are_those_of_a_slow_best_fit_of_each(
  budgets, number, groups, monkeypatch
):
  monkeypatch.setattr(filling, 'OPEN_ROWS', 3)
  entries = random_entries(number, groups, most_targets=budgets.targets)
  row_E = filling.grouped_best_fit(*entries, budgets, groups, ignore)
  assert rows_of(row_E) == fill_groups_slowly(
    numbered(*entries), budgets, 3, groups
  )


def test_rows_of_groups_that_are_almost_full_are_kept(monkeypatch):
  """With budgets of 2,000, that is 7 left at most; an entry has 1 or 2."""
  monkeypatch.setattr(filling, 'OPEN_ROWS', 4)
  budgets = Budgets(2000, 2000)
  entries = random_entries(20_000, longest=2)
  row_E = filling.grouped_best_fit(*entries, budgets, 5, ignore)
  assert rows_of(row_E) == fill_groups_slowly(numbered(*entries), budgets, 4, 5)


def test_rows_of_groups_may_be_longer_than_32_bits_can_sort():
  budgets = Budgets(1 << 26, 1 << 26)
  entries = np.full(600, 1 << 25, np.int32), np.ones(600, np.int32)
  row_E = filling.grouped_best_fit(*entries, budgets, 3, ignore)
  assert np.bincount(row_E).tolist() == [2] * 300


@pytest.mark.parametrize('budgets', BUDGETS)
def test_rows_in_order_are_those_of_a_slow_best_fit_of_one_open_row(
  budgets, monkeypatch
):
  monkeypatch.setattr(filling, '_BLOCK', 64)
  entries = random_entries(400, most_targets=budgets.targets)
  row_E = filling.next_fit(*entries, budgets, ignore)
  assert rows_of(row_E) == fill_slowly(numbered(*entries), budgets, 1)


@pytest.mark.parametrize('most', [1, 3, 64])
@pytest.mark.parametrize('number', [1, 2, 3, 4, 63, 64, 65, 200])
def test_rows_of_one_entry_are_those_of_a_slow_best_fit(number, most):
  expected = fill_slowly(
    numbered(*random_entries(number)), Budgets(100, 100, 1), most
  )
  assert rows_of(filling.single_fit(number, most)) == expected


# ------------------------------------------------------------ many entries


@pytest.mark.parametrize('targets', [100, 45])
@pytest.mark.parametrize('longest', [20, 60, 100])
def test_groups_need_no_more_rows(longest, targets):
  """Up to 0.5 %, whether tokens limit a row or targets."""
  entries = random_entries(30_000, longest=longest, most_targets=targets)
  budgets = Budgets(100, targets)
  rows = filling.best_fit(*entries, budgets, 64, ignore, 30_000).max() + 1
  for groups in (2, 30_000 // filling._GROUP_SIZE):
    row_E = filling.grouped_best_fit(*entries, budgets, groups, ignore)
    assert row_E.max() + 1 <= 1.005 * rows
    for each, budget in zip(entries, budgets[:2], strict=True):
      sums = np.bincount(row_E, each)
      assert 0 < sums.min() <= sums.max() <= budget


def test_the_method_follows_from_the_budgets_and_the_number(monkeypatch):
  monkeypatch.setattr(filling, '_MANY', 300)
  monkeypatch.setattr(filling, '_GROUP_SIZE', 50)
  budgets = Budgets(100, 100)
  entries = random_entries(300)
  fewer = tuple(array[1:] for array in entries)
  fill = functools.partial(filling.fill, in_order=False, progress=ignore)
  in_order = functools.partial(filling.fill, in_order=True, progress=ignore)
  single = Budgets(100, 100, 1)
  for got, expected in (
    (
      fill(*entries, budgets),
      filling.grouped_best_fit(*entries, budgets, 6, ignore),
    ),
    (
      fill(*fewer, budgets),
      filling.best_fit(*fewer, budgets, 64, ignore, 299),
    ),
    (
      in_order(*entries, budgets),
      filling.next_fit(*entries, budgets, ignore),
    ),
    (fill(*entries, single), filling.single_fit(300, 64)),
    (in_order(*entries, single), filling.single_fit(300, 1)),
  ):
    np.testing.assert_array_equal(got, expected, strict=True)
  monkeypatch.setattr(filling, '_MOST_GROUPS', 2)
  np.testing.assert_array_equal(
    fill(*entries, budgets),
    filling.grouped_best_fit(*entries, budgets, 2, ignore),
  )


@pytest.mark.parametrize('number', [299, 300])
@pytest.mark.parametrize('in_order', [True, False])
@pytest.mark.parametrize('documents', [0, 1])
def test_no_rows_are_returned_if_there_are_too_many(
  documents, in_order, number, monkeypatch
):
  monkeypatch.setattr(filling, '_MANY', 300)
  monkeypatch.setattr(filling, '_GROUP_SIZE', 128)
  fill = functools.partial(
    filling.fill,
    *random_entries(number),
    Budgets(100, 100, documents),
    in_order,
    ignore,
  )
  rows = fill().max() + 1
  assert fill(most_rows=rows).max() + 1 == rows
  assert fill(most_rows=rows - 1) is None


@pytest.mark.parametrize('in_order', [True, False])
@pytest.mark.parametrize('many', [1000, 1 << 20])
def test_progress_is_reported_as_entries_are_placed(
  many, in_order, monkeypatch
):
  monkeypatch.setattr(filling, '_MANY', many)
  monkeypatch.setattr(filling, '_GROUP_SIZE', 128)
  monkeypatch.setattr(filling, '_BLOCK', 256)
  reports = []
  filling.fill(
    *random_entries(1024),
    Budgets(100, 100),
    in_order,
    lambda *numbers: reports.append(numbers),
  )
  assert reports[:4] == [(0, 1024), (256, 1024), (512, 1024), (768, 1024)]
