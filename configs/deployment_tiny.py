"""An agent that learns from its own deployment, with a tiny decoder.

PLACEHOLDER
"""

from typing import Any

from isft_jax.config import ModelConfig, OptimConfig, StageConfig
from isft_jax.experiments.config import ContinualConfig, DeploymentConfig


def get_config(text: str = '') -> DeploymentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  Args:
    text: 'only=PART', or '' for both parts.

  Raises:
    ValueError: the argument has another form.
  """
  name, _, only = text.partition('=')
  if text and name != 'only':
    raise ValueError(f'its argument must be only=PART (got {text!r})')

  def stage(learning_rate: float, steps: int, **changes: Any) -> StageConfig:
    optim = OptimConfig(learning_rate=learning_rate)
    return StageConfig(steps=steps, optim=optim, **changes)

  return DeploymentConfig(
    name='deployment_tiny',
    only=only,
    world='arithmetic',
    vocab_size=512,
    model=ModelConfig(
      vocab_size=512,
      width=64,
      layers=2,
      kv_heads=2,
      head_size=16,
      mlp_width=256,
    ),
    pretrain=StageConfig(
      batch_size=8,
      seq_len=128,
      steps=2000,
      log_every=500,
      checkpoint_every=1000,
      optim=OptimConfig(
        learning_rate=2e-3, schedule='cosine', warmup_steps=20, b2=0.99
      ),
    ),
    sft=StageConfig(
      batch_size=8,
      seq_len=128,
      steps=600,
      optim=OptimConfig(
        learning_rate=5e-4, schedule='cosine', warmup_steps=20, b2=0.99
      ),
    ),
    # Four records per row, so that a step of any arm has 32 records.
    finetune=stage(
      3e-4,
      100,
      batch_size=8,
      seq_len=168,
      documents_per_row=4,
      targets_per_row=144,
    ),
    # 16 problems per step, with 8 samples each.
    reinforce=stage(1e-4, 60, batch_size=16),
    continual=ContinualConfig(
      seeds=3,
      turns=120,
      tests=200,
      steps=12,
      arms=(
        'observational',
        'interventional_paper',
        'interventional',
        'oracle',
        'solutions',
        'joint',
      ),
    ),
    reply_tokens=10,
  )
