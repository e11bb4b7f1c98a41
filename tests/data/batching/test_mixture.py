"""Several components in one plan: exact shares, in turns, an objective each."""

import collections
import dataclasses

import numpy as np
import pytest

from isft_jax.config import RunConfig
from isft_jax.data.batching import packing, pipeline
from isft_jax.data.batching.mixture import make_mixture, whole_numbers
from isft_jax.data.batching.packing import Plan
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.types import Example, Provenance

P = len(Provenance)


def plan_of(rows, targets_per_row=4):
  """Each row is one entry, whose record has the row's number."""
  entries_E3 = np.array([(row, 0, 2) for row in range(rows)])
  return Plan(
    entries_E3, np.arange(rows + 1), 8, targets_per_row, 5, 2 * rows, 0, 0
  )


def read(mixture, start, stop):
  """[(source, row of its plan), ...] of so many rows."""
  rows = (mixture.row(number) for number in range(start, stop))
  return [(source, int(entries[0, 0])) for source, entries in rows]


# --------------------------------------------------------------- exact shares


@pytest.mark.parametrize(
  ('weights', 'expected'),
  [
    ([1], [1]),
    ([5.0], [1]),
    ([1, 1, 1], [1, 1, 1]),
    ([3, 1], [3, 1]),
    ([6, 2], [3, 1]),
    ([0.7, 0.3], [7, 3]),
    ([0.125, 0.875], [1, 7]),
    ([0.3333, 0.6667], [1, 2]),
    ([1, 0.001], [1000, 1]),
  ],
)
def test_weights_become_the_smallest_whole_numbers(weights, expected):
  assert whole_numbers(weights) == expected


@pytest.mark.parametrize('weights', [[1, 0], [1, -1], [1, 0.0001]])
def test_weights_that_are_not_positive_are_refused(weights):
  with pytest.raises(
    ValueError, match='weights of mixture components must be positive'
  ):
    whole_numbers(weights)


@pytest.mark.parametrize(
  ('weights', 'turns'),
  [
    ([1], 'a'),
    ([1, 1], 'ab'),
    ([3, 1], 'aaba'),
    ([1, 3], 'babb'),
    ([2, 1, 1], 'abca'),
    ([0.7, 0.3], 'abaaabaaba'),
  ],
)
def test_components_take_turns_evenly(weights, turns):
  mixture = make_mixture([plan_of(2) for _ in weights], weights, seed=0)
  assert ''.join('abc'[source] for source in mixture.turns_W) == turns


@pytest.mark.parametrize(
  ('rows', 'weights', 'of_epoch'),
  [
    ((30, 5), (3, 1), (30, 10)),  # the second twice
    ((31, 5), (3, 1), (33, 11)),  # whole rounds: two rows of the first again
    ((5, 30), (3, 1), (90, 30)),
    ((7, 7, 7), (1, 1, 1), (7, 7, 7)),
    ((100, 3), (0.7, 0.3), (105, 45)),
    ((1, 1), (1, 1000), (1, 1000)),
  ],
)
def test_the_shares_of_an_epoch_are_those_of_the_weights(
  rows, weights, of_epoch
):
  mixture = make_mixture([plan_of(n) for n in rows], weights, seed=0)
  for epoch in range(3):
    start = epoch * len(mixture)
    seen = read(mixture, start, start + len(mixture))
    counts = collections.Counter(source for source, _ in seen)
    assert tuple(counts[s] for s in range(len(rows))) == of_epoch
  assert tuple(map(mixture.rows_per_epoch, range(len(rows)))) == of_epoch
  shares = np.array(of_epoch) / sum(of_epoch)
  np.testing.assert_allclose(shares, np.array(weights) / sum(weights))


def test_however_far_it_is_read_no_source_is_a_row_away_from_its_share():
  """So each batch has its share too, and there is no sampling noise."""
  weights = np.array([5, 3, 1, 1]) / 10
  mixture = make_mixture([plan_of(20)] * 4, weights, seed=0)
  counts = np.zeros(4)
  for number in range(4 * len(mixture)):
    counts[mixture.row(number)[0]] += 1
    assert np.abs(counts - weights * (number + 1)).max() <= 1


# ------------------------------------------------------------ nothing is lost


@pytest.mark.parametrize('rows', [(30, 7), (5, 30), (1, 4)])
def test_no_row_is_read_again_before_all_of_its_source_are(rows):
  """In a new order each time, across the ends of epochs too."""
  mixture = make_mixture([plan_of(n) for n in rows], (3, 1), seed=0)
  visits = collections.defaultdict(list)
  for source, row in read(mixture, 0, 4 * len(mixture)):
    visits[source].append(row)
  for source, number in enumerate(rows):
    passes = [
      visits[source][start : start + number]
      for start in range(0, len(visits[source]), number)
    ]
    assert all(sorted(p) == list(range(number)) for p in passes[:-1])
    assert len(set(passes[-1])) == len(passes[-1])
    if number > 4:
      assert passes[0] != passes[1]


def test_an_epoch_reads_every_row_at_least_once():
  mixture = make_mixture([plan_of(31), plan_of(5)], (3, 1), seed=0)
  seen = set(read(mixture, 0, len(mixture)))
  assert seen == {(0, n) for n in range(31)} | {(1, n) for n in range(5)}


def test_a_mixture_is_a_pure_function_of_its_arguments():
  def rows(seed):
    mixture = make_mixture([plan_of(9), plan_of(4)], (2, 1), seed)
    return read(mixture, 0, 100)

  assert rows(3) == rows(3) != rows(4)
  mixture = make_mixture([plan_of(9), plan_of(4)], (2, 1), 3)
  assert read(mixture, 50, 100) == rows(3)[50:]


# -------------------------------------------------------------------- batches


def example(record, authors, stride=1000):
  letters = {'t': 1, 'u': 3, 'a': 5, 'd': 6}
  return Example(
    id=f'{stride}-{record}',
    tokens_T=(stride + 10 * record + np.arange(len(authors))).astype(np.int32),
    provenance_T=np.array([letters[a] for a in authors], np.uint8),
    segment_T=np.zeros(len(authors), np.int32),
    verdict_T=np.zeros(len(authors), np.uint8),
  )


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """Twelve runs of an agent, and three demonstrations: a row holds three."""
  made = {
    'agents': [example(n, 'tuatu', 1000) for n in range(12)],
    'demos': [example(n, 'tudd', 5000) for n in range(3)],
  }
  folder = tmp_path_factory.mktemp('two')
  return [
    dataset.write(str(folder / name), lambda made=made: made, {})
    for name, made in made.items()
  ]


def config_of(two, *components, **changes):
  folders = [found.folder for found in two]
  return RunConfig(
    **{'batch_size': 4, 'seq_len': 12, 'epochs': 1, 'documents_per_row': 3}
    | changes,
    mixture=tuple((f, *s) for f, s in zip(folders, components, strict=True)),
  )


def test_each_source_is_scored_by_its_own_objective(two):
  """L_do gives the agent's slot no gradient: demonstrations do."""
  config = config_of(two, (3, 'interventional'), (1, 'DEMONSTRATION=1'))
  source = BatchSource(two, config)
  weights = collections.defaultdict(collections.Counter)
  for step in range(source.steps_per_epoch):
    batch = source[step]
    for b, k in np.argwhere(batch.authors_BK != 0).tolist():
      where, author = divmod(int(batch.authors_BK[b, k]), P)
      assert batch.targets_BK[b, k] // 1000 == (1, 5)[where]
      weights[where][Provenance(author).name] += batch.weights_BK[b, k]
  # 4 rows of 3 runs, 1 user's turn of 2 targets each; 4/3 rounds: 2 rows
  assert weights == {
    0: {'TEMPLATE': 18, 'USER': 36},
    1: {'DEMONSTRATION': 12},
  }


def test_every_row_holds_one_source_in_turns(two):
  config = config_of(two, (3, ''), (1, 'observational'))
  source = BatchSource(two, config)
  assert len(source.plan) == 8
  for step in range(2):
    batch = source[step]
    firsts = [int(row[0]) // 1000 for row in batch.tokens_BL]
    assert firsts == [1, 1, 5, 1]


def test_a_source_by_itself_is_a_run_of_its_records(two):
  """The same batches, bit for bit, however the run names it."""
  alone = RunConfig(batch_size=4, seq_len=12, epochs=2, objective='USER=1')
  named = dataclasses.replace(
    alone, mixture=((two[0].folder, 0.3, 'USER=1'),), objective='observational'
  )
  one, other = BatchSource(two[0], alone), BatchSource([two[0]], named)
  assert len(one) == len(other) > 1
  for step in range(len(one)):
    for a, b in zip(one[step], other[step], strict=True):
      np.testing.assert_array_equal(a, b)


def test_all_rows_have_the_targets_of_the_source_that_has_most(two):
  source = BatchSource(two, config_of(two, (3, 'USER=1'), (1, 'observational')))
  each = [scored.plan.targets_per_row for scored in source.components]
  assert each[0] != each[1]
  assert source.plan.targets_per_row == max(each)
  assert source[0].targets_BK.shape == (4, max(each))


@pytest.mark.parametrize('host_count', [2, 4])
def test_hosts_share_out_the_rows_of_a_mixture(two, host_count):
  config = config_of(two, (3, ''), (1, ''))
  whole = BatchSource(two, config)
  hosts = [BatchSource(two, config, h, host_count) for h in range(host_count)]
  for step in range(len(whole)):
    parts = zip(*(host[step] for host in hosts), strict=True)
    for part, array in zip(parts, whole[step], strict=True):
      np.testing.assert_array_equal(np.concatenate(part), array)
    ids = [name for host in hosts for name in host.ids(step)]
    assert ids == whole.ids(step)


def test_a_mixture_resumes_at_any_step(two):
  config = config_of(two, (3, ''), (1, ''), epochs=4)
  first = list(pipeline.batches(BatchSource(two, config)))
  resumed = pipeline.batches(BatchSource(two, config))
  resumed.set_state({'next_index': 3})
  for one, other in zip(first[3:], resumed, strict=True):
    for a, b in zip(one, other, strict=True):
      np.testing.assert_array_equal(a, b)


def test_what_a_mixture_says_of_itself(two):
  source = BatchSource(two, config_of(two, (3, ''), (1, 'DEMONSTRATION=1')))
  first, runs, demos = source.plan.describe(['runs', 'demos']).splitlines()
  assert first == '8 rows per epoch'
  assert runs.startswith(
    '    runs: 6 rows (75.0%), 1.50 times its 4 rows per epoch, of 12 tokens '
  )
  # 1.5 times 12 records of 3 targets; twice 3 of 2
  assert runs.endswith('; 81.8% of all targets')
  assert demos.endswith('; 18.2% of all targets')


# ------------------------------------------------------------------- settings


def test_the_mixture_of_a_config_are_checked(two):
  config = config_of(two, (3, 'interventional'), (0.5, ''))
  config.check()
  for wrong, message in (
    ({'records': 'DIR'}, 'config.records and config.mixture are both set'),
    ({'mixture': (('DIR', 0, ''),)}, r"above 0 .* \(got \('DIR', 0, ''\)\)"),
    ({'mixture': (('DIR', 'x', ''),)}, 'mixture must have a folder of records'),
    ({'mixture': (('DIR', 1),)}, 'mixture must have a folder of records'),
    ({'mixture': (('D', 1, ''), ('D', 2, ''))}, "names 'D' more than once"),
  ):
    with pytest.raises(ValueError, match=message):
      dataclasses.replace(config, **wrong).check()


# --------------------------------------------------- weights, to their limits


def test_a_weight_is_a_fraction_of_a_thousandth_at_least():
  """1/1001 is nearest to 1/1000 among them; 1/2001 to 0, which is refused."""
  assert whole_numbers([1, 1 / 1001]) == [1000, 1]
  assert whole_numbers([1, 1 / 1999]) == [1000, 1]
  message = r'^weights of mixture components must be positive: \[1, 0.0004'
  with pytest.raises(ValueError, match=message):
    whole_numbers([1, 1 / 2001])


@pytest.mark.parametrize(
  ('weights', 'message'),
  [
    ([1e300, 1], 'need a round of more than 1,000,000 rows; use simpler'),
    ([1e7, 1], 'need a round of more than 1,000,000 rows; use simpler'),
    ([1e6, 1], 'need a round of more than 1,000,000 rows; use simpler'),
    # Denominators without common factors: their product counts.
    ([1 / 997, 1 / 991, 1 / 983], 'need a round of more than 1,000,000 rows'),
    (
      [1 / n for n in range(2, 990)],
      'need a round of more than 1,000,000 rows',
    ),
    ([1, float('inf')], 'must be finite'),
    ([1, float('nan')], 'must be finite'),
    ([1, float('-inf')], 'must be finite'),
    ([1, -1e300], 'must be positive'),
    ([1, 5e-324], 'must be positive'),
  ],
)
def test_weights_without_a_round_that_fits_in_memory_are_refused(
  weights, message
):
  with pytest.raises(ValueError, match=message) as raised:
    whole_numbers(weights)
  assert '\n' not in str(raised.value)


def test_such_weights_are_refused_before_anything_is_packed(two, monkeypatch):
  monkeypatch.setattr(pipeline, 'Scored', None)
  with pytest.raises(ValueError, match='need a round of more than 1,000,000'):
    BatchSource(two, config_of(two, (1e7, ''), (1, '')))


def test_the_longest_round_has_a_million_rows():
  assert whole_numbers([999_999, 1]) == [999_999, 1]
  assert whole_numbers([1e300, 1e300]) == [1, 1]


@pytest.mark.parametrize(
  'weight',
  [0, -1, -1e300, 1e300, 1e7, 1e-4, 5e-324, float('inf'), float('nan'), None],
)
def test_a_config_refuses_weights_that_are_no_shares(weight, two):
  config = config_of(two, (3, 'interventional'), (0.5, ''))
  config.mixture = (('DIR', weight, ''), ('DIR2', 1, ''))
  message = r'a weight above 0 \(0\.001 to 1,000,000\) and an objective'
  with pytest.raises(ValueError, match=message):
    config.check()


def test_the_whole_of_what_a_mixture_says_of_itself():
  """31 rows in turns of 3, and 5 in turns of 1: 11 rounds."""
  plans = [plan_of(31), plan_of(5)]
  mixture = make_mixture(plans, (3, 1), seed=0)
  assert mixture.describe(['runs', 'demos']).splitlines() == [
    '44 rows per epoch',
    f'    runs: 33 rows (75.0%), 1.06 times its {plans[0].describe()}; 75.0% '
    'of all targets',
    f'    demos: 11 rows (25.0%), 2.20 times its {plans[1].describe()}; 25.0% '
    'of all targets',
  ]
  alone = make_mixture(plans[:1], (3,), seed=0)
  assert alone.describe(['runs']) == plans[0].describe()


def test_an_unshuffled_mixture_reads_each_plan_as_it_lies():
  mixture = make_mixture([plan_of(3), plan_of(2)], (1, 1), 0, shuffle=False)
  assert read(mixture, 0, 12) == [
    *[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 0)],
    *[(0, 0), (1, 1), (0, 1), (1, 0), (0, 2), (1, 1)],
  ]


def test_a_mixtures_rows_are_as_wide_as_the_widest_plan():
  wide = dataclasses.replace(plan_of(2, targets_per_row=3), seq_len=16)
  mixture = make_mixture([plan_of(2, targets_per_row=7), wide], (1, 1), seed=0)
  assert (mixture.seq_len, mixture.targets_per_row) == (16, 7)


# ------------------------------------------------------------ at any distance


@pytest.fixture
def orders(monkeypatch):
  """The (rows, repeat) of every order that is made."""
  made, row_order = [], packing.row_order

  def counted(rows, seed, repeat, shuffle):
    made.append((rows, repeat))
    return row_order(rows, seed, repeat, shuffle)

  monkeypatch.setattr(packing, 'row_order', counted)
  return made


def test_a_row_far_away_takes_the_order_of_its_pass_only(orders):
  mixture = make_mixture([plan_of(30), plan_of(7)], (3, 1), seed=0)
  assert mixture.row(10**9)[0] == 0
  # 3 of 4 rows, in passes of 30.
  assert orders == [(30, 750_000_000 // 30)]
  near = read(mixture, 10**9 - 40, 10**9 + 40)
  assert len({row for source, row in near if source == 1}) == 7
  assert len(orders) <= 8


def test_each_order_is_made_once_however_many_components_there_are(orders):
  plans = [plan_of(rows) for rows in range(50, 90)]
  mixture = make_mixture(plans, [1] * 40, seed=0)
  read(mixture, 0, 40 * 100)  # each at least once, and less than twice
  read(mixture, 40 * 60, 40 * 100)  # again, as after reading ahead
  expected = [(rows, repeat) for rows in range(50, 90) for repeat in range(2)]
  assert sorted(orders) == [
    (rows, repeat) for rows, repeat in expected if repeat * rows < 100
  ]


@pytest.mark.parametrize('weights', [(1,), (1, 1000), (3, 1, 2), (0.7, 0.3)])
def test_rows_are_counted_as_one_by_one(weights):
  mixture = make_mixture([plan_of(50)] * len(weights), weights, 0, False)
  visits = collections.Counter()
  for number in range(2500):
    source, entries = mixture.row(number)
    assert source == mixture.turns_W[number % len(mixture.turns_W)]
    assert entries[0, 0] == visits[source] % 50
    visits[source] += 1
