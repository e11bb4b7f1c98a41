"""Tallies add up, whoever counted."""

import numpy as np
import pytest

from isft_jax.data.preparation import counters as tally_lib
from isft_jax.data.preparation.counters import Tally
from isft_jax.types import Example, Provenance, Verdict


def example(rng):
  length = int(rng.integers(2, 40))
  return Example(
    id='x',
    tokens_T=np.zeros(length, np.int32),
    provenance_T=rng.integers(1, len(Provenance), length).astype(np.uint8),
    segment_T=np.zeros(length, np.int32),
    verdict_T=rng.integers(0, len(Verdict), length).astype(np.uint8),
  )


def counted(examples, first=0):
  tally = Tally()
  for i, whole in enumerate(examples, first):
    tally.read += 1
    if i % 5 == 4:
      tally.rejected['malformed' if i % 2 else 'too_long'] += 1
    else:
      tally.add('train' if i % 3 else 'heldout', [whole], 1 + i % 2)
      tally.straddling += i
      tally.lost['thinking'] += i
      tally.add_unused(['row.a', f'row.{i % 4}'], {'exit': i % 2})
  return tally


def test_tallies_of_parts_are_the_tally_of_the_whole():
  rng = np.random.default_rng(0)
  examples = [example(rng) for _ in range(60)]
  parts = Tally()
  for start in range(0, 60, 25):
    parts.merge(counted(examples[start : start + 25], start))
  assert parts.report() == counted(examples).report()
  rows = parts.report()['rows']
  assert rows == {'read': 60, 'written': 48, 'rejected': 12}
  assert list(parts.report()['splits']) == ['train', 'heldout']


def test_an_empty_tally_changes_nothing():
  rng = np.random.default_rng(0)
  tally = counted([example(rng) for _ in range(9)])
  before = tally.report()
  assert tally.merge(Tally()).report() == before
  assert Tally().report()['rows'] == {'read': 0, 'written': 0, 'rejected': 0}


@pytest.mark.parametrize('q', [0, 0.1, 0.5, 0.9, 0.99, 1])
@pytest.mark.parametrize('number', [1, 2, 7, 100, 1001])
def test_quantiles_of_counts_are_those_of_the_values(q, number):
  values = np.random.default_rng(number).integers(0, 50, number)
  tally = Tally()
  tally.lengths.update(values.tolist())
  found = tally_lib._quantile(tally.lengths, q)
  assert found == pytest.approx(np.quantile(values, q), rel=1e-12)


def test_keys_that_were_not_used_are_counted_by_row():
  tally = Tally()
  tally.add_unused({'row.b', 'row.a'}, {})
  tally.add_unused({'row.b'}, {'exit': 2, 'log': 1})
  tally.add_unused((), {'log': 3})
  report = tally.report()
  assert [*report['keys_not_used'].items()] == [('row.b', 2), ('row.a', 1)]
  assert [*report['turns_left_out'].items()] == [('log', 4), ('exit', 2)]


def test_marks_that_were_not_understood_are_counted_by_row():
  tally = Tally()
  tally.add_unused((), {}, {"verdict 'incorrect'", 'weight 0.5'})
  tally.merge(Tally()).add_unused((), {}, {"verdict 'incorrect'"})
  counts = tally.report()['marks_not_understood']
  assert counts == {"verdict 'incorrect'": 2, 'weight 0.5': 1}


def test_keys_that_are_data_do_not_pile_up():
  """Rows may have another key each, and no count is lost."""
  parts = [Tally(), Tally()]
  for number in range(3_000):
    parts[number % 2].add_unused(['row.id', f'row.{number}'], {})
  whole = Tally().merge(parts[0]).merge(parts[1])
  counts = whole.report()['keys_not_used']
  assert len(counts) <= 1_001
  assert sum(counts.values()) == 6_000
  assert counts['row.id'] == 3_000
  assert max(counts, key=counts.get) == 'row.id'
