"""Intervals, by hand."""

import math

import pytest

from isft_jax.statistics import interval, paired, summary, wilson


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


def test_wilsons_interval_by_hand():
  """37 of 100: (0.37 + z^2/200 +- z sqrt(...)) / (1 + z^2/100), z = 1.96."""
  z = 1.959964
  half = z * math.sqrt(0.37 * 0.63 / 100 + z**2 / 40_000)
  found = wilson(37, 100)
  assert found == {
    'lo': pytest.approx(
      (0.37 + z**2 / 200 - half) / (1 + z**2 / 100), rel=1e-6
    ),
    'hi': pytest.approx(
      (0.37 + z**2 / 200 + half) / (1 + z**2 / 100), rel=1e-6
    ),
  }


@pytest.mark.parametrize('number', [1, 10, 2500])
def test_wilsons_interval_of_none_and_of_all(number):
  """None: from 0 to z^2 / (n + z^2). All is its mirror image."""
  top = 3.841459 / (number + 3.841459)
  none, every = wilson(0, number), wilson(number, number)
  assert none['lo'] == pytest.approx(0, abs=1e-12)
  assert none['hi'] == pytest.approx(top, rel=1e-6)
  assert every['lo'] == pytest.approx(1 - top, rel=1e-6)
  assert every['hi'] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(('right', 'number'), [(0, 0), (3, 2), (-1, 2)])
def test_a_share_of_impossible_counts_is_an_error(right, number):
  with pytest.raises(ValueError, match='a share needs at least one trial'):
    wilson(right, number)
