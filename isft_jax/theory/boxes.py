"""Two boxes, a prize in one: what a mask over actions cannot take away.

theta is uniform over the boxes. An expert who sees it opens the prize's box
with probability q. Then P(prize | a) = q, but P(prize | do(a)) = 1/2: choosing
a box does not move the prize. A model that is trained on what the world wrote,
every action masked, learns P(o | a) of the process that wrote the data: q from
the expert's demonstrations, 1/2 from actions that were chosen blindly.

Source: Ortega et al., arXiv 2110.10819, for the difference; the example is
ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from isft_jax import losses
from isft_jax.types import PyTree

BOXES = 2


def joint(accuracy: float) -> np.ndarray:
  """Returns P(a, o) [boxes, 2] of what an opener writes; o = 1 is the prize.

  accuracy: with which the opener finds the prize; 1 / BOXES is blind.
  """
  p_TA = np.full((BOXES, BOXES), (1 - accuracy) / (BOXES - 1))
  np.fill_diagonal(p_TA, accuracy)
  prize_TAO = np.stack([1 - np.eye(BOXES), np.eye(BOXES)], axis=-1)
  return (p_TA[..., None] * prize_TAO).mean(axis=0)


def conditional(accuracy: float) -> np.ndarray:
  """Returns P(prize | a) [boxes]: the accuracy, for every box."""
  joint_AO = joint(accuracy)
  return joint_AO[:, 1] / joint_AO.sum(axis=1)


def interventional() -> np.ndarray:
  """Returns P(prize | do(a)) [boxes], as if the opener had not seen theta."""
  return conditional(1 / BOXES)


def learned(accuracy: float, steps: int = 300) -> np.ndarray:
  """Returns p(prize | a) [boxes] of a model trained with actions masked.

  A table of logits and the masked loss itself, in expectation over the process
  that wrote the data: all pairs (a, o) as targets, weighted by P(a, o). Adam
  takes it to the minimum to about 1e-6, in float32.
  """
  joint_AO = jnp.asarray(joint(accuracy), jnp.float32)
  targets_AO = jnp.tile(jnp.arange(2)[None], (BOXES, 1))
  optimizer = optax.adam(optax.cosine_decay_schedule(0.3, steps))

  def loss(logits_AO: jax.Array) -> jax.Array:
    each_AOV = jnp.broadcast_to(logits_AO[:, None], (BOXES, 2, 2))
    nll_AO = losses.cross_entropy(each_AOV, targets_AO)
    return losses.normalize(*losses.weighted_sum(nll_AO, joint_AO))

  def step(
    state: tuple[PyTree, optax.OptState], _: None
  ) -> tuple[tuple[PyTree, optax.OptState], None]:
    logits_AO, moments = state
    updates, moments = optimizer.update(jax.grad(loss)(logits_AO), moments)
    return (optax.apply_updates(logits_AO, updates), moments), None

  @jax.jit
  def fit(logits_AO: jax.Array) -> jax.Array:
    state = logits_AO, optimizer.init(logits_AO)
    return jax.lax.scan(step, state, length=steps)[0][0]

  return np.asarray(jax.nn.softmax(fit(jnp.zeros((BOXES, 2))))[:, 1])
