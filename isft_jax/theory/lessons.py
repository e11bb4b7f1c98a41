"""Behaviours, losses and oracles of the teaching experiment on the bandit.

  behaviour  own             the learner plays, by its own prediction
             random          uniform, blind to theta
             expert          sees theta and plays it with probability 0.6
  loss       all             every token
             observations    outcomes; the actions are masked
             actions         actions as they were written; on the expert's
                             episodes this is factual teaching
             counterfactual  in each action slot, the action that the expert
                             would have played; the context has the action that
                             was played

The minimiser of each loss is known. That of the masked loss is P(o | a) of the
process that wrote the data. This is the interventional predictive only if the
masked actions were written without sight of theta. The minimiser of
factual teaching is the conditional predictive. The minimiser of counterfactual
teaching is the interventional predictive, for every behaviour that is blind to
theta and plays every arm.

The targets are distributions given theta, not samples from them: the minimisers
are the same and the gradient noise is smaller.

Source: Ortega et al., arXiv 2110.10819, sections on factual and counterfactual
teaching; the grid is ours.
"""

import jax
import jax.numpy as jnp

from isft_jax import losses
from isft_jax.models.decoder import GraphDef
from isft_jax.theory import bandit as bandit_lib
from isft_jax.theory.bandit import Bandit
from isft_jax.theory.learner import Episodes, Prediction, pay, play
from isft_jax.types import PyTree

# Who writes the actions: the model, chance, or the expert.
BEHAVIOURS = ('own', 'random', 'expert')
# Loss name -> (weight of actions, weight of outcomes, True if the action target
# is the expert's distribution).
Weight = jax.Array | float
Loss = tuple[Weight, Weight, Weight]
LOSSES: dict[str, Loss] = {
  'all': (1, 1, False),
  'observations': (0, 1, False),
  'actions': (1, 0, False),
  'counterfactual': (1, 0, True),
}


def written(
  graphdef: GraphDef,
  params: PyTree,
  bandit: Bandit,
  key: jax.Array,
  behaviour: str,
  rows: int,
  steps: int,
) -> Episodes:
  """Samples episodes with actions written by a behaviour.

  Args:
    graphdef, params: the model, which plays if the behaviour is 'own'.
    bandit: the process.
    key: random key.
    behaviour: one of `BEHAVIOURS`.
    rows: number of episodes.
    steps: steps per episode.
  """
  # The best arm of each episode is uniform.
  theta_key, key = jax.random.split(key)
  theta_B = jax.random.randint(theta_key, (rows,), 0, bandit.arms)
  if behaviour == 'own':
    return play(graphdef, params, bandit, key, theta_B, steps)
  # The other behaviours ignore the history: sample all steps at once.
  drawn_2BT = jax.random.uniform(key, (2, rows, steps))
  law_BA = _law(bandit, behaviour, theta_B)
  law_BTA = jnp.broadcast_to(law_BA[:, None], (rows, steps, bandit.arms))
  actions_BT = bandit_lib.pick(law_BTA, drawn_2BT[0])
  rewards_BT = pay(bandit, theta_B[:, None], actions_BT, drawn_2BT[1])
  return Episodes(theta_B, actions_BT, rewards_BT)


def objective(
  predicted: Prediction,
  bandit: Bandit,
  seen: Episodes,
  behaviour: str,
  loss: Loss,
) -> jax.Array:
  """Returns the cross-entropy to the distributions given theta.

  Args:
    predicted: the model's predictions in `seen`.
    bandit: the process.
    seen: the episodes.
    behaviour: one of `BEHAVIOURS`, which wrote the actions.
    loss: a value of `LOSSES`; its entries may be traced.

  Returns:
    The weighted mean over targets, in nats per target.
  """
  action_weight, reward_weight, taught = loss
  # Target of an action slot: the expert's distribution if taught, else that of
  # the behaviour. The learner's own one is a constant, or the gradient of its
  # entropy would be added.
  law_BA = _law(bandit, 'expert', seen.theta_B)
  expert_BTA = jnp.broadcast_to(law_BA[:, None], predicted.action_BTA.shape)
  if behaviour == 'own':
    own_BTA = jax.lax.stop_gradient(jnp.exp(predicted.action_BTA))
  else:
    law_BA = _law(bandit, behaviour, seen.theta_B)
    own_BTA = jnp.broadcast_to(law_BA[:, None], predicted.action_BTA.shape)
  action_BTA = jnp.where(taught, expert_BTA, own_BTA)
  # Cross-entropies of the T action slots, then of the T outcome slots.
  reward_BTO = reward_law(bandit, seen)
  nll_B2T = jnp.concatenate(
    [
      -jnp.sum(action_BTA * predicted.action_BTA, axis=-1),
      -jnp.sum(reward_BTO * predicted.reward_BTO, axis=-1),
    ],
    axis=1,
  )
  # The weights mask a kind of slot; weights may be traced, so that all losses
  # share a compiled program.
  weight_2 = jnp.stack([action_weight, reward_weight]).astype(float)
  T = seen.actions_BT.shape[1]
  weight_B2T = jnp.broadcast_to(jnp.repeat(weight_2, T)[None], nll_B2T.shape)
  return losses.normalize(*losses.weighted_sum(nll_B2T, weight_B2T))


def reward_law(bandit: Bandit, seen: Episodes) -> jax.Array:
  """Returns P(o | theta, a) for the actions that were played [B, T, O]."""
  # Whether the best arm was played.
  hit_BT = seen.actions_BT == seen.theta_B[:, None]
  pays_BT = bandit.reward(hit_BT.astype(float))
  return jnp.stack([1 - pays_BT, pays_BT], axis=-1)


def oracle(bandit: Bandit, seen: Episodes, conditional: bool) -> Prediction:
  """Returns the exact predictions of an ideal learner.

  Args:
    bandit: the process.
    seen: the episodes.
    conditional: True for the conditional accounting, False for the
      interventional one.

  Returns:
    Log probabilities in every slot.
  """
  # The beliefs before each step; the one after the last step predicts nothing.
  belief_BTH = bandit_lib.beliefs(
    bandit, seen.actions_BT, seen.rewards_BT, conditional
  )[:, :-1]
  action_BTA = bandit.action(belief_BTH)
  # The outcome is predicted after its action, which is evidence by then.
  if conditional:
    belief_BTH = belief_BTH * jnp.exp(bandit.log_action(seen.actions_BT))
    belief_BTH /= belief_BTH.sum(axis=-1, keepdims=True)
  # Probability of the outcome 1, for the arm that was played.
  pays_BT1 = jnp.take_along_axis(
    bandit.reward(belief_BTH), seen.actions_BT[..., None], axis=-1
  )
  reward_BTO = jnp.concatenate([1 - pays_BT1, pays_BT1], axis=-1)
  return Prediction(jnp.log(action_BTA), jnp.log(reward_BTO))


def kl(exact: Prediction, predicted: Prediction, loss: Loss) -> jax.Array:
  """Returns KL(exact || predicted) of each episode.

  Args:
    exact: predictions of an oracle.
    predicted: predictions of the model.
    loss: a value of `LOSSES`. Its weights select the KL of actions, of outcomes
      or the sum of both.

  Returns:
    Means over steps [B], in nats per step.
  """
  action_weight, reward_weight, _ = loss

  def mean_kl(p: jax.Array, q: jax.Array) -> jax.Array:
    # Summed over the symbols of a slot, averaged over the T slots.
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1).mean(axis=-1)

  action_kl_B = mean_kl(exact.action_BTA, predicted.action_BTA)
  reward_kl_B = mean_kl(exact.reward_BTO, predicted.reward_BTO)
  return action_weight * action_kl_B + reward_weight * reward_kl_B


def _law(bandit: Bandit, behaviour: str, theta_B: jax.Array) -> jax.Array:
  """Returns P(a | theta) [B, A] of a behaviour that ignores the history."""
  if behaviour == 'random':
    return jnp.full((*theta_B.shape, bandit.arms), 1 / bandit.arms)
  # The expert, who knows theta.
  return bandit.action(jax.nn.one_hot(theta_B, bandit.arms))
