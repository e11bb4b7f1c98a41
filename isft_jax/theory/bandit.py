"""A bandit whose best arm an expert knows, and a learner that does not.

theta is uniform over five arms. An expert who sees theta plays it with
probability 0.6 and each other arm with 0.1. An arm pays 1 with probability 0.75
if it is theta, else with 0.25. The learner predicts the expert's next action
from a history (a_1, o_1, ..., a_t, o_t), under one of two accountings:

  conditional     w(theta) prop. to prod_k P(a_k | theta) P(o_k | theta, a_k)
  interventional  w(theta) prop. to prod_k P(o_k | theta, a_k)

The first is right where the expert wrote the actions, the second where the
learner did. A learner that acts on the first takes its own actions for the
expert's: it is deluded. Acting on the second is Thompson sampling.

Source: Ortega et al., arXiv 2110.10819, remark 11.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from isft_jax.theory.mixture import log_posteriors

ACCOUNTINGS = ('interventional', 'conditional')


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['expert_best', 'reward_best'],
  meta_fields=['arms'],
)
@dataclasses.dataclass(frozen=True)
class Bandit:
  """The process. `arms` arms; probabilities as in the head of this file.

  A tree of its probabilities: what is compiled for one serves for all.
  """

  arms: int = 5
  expert_best: float = 0.6  # the expert plays theta
  reward_best: float = 0.75  # theta pays; any other arm pays with the rest

  @property
  def expert_other(self) -> float:
    """The probability with which the expert plays any one other arm."""
    return (1 - self.expert_best) / (self.arms - 1)

  def action(self, belief_H: jax.Array) -> jax.Array:
    """Returns P(a) [..., arms] of the expert's action under a belief.

    A one-hot belief gives the expert itself.
    """
    return self.expert_other + (self.expert_best - self.expert_other) * belief_H

  def reward(self, belief_H: jax.Array) -> jax.Array:
    """Returns P(o = 1 | do(a)) [..., arms] under a belief about theta."""
    other = 1 - self.reward_best
    return other + (self.reward_best - other) * belief_H

  def log_action(self, action: jax.Array) -> jax.Array:
    """Returns log P(a | theta) [..., theta]."""
    played = jax.nn.one_hot(action, self.arms, dtype=bool)
    return jnp.where(
      played, jnp.log(self.expert_best), jnp.log(self.expert_other)
    )

  def log_reward(self, action: jax.Array, reward: jax.Array) -> jax.Array:
    """Returns log P(o | theta, a) [..., theta]."""
    # A reward speaks for the arm that was played, none for all the others.
    played = jax.nn.one_hot(action, self.arms, dtype=bool)
    spoken_for = played == jnp.expand_dims(reward == 1, -1)
    return jnp.where(
      spoken_for, jnp.log(self.reward_best), jnp.log(1 - self.reward_best)
    )


def beliefs(
  bandit: Bandit,
  actions_ET: jax.Array,
  rewards_ET: jax.Array,
  conditional: bool,
) -> jax.Array:
  """Returns w(theta) [episodes, steps + 1, arms], before and after each step.

  actions_ET, rewards_ET: integers.
  conditional: whether the actions count as evidence.
  """
  E, T = actions_ET.shape
  slots_EKH = jnp.stack(
    [bandit.log_action(actions_ET), bandit.log_reward(actions_ET, rewards_ET)],
    axis=2,
  ).reshape(E, 2 * T, bandit.arms)
  own_E2T = jnp.tile(jnp.array([not conditional, False], int), (E, T))
  uniform_H = jnp.full(bandit.arms, -jnp.log(bandit.arms), slots_EKH.dtype)
  after_ETH = log_posteriors(uniform_H, slots_EKH, own_E2T)[:, 1::2]
  first_E1H = jnp.broadcast_to(uniform_H[None, None], (E, 1, bandit.arms))
  return jnp.exp(jnp.concatenate([first_E1H, after_ETH], axis=1))


def pick(p_S: jax.Array, uniform: jax.Array) -> jax.Array:
  """Returns the index in p_S [..., S] that a uniform number [...] picks.

  By the cumulative sum: one random number where a Gumbel each would be five.
  """
  reached_S = jnp.cumsum(p_S, axis=-1) <= jnp.expand_dims(uniform, -1)
  # The last may be reached by rounding.
  return jnp.sum(reached_S[..., :-1], axis=-1)


def expert_kl(
  bandit: Bandit, belief_H: jax.Array, theta: jax.Array
) -> jax.Array:
  """Returns KL(expert's action to the predicted one), in nats [...]."""
  expert_H = bandit.action(jax.nn.one_hot(theta, bandit.arms))
  return jnp.sum(
    expert_H * jnp.log(expert_H / bandit.action(belief_H)), axis=-1
  )


def reward_kl(
  bandit: Bandit, belief_H: jax.Array, action: jax.Array, theta: jax.Array
) -> jax.Array:
  """Returns KL(reward's law to its prediction) after an action, in nats [...].

  belief_H: what the learner believes when the action has been played.
  """
  at = jnp.expand_dims(action, -1)
  p = jnp.take_along_axis(
    bandit.reward(jax.nn.one_hot(theta, bandit.arms)), at, axis=-1
  )
  q = jnp.take_along_axis(bandit.reward(belief_H), at, axis=-1)
  kl = p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q))
  return kl[..., 0]


def boundary(bandit: Bandit) -> float:
  """Returns h*: above this chance of reward no wrong belief sustains itself.

    (p - q) log(p / q) = (p + q) (2 h - 1) log(h / (1 - h)),   so
    p / q = h / (1 - h)

  with p, q the expert's chances of the best arm and of any other. A learner
  that is sure of a wrong arm plays it with p and the best one with q. Taken
  for the expert's, these actions speak for the wrong arm (left, nats a step);
  the rewards of both speak against it (right).
  """
  return bandit.expert_best / (bandit.expert_best + bandit.expert_other)
