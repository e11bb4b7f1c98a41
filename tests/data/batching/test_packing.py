"""The plan of an epoch: every target once, within two budgets, by a seed."""

import collections
import dataclasses
import tracemalloc

import numpy as np
import pytest

from isft_jax.data.batching import filling, packing
from isft_jax.data.batching.packing import (
  count_targets,
  make_plan,
  row_order,
)
from isft_jax.data.records import index as index_lib
from isft_jax.data.records.dataset import Index
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Verdict

T, C, U, A = (
  Provenance.TEMPLATE,
  Provenance.CONTEXT,
  Provenance.USER,
  Provenance.AGENT,
)


def index_of(records):
  """The index of [(authors, verdicts, scored_from), ...], counted by hand."""
  shape = (len(records), len(Provenance), len(Verdict))
  counts_NPV, last_NPV = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
  for n, (authors, verdicts, scored_from) in enumerate(records):
    for position in range(max(1, scored_from), len(authors)):
      cell = (n, authors[position], verdicts[position])
      counts_NPV[cell] += 1
      last_NPV[cell] = position
  lengths = [len(authors) for authors, _, _ in records]
  trajectories = np.arange(1, len(records) + 1, dtype=np.int32)
  return Index(np.array(lengths, np.int32), counts_NPV, last_NPV, trajectories)


def unwindowed(*authors_of_records):
  """Records without verdicts and windows."""
  return [(list(a), [Verdict.UNKNOWN] * len(a), 0) for a in authors_of_records]


def random_records(rng, number=150, longest=40):
  """Some without any target: context alone, or a window's overlap alone."""
  records = []
  for _ in range(number):
    length = int(rng.integers(1, longest + 1))
    authors = rng.integers(0, len(Provenance), length)
    if rng.random() < 0.1:
      authors[:] = C
    verdicts = rng.integers(0, len(Verdict), length)
    scored_from = int(rng.choice([0, 0, length // 2, length]))
    records.append((authors.tolist(), verdicts.tolist(), scored_from))
  return records


def target_positions(record, table_PV):
  authors, verdicts, scored_from = record
  return [
    position
    for position in range(1, len(authors))
    if position >= scored_from
    and table_PV[authors[position], verdicts[position]] != 0
  ]


def rows_of(plan):
  return [[tuple(e) for e in plan.row(r).tolist()] for r in range(len(plan))]


# ------------------------------------------------------------ a plan, in full


def test_a_plan_of_three_records_entry_by_entry():
  """Rows of 8 tokens and 3 targets, under L_do.

  record  authors     targets at  needs  entries: (record, first, stop)
       0  T U A A U   1, 4             4  (0, 0, 2)
       1  T U U U U   1 to 4           4  (1, 0, 2) and (1, 2, 4)
       2  T A A A     none                none
  """
  index = index_of(unwindowed([T, U, A, A, U], [T, U, U, U, U], [T, A, A, A]))
  table_PV = weight_table('interventional')
  assert count_targets(index, table_PV).tolist() == [2, 4, 0]
  plan = make_plan(index, table_PV, seq_len=8, targets_per_row=3, seed=0)
  entries = [entry for row in rows_of(plan) for entry in row]
  assert sorted(entries) == [(0, 0, 2), (1, 0, 2), (1, 2, 4)]
  # No two of 2 targets share a row of 3.
  assert [len(row) for row in rows_of(plan)] == [1, 1, 1]
  assert plan.empty == 1

  # With 4 targets a row, record 1 stays whole, and no row holds 6.
  plan = make_plan(index, table_PV, seq_len=8, targets_per_row=4, seed=0)
  assert sorted(rows_of(plan)) == [[(0, 0, 2)], [(1, 0, 4)]]
  # With 6, one row holds all, and is filled to its last token.
  plan = make_plan(index, table_PV, seq_len=8, targets_per_row=6, seed=0)
  assert [sorted(row) for row in rows_of(plan)] == [[(0, 0, 2), (1, 0, 4)]]
  # With a token less, two rows are needed.
  plan = make_plan(index, table_PV, seq_len=7, targets_per_row=6, seed=0)
  assert sorted(rows_of(plan)) == [[(0, 0, 2)], [(1, 0, 4)]]


@pytest.mark.parametrize('objective', ['observational', 'USER=1', 'agent_only'])
def test_halves_pair_up_until_every_row_is_full(objective):
  """100 records of half a row each: 50 rows, whatever the order."""
  index = index_of(unwindowed(*[[T, U, A, U, A]] * 100))
  table_PV = weight_table(objective)
  needed = 4 if table_PV[A, 0] else 3  # inputs before the last target
  plan = make_plan(index, table_PV, 2 * needed, targets_per_row=99, seed=0)
  assert [len(row) for row in rows_of(plan)] == [2] * 50


@pytest.mark.parametrize('most', [1, 2, 3])
def test_a_row_holds_no_more_documents_than_asked(most):
  """100 records that would fit four a row, and one that is split in two."""
  index = index_of(unwindowed([T, *[U] * 9], *[[T, U, A]] * 100))
  table_PV = weight_table('interventional')
  plan = make_plan(index, table_PV, 9, 5, seed=0, documents_per_row=most)
  rows = rows_of(plan)
  assert max(map(len, rows)) == most
  assert len(rows) >= 102 / most
  entries = sorted(entry for row in rows for entry in row)
  assert entries == [(0, 0, 4), (0, 4, 9)] + [(i, 0, 1) for i in range(1, 101)]


# ------------------------------------------------------------ pure functions


def test_equal_arguments_give_equal_plans():
  index = index_of(random_records(np.random.default_rng(0)))
  table_PV = weight_table('interventional')
  one, other = (make_plan(index, table_PV, 64, 32, seed=3) for _ in range(2))
  np.testing.assert_array_equal(one.entries_E3, other.entries_E3)
  np.testing.assert_array_equal(one.starts, other.starts)
  assert one.empty == other.empty


def test_another_seed_gives_another_plan():
  index = index_of(random_records(np.random.default_rng(0)))
  table_PV = weight_table('interventional')
  one, other = (make_plan(index, table_PV, 64, 32, seed) for seed in (3, 4))
  assert rows_of(one) != rows_of(other)


def test_a_plan_reads_its_arguments_and_does_not_write_to_them():
  index = index_of(random_records(np.random.default_rng(0)))
  table_PV = weight_table('interventional')
  before = [array.copy() for array in (*index, table_PV)]
  make_plan(index, table_PV, 64, 32, seed=0)
  for array, copy in zip((*index, table_PV), before, strict=True):
    np.testing.assert_array_equal(array, copy)


def test_the_digest_of_a_plan_is_that_of_its_rows_and_budgets():
  index = index_of(random_records(np.random.default_rng(0)))
  plan = make_plan(index, weight_table('observational'), 64, 32, seed=3)
  others = [
    dataclasses.replace(plan, **change)
    for change in (
      {'entries_E3': plan.entries_E3[::-1]},
      {'starts': plan.starts[:-1]},
      {'seq_len': 65},
      {'targets_per_row': 33},
    )
  ]
  assert len({each.digest() for each in (plan, *others)}) == 5
  # The counts follow from the rows and the index.
  same = dataclasses.replace(plan, tokens=0, targets=0, split=0, empty=0)
  assert same.digest() == plan.digest()


def test_weights_do_not_matter_to_a_plan_but_whether_they_are_zero():
  index = index_of(random_records(np.random.default_rng(0)))
  plans = [
    rows_of(make_plan(index, weight_table(objective), 64, 32, seed=0))
    for objective in ('observational', 'weighted(0.3)', 'weighted(9)')
  ]
  assert plans[0] == plans[1] == plans[2]


# ----------------------------------------------- coverage and budgets, counted


OBJECTIVES = ['observational', 'interventional', 'agent_only', 'error_masked']


@pytest.mark.parametrize('objective', OBJECTIVES)
@pytest.mark.parametrize(
  ('seq_len', 'targets_per_row'),
  [
    (40, 40),  # a record fills a row
    (128, 128),  # only the length binds
    (128, 20),  # the targets bind, and records are split
    (40, 1),  # every target is an entry
    (4096, 4096),  # one row holds all
    (128, 0),  # the records say how many targets
  ],
)
def test_every_target_is_in_one_entry_and_no_row_exceeds_a_budget(
  objective, seq_len, targets_per_row
):
  records = random_records(np.random.default_rng(1))
  table_PV = weight_table(objective)
  plan = make_plan(
    index_of(records), table_PV, seq_len, targets_per_row, seed=0
  )

  planned = collections.Counter()
  for row in rows_of(plan):
    assert row, 'an empty row'
    length = targets = 0
    for record, first, stop in row:
      positions = target_positions(records[record], table_PV)[first:stop]
      assert len(positions) == stop - first > 0
      planned.update((record, position) for position in positions)
      length += positions[-1]  # tokens before the entry's last target
      targets += len(positions)
    assert length <= plan.seq_len == seq_len
    assert targets <= plan.targets_per_row
  assert plan.targets_per_row == (targets_per_row or plan.targets_per_row)
  assert plan.targets == planned.total()

  assert planned == {
    (n, position): 1
    for n, record in enumerate(records)
    for position in target_positions(record, table_PV)
  }
  assert plan.empty == sum(
    not target_positions(record, table_PV) for record in records
  )
  assert plan.empty > 0  # or the count proves nothing


def test_a_record_is_split_no_more_than_its_targets_need():
  """Into parts that differ by one target at most: none has one left over."""
  index = index_of(unwindowed([T] + [U] * 10))
  table_PV = weight_table('interventional')
  plan = make_plan(index, table_PV, seq_len=10, targets_per_row=4, seed=0)
  parts = sorted(entry for row in rows_of(plan) for entry in row)
  assert [stop - first for _, first, stop in parts] == [3, 3, 4]


def test_each_record_goes_into_the_fullest_row_that_holds_it():
  """Records of 1 to 128 tokens in rows of 128 then fill 0.98 of them. Into the
  first row that holds it would fill 0.92, into the emptiest 0.86."""
  lengths = np.random.default_rng(0).integers(1, 129, 3000)
  index = index_of(unwindowed(*([U] * (length + 1) for length in lengths)))
  plan = make_plan(index, weight_table('observational'), 128, 128, seed=0)
  assert 0.96 < lengths.sum() / (len(plan) * 128) <= 1


# ------------------------------------------- as many targets as the records say


@pytest.mark.parametrize(
  ('objective', 'seq_len', 'records_a_row', 'targets'),
  [
    # T U A A U: 4 columns with 4 or 2 targets, or 3 columns with 2 targets
    ('observational', 32, 8, 32),
    ('interventional', 32, 8, 16),
    ('agent_only', 32, 10, 24),  # 20, rounded up
    ('agent_only', 6, 2, 6),  # no multiple of 8 is that short
    ('interventional', 1016, 254, 512),  # 508, rounded up
    ('interventional', 1024, 256, 512),  # and from 1,024 tokens on
    ('agent_only', 1024, 341, 768),  # to a multiple of 128: 682
    ('interventional', 1028, 257, 640),  # 514
  ],
)
def test_a_row_has_as_many_targets_as_its_records(
  objective, seq_len, records_a_row, targets
):
  records = unwindowed(*[[T, U, A, A, U]] * (4 * records_a_row))
  index, table_PV = index_of(records), weight_table(objective)
  plan = make_plan(index, table_PV, seq_len, targets_per_row=0, seed=0)
  assert (len(plan), plan.targets_per_row) == (4, targets)
  same = make_plan(index, table_PV, seq_len, targets, seed=0)
  assert rows_of(plan) == rows_of(same)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('objective', ['interventional', 'agent_only'])
def test_the_fewest_targets_that_cost_one_row_in_a_hundred_are_chosen(
  objective, seed
):
  """By trying all of them."""
  records = random_records(np.random.default_rng(seed), number=1500)
  index, table_PV = index_of(records), weight_table(objective)
  rows = {
    targets_per_row: len(make_plan(index, table_PV, 64, targets_per_row, seed))
    for targets_per_row in range(8, 65, 8)
  }
  assert rows[64] >= 200, 'two more rows are allowed, at least'
  fewest = min(k for k in rows if rows[k] - rows[64] <= rows[64] / 100)
  plan = make_plan(index, table_PV, 64, 0, seed)
  assert (plan.targets_per_row, len(plan)) == (fewest, rows[fewest])
  assert 8 < fewest < 64


@pytest.mark.parametrize(('rows', 'targets'), [(99, 16), (100, 8), (199, 8)])
def test_one_more_row_is_allowed_from_a_hundred_rows_on(rows, targets):
  """Each record fills a row. The first is split if a row has 8 targets."""
  records = [[T] + [U] * 16] + [[T] + [A] * 8 + [U] * 8] * (rows - 1)
  index, table_PV = index_of(unwindowed(*records)), weight_table('USER=1')
  plan = make_plan(index, table_PV, 16, 0, seed=0)
  assert (plan.targets_per_row, len(plan)) == (targets, rows + (targets == 8))


# ------------------------------------- rows of one record, as long as it needs


def test_without_a_length_rows_are_as_long_as_the_longest_record_needs():
  """In whole eights; what follows a record's last target needs no room.

  record  authors            needs
       0  T and 17 U            17 columns
       1  T U and 50 A           1 column under L_do, 51 under L_obs
  """
  index = index_of(unwindowed([T] + [U] * 17, [T, U] + [A] * 50))
  for objective, length in (('interventional', 24), ('observational', 56)):
    plan = make_plan(index, weight_table(objective), 0, 8, seed=0)
    assert plan.seq_len == length


@pytest.mark.parametrize('shuffle', [True, False])
def test_one_record_a_row_is_never_split_unless_a_budget_is_named(shuffle):
  """101 records: for fewer targets, one more row would be allowed."""
  index = index_of(unwindowed([T] + [U] * 20, *[[T, U, U]] * 100))
  table_PV = weight_table('observational')
  settings = {'seed': 0, 'documents_per_row': 1, 'shuffle': shuffle}
  plan = make_plan(index, table_PV, 0, 0, **settings)
  assert (len(plan), plan.split) == (101, 0)
  assert (plan.seq_len, plan.targets_per_row) == (24, 24)  # 20, in whole eights
  assert make_plan(index, table_PV, 22, 0, **settings).targets_per_row == 22
  assert make_plan(index, table_PV, 0, 16, **settings).split == 1


# ------------------------------------------------------- the records' own order


def test_unshuffled_rows_hold_the_records_in_their_own_order():
  """A row is closed where the next record does not fit; a split one too."""
  lengths = np.random.default_rng(0).integers(1, 33, 500)
  index = index_of(unwindowed(*([U] * (length + 1) for length in lengths)))
  table_PV = weight_table('observational')
  plan = make_plan(index, table_PV, 32, 20, seed=0, shuffle=False)
  entries = [entry for row in rows_of(plan) for entry in row]
  assert entries == sorted(entries) and plan.split > 0

  one = make_plan(index, table_PV, 32, 0, 0, documents_per_row=1, shuffle=False)
  assert rows_of(one) == [[(n, 0, length)] for n, length in enumerate(lengths)]


def test_what_a_plan_says_of_itself():
  """The three records at the top, and one that is longer than the targets."""
  records = unwindowed(
    [T, U, A, A, U], [T, U, U, U, U], [T, A, A, A], [T] + [U] * 7
  )
  table_PV = weight_table('interventional')
  plan = make_plan(index_of(records), table_PV, 8, targets_per_row=4, seed=0)
  # 4 + 4 columns, and the last record's first 3 targets, then all of its 7.
  assert (plan.tokens, plan.targets, plan.split, plan.empty) == (18, 13, 1, 1)
  assert plan.describe() == (
    '4 rows per epoch, of 8 tokens (56.2% used) and 4 targets (81.2% used); '
    'records split: 1, without a target: 1'
  )


# ------------------------------------------------------------------- refusals


def test_a_record_longer_than_a_row_is_named_with_its_remedy():
  """The tail after the last target does not count, and needs no remedy."""
  index = index_of(
    unwindowed(
      [T, U, U, U],  # needs 3
      [T, U, U, U, U, U, U],  # needs 6
      [T, U, U, U, U, U],  # needs 5
      [T, U, U] + [A] * 50,  # needs 2: what follows is trimmed
    )
  )
  table_PV = weight_table('interventional')
  assert len(make_plan(index, table_PV, seq_len=6, targets_per_row=9, seed=0))
  message = (
    '2 records are longer than a row of 4 tokens; the longest, record 1, '
    'needs 6: raise seq_len or prepare the records in windows'
  )
  with pytest.raises(ValueError, match=message):
    make_plan(index, table_PV, seq_len=4, targets_per_row=9, seed=0)


@pytest.mark.parametrize(
  'records',
  [
    [],
    unwindowed([C, C, A], [A]),
    unwindowed([U]),  # the first token of a record is never a target
    [([T, U, U], [0, 0, 0], 3)],  # all of it is a window's overlap
  ],
)
def test_records_without_any_target_are_refused(records):
  message = f'none of {len(records)} records has a token that the objective'
  with pytest.raises(ValueError, match=message):
    make_plan(index_of(records), weight_table('interventional'), 9, 9, seed=0)


# ------------------------------------------------------------------ row_order


@pytest.mark.parametrize('rows', [1, 2, 100])
def test_an_epoch_visits_every_row_once(rows):
  for epoch in range(3):
    assert sorted(row_order(rows, seed=0, epoch=epoch)) == list(range(rows))


def test_unshuffled_rows_are_visited_as_they_lie():
  for epoch in range(3):
    assert row_order(5, 0, epoch, shuffle=False).tolist() == [0, 1, 2, 3, 4]


def test_the_order_depends_on_the_seed_and_the_epoch_and_nothing_else():
  orders = {
    (seed, epoch): tuple(row_order(100, seed, epoch))
    for seed in range(3)
    for epoch in range(3)
  }
  assert len(set(orders.values())) == 9
  assert orders[1, 2] == tuple(row_order(100, seed=1, epoch=2))


# ------------------------------------------------- the same in every version


def test_the_rows_and_their_order_under_a_seed_are_fixed_for_good():
  """A run keeps the number of its next step, and nothing else of its data:
  another order after an update would read records twice, or never."""
  index = index_of(unwindowed(*([T] + [U] * n for n in range(1, 8))))
  plan = make_plan(index, weight_table('interventional'), 12, 5, seed=5)
  assert rows_of(plan) == [
    [(1, 0, 2), (2, 0, 3)],
    [(4, 0, 5)],
    [(3, 0, 4)],
    [(6, 0, 3)],
    [(6, 3, 7), (0, 0, 1)],
    [(5, 0, 3)],
    [(5, 3, 6)],
  ]
  orders = [row_order(8, seed=5, epoch=epoch).tolist() for epoch in (0, 1)]
  assert orders == [[4, 2, 5, 0, 7, 6, 3, 1], [3, 0, 5, 1, 7, 4, 6, 2]]


REFUSALS = {
  'seq_len': (
    '1 records are longer than a row of 2 tokens; the longest, record 1, needs '
    '3: raise seq_len or prepare the records in windows'
  ),
  'objective': (
    'none of 3 records has a token that the objective scores: nothing to learn '
    'from; choose another objective or other records'
  ),
}


@pytest.mark.parametrize('remedy', REFUSALS)
def test_a_plan_that_cannot_be_made_names_the_cause_and_the_remedy(remedy):
  index = index_of(unwindowed([T, U, U], [T, U, U, U], [T, U, U]))
  objective = 'agent_only' if remedy == 'objective' else 'interventional'
  with pytest.raises(ValueError) as error:
    make_plan(index, weight_table(objective), 2, 9, seed=0)
  assert str(error.value) == REFUSALS[remedy]


SETTINGS = {
  ('interventional', 0, 0, True): '383243ba03af021d',
  ('interventional', 0, 0, False): '050d81fe818e50fc',
  ('observational', 9, 0, True): '9ec0aff9c1ad631a',
  ('observational', 9, 0, False): '11c6960e424c55b3',
  ('observational', 0, 1, True): 'a4c72b7b0b4f4641',
  ('observational', 9, 1, True): 'b229b448f25252d8',
  ('observational', 0, 1, False): '3da7268de53aaf4d',
  ('interventional', 20, 3, True): 'bae07b31031560dd',
  ('interventional', 20, 3, False): '03a75bb006d9878a',
}


@pytest.mark.parametrize('block', [7, 1 << 17])
@pytest.mark.parametrize('settings', SETTINGS)
def test_the_plans_of_1500_records_are_fixed_for_good(
  settings, block, monkeypatch
):
  """In blocks of any size. Workdirs keep the digests of their plans."""
  monkeypatch.setattr(index_lib, '_BLOCK', block)
  objective, targets_per_row, documents_per_row, shuffle = settings
  index = index_of(random_records(np.random.default_rng(7), number=1500))
  table_PV = weight_table(objective)
  plan = make_plan(
    index, table_PV, 64, targets_per_row, 5, documents_per_row, shuffle
  )
  assert plan.digest().startswith(SETTINGS[settings])


# ------------------------------------------------------------- many records


def synthetic_index(number, seed=0, longest=512):
  """Log-normal lengths; about half of the tokens are the user's."""
  rng = np.random.default_rng(seed)
  shape = number, len(Provenance), len(Verdict)
  index = Index(
    np.clip(rng.lognormal(4.5, 0.9, number), 20, longest).astype(np.int32),
    np.zeros(shape, np.int32),
    np.full(shape, -1, np.int32),
    np.arange(1, number + 1, dtype=np.int32),
  )
  targets_N = (index.length_N * rng.beta(5, 5, number)).astype(np.int32)
  index.counts_NPV[:, U, 0] = targets_N
  index.counts_NPV[:, A, 0] = index.length_N - 1 - targets_N
  index.last_NPV[:, U, 0] = index.length_N - 1
  index.last_NPV[:, A, 0] = index.length_N - 2
  return index


@pytest.mark.parametrize('targets_per_row', [0, 100])
@pytest.mark.parametrize('shuffle', [True, False])
def test_every_target_of_many_records_is_in_one_entry(
  shuffle, targets_per_row, monkeypatch
):
  """By the methods for millions of records."""
  monkeypatch.setattr(filling, '_MANY', 1000)
  monkeypatch.setattr(packing, '_SAMPLE', (10, 100))
  index, table_PV = synthetic_index(50_000), weight_table('interventional')
  plans = [
    make_plan(index, table_PV, 512, targets_per_row, 3, shuffle=shuffle)
    for _ in range(2)
  ]
  assert plans[0].digest() == plans[1].digest()
  record_E, first_E, stop_E = plans[0].entries_E3.T
  # Sorted by record and first target, the entries of a record follow each
  # other, without a gap and without an overlap.
  order = np.lexsort((first_E, record_E))
  record_E, first_E, stop_E = (x[order] for x in (record_E, first_E, stop_E))
  begins_E = np.diff(record_E, prepend=-1) > 0
  targets_N = count_targets(index, table_PV)
  np.testing.assert_array_equal(
    first_E, np.where(begins_E, 0, np.roll(stop_E, 1))
  )
  ends_E = np.roll(begins_E, -1)
  np.testing.assert_array_equal(
    stop_E[ends_E], targets_N[record_E[ends_E]], strict=False
  )
  np.testing.assert_array_equal(record_E[begins_E], np.flatnonzero(targets_N))
  assert (first_E < stop_E).all()
  # No row exceeds a budget. An entry needs its record's tokens, less one per
  # target that follows.
  record_E, first_E, stop_E = plans[0].entries_E3.T
  tokens_E = index.last_NPV.max(axis=(1, 2))[record_E]
  tokens_E = tokens_E - (targets_N[record_E] - stop_E)
  for number_E, budget in (
    (tokens_E, plans[0].seq_len),
    (stop_E - first_E, plans[0].targets_per_row),
  ):
    sums = np.add.reduceat(number_E, plans[0].starts[:-1])
    assert 0 < sums.min() <= sums.max() <= budget
  assert plans[0].tokens == tokens_E.sum()
  assert plans[0].targets == targets_N.sum()
  assert plans[0].split == (targets_N > plans[0].targets_per_row).sum()


@pytest.mark.parametrize('shuffle', [True, False])
def test_a_budget_is_searched_for_with_a_sample(shuffle, monkeypatch):
  """Records at the end have twice as many targets, and it has its share."""
  monkeypatch.setattr(packing, '_SAMPLE', (32, 64))
  index, table_PV = synthetic_index(30_000), weight_table('interventional')
  most_N = index.length_N[20_000:] - 1
  index.counts_NPV[20_000:, U, 0] = most_N
  packed, place = [], packing._place

  def counted(demand, **kwargs):
    packed.append((len(demand.record_N), kwargs['targets_per_row']))
    return place(demand, **kwargs)

  monkeypatch.setattr(packing, '_place', counted)
  budgets = [
    make_plan(index, table_PV, 512, 0, seed, shuffle=shuffle).targets_per_row
    for seed in range(2)
  ]
  assert {records for records, _ in packed} == {32 * 64, 30_000}
  every = [budget for records, budget in packed if records == 30_000]
  assert every == budgets
  monkeypatch.setattr(packing, '_SAMPLE', (1, 30_000))
  exact = make_plan(index, table_PV, 512, 0, 0, shuffle=shuffle).targets_per_row
  # The sample has about 500 rows, each of some ten records.
  assert all(abs(budget - exact) <= 16 for budget in budgets)


@pytest.mark.parametrize('number', [1, 12, 13, 100])
def test_a_sample_is_stretches_from_the_first_record_to_the_last(
  number, monkeypatch
):
  monkeypatch.setattr(packing, '_SAMPLE', (3, 4))
  demand = packing._Demand(*(np.arange(number) + 100 * n for n in range(3)))
  sample = demand.sample()
  expected = {
    1: [0],
    12: [*range(12)],
    13: [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12],
    100: [0, 1, 2, 3, 48, 49, 50, 51, 96, 97, 98, 99],
  }[number]
  for n, array in enumerate(sample):
    assert array.tolist() == [each + 100 * n for each in expected]


def test_a_plan_takes_100_bytes_per_record_at_most_while_it_is_made(
  monkeypatch,
):
  """The index itself takes 200, and is mapped."""
  monkeypatch.setattr(filling, '_MANY', 1000)
  monkeypatch.setattr(packing, '_SAMPLE', (8, 128))
  monkeypatch.setattr(index_lib, '_BLOCK', 1 << 10)
  index, table_PV = synthetic_index(100_000), weight_table('interventional')
  tracemalloc.start()
  try:
    plan = make_plan(index, table_PV, 512, 0, seed=0)
    kept, peak = (used / 100_000 for used in tracemalloc.get_traced_memory())
  finally:
    tracemalloc.stop()
  assert plan.entries_E3.nbytes / 100_000 < kept < 16
  assert peak < 100
