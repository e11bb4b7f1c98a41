"""Beliefs under a gate, against fractions worked out by hand.

Two hypotheses about the world's next symbol (de Freitas and Ortega, 2026,
section 5):

        prior   says A   says B
  p_B   0.35     0.20     0.80
  p_A   0.65     0.90     0.10
"""

import jax
import numpy as np
import pytest

from isft_jax.theory.mixture import (
  log_posteriors,
  posterior,
  predictive,
  two_steps,
  update,
)

PRIOR = np.array([0.35, 0.65])
P = np.array([[0.20, 0.80], [0.90, 0.10]])
A, B = 0, 1
# The agent writes A, then the world writes B.
LIKELIHOOD = np.array([P[:, A], P[:, B]])
# A handful of roundings in float64; the figures need only 1e-6.
EXACT = {'rtol': 1e-13, 'atol': 0}


def test_the_mixture_expects_b_with_0_345_so_the_agent_writes_a():
  p = predictive(PRIOR, P)
  np.testing.assert_allclose(p[B], 0.35 * 0.8 + 0.65 * 0.1, **EXACT)
  np.testing.assert_allclose(p, [0.655, 0.345], **EXACT)
  assert p.argmax() == A


@pytest.mark.parametrize(
  ('accounting', 'gate', 'after_own_a', 'after_worlds_b'),
  [
    (
      'do',
      [1, 0],
      (0.35, 0.35),
      (0.35 * 0.8 / (0.35 * 0.8 + 0.65 * 0.1), 0.811594),
    ),
    (
      'naive',
      [0, 0],
      (0.35 * 0.2 / (0.35 * 0.2 + 0.65 * 0.9), 0.106870),
      (
        0.35 * 0.2 * 0.8 / (0.35 * 0.2 * 0.8 + 0.65 * 0.9 * 0.1),
        0.489083,
      ),
    ),
  ],
)
def test_weight_of_p_b(accounting, gate, after_own_a, after_worlds_b):
  weights = posterior(PRIOR, LIKELIHOOD, gate)
  fractions = [after_own_a[0], after_worlds_b[0]]
  figures = [after_own_a[1], after_worlds_b[1]]
  np.testing.assert_allclose(weights[:, 0], fractions, **EXACT)
  # Six decimals were printed.
  np.testing.assert_allclose(weights[:, 0], figures, rtol=0, atol=5e-7)
  np.testing.assert_allclose(weights.sum(axis=1), 1, **EXACT)


def test_the_two_steps():
  found = two_steps()
  assert list(found) == ['interventional', 'naive']
  np.testing.assert_allclose(
    found['interventional'], [0.35, 0.28 / 0.345], **EXACT
  )
  np.testing.assert_allclose(
    found['naive'], [0.07 / 0.655, 0.056 / 0.1145], **EXACT
  )


def test_many_histories_at_once_are_each_what_they_are_alone():
  """Any finite set of hypotheses, against multiplication."""
  rng = np.random.default_rng(0)
  prior_H = rng.dirichlet(np.ones(7))
  likelihood_ETH = rng.random((3, 11, 7))
  gate_ET = rng.integers(0, 2, (3, 11))
  with jax.enable_x64(True):
    found = np.exp(
      log_posteriors(np.log(prior_H), np.log(likelihood_ETH), gate_ET)
    )
  for e in range(3):
    weight_H = prior_H
    for t in range(11):
      if not gate_ET[e, t]:
        weight_H = weight_H * likelihood_ETH[e, t]
      # Eleven products and their sums.
      np.testing.assert_allclose(
        found[e, t], weight_H / weight_H.sum(), rtol=1e-12
      )
    alone = posterior(prior_H, likelihood_ETH[e], gate_ET[e])
    np.testing.assert_allclose(alone, found[e], **EXACT)


def test_an_own_symbol_has_no_gradient():
  """Not a small one: what the agent wrote is not in the belief at all."""

  def belief(log_likelihood_EH, gate_E):
    prior_EH = np.log(np.tile(PRIOR, (2, 1)))
    return update(prior_EH, log_likelihood_EH, gate_E)[:, 0].sum()

  slope_EH = jax.grad(belief)(np.log(LIKELIHOOD), np.array([1, 0]))
  np.testing.assert_array_equal(slope_EH[0], [0, 0])
  assert (slope_EH[1] != 0).all()


def test_an_agent_that_writes_everything_learns_nothing():
  rng = np.random.default_rng(0)
  weights = posterior(PRIOR, rng.random((50, 2)), np.ones(50, int))
  np.testing.assert_allclose(weights, np.tile(PRIOR, (50, 1)), **EXACT)


def test_the_same_symbol_from_the_world_is_evidence():
  own = posterior(PRIOR, P[:, [A]].T, [1])
  worlds = posterior(PRIOR, P[:, [A]].T, [0])
  np.testing.assert_allclose(own[0, 0], 0.35, **EXACT)
  np.testing.assert_allclose(worlds[0, 0], 0.07 / 0.655, **EXACT)


def test_the_order_of_evidence_does_not_matter():
  forward = posterior(PRIOR, LIKELIHOOD, [0, 0])[-1]
  backward = posterior(PRIOR, LIKELIHOOD[::-1], [0, 0])[-1]
  np.testing.assert_allclose(forward, backward, **EXACT)


def test_a_long_history_does_not_underflow():
  """3,000 times 1e-9 against 1e-9 times 1.001: far below the least float64."""
  weights = posterior(
    [0.5, 0.5], np.tile([1e-9, 1.001e-9], (3000, 1)), np.zeros(3000, int)
  )
  odds = 1.001**3000
  # Rounding in a sum of 3,000 logarithms of size 21.
  np.testing.assert_allclose(weights[-1, 1], odds / (1 + odds), rtol=1e-9)


def test_an_own_symbol_that_a_hypothesis_excludes_excludes_nothing():
  weights = posterior(PRIOR, [[0.0, 1.0], [0.0, 1.0]], [1, 0])
  np.testing.assert_allclose(weights, [[0.35, 0.65], [0, 1]], **EXACT)


def test_no_slots_no_beliefs():
  assert posterior(PRIOR, np.empty((0, 2)), []).shape == (0, 2)


@pytest.mark.parametrize(
  ('prior', 'likelihood', 'gate', 'message'),
  [
    ([0.35, 0.6], LIKELIHOOD, [1, 0], 'sums to 1'),
    ([1.5, -0.5], LIKELIHOOD, [1, 0], 'sums to 1'),
    ([np.nan, 1], LIKELIHOOD, [1, 0], 'sums to 1'),
    ([], np.empty((2, 0)), [1, 0], 'prior_H has shape'),
    ([PRIOR], LIKELIHOOD, [1, 0], 'prior_H has shape'),
    ([0.3, 0.3, 0.4], LIKELIHOOD, [1, 0], 'likelihood_TH has shape'),
    (PRIOR, LIKELIHOOD[0], [1, 0], 'likelihood_TH has shape'),
    (PRIOR, LIKELIHOOD, [1], 'gate_T has shape'),
    (PRIOR, LIKELIHOOD, [[1, 0]], 'gate_T has shape'),
    (PRIOR, LIKELIHOOD, [0.5, 0], '0 and 1'),
    (PRIOR, -LIKELIHOOD, [1, 0], 'negative'),
    (PRIOR, LIKELIHOOD * np.nan, [1, 0], 'not finite'),
    (PRIOR, [[0.5, 0.5], [0, 0]], [1, 0], 'slot 1: no hypothesis'),
  ],
)
def test_posterior_refuses(prior, likelihood, gate, message):
  with pytest.raises(ValueError, match=message):
    posterior(prior, likelihood, gate)


@pytest.mark.parametrize(
  ('prior', 'p', 'message'),
  [
    ([0.35, 0.6], P, 'sums to 1'),
    ([0.3, 0.3, 0.4], P, 'p_HS has shape'),
    (PRIOR, P[0], 'p_HS has shape'),
  ],
)
def test_predictive_refuses(prior, p, message):
  with pytest.raises(ValueError, match=message):
    predictive(prior, p)
