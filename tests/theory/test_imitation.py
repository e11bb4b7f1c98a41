"""Costs and lock-in, against all sequences of a few slots, one by one."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from isft_jax.theory import imitation
from isft_jax.theory.mixture import TWO_HS, TWO_PRIOR_H, posterior, predictive

ERRORS = 4  # standard errors
BOUND = math.log(1 / 0.35)
TRUE, B = imitation.TRUE, imitation.B


@functools.cache
def belief(symbols):
  """Bayes' rule, for symbols that all are evidence."""
  if not symbols:
    return TWO_PRIOR_H
  return posterior(belief(symbols[:-1]), TWO_HS.T[[symbols[-1]]], [0])[0]


def kl(p, q):
  return float(np.sum(p * np.log(p / q)))


def test_the_cost_of_three_symbols_of_the_world():
  world = 0.0
  for n in range(3):
    for symbols in itertools.product(range(2), repeat=n):
      weight = np.prod(TWO_HS[TRUE][list(symbols)])
      expects = predictive(belief(symbols), TWO_HS)
      world += weight * kl(TWO_HS[TRUE], expects)
  found = imitation.costs(0.75, 3)
  assert found.world == pytest.approx(world, rel=1e-12)
  # Three slots of the agent to one of the world.
  assert found.agent == pytest.approx(3 * world, rel=1e-12)


@pytest.mark.parametrize(
  ('rho', 'agent'), [(0.1, 0.117), (0.3, 0.450), (0.5, 1.05), (0.7, 2.45)]
)
def test_both_bounds_are_reached(rho, agent):
  found = imitation.costs(rho, 400)
  assert imitation.bound() == pytest.approx(BOUND, rel=1e-15)
  # What is left of ln 1/w after 400 symbols is below float64.
  assert found.world == pytest.approx(BOUND, rel=1e-12)
  assert found.agent == pytest.approx(rho / (1 - rho) * BOUND, rel=1e-12)
  assert found.agent == pytest.approx(agent, abs=0.005)


def test_no_bound_is_passed_on_the_way():
  costs = [imitation.costs(0.6, n).world for n in range(12)]
  assert costs[0] == 0
  assert (np.diff(costs) > 0).all()
  assert costs[-1] < BOUND


@pytest.mark.parametrize('rho', [0.5, 0.9])
def test_samples_meet_the_exact_costs(rho):
  number = 4000
  agent, world, _ = imitation.sample(
    jax.random.key(0), rho, number, 400, interventional=True
  )
  exact = imitation.costs(rho, 400)
  for found, value in (agent, exact.agent), (world, exact.world):
    error = np.std(found) / math.sqrt(number)
    assert abs(np.mean(found) - value) < ERRORS * error


@pytest.mark.parametrize('greedy', [False, True])
def test_lock_in_after_six_slots(greedy):
  rho, locked = 0.7, 0.0
  for symbols in itertools.product(range(2), repeat=6):
    weight = 1.0
    for n, symbol in enumerate(symbols):
      expects = predictive(belief(symbols[:n]), TWO_HS)
      agents = np.eye(2)[expects.argmax()] if greedy else expects
      weight *= rho * agents[symbol] + (1 - rho) * TWO_HS[TRUE][symbol]
    locked += weight * (belief(symbols)[imitation.FALSE] > 0.99)
  assert 0.1 < locked < 0.9  # neither side is empty
  found = imitation.locked(rho, 6, greedy)
  assert found == pytest.approx(locked, rel=1e-10)


def test_samples_lock_in_as_often():
  number = 4000
  *_, belief_EH = imitation.sample(
    jax.random.key(0), 0.7, number, 400, interventional=False
  )
  share = imitation.locked(0.7, 400, greedy=False)
  error = math.sqrt(share * (1 - share) / number)
  found = np.mean(belief_EH[:, imitation.FALSE] > imitation.LOCKED)
  assert abs(found - share) < ERRORS * error


@pytest.mark.parametrize(
  ('greedy', 'shares'),
  [(False, (0.004, 0.116, 0.285, 0.553)), (True, (0.100, 0.394, 0.607, 0.904))],
)
def test_the_locked_shares(greedy, shares):
  """The published shares are sampled; theirs are off by up to 0.005, which is
  1.9 standard errors of a share of 20,000 episodes."""
  for rho, share in zip((0.5, 0.6, 0.7, 0.9), shares, strict=True):
    error = math.sqrt(share * (1 - share) / 20_000)
    found = imitation.locked(rho, 400, greedy)
    assert abs(found - share) < ERRORS * error + 0.0005


def test_the_thresholds():
  """In nats a slot: what an own symbol says for p_A, what the world's say."""
  sampling = 0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)
  greedy = math.log(0.9 / 0.2)
  world = 0.8 * math.log(0.8 / 0.1) + 0.2 * math.log(0.2 / 0.9)
  for own, is_greedy, printed in (
    (sampling, False, 0.543),
    (greedy, True, 0.475),
  ):
    rho = imitation.threshold(is_greedy)
    assert rho * own == pytest.approx((1 - rho) * world, rel=1e-12)
    assert rho == pytest.approx(printed, abs=0.0005)


@pytest.mark.parametrize('greedy', [False, True])
def test_lock_in_lasts_above_the_threshold_only(greedy):
  threshold = imitation.threshold(greedy)

  def remains(rho):
    return imitation.locked(rho, 600, greedy) / imitation.locked(
      rho, 300, greedy
    )

  assert remains(threshold - 0.15) < 0.5
  assert remains(threshold + 0.15) > 0.999


def test_who_takes_no_own_symbol_for_evidence_is_never_locked():
  *_, belief_EH = imitation.sample(
    jax.random.key(0), 0.9, 4000, 400, interventional=True
  )
  # 40 symbols of the world speak for p_B by 1.36 nats each.
  assert not (belief_EH[:, imitation.FALSE] > imitation.LOCKED).any()
