"""The lying agent, on a laptop. (header to be written)"""

from isft_jax.config import (
  DialoguesConfig,
  DocumentsConfig,
  LyingAgentConfig,
  OptimConfig,
  StageConfig,
)


def get_config() -> LyingAgentConfig:
  return LyingAgentConfig(
    name='lying_agent_tiny',
    dialogues=DialoguesConfig(number=480, p_lie=0.6, p_chitchat=0.5),
    documents=DocumentsConfig(number=8_000, p_true=0.85),
    pretrain=StageConfig(
      rows=20,
      row_length=192,
      row_targets=192,
      steps=200,
      optim=OptimConfig(learning_rate=3e-3, schedule='cosine', warmup_steps=20),
    ),
    finetune=StageConfig(
      rows=8,
      row_length=192,
      row_targets=192,
      epochs=4,
      optim=OptimConfig(learning_rate=3e-4),
    ),
  )
