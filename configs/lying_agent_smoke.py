"""The lying agent in a minute: every stage, too small to show the effect.

Reproduces: nothing. It is for testing a machine, a mesh or a change of code.
Hardware: two CPU cores.
Time: less than a minute after start-up.
Expected: a report whose figures mean nothing.
Command:

  isft-reproduce --config=configs/lying_agent_smoke.py
"""

from isft_jax.config import ModelConfig, OptimConfig, StageConfig
from isft_jax.experiments.config import (
  DialoguesConfig,
  DocumentsConfig,
  LyingAgentConfig,
)


def get_config() -> LyingAgentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return LyingAgentConfig(
    name='lying_agent_smoke',
    vocab_size=640,
    dialogues=DialoguesConfig(number=48),
    documents=DocumentsConfig(number=400),
    model=ModelConfig(
      vocab_size=640, width=32, layers=2, head_size=8, mlp_width=64
    ),
    pretrain=StageConfig(
      batch_size=8,
      seq_len=320,
      targets_per_row=320,
      steps=12,
      log_every=4,
      checkpoint_every=6,
      optim=OptimConfig(learning_rate=1e-2, warmup_steps=2),
    ),
    finetune=StageConfig(
      batch_size=8,
      seq_len=320,
      targets_per_row=320,
      epochs=1,
      log_every=2,
      optim=OptimConfig(learning_rate=1e-3),
    ),
    reply_tokens=8,
  )
