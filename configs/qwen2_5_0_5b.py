"""Qwen2.5-0.5B on agent trajectories of your own.

Full fine-tuning: parameters and Adam's moments in float32, computation in
bfloat16, sharded over all devices. The rate and the schedule are conventional
and were not tuned. Hardware: what isft-compile says of it; see the README.
Arguments: batch, rows a step; length, tokens a row. Command:

  isft-prepare --input=RUNS --tokenizer=Qwen/Qwen2.5-0.5B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/qwen2_5_0_5b.py:batch=8,length=4096 \\
    --config.records=DIR [--config.model.init_from=PLACE]
"""

from isft_jax.config import (
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
  arguments,
)

# (argument, slice) of which isft-compile --all tells whether it fits.
SLICES = (
  ('batch=8,length=2048', 'v5e:1x1'),
  ('batch=8,length=2048', 'v5e:2x2'),
  ('batch=8,length=4096', 'v5e:2x2'),
  ('batch=8,length=32768', 'v5e:2x4'),
)


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  given = arguments(text, batch=8, length=4096)
  return RunConfig(
    name='qwen2_5_0_5b',
    rows=given['batch'],
    row_length=given['length'],
    row_targets=0,  # from the records
    epochs=2,
    eval_every=100,
    model=ModelConfig(
      init_from='Qwen/Qwen2.5-0.5B-Instruct',
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
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=8),
    optim=OptimConfig(
      learning_rate=1e-5, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )
