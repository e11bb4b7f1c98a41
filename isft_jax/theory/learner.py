"""A small instance of the package's decoder that models bandit episodes.

An episode is a row of tokens. Each column predicts the next token:

  column     0    1    2    3    4   ...
  input    start a_1  o_1  a_2  o_2
  predicts  a_1  o_1  a_2  o_2  a_3

Letters: B episodes, T steps, L = 2 T tokens, A arms, O outcomes, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.models.decoder import Cache, GraphDef
from isft_jax.theory.bandit import Bandit, pick
from isft_jax.types import PyTree

# Outcomes of a step: no reward, or a reward of 1.
OUTCOMES = 2
# Token ids: the start token, then the arms, then the outcomes.
_START, _FIRST_ARM = 0, 1


class Episodes(NamedTuple):
  """The best arms theta [B], and the actions and rewards [B, T]; int32."""

  theta_B: jax.Array
  actions_BT: jax.Array
  rewards_BT: jax.Array


class Prediction(NamedTuple):
  """Log probabilities, normalised over the tokens that a slot allows.

  Args:
    action_BTA: of the action, given everything before it.
    reward_BTO: of the outcome, given everything before it and the action.
  """

  action_BTA: jax.Array
  reward_BTO: jax.Array


def model_config(bandit: Bandit, width: int, layers: int) -> ModelConfig:
  """Returns the decoder's config, with heads of 16 dimensions.

  Args:
    bandit: the process; the vocabulary has one token per arm and per outcome.
    width: width of the decoder, a multiple of 16.
    layers: number of layers.
  """
  # At this size the heads do not share keys and values.
  heads = width // 16
  return ModelConfig(
    vocab_size=_FIRST_ARM + bandit.arms + OUTCOMES,
    width=width,
    layers=layers,
    heads=heads,
    kv_heads=heads,
    head_size=16,
    mlp_width=2 * width,
  )


def predict(
  graphdef: GraphDef,
  params: PyTree,
  bandit: Bandit,
  seen: Episodes,
) -> Prediction:
  """Returns the model's predictions in every slot of complete episodes.

  Args:
    graphdef, params: the model.
    bandit: the process.
    seen: the episodes.
  """
  model = nnx.merge(graphdef, params)
  # Ids of arms follow the start token; ids of outcomes follow those of the
  # arms.
  actions_BT = _FIRST_ARM + seen.actions_BT
  rewards_BT = _FIRST_ARM + bandit.arms + seen.rewards_BT
  B, T = actions_BT.shape
  # Actions and rewards alternate in a row.
  pairs_BL = jnp.stack([actions_BT, rewards_BT], axis=2).reshape(B, 2 * T)
  # Shift right: the last outcome predicts nothing.
  tokens_BL = jnp.pad(
    pairs_BL[:, :-1], ((0, 0), (1, 0)), constant_values=_START
  )
  positions_BL = jnp.broadcast_to(jnp.arange(2 * T)[None], (B, 2 * T))
  # A row is one document: its segment is 1 everywhere.
  hidden_BLD = model(tokens_BL, positions_BL, jnp.ones_like(tokens_BL))
  logits_BLV = model.logits(hidden_BLD)
  # Even columns predict actions, odd columns outcomes.
  return Prediction(
    _action_log_probs(bandit, logits_BLV[:, ::2]),
    _reward_log_probs(bandit, logits_BLV[:, 1::2]),
  )


def play(
  graphdef: GraphDef,
  params: PyTree,
  bandit: Bandit,
  key: jax.Array,
  theta_B: jax.Array,
  steps: int,
) -> Episodes:
  """Samples episodes in which the model plays by its own predictions.

  Args:
    graphdef, params: the model.
    bandit: the process.
    key: random key.
    theta_B: best arm of each episode.
    steps: steps per episode.
  """
  model = nnx.merge(graphdef, params)
  (B,) = theta_B.shape

  def step(
    carry: tuple[jax.Array, Cache], key: jax.Array
  ) -> tuple[tuple[jax.Array, Cache], tuple[jax.Array, jax.Array]]:
    # Predict the action from the last outcome and sample it.
    token_B, cache = carry
    drawn_2B = jax.random.uniform(key, (2, B))
    # One new token per episode.
    hidden_B1D, cache = model.extend(token_B[:, None], cache)
    logits_BV = model.logits(hidden_B1D[:, 0])
    p_BA = jnp.exp(_action_log_probs(bandit, logits_BV))
    action_B = pick(p_BA, drawn_2B[0])
    reward_B = pay(bandit, theta_B, action_B, drawn_2B[1])
    # The action's own prediction, of the outcome, is not used.
    _, cache = model.extend(_FIRST_ARM + action_B[:, None], cache)
    token_B = _FIRST_ARM + bandit.arms + reward_B
    return (token_B, cache), (action_B, reward_B)

  # Two tokens per step: the last outcome (or the start token) and the action.
  cache = model.empty_cache(jnp.zeros(B, jnp.int32), 2 * steps)
  first_B = jnp.full(B, _START, jnp.int32)
  _, (actions_TB, rewards_TB) = jax.lax.scan(
    step, (first_B, cache), jax.random.split(key, steps)
  )
  return Episodes(theta_B, actions_TB.T, rewards_TB.T)


def pay(
  bandit: Bandit,
  theta_B: jax.Array,
  action_B: jax.Array,
  uniform_B: jax.Array,
) -> jax.Array:
  """Samples int32 outcomes, one per uniform number in [0, 1)."""
  pays_B = bandit.reward((action_B == theta_B).astype(float))
  return (uniform_B < pays_B).astype(jnp.int32)


def _action_log_probs(bandit: Bandit, logits: jax.Array) -> jax.Array:
  # Normalise over the arms only: no other token can be in an action slot.
  allowed = logits[..., _FIRST_ARM : _FIRST_ARM + bandit.arms]
  return jax.nn.log_softmax(allowed)


def _reward_log_probs(bandit: Bandit, logits: jax.Array) -> jax.Array:
  return jax.nn.log_softmax(logits[..., _FIRST_ARM + bandit.arms :])
