"""Qwen2.5-32B on agent trajectories of your own.

Full fine-tuning: parameters and Adam's moments in float32, computation in
bfloat16, sharded over all devices. The rate and the schedule are conventional
and were not tuned. Hardware: what isft-compile says of it; see the README.
Arguments: batch, rows a step; length, tokens a row. Command:

  isft-prepare --input=RUNS --tokenizer=Qwen/Qwen2.5-32B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/qwen2_5_32b.py:batch=64,length=4096 \\
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
SLICES = (('batch=64,length=4096', 'v5p:4x4x4'),)


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  given = arguments(text, batch=64, length=4096)
  return RunConfig(
    name='qwen2_5_32b',
    rows=given['batch'],
    row_length=given['length'],
    row_targets=0,  # from the records
    epochs=2,
    eval_every=100,
    model=ModelConfig(
      init_from='Qwen/Qwen2.5-32B-Instruct',
      vocab_size=152_064,
      width=5_120,
      layers=64,
      heads=40,
      kv_heads=8,
      head_size=128,
      hidden=27_648,
      rope_theta=1_000_000.0,
      tie_embeddings=False,
      dtype='bfloat16',
      remat='full',
    ),
    # For v5p's three axes of chips: where fsdp takes all three, libtpu 0.0.42
    # gathers by sums of whole arrays, which send twice the bytes.
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=16),
    optim=OptimConfig(
      learning_rate=5e-6, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )
