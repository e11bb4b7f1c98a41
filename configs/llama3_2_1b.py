"""Llama 3.2 1B on agent trajectories of your own.

Full fine-tuning: parameters and Adam's moments in float32, computation in
bfloat16, sharded over all devices. The rate and the schedule are conventional
and were not tuned. Hardware: what isft-compile says of it; see the README.
Arguments: batch, rows a step; length, tokens a row. Command:

  isft-prepare --input=RUNS --tokenizer=meta-llama/Llama-3.2-1B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/llama3_2_1b.py:batch=8,length=4096 \\
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
SLICES = (('batch=8,length=4096', 'v5e:2x4'),)


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  given = arguments(text, batch=8, length=4096)
  return RunConfig(
    name='llama3_2_1b',
    rows=given['batch'],
    row_length=given['length'],
    row_targets=0,  # from the records
    epochs=2,
    eval_every=100,
    model=ModelConfig(
      init_from='meta-llama/Llama-3.2-1B-Instruct',
      vocab_size=128_256,
      width=2_048,
      layers=16,
      heads=32,
      kv_heads=8,
      head_size=64,
      hidden=8_192,
      rope_theta=500_000.0,
      rope_scaling=(32.0, 1.0, 4.0, 8_192.0),
      norm_eps=1e-5,
      qkv_bias=False,
      dtype='bfloat16',
      remat='full',
    ),
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=16),
    optim=OptimConfig(
      learning_rate=1e-5, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )
