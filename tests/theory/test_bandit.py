"""The bandit, against fractions, enumeration and the published figures.

All histories of a few steps are few enough to list: expectations over them are
exact, and what is sampled must meet them within its standard error.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax.theory import bandit, episodes
from isft_jax.theory.bandit import Bandit

PROCESS = Bandit()
# Four standard errors: one failure in 16,000 for a figure that is right.
ERRORS = 4
# What theory.md's table was sampled with, and its last digit.
THEIR_EPISODES = 200_000


def every_history(steps):
  """All (actions, rewards) of some steps: int [10 ** steps, steps]."""
  pairs = list(itertools.product(range(5), range(2)))
  each = np.array(list(itertools.product(pairs, repeat=steps)))
  return each[..., 0], each[..., 1]


def law(process, theta):
  """P(a | theta) [arms] and P(o = 1 | theta, a) [arms], as plain numbers."""
  p = np.full(5, (1 - process.expert_best) / 4)
  p[theta] = process.expert_best
  pays = np.full(5, 1 - process.reward_best)
  pays[theta] = process.reward_best
  return p, pays


def reference_beliefs(actions, rewards, conditional):
  """Bayes' rule by multiplication, for one history."""
  weight = np.full(5, 0.2)
  found = [weight]
  for a, o in zip(actions, rewards, strict=True):
    for theta in range(5):
      p, pays = law(PROCESS, theta)
      weight = weight.copy()
      weight[theta] *= (pays[a] if o else 1 - pays[a]) * (
        p[a] if conditional else 1
      )
    found.append(weight / weight.sum())
  return np.array(found)


# ---------------------------------------------------------------- unit vectors


@pytest.mark.parametrize(
  ('steps', 'predicted'),
  [
    (2, [0.491304, 0.143478, 0.121739, 0.121739, 0.121739]),
    (3, [0.325, 0.125, 0.325, 0.1125, 0.1125]),
  ],
)
def test_the_conditional_prediction_after_two_and_three_steps(steps, predicted):
  """(arm 1, reward 1), (arm 2, reward 0), (arm 3, reward 1)."""
  actions, rewards = np.array([[0, 1, 2]]), np.array([[1, 0, 1]])
  with jax.enable_x64(True):
    belief = bandit.beliefs(PROCESS, actions, rewards, True)[0, steps]
    found = PROCESS.action(belief)
  # Six decimals were printed.
  np.testing.assert_allclose(found, predicted, rtol=0, atol=1e-6)


def test_the_interventional_prediction_after_two_steps():
  """A reward of 1 gives its arm 3 to 1; one of 0 gives its arm 1 to 3."""
  actions, rewards = np.array([[0, 1]]), np.array([[1, 0]])
  with jax.enable_x64(True):
    belief = bandit.beliefs(PROCESS, actions, rewards, False)[0, 2]
  exact = np.array([9, 1, 3, 3, 3]) / 19
  np.testing.assert_allclose(belief, exact, rtol=1e-13)


@pytest.mark.parametrize('conditional', [False, True])
def test_beliefs_are_bayes_rule(conditional):
  rng = np.random.default_rng(0)
  actions, rewards = rng.integers(0, 5, (4, 6)), rng.integers(0, 2, (4, 6))
  with jax.enable_x64(True):
    found = bandit.beliefs(PROCESS, actions, rewards, conditional)
  for row in range(4):
    exact = reference_beliefs(actions[row], rewards[row], conditional)
    np.testing.assert_allclose(found[row], exact, rtol=1e-12)


def test_who_is_certain_of_theta_predicts_the_expert_and_the_rewards():
  theta = jnp.arange(5)
  certain = jax.nn.one_hot(theta, 5)
  np.testing.assert_array_equal(
    bandit.expert_kl(PROCESS, certain, theta), np.zeros(5)
  )
  kl = bandit.reward_kl(PROCESS, certain, theta, theta)
  np.testing.assert_array_equal(kl, np.zeros(5))
  p, pays = law(PROCESS, 2)
  np.testing.assert_allclose(PROCESS.action(certain)[2], p, rtol=1e-6)
  np.testing.assert_allclose(PROCESS.reward(certain)[2], pays, rtol=1e-6)


@pytest.mark.parametrize(
  ('uniform', 'index'),
  [(0, 0), (0.249, 0), (0.25, 1), (0.499, 1), (0.5, 3), (0.999, 3)],
)
def test_a_uniform_number_picks_by_the_cumulative_sum(uniform, index):
  p = jnp.array([0.25, 0.25, 0, 0.5])
  assert int(bandit.pick(p, jnp.float32(uniform))) == index


# ------------------------------------------------------------ the ln 5 identity


def expectations(steps, own, conditional):
  """Exact means by listing all histories of theta = 0: all arms are alike.

  Returns (p_best [steps], sum of action KL, of reward KL, final entropy).
  """
  actions, rewards = every_history(steps)
  theta = jnp.zeros(len(actions), int)
  with jax.enable_x64(True):
    beliefs = bandit.beliefs(PROCESS, actions, rewards, conditional)
    played = np.asarray(PROCESS.action(beliefs))
    p, pays = law(PROCESS, 0)
    weight = np.ones(len(actions))
    p_best, action_kl, reward_kl = [], 0, 0
    for t in range(steps):
      a, o = actions[:, t], rewards[:, t]
      # All continuations of a beginning are in the list: it counts once.
      share = weight / 10.0 ** (steps - t)
      p_best.append(float(share @ played[:, t, 0]))
      action_kl += share @ bandit.expert_kl(PROCESS, beliefs[:, t], theta)
      weight = weight * (played[np.arange(len(a)), t, a] if own else p[a])
      share = weight / (2 * 10.0 ** (steps - t - 1))
      seen = beliefs[:, t]
      if conditional:
        seen = seen * jnp.exp(PROCESS.log_action(a))
        seen /= seen.sum(axis=1, keepdims=True)
      reward_kl += share @ bandit.reward_kl(PROCESS, seen, a, theta)
      weight = weight * np.where(o == 1, pays[a], 1 - pays[a])
    entropy = weight @ -(beliefs[:, -1] * jnp.log(beliefs[:, -1])).sum(axis=1)
  return p_best, float(action_kl), float(reward_kl), float(entropy)


def test_what_is_learned_is_what_was_predicted_too_badly():
  """On the expert's trajectories, conditional accounting:

  E sum KL(actions) + E sum KL(rewards) = ln 5 - E H(theta | history)
  """
  _, action_kl, reward_kl, entropy = expectations(3, False, True)
  total = action_kl + reward_kl + entropy
  assert total == pytest.approx(math.log(5), rel=1e-12)
  # It is the match of writer and accounting that makes it one.
  for own, conditional in (True, True), (False, False), (True, False):
    _, *parts = expectations(3, own, conditional)
    assert sum(parts) != pytest.approx(math.log(5), rel=1e-3)


# -------------------------------------------------------------- sampled figures


@functools.cache
def sampled(own, conditional):
  return episodes.sample(PROCESS, 0, 10_000, 100, own, conditional)


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('conditional', [True, False])
def test_samples_meet_the_enumeration(own, conditional):
  exact, *_ = expectations(3, own, conditional)
  found = sampled(own, conditional)
  error_T = ERRORS * found.p_best_error_T[:3] + 1e-6  # the first has no error
  gap_T = np.abs(found.p_best_T[:3] - exact)
  np.testing.assert_array_less(gap_T, error_T)


def test_samples_meet_ln_5():
  found = sampled(own=False, conditional=True)
  total = found.sum_kl + found.sum_reward_kl + found.entropy
  assert abs(total - math.log(5)) < ERRORS * found.total_error
  assert found.total_error < 0.02


# P(best arm) at t = 0, 5, 10, 20, 50, 99; sum KL; sure and wrong.
TABLE = {
  (True, False): ([0.200, 0.299, 0.390, 0.503, 0.592, 0.600], 5.37, 0),
  (True, True): ([0.200, 0.281, 0.309, 0.326, 0.331, 0.332], 47.9, 0.537),
  (False, True): ([0.200, 0.532, 0.587, 0.600, 0.600, 0.600], 1.21, 0),
  (False, False): ([0.200, 0.381, 0.477, 0.559, 0.598, 0.600], 3.06, 0),
}


@pytest.mark.parametrize(('own', 'conditional'), TABLE)
def test_the_table(own, conditional):
  """Both sides are sampled: theirs, by whether the best arm was played."""
  number = 10_000
  found = sampled(own, conditional)
  p_best, sum_kl, share = TABLE[own, conditional]
  times = [0, 5, 10, 20, 50, 99]
  p_best = np.array(p_best)
  error = np.hypot(
    found.p_best_error_T[times], np.sqrt(p_best * (1 - p_best) / THEIR_EPISODES)
  )
  gap = np.abs(found.p_best_T[times] - p_best)
  np.testing.assert_array_less(gap, ERRORS * error + 0.0005)
  both = math.hypot(1, math.sqrt(number / THEIR_EPISODES))
  digit = 0.05 if sum_kl > 10 else 0.005
  error = both * found.sum_kl_error
  assert abs(found.sum_kl - sum_kl) < ERRORS * error + digit
  error = both * math.sqrt(share * (1 - share) / number)
  assert abs(found.sure_and_wrong - share) <= ERRORS * error + 0.0005


# ----------------------------------------------------------------------- phases


def test_the_boundary_is_where_rewards_balance_own_actions():
  assert bandit.boundary(PROCESS) == pytest.approx(6 / 7, rel=1e-15)

  def drift(h):
    """Of log odds, wrong arm to best, in a step of who is sure of it."""
    odds = math.log(h / (1 - h))
    return (0.6 - 0.1) * math.log(6) - (0.6 + 0.1) * (2 * h - 1) * odds

  assert drift(6 / 7) == pytest.approx(0, abs=1e-14)
  assert drift(0.85) > 0 > drift(0.86)


def test_the_phases():
  shares = {0.7: 0.650, 0.9: 0.0}
  number = 2000
  found = episodes.phase(PROCESS, 0, number, 300, shares)
  assert list(found) == ['0.7', '0.9']
  for h, share in shares.items():
    error = math.sqrt(share * (1 - share) * (1 / number + 1 / THEIR_EPISODES))
    gap = abs(found[f'{h:g}'].sure_and_wrong - share)
    assert gap <= ERRORS * error + 0.0005
