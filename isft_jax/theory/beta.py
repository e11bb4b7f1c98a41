"""Exact regret on a two-armed Beta-Bernoulli bandit with a continuous latent.

Each arm pays with its own probability, uniform on [0, 1]. The expert knows both
probabilities and always plays the better arm. A learner that treats its own
actions as the expert's is certain of its first arm at once, because the expert
never errs. Its regret grows as steps (2/3 - 1/2). A learner that uses only the
rewards as evidence plays each arm with the probability that it is the better
one: Thompson sampling.

The results are exact: the distribution of the counts is propagated step by
step. At step t the state is (n, s, r): plays of arm 0, successes of arm 0 and
successes of arm 1. Integrals over Beta densities are integrals of polynomials,
which Gauss-Legendre quadrature solves exactly. The arrays are float64 NumPy
arrays; step 100 has 177,000 states.

Letters: Q quadrature nodes, S successes of arm 0, R successes of arm 1.
"""

import math
from typing import NamedTuple

import numpy as np


class Rule(NamedTuple):
  """Gauss-Legendre quadrature on [0, 1]: integral of f = weight_Q @ f(node_Q).

  It is exact for polynomials of degree up to 2 Q - 1.
  """

  node_Q: np.ndarray
  weight_Q: np.ndarray


def rule(degree: int) -> Rule:
  """Returns the quadrature rule that is exact up to a polynomial degree."""
  # NumPy's rule is for [-1, 1]; the last line maps it to [0, 1].
  node_Q, weight_Q = np.polynomial.legendre.leggauss(degree // 2 + 1)
  return Rule((node_Q + 1) / 2, weight_Q / 2)


def densities(plays: int, node_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the posterior densities of an arm, for every count of successes.

    pdf = (n + 1) C(n, s) x^s (1 - x)^(n - s)
    cdf = P(at least s + 1 successes in n + 1 trials of probability x)

  Args:
    plays: number n of plays of the arm.
    node_Q: points x in [0, 1].

  Returns:
    (pdf_SQ, cdf_SQ) of Beta(s + 1, n - s + 1), for s = 0 .. n.
  """

  def binomial(n: int) -> np.ndarray:
    """Returns C(n, s) x^s (1 - x)^(n - s) [n + 1, Q]."""
    s_S = np.arange(n + 1)
    # math.comb is exact; its float64 value has a relative error of 1e-16.
    count_S = np.array([float(math.comb(n, s)) for s in s_S])
    x_1Q, s_S1 = node_Q[None], s_S[:, None]
    return count_S[:, None] * x_1Q**s_S1 * (1 - x_1Q) ** (n - s_S1)

  # Sums from the largest s downwards: P(at least s successes).
  tail_SQ = np.cumsum(binomial(plays + 1)[::-1], axis=0)[::-1]
  return (plays + 1) * binomial(plays), tail_SQ[1:]


def p_first_is_best(first: tuple[int, int], second: tuple[int, int]) -> float:
  """Returns P(arm 0 is better) given the rewards, from a uniform prior.

    P(x > y) = integral of pdf_0(x) cdf_1(x)

  Args:
    first: (successes, failures) of arm 0.
    second: (successes, failures) of arm 1.
  """
  # pdf has degree n_0 and cdf degree n_1 + 1.
  plays = [sum(arm) for arm in (first, second)]
  # The product of both is a polynomial, so that the rule is exact.
  node_Q, weight_Q = rule(sum(plays) + 1)
  pdf_Q = densities(plays[0], node_Q)[0][first[0]]
  cdf_Q = densities(plays[1], node_Q)[1][second[0]]
  return float(weight_Q @ (pdf_Q * cdf_Q))


class Play(NamedTuple):
  """Expected results of a learner, float64 [steps].

  Args:
    regret_T: sum of E[max(x, y)] - E[arm that is played] up to each step.
    p_best_T: probability that each step plays the better arm.
  """

  regret_T: np.ndarray
  p_best_T: np.ndarray


def thompson(steps: int) -> Play:
  """Returns the exact results of the interventional learner.

  In a state in which arm 0 is the better arm with probability p, the learner
  plays arm 0 with probability p. Its action is then the better arm with
  probability p^2 + (1 - p)^2.

  Args:
    steps: steps per episode.
  """
  # The integrands pdf cdf and cdf cdf have at most degree steps + 1, because
  # the plays of the two arms sum to at most steps - 1.
  node_Q, weight_Q = rule(steps + 1)
  # One table of densities per number of plays; both arms use the same tables.
  tables = [densities(n, node_Q) for n in range(steps)]
  # mass[n] is an array [S, R]: the probability of the state (n, s, r).
  mass = [np.ones((1, 1))]
  # Results of each step, before they are summed.
  regret_T, p_best_T = [], []
  for t in range(steps):
    # after[n] has the states of the next step with n plays of arm 0.
    after = [np.zeros((n + 1, t - n + 2)) for n in range(t + 2)]
    regret = p_best = 0.0
    for n, mass_SR in enumerate(mass):
      # Probability that arm 0 is the better one.
      (pdf_SQ, cdf_SQ), (_, cdf_RQ) = tables[n], tables[t - n]
      p_SR = (pdf_SQ * weight_Q) @ cdf_RQ.T
      # E max(x, y) is the integral over z of 1 - P(x and y are below z).
      max_SR = 1 - (cdf_SQ * weight_Q) @ cdf_RQ.T
      # The mean of Beta(s + 1, n - s + 1) is (s + 1) / (n + 2).
      first_S1 = ((np.arange(n + 1) + 1) / (n + 2))[:, None]
      second_1R = ((np.arange(t - n + 1) + 1) / (t - n + 2))[None]
      # Expected payoff, and probability of the better arm, under Thompson
      # sampling.
      played_SR = p_SR * first_S1 + (1 - p_SR) * second_1R
      # Each state counts with its probability.
      regret += (mass_SR * (max_SR - played_SR)).sum()
      p_best += (mass_SR * (p_SR**2 + (1 - p_SR) ** 2)).sum()
      # Move the mass to the states after a success and after a failure of the
      # arm that is played.
      zero_SR, one_SR = mass_SR * p_SR, mass_SR * (1 - p_SR)
      after[n + 1][1:] += zero_SR * first_S1
      after[n + 1][:-1] += zero_SR * (1 - first_S1)
      after[n][:, 1:] += one_SR * second_1R
      after[n][:, :-1] += one_SR * (1 - second_1R)
    mass = after
    regret_T.append(regret)
    p_best_T.append(p_best)
  # The regret accumulates over the steps.
  return Play(np.cumsum(regret_T), np.array(p_best_T))


def latched(steps: int) -> Play:
  """Returns the exact results of the conditional learner.

  It plays its first arm in every step. The better of two uniform arms pays 2/3
  on average, a single arm 1/2.

  Args:
    steps: steps per episode.
  """
  return Play(np.arange(1, steps + 1) * (2 / 3 - 1 / 2), np.full(steps, 0.5))
