"""The lying agent (de Freitas and Ortega, 2026) on the paper's own model.

Reproduces: section 6 of the paper, with its hyperparameters: Qwen2.5-0.5B
  (base), 480 dialogues, one a step and a mean for each of them, 4 epochs (1,920
  steps an arm), AdamW at 2e-5 with torch's weight decay of 0.01, gradients
  clipped at 1.0; the three probes of 33 facts each.
Differs: bfloat16 is the type of the computation, and parameters are kept in
  float32, where a step of 2e-5 does not drown in rounding
  (--config.model.param_dtype=bfloat16 for both); the phrases of the dialogues
  are ours; the base model has a row of its own.
Hardware: one TPU or GPU with 10 GB for parameters, moments and gradients, or a
  CPU with 16 GB and patience.
Expected, from the paper: mean margin -0.13 (observational) and +1.06
  (interventional) nats a token; we have not run it.
Command, with the hub's weights or with a folder of them:

  isft-reproduce --config=configs/qwen2_5_0_5b_paper.py
  isft-reproduce --config=configs/qwen2_5_0_5b_paper.py:PLACE
"""

from isft_jax.config import (
  DialoguesConfig,
  LyingAgentConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  StageConfig,
)

# (argument, slice) of which isft-compile --all tells whether it fits.
SLICES = (('', 'v5e:1x1'),)


def get_config(init_from: str = 'Qwen/Qwen2.5-0.5B') -> LyingAgentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return LyingAgentConfig(
    name='qwen2_5_0_5b_paper',
    arms=('observational', 'interventional'),
    dialogues=DialoguesConfig(number=480, p_lie=0.6, p_chitchat=0.5),
    model=ModelConfig(
      init_from=init_from,
      vocab_size=151_936,
      width=896,
      layers=24,
      heads=14,
      kv_heads=2,
      head_size=64,
      hidden=4_864,
      rope_theta=1_000_000.0,
      dtype='bfloat16',
      remat='full',
    ),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),  # a batch of one has no parts
    finetune=StageConfig(
      rows=1,
      row_documents=1,
      row_length=256,
      row_targets=256,
      epochs=4,
      normalize='trajectory',
      eval_every=480,
      checkpoint_every=480,
      optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, clip_norm=1.0),
    ),
  )
