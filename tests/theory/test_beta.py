"""Two arms of unknown odds, against fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest

from isft_jax.theory import beta


def beta_function(a, b):
  return Fraction(
    math.factorial(a - 1) * math.factorial(b - 1), math.factorial(a + b - 1)
  )


def exact(first, second):
  """P(x > y) after (successes, failures) of each: a finite sum of fractions."""
  (s, f), (r, g) = first, second
  a, b, c, d = s + 1, f + 1, r + 1, g + 1
  return sum(
    beta_function(c + i, b + d)
    / ((b + i) * beta_function(1 + i, b) * beta_function(c, d))
    for i in range(a)
  )


def test_one_success_makes_an_arm_the_better_one_with_two_thirds():
  assert beta.p_first_is_best((1, 0), (0, 0)) == pytest.approx(2 / 3, rel=1e-14)
  assert beta.p_first_is_best((0, 0), (0, 0)) == pytest.approx(1 / 2, rel=1e-14)
  assert beta.p_first_is_best((0, 1), (0, 0)) == pytest.approx(1 / 3, rel=1e-14)


def test_the_better_arm_by_fractions():
  rng = np.random.default_rng(0)
  for counts in rng.integers(0, 25, (20, 4)):
    first, second = (tuple(map(int, half)) for half in np.split(counts, 2))
    found = beta.p_first_is_best(first, second)
    assert found == pytest.approx(float(exact(first, second)), rel=1e-11)


def test_densities_are_those_of_beta():
  node_Q, weight_Q = beta.rule(2 * 9)
  pdf_SQ, cdf_SQ = beta.densities(7, node_Q)
  s = np.arange(8)
  np.testing.assert_allclose(pdf_SQ @ weight_Q, np.ones(8), rtol=1e-13)
  # (s + 1) / (n + 2), Laplace's rule of succession.
  means = pdf_SQ @ (weight_Q * node_Q)
  np.testing.assert_allclose(means, (s + 1) / 9, rtol=1e-13)
  # E x = integral of 1 - cdf.
  np.testing.assert_allclose((1 - cdf_SQ) @ weight_Q, means, rtol=1e-13)


def test_thompson_sampling_for_four_steps_by_fractions():
  def mean(arm):
    return Fraction(arm[0] + 1, sum(arm) + 2)

  def expect(first, second, steps):
    """Regret and P(best) by step, from a state on."""
    if not steps:
      return [], []
    p = exact(first, second)
    # E max(x, y) = E x [x > y] + E y [y > x]; x times its density is the
    # density after one more success, times the mean.
    first_more, second_more = (
      (successes + 1, failures) for successes, failures in (first, second)
    )
    best = mean(first) * exact(first_more, second)
    best += mean(second) * exact(second_more, first)
    regret = [best - p * mean(first) - (1 - p) * mean(second)]
    p_best = [p**2 + (1 - p) ** 2]
    regrets, p_bests = [Fraction()] * (steps - 1), [Fraction()] * (steps - 1)
    for pays in (0, 1):
      tried = first[0] + pays, first[1] + 1 - pays
      other = second[0] + pays, second[1] + 1 - pays
      for weight, arm, state in (
        (p, first, (tried, second)),
        (1 - p, second, (first, other)),
      ):
        weight *= mean(arm) if pays else 1 - mean(arm)
        later = expect(*state, steps - 1)
        regrets, p_bests = (
          [a + weight * b for a, b in zip(sums, more, strict=True)]
          for sums, more in zip((regrets, p_bests), later, strict=True)
        )
    return regret + regrets, p_best + p_bests

  regret, p_best = expect((0, 0), (0, 0), 4)
  found = beta.thompson(4)
  exact_regret = np.cumsum([float(each) for each in regret])
  np.testing.assert_allclose(found.regret_T, exact_regret, rtol=1e-12)
  np.testing.assert_allclose(found.p_best_T, [float(p) for p in p_best])


def test_the_published_regrets():
  found = beta.thompson(100)
  steps = np.array([10, 20, 50, 100]) - 1
  np.testing.assert_allclose(
    found.regret_T[steps], [0.96, 1.40, 2.13, 2.79], rtol=0, atol=0.005
  )
  assert found.p_best_T[-1] == pytest.approx(0.90, abs=0.005)
  # It never gets worse at finding the better arm.
  assert (np.diff(found.p_best_T) > 0).all()


def test_the_conditional_learner_keeps_its_first_arm():
  assert beta.latched(100).regret_T[-1] == pytest.approx(16.7, abs=0.05)
  assert beta.latched(1).regret_T[0] == pytest.approx(
    beta.thompson(1).regret_T[0], rel=1e-13
  )
