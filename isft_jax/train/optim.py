"""Optimizer: AdamW, a learning rate schedule, and gradient clipping."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from isft_jax.config import OptimConfig
from isft_jax.types import PyTree


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
  """Returns a learning rate schedule: linear warm-up, then constant or cosine.

  Args:
    config: settings of the optimizer.
    steps: steps of the run. A cosine ends at the last one.

  Returns:
    (steps done) -> learning rate.
  """
  # The cosine covers the steps after the warm-up.
  after = max(1, steps - config.warmup_steps)
  schedule = {
    'constant': optax.constant_schedule(config.learning_rate),
    'cosine': optax.cosine_decay_schedule(
      config.learning_rate, after, alpha=config.final_fraction
    ),
  }[config.schedule]
  if not config.warmup_steps:
    return schedule
  # Step 1 already learns, with 1 / warmup_steps of the full rate.
  warmup = optax.linear_schedule(
    config.learning_rate / config.warmup_steps,
    config.learning_rate,
    config.warmup_steps - 1,
  )
  return optax.join_schedules([warmup, schedule], [config.warmup_steps])


def make_optimizer(
  config: OptimConfig, steps: int, param_dtype: str = 'float32'
) -> optax.GradientTransformation:
  """Returns torch's AdamW, after clipping: every parameter decays.

  Moments have the data type of their parameters. If it has fewer than 32 bits,
  every operation is rounded like torch's; see `adamw_rounded_as_torch`.

  Args:
    config: settings of the optimizer.
    steps: steps of the run, for the schedule.
    param_dtype: data type of the stored parameters.

  Returns:
    The gradient transformation.
  """
  # float32 needs no rounding, so optax's AdamW is used there.
  is_narrow = jnp.finfo(param_dtype).bits < 32
  adamw = adamw_rounded_as_torch if is_narrow else optax.adamw
  # Clipping comes first: the moments only see clipped gradients.
  clip = optax.clip_by_global_norm(config.clip_norm)
  return optax.chain(
    clip if config.clip_norm else optax.identity(),
    adamw(
      make_schedule(config, steps),
      b1=config.b1,
      b2=config.b2,
      eps=config.eps,
      weight_decay=config.weight_decay,
    ),
  )


class Average(NamedTuple):
  """State of `average_params`: the moving average of the parameters."""

  params: PyTree


def average_params(decay: float) -> optax.GradientTransformation:
  """Returns a transformation that keeps an average, and changes no update.

    a <- decay a + (1 - decay) p

  The average begins at the parameters, and p are those before a step.

  Args:
    decay: weight of the past.
  """

  def init(params: PyTree) -> Average:
    return Average(jax.tree.map(jnp.copy, params))

  def update(
    updates: PyTree, state: PyTree, params: PyTree = None
  ) -> tuple[PyTree, Average]:
    def move(average: jax.Array, param: jax.Array) -> jax.Array:
      moved = decay * average + (1 - decay) * param
      return moved.astype(average.dtype)

    return updates, Average(jax.tree.map(move, state.params, params))

  return optax.GradientTransformation(init, update)


def adamw_rounded_as_torch(
  schedule: optax.Schedule,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
) -> optax.GradientTransformation:
  """Returns AdamW with every operation rounded to the parameters' data type.

    p <- p (1 - lr decay)
    m <- m + (1 - b1) (g - m)
    v <- v b2;  v <- v + (1 - b2) g^2
    p <- p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)

  In bfloat16 the rounding matters: v b2 rounds back to v, because 0.999 is
  nearer to 1 than to the next number below 1. A step smaller than half the
  distance to the next number leaves a parameter unchanged.

  Args:
    schedule: (steps done) -> learning rate lr.
    b1: decay of the first moment m.
    b2: decay of the second moment v.
    eps: added to the root of the second moment.
    weight_decay: decoupled decay, multiplied by the learning rate.

  Returns:
    The gradient transformation.

  Source: torch.optim.AdamW, the loop over tensors.
  """

  def init(params: PyTree) -> optax.ScaleByAdamState:
    # Moments have the data type of the parameters, as in torch.
    zeros = jax.tree.map(jnp.zeros_like, params)
    return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

  def update(
    updates: PyTree, state: PyTree, params: PyTree = None
  ) -> tuple[PyTree, optax.ScaleByAdamState]:
    # The corrections for the zero start of the moments stay in float32.
    count = state.count + 1
    rate = schedule(state.count)
    correction_1, correction_2 = (1 - jnp.float32(b) ** count for b in (b1, b2))

    def update_leaf(
      g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
      bits = jnp.finfo(p.dtype)

      # Two conversions of type would be simplified away by the compiler;
      # reduce_precision never is.
      def rounded(x: jax.Array) -> jax.Array:
        return jax.lax.reduce_precision(x, bits.nexp, bits.nmant)

      # Compute in float32, and round wherever torch stores a tensor.
      g, m, v, old = (x.astype(jnp.float32) for x in (g, m, v, p))
      g = rounded(g)
      # Decoupled weight decay: it shrinks the parameter and not the gradient.
      new = rounded(old * (1 - rate * weight_decay))
      m = rounded(m + (1 - b1) * (g - m))
      v = rounded(rounded(v * b2) + (1 - b2) * g * g)
      root = rounded(rounded(jnp.sqrt(v)) / jnp.sqrt(correction_2))
      new = rounded(new - rate / correction_1 * (m / rounded(root + eps)))
      return new - old, m.astype(p.dtype), v.astype(p.dtype)

    # From a tree of triples to a triple of trees.
    triples = jax.tree.map(update_leaf, updates, state.mu, state.nu, params)
    updates, mu, nu = jax.tree.transpose(
      jax.tree.structure(params), jax.tree.structure((0, 0, 0)), triples
    )
    return updates, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(init, update)
