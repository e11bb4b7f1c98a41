"""Samples batches of bandit episodes, with a learner that acts or observes.

Every sampled figure comes with its standard error. Letters: E episodes, T
steps, H hypotheses (one per arm).
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax.theory.bandit import Bandit, expert_kl, pick, reward_kl
from isft_jax.theory.mixture import update

SURE = 0.99  # a learner is sure of an arm if its belief is above this


class Curves(NamedTuple):
  """Means over episodes, and standard errors of the means (`*_error`).

  Args:
    p_best_T: the learner's probability of the best arm before each step.
    sum_kl: KL(expert's action || learner's action), summed over steps, in nats.
    sum_reward_kl: the same for rewards, predicted when the action is known.
    sure_and_wrong: share of episodes that end with a belief above `SURE` in an
      arm that is not the best.
    entropy: entropy of the belief after the last step, in nats.
    total_error: standard error of sum_kl + sum_reward_kl + entropy. This sum is
      ln(arms) for the expert's trajectories under the conditional accounting:
      the information gained about theta equals the excess prediction loss.
  """

  p_best_T: np.ndarray
  p_best_error_T: np.ndarray
  sum_kl: float
  sum_kl_error: float
  sum_reward_kl: float
  sum_reward_kl_error: float
  sure_and_wrong: float
  sure_and_wrong_error: float
  entropy: float
  total_error: float


@functools.partial(jax.jit, static_argnums=(2, 3))
def _sample(
  bandit: Bandit,
  key: jax.Array,
  episodes: int,
  steps: int,
  own: bool,
  conditional: bool,
) -> tuple[
  tuple[jax.Array, jax.Array],
  tuple[jax.Array, jax.Array, jax.Array, jax.Array],
]:
  """Samples episodes under one scan.

  Returns:
    ((mean and standard deviation of p_best, each [T]),
    (kl_E, reward_kl_E, entropy_E, wrong_E)).
  """
  # The best arm of each episode is uniform.
  key, draw = jax.random.split(key)
  theta_E = jax.random.randint(draw, (episodes,), 0, bandit.arms)
  best_EH = jax.nn.one_hot(theta_E, bandit.arms)
  # Actions are evidence only for the conditional accounting; rewards always.
  gate_E = jnp.full(episodes, 1 - conditional)
  world_E = jnp.zeros_like(gate_E)

  def step(
    carry: tuple[jax.Array, jax.Array, jax.Array], key: jax.Array
  ) -> tuple[
    tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
  ]:
    # Play: the learner by its own prediction, or the expert by theta.
    log_belief_EH, kl_E, reward_kl_E = carry
    # Uniform numbers for the action and for the reward.
    drawn_2E = jax.random.uniform(key, (2, episodes))
    belief_EH = jnp.exp(log_belief_EH)
    p_EH = bandit.action(belief_EH)
    written_EH = jnp.where(own, p_EH, bandit.action(best_EH))
    action_E = pick(written_EH, drawn_2E[0])
    # Probability that the chosen arm pays.
    pays_E = bandit.reward((action_E == theta_E).astype(float))
    reward_E = drawn_2E[1] < pays_E
    # Score each prediction before its slot updates the belief.
    p_best_E = jnp.sum(p_EH * best_EH, axis=-1)
    log_belief_EH = update(log_belief_EH, bandit.log_action(action_E), gate_E)
    kl_E += expert_kl(bandit, belief_EH, theta_E)
    reward_kl_E += reward_kl(bandit, jnp.exp(log_belief_EH), action_E, theta_E)
    # The reward is the world's: it is always evidence.
    log_reward_EH = bandit.log_reward(action_E, reward_E)
    log_belief_EH = update(log_belief_EH, log_reward_EH, world_E)
    # Reduce over episodes in the scan: [E, T] arrays would need E x T memory.
    by_step = p_best_E.mean(), p_best_E.std()
    return (log_belief_EH, kl_E, reward_kl_E), by_step

  # All learners start from the uniform prior.
  uniform_EH = jnp.full((episodes, bandit.arms), -jnp.log(bandit.arms))
  zeros_E = jnp.zeros(episodes)
  (log_belief_EH, kl_E, reward_kl_E), p_best = jax.lax.scan(
    step, (uniform_EH, zeros_E, zeros_E), jax.random.split(key, steps)
  )
  belief_EH = jnp.exp(log_belief_EH)
  # Entropy of the final belief, in nats.
  entropy_E = -jnp.sum(belief_EH * log_belief_EH, axis=-1)
  # At most one arm can have a belief above 0.99.
  wrong_EH = (belief_EH > SURE) & (best_EH == 0)
  return p_best, (kl_E, reward_kl_E, entropy_E, wrong_EH.any(axis=-1))


def sample(
  bandit: Bandit,
  seed: int,
  number: int,
  steps: int,
  own: bool,
  conditional: bool,
) -> Curves:
  """Returns the `Curves` of sampled episodes.

  The sampling is in float32. A log belief is a sum of at most 2 x steps terms,
  so that its rounding error is less than 1e-4. The sampling error of a mean
  over 200,000 episodes is larger.

  Args:
    bandit: the process.
    seed: sampling seed.
    number: number of episodes.
    steps: steps per episode.
    own: True if the learner plays, by its own prediction; False if the expert
      does.
    conditional: True for the conditional accounting, False for the
      interventional one.
  """
  key = jax.random.key(seed)
  # Means over episodes for each step, and sums over steps for each episode.
  (p_best_T, deviation_T), by_episode = jax.tree.map(
    np.asarray, _sample(bandit, key, number, steps, own, conditional)
  )
  # Sums over 200,000 episodes need float64.
  kl_E, reward_kl_E, entropy_E, wrong_E = (
    each_E.astype(np.float64) for each_E in by_episode
  )

  # Error of a mean over independent episodes.
  def standard_error(each_E: np.ndarray) -> float:
    return float(each_E.std() / np.sqrt(number))

  return Curves(
    p_best_T=p_best_T,
    p_best_error_T=deviation_T / np.sqrt(number),
    sum_kl=float(kl_E.mean()),
    sum_kl_error=standard_error(kl_E),
    sum_reward_kl=float(reward_kl_E.mean()),
    sum_reward_kl_error=standard_error(reward_kl_E),
    sure_and_wrong=float(wrong_E.mean()),
    sure_and_wrong_error=standard_error(wrong_E),
    entropy=float(entropy_E.mean()),
    # The three terms are correlated, so the error is that of their sum.
    total_error=standard_error(kl_E + reward_kl_E + entropy_E),
  )


def phase(
  bandit: Bandit, seed: int, number: int, steps: int, rewards: Iterable[float]
) -> dict[str, Curves]:
  """Returns the `Curves` of conditional learners that act, keyed by h.

  Args:
    bandit: the process; its `reward_best` is replaced.
    seed: sampling seed, the same for every h.
    number: number of episodes per h.
    steps: steps per episode.
    rewards: probabilities h that the best arm pays; the others pay with 1 - h.
  """

  def at(h: float) -> Curves:
    # Only the probability that the best arm pays differs.
    process = dataclasses.replace(bandit, reward_best=h)
    return sample(process, seed, number, steps, own=True, conditional=True)

  return {f'{h:g}': at(h) for h in rewards}
