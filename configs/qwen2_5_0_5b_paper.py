"""The lying agent (de Freitas and Ortega, 2026) on the paper's own model.

Reproduces: section 6 of the paper, with its hyperparameters: Qwen2.5-0.5B
  (base), 480 dialogues, one per step with a mean over each, 4 epochs (1,920
  steps per arm), AdamW at 2e-5 with torch's weight decay of 0.01, gradients
  clipped at 1.0, and the three probes of 33 facts each.
Differs: only the computation is in bfloat16. Parameters are in float32, because
  an update of 2e-5 would be lost in rounding
  (--config.model.param_dtype=bfloat16 is the paper's). The phrases of the
  dialogues are ours. The base model has a row of its own.
Hardware: one TPU or GPU with 10 GB for parameters, moments and gradients, or a
  CPU with 16 GB and patience.
Time: at least 0.022 s per step on a TPU v5e, an estimate by isft-compile.
Expected: the paper's mean margins, -0.13 (observational) and +1.06
  (interventional) nats per token. We have not run it.
Commands, for the hub's weights or for those in a folder:

  isft-reproduce --config=configs/qwen2_5_0_5b_paper.py
  isft-reproduce --config=configs/qwen2_5_0_5b_paper.py:PLACE
"""

from isft_jax.config import MeshConfig, OptimConfig, StageConfig
from isft_jax.experiments.config import DialoguesConfig, LyingAgentConfig
from isft_jax.models.presets import model_config

# (argument, slice) that isft-compile --all checks.
SLICES = (('', 'v5e:1x1'),)


def get_config(init_from: str = 'Qwen/Qwen2.5-0.5B') -> LyingAgentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return LyingAgentConfig(
    name='qwen2_5_0_5b_paper',
    arms=('observational', 'interventional'),
    dialogues=DialoguesConfig(number=480, p_lie=0.6, p_chitchat=0.5),
    model=model_config(
      'qwen2.5-0.5b', init_from=init_from, dtype='bfloat16', remat='full'
    ),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),  # a batch of one row
    finetune=StageConfig(
      batch_size=1,
      documents_per_row=1,
      seq_len=256,
      targets_per_row=256,
      epochs=4,
      normalize='trajectory',
      eval_every=480,
      checkpoint_every=480,
      optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, clip_norm=1.0),
    ),
  )
