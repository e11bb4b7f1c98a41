"""Two boxes, one with a prize: confounding that an action mask cannot remove.

theta, the box with the prize, is uniform. An expert who sees theta opens that
box with probability q. Then P(prize | a) = q, but P(prize | do(a)) = 1/2:
choosing a box does not move the prize. A model trained with every action masked
learns P(o | a) of the process that wrote the data: q from the expert's
demonstrations, 1/2 from actions chosen without sight of theta.

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
  """Returns P(a, o) [boxes, 2] of a demonstrator; o = 1 is the prize.

  Args:
    accuracy: probability of opening the prize's box; 1 / BOXES is blind.
  """
  # The demonstrator's mistakes are uniform over the other boxes.
  p_TA = np.full((BOXES, BOXES), (1 - accuracy) / (BOXES - 1))
  np.fill_diagonal(p_TA, accuracy)
  # The outcome is 1 if the opened box a is the prize's box T, with certainty.
  prize_TAO = np.stack([1 - np.eye(BOXES), np.eye(BOXES)], axis=-1)
  return (p_TA[..., None] * prize_TAO).mean(axis=0)


def conditional(accuracy: float) -> np.ndarray:
  """Returns P(prize | a) [boxes]: equal to the accuracy for every box."""
  joint_AO = joint(accuracy)
  return joint_AO[:, 1] / joint_AO.sum(axis=1)


def interventional() -> np.ndarray:
  """Returns P(prize | do(a)) [boxes]: that of a demonstrator blind to theta."""
  return conditional(1 / BOXES)


def learned(accuracy: float, steps: int = 300) -> np.ndarray:
  """Returns p(prize | a) [boxes] of a model trained with actions masked.

  The model is a table of logits. Its loss is the masked loss of the package, in
  expectation over the process that wrote the data: the targets are all pairs
  (a, o), weighted by P(a, o). Adam reaches the minimum to about 1e-6, in
  float32.

  Args:
    accuracy: of the demonstrator, see `joint`.
    steps: optimizer steps.
  """
  # Every pair (a, o) is a target. Its weight is its probability, so that the
  # loss is an expectation and needs no samples.
  joint_AO = jnp.asarray(joint(accuracy), jnp.float32)
  targets_AO = jnp.tile(jnp.arange(2)[None], (BOXES, 1))
  optimizer = optax.adam(optax.cosine_decay_schedule(0.3, steps))

  def loss(logits_AO: jax.Array) -> jax.Array:
    # The prediction depends on the action only.
    each_AOV = jnp.broadcast_to(logits_AO[:, None], (BOXES, 2, 2))
    nll_AO = losses.cross_entropy(each_AOV, targets_AO)
    # The same masked loss as in training.
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

  # Column 1 is the probability of the prize.
  return np.asarray(jax.nn.softmax(fit(jnp.zeros((BOXES, 2))))[:, 1])
