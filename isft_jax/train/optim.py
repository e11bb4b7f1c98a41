"""The optimizer: AdamW, a schedule, a clipped gradient."""

import jax
import jax.numpy as jnp
import optax

from isft_jax.config import OptimConfig


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
  """Returns the learning rate by step: a linear warm-up, then the schedule."""
  after = max(1, steps - config.warmup_steps)
  schedule = {
    'constant': optax.constant_schedule(config.learning_rate),
    'cosine': optax.cosine_decay_schedule(
      config.learning_rate, after, alpha=config.final_fraction
    ),
  }[config.schedule]
  if not config.warmup_steps:
    return schedule
  warmup = optax.linear_schedule(
    config.learning_rate / config.warmup_steps,
    config.learning_rate,
    config.warmup_steps - 1,
  )
  return optax.join_schedules([warmup, schedule], [config.warmup_steps])


def make_optimizer(
  config: OptimConfig, steps: int
) -> optax.GradientTransformation:
  """Returns AdamW as torch has it: decay on every parameter, after the clip.

  Moments have the type of their parameters: with parameters in bfloat16, all of
  the state is bfloat16. An update is computed in float32 at least, and rounded
  once, where it is stored.
  """
  clip = optax.clip_by_global_norm(config.clip_norm)
  return _computed_in_float32(
    optax.chain(
      clip if config.clip_norm else optax.identity(),
      optax.adamw(
        make_schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
      ),
    )
  )


def _computed_in_float32(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Returns an optimizer whose state keeps the types that it begins with.

  Without it, gradients in float32 would turn moments in bfloat16 into float32
  at the first step: twice the memory, and another program for the second.
  """

  def wide(tree):
    return jax.tree.map(
      lambda x: (
        x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if jnp.issubdtype(x.dtype, jnp.floating)
        else x
      ),
      tree,
    )

  def update(gradient, state, params):
    updates, new = optimizer.update(wide(gradient), wide(state), wide(params))
    return updates, jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

  return optax.GradientTransformation(optimizer.init, update)
