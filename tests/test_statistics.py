"""Intervals, by hand."""

import math

import pytest

from isft_jax.statistics import interval, paired, summary


def test_the_interval_of_five_seeds():
  """1 ... 5: mean 3, s^2 = 10 / 4, s / sqrt(5) = sqrt(0.5); t = 2.776."""
  found = interval([1, 2, 3, 4, 5])
  half = 2.776 * math.sqrt(0.5)
  assert found['mean'] == 3
  # The table that t is from has four figures.
  assert found['lo'] == pytest.approx(3 - half, abs=5e-4)
  assert found['hi'] == pytest.approx(3 + half, abs=5e-4)


@pytest.mark.parametrize(('n', 't'), [(2, 12.706), (3, 4.303), (10, 2.262)])
def test_the_factor_of_n_seeds(n, t):
  """A table's; the values -1 and 1 are spread by s = sqrt(n / (n - 1))."""
  values = [(-1) ** i for i in range(n - n % 2)] + [0] * (n % 2)
  s = math.sqrt(sum(v * v for v in values) / (n - 1))
  found = interval(values)
  assert found['hi'] == pytest.approx(t * s / math.sqrt(n), rel=1e-4)
  assert found['lo'] == -found['hi']


def test_equal_values_have_no_width():
  assert interval([0.5, 0.5]) == {'mean': 0.5, 'lo': 0.5, 'hi': 0.5}


def test_a_single_seed_has_no_interval():
  assert interval([0.25]) == {'mean': 0.25, 'lo': None, 'hi': None}


def test_no_seed_is_an_error():
  with pytest.raises(ValueError, match='needs at least one value'):
    interval([])


def test_a_summary_keeps_the_values_of_the_seeds():
  assert summary([1, 3]) == interval([1, 3]) | {'per_seed': [1.0, 3.0]}


def test_what_differs_between_seeds_cancels_in_pairs():
  ours, theirs = [1.0, 11.0, 21.5], [0.5, 10.5, 22.0]
  found = paired(ours, theirs)
  assert found == summary([0.5, 0.5, -0.5]) | {'positive': 2}
  assert found['hi'] - found['lo'] < 3 < interval(ours)['hi'] - 11


def test_pairs_of_other_numbers_of_seeds_are_refused():
  with pytest.raises(ValueError):
    paired([1.0, 2.0], [1.0])
