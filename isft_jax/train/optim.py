"""The optimizer: AdamW, a schedule, a clipped gradient."""

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
  """Returns AdamW as torch has it: decay on every parameter, after the clip."""
  clip = optax.clip_by_global_norm(config.clip_norm)
  return optax.chain(
    clip if config.clip_norm else optax.identity(),
    optax.adamw(
      make_schedule(config, steps),
      b1=config.b1,
      b2=config.b2,
      eps=config.eps,
      weight_decay=config.weight_decay,
    ),
  )
