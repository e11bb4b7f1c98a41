"""Bernoulli bandit with an expert who knows the best arm.

The best arm theta is uniform over five arms. The expert sees theta, plays it
with probability 0.6 and plays each other arm with probability 0.1. An arm pays
1 with probability 0.75 if it is theta, else with 0.25. The learner does not see
theta. It predicts the expert's next action from a history
(a_1, o_1, ..., a_t, o_t), under one of two accountings:

  conditional     w(theta) prop. to prod_k P(a_k | theta) P(o_k | theta, a_k)
  interventional  w(theta) prop. to prod_k P(o_k | theta, a_k)

The first is right if the expert wrote the actions, the second if the learner
did. A learner that acts on the first treats its own actions as the expert's: it
is deluded. Acting on the second is Thompson sampling.

Letters: E episodes, T steps, H hypotheses (one per arm), K slots (two per step:
action and outcome).

Source: Ortega et al., arXiv 2110.10819, remark 11.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from isft_jax.theory.mixture import log_posteriors

# Which slots are evidence about theta; see the module docstring.
ACCOUNTINGS = ('interventional', 'conditional')


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['expert_best', 'reward_best'],
  meta_fields=['arms'],
)
@dataclasses.dataclass(frozen=True)
class Bandit:
  """Parameters of the bandit; the defaults are those of the module docstring.

  A pytree whose leaves are the probabilities, so that a function compiled for
  one bandit serves all bandits with the same number of arms.

  Args:
    arms: number of arms.
    expert_best: probability that the expert plays theta.
    reward_best: probability that theta pays; every other arm pays with
      1 - reward_best.
  """

  arms: int = 5
  expert_best: float = 0.6
  reward_best: float = 0.75

  @property
  def expert_other(self) -> float:
    """Probability that the expert plays one particular arm other than theta."""
    return (1 - self.expert_best) / (self.arms - 1)

  def action(self, belief_H: jax.Array) -> jax.Array:
    """Returns the predicted distribution of the expert's action.

      P(a) = sum_theta w(theta) P(a | theta)

    Args:
      belief_H: w(theta) [..., arms]; one-hot gives the expert's own policy.

    Returns:
      Probabilities [..., arms].
    """
    # A mixture of the expert's laws is linear in the belief.
    return self.expert_other + (self.expert_best - self.expert_other) * belief_H

  def reward(self, belief_H: jax.Array) -> jax.Array:
    """Returns P(o = 1 | do(a)) [..., arms] under a belief [..., arms]."""
    other = 1 - self.reward_best
    return other + (self.reward_best - other) * belief_H

  def log_action(self, action: jax.Array) -> jax.Array:
    """Returns log P(a | theta) [..., theta]."""
    # Under the hypothesis theta = action, the expert's best arm was played.
    played = jax.nn.one_hot(action, self.arms, dtype=bool)
    return jnp.where(
      played, jnp.log(self.expert_best), jnp.log(self.expert_other)
    )

  def log_reward(self, action: jax.Array, reward: jax.Array) -> jax.Array:
    """Returns log P(o | theta, a) [..., theta]."""
    # A reward of 1 favours the arm that was played, 0 favours all the others.
    played = jax.nn.one_hot(action, self.arms, dtype=bool)
    favoured = played == jnp.expand_dims(reward == 1, -1)
    return jnp.where(
      favoured, jnp.log(self.reward_best), jnp.log(1 - self.reward_best)
    )


def beliefs(
  bandit: Bandit,
  actions_ET: jax.Array,
  rewards_ET: jax.Array,
  conditional: bool,
) -> jax.Array:
  """Returns the beliefs before the first step and after each step.

  Args:
    bandit: the process.
    actions_ET: integer actions [episodes, steps].
    rewards_ET: integer rewards, 0 or 1 [episodes, steps].
    conditional: True if the actions count as evidence.

  Returns:
    w(theta) [episodes, steps + 1, arms].
  """
  E, T = actions_ET.shape
  # Each step has two slots: its action, then its outcome.
  slots_EKH = jnp.stack(
    [bandit.log_action(actions_ET), bandit.log_reward(actions_ET, rewards_ET)],
    axis=2,
  ).reshape(E, 2 * T, bandit.arms)
  # A gate of 1 keeps a slot from being evidence. Outcomes are always evidence.
  gate_EK = jnp.tile(jnp.array([not conditional, False], int), (E, T))
  # The prior is uniform, and it is the belief before the first step.
  uniform_H = jnp.full(bandit.arms, -jnp.log(bandit.arms), slots_EKH.dtype)
  # Every second belief: those after an outcome, when the step is complete.
  after_ETH = log_posteriors(uniform_H, slots_EKH, gate_EK)[:, 1::2]
  first_E1H = jnp.broadcast_to(uniform_H[None, None], (E, 1, bandit.arms))
  return jnp.exp(jnp.concatenate([first_E1H, after_ETH], axis=1))


def pick(p_S: jax.Array, uniform: jax.Array) -> jax.Array:
  """Samples an index from a distribution by inverting its cumulative sum.

  This needs one random number per sample. The Gumbel trick needs one per
  outcome.

  Args:
    p_S: probabilities [..., S].
    uniform: random numbers in [0, 1) [...].

  Returns:
    Indices, 0 to S - 1 [...].
  """
  reached_S = jnp.cumsum(p_S, axis=-1) <= jnp.expand_dims(uniform, -1)
  # Rounding may leave the full sum below the uniform number, so the last entry
  # is not compared: the index stays below S.
  return jnp.sum(reached_S[..., :-1], axis=-1)


def expert_kl(
  bandit: Bandit, belief_H: jax.Array, theta: jax.Array
) -> jax.Array:
  """Returns KL(expert's action || predicted action), in nats [...].

  Args:
    bandit: the process.
    belief_H: the learner's belief before the action [..., arms].
    theta: the best arm [...].
  """
  # The expert knows theta: its belief is one-hot.
  expert_H = bandit.action(jax.nn.one_hot(theta, bandit.arms))
  return jnp.sum(
    expert_H * jnp.log(expert_H / bandit.action(belief_H)), axis=-1
  )


def reward_kl(
  bandit: Bandit, belief_H: jax.Array, action: jax.Array, theta: jax.Array
) -> jax.Array:
  """Returns KL(reward || predicted reward) given the action, in nats [...].

  Args:
    bandit: the process.
    belief_H: the learner's belief after the action was played [..., arms].
    action: the action that was played [...].
    theta: the best arm [...].
  """
  # Probability of a reward for the arm that was played: p true, q predicted.
  at = jnp.expand_dims(action, -1)
  p = jnp.take_along_axis(
    bandit.reward(jax.nn.one_hot(theta, bandit.arms)), at, axis=-1
  )
  q = jnp.take_along_axis(bandit.reward(belief_H), at, axis=-1)
  # KL of two Bernoulli distributions.
  kl = p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q))
  return kl[..., 0]


def boundary(bandit: Bandit) -> float:
  """Returns h*, the reward probability above which wrong beliefs die out.

    (p - q) log(p / q) = (p + q) (2 h - 1) log(h / (1 - h)),   so
    p / q = h / (1 - h)

  Here p and q are the probabilities that the expert plays the best arm and one
  particular other arm. A learner that is sure of a wrong arm plays that arm
  with p and the best arm with q. If these actions count as the expert's, they
  are evidence for the wrong arm (left side, nats per step). The rewards of both
  arms are evidence against it (right side).
  """
  return bandit.expert_best / (bandit.expert_best + bandit.expert_other)
