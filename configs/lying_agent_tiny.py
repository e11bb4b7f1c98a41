"""The lying agent (de Freitas and Ortega, 2026) with a tiny decoder.

Reproduces: the paper's order of objectives, with a decoder of 0.7 M parameters
  that the run pre-trains itself.
Hardware: two CPU cores and 4 GB of memory. Nothing is downloaded.
Time: 4 to 6 minutes.
Expected: the table in tests/golden/lying_agent_tiny. The interventional arm
  tells the truth on nearly every fact; the observational arm learns to prefer
  about half of the lies.
The settings were chosen on seeds 100 to 102, the phrases on seed 100.
Command:

  isft-reproduce --config=configs/lying_agent_tiny.py
"""

from isft_jax.config import ModelConfig, OptimConfig, StageConfig
from isft_jax.experiments.config import (
  DialoguesConfig,
  DocumentsConfig,
  LyingAgentConfig,
)

# (argument, slice) that isft-compile --all checks.
SLICES = (('', 'v5e:1x1'),)


def get_config() -> LyingAgentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return LyingAgentConfig(
    name='lying_agent_tiny',
    # remat: on a CPU, recomputing activations is faster than keeping them.
    model=ModelConfig(mlp_width=384, remat='full'),
    dialogues=DialoguesConfig(number=480, p_lie=0.6, p_chitchat=0.5),
    documents=DocumentsConfig(number=8_000, p_true=0.85),
    pretrain=StageConfig(
      batch_size=16,
      seq_len=192,
      targets_per_row=192,
      steps=180,
      checkpoint_every=90,
      optim=OptimConfig(learning_rate=5e-3, schedule='cosine', warmup_steps=20),
    ),
    finetune=StageConfig(
      batch_size=8,
      seq_len=192,
      targets_per_row=192,
      epochs=4,
      checkpoint_every=80,
      # With a constant learning rate, a few replies would depend on the noise
      # of the last steps.
      optim=OptimConfig(
        learning_rate=8e-4, schedule='cosine', final_fraction=0.1
      ),
    ),
  )
