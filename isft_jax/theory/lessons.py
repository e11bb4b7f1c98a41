"""What a loss teaches, by who wrote the actions it is trained on.

  behaviour  own             the learner plays, by its own prediction
             random          uniform, blind to theta
             expert          plays theta with 0.6: it sees theta
  loss       all             every token
             observations    outcomes; the actions are masked
             actions         actions as they were written; on the expert's
                             episodes this is factual teaching
             counterfactual  at each action slot, what the expert would have
                             played; the context holds what was played

The minimiser of each is known. A masked loss has P(o | a) of the process that
wrote the data: the interventional predictive only if the masked actions were
written without sight of theta. Factual teaching has the conditional one, and
counterfactual teaching the interventional one, for every behaviour that is
blind to theta and plays every arm.

Targets are laws given theta and not samples of them: the minimisers are the
same, the gradient's noise is smaller.

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

BEHAVIOURS = ('own', 'random', 'expert')
# loss -> (weight of actions, weight of outcomes, target is the expert's law)
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
  """Returns episodes whose actions the behaviour wrote."""
  theta_key, key = jax.random.split(key)
  theta_B = jax.random.randint(theta_key, (rows,), 0, bandit.arms)
  if behaviour == 'own':
    return play(graphdef, params, bandit, key, theta_B, steps)
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
  """Returns the loss: a cross-entropy to laws given theta, nats a target.

  loss: (weight of actions, weight of outcomes, target is the expert's law), as
  in `LOSSES`; may be traced.
  """
  action_weight, reward_weight, taught = loss
  law_BA = _law(bandit, 'expert', seen.theta_B)
  expert_BTA = jnp.broadcast_to(law_BA[:, None], predicted.action_BTA.shape)
  if behaviour == 'own':
    own_BTA = jax.lax.stop_gradient(jnp.exp(predicted.action_BTA))
  else:
    law_BA = _law(bandit, behaviour, seen.theta_B)
    own_BTA = jnp.broadcast_to(law_BA[:, None], predicted.action_BTA.shape)
  action_BTA = jnp.where(taught, expert_BTA, own_BTA)
  reward_BTO = reward_law(bandit, seen)
  nll_B2T = jnp.concatenate(
    [
      -jnp.sum(action_BTA * predicted.action_BTA, axis=-1),
      -jnp.sum(reward_BTO * predicted.reward_BTO, axis=-1),
    ],
    axis=1,
  )
  weight_2 = jnp.stack([action_weight, reward_weight]).astype(float)
  T = seen.actions_BT.shape[1]
  weight_B2T = jnp.broadcast_to(jnp.repeat(weight_2, T)[None], nll_B2T.shape)
  return losses.normalize(*losses.weighted_sum(nll_B2T, weight_B2T))


def reward_law(bandit: Bandit, seen: Episodes) -> jax.Array:
  """Returns P(o | theta, a) of the actions that were played, [B, T, O]."""
  hit_BT = seen.actions_BT == seen.theta_B[:, None]
  pays_BT = bandit.reward(hit_BT.astype(float))
  return jnp.stack([1 - pays_BT, pays_BT], axis=-1)


def oracle(bandit: Bandit, seen: Episodes, conditional: bool) -> Prediction:
  """Returns the exact predictions of one accounting, as log probabilities."""
  belief_BTH = bandit_lib.beliefs(
    bandit, seen.actions_BT, seen.rewards_BT, conditional
  )[:, :-1]
  action_BTA = bandit.action(belief_BTH)
  if conditional:  # the action that has been played is evidence by then
    belief_BTH = belief_BTH * jnp.exp(bandit.log_action(seen.actions_BT))
    belief_BTH /= belief_BTH.sum(axis=-1, keepdims=True)
  pays_BT1 = jnp.take_along_axis(
    bandit.reward(belief_BTH), seen.actions_BT[..., None], axis=-1
  )
  reward_BTO = jnp.concatenate([1 - pays_BT1, pays_BT1], axis=-1)
  return Prediction(jnp.log(action_BTA), jnp.log(reward_BTO))


def kl(exact: Prediction, predicted: Prediction, loss: Loss) -> jax.Array:
  """Returns KL(exact to predicted) of an episode's mean step, nats [B].

  Of what the loss trains: actions, outcomes, or both, whose KL add up.
  """
  action_weight, reward_weight, _ = loss

  def each(p: jax.Array, q: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1).mean(axis=-1)

  return action_weight * each(
    exact.action_BTA, predicted.action_BTA
  ) + reward_weight * each(exact.reward_BTO, predicted.reward_BTO)


def _law(bandit: Bandit, behaviour: str, theta_B: jax.Array) -> jax.Array:
  """The law of an action given theta, for who does not look at the history."""
  if behaviour == 'random':
    return jnp.full((*theta_B.shape, bandit.arms), 1 / bandit.arms)
  return bandit.action(jax.nn.one_hot(theta_B, bandit.arms))
