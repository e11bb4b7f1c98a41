"""Llama 3 70B on agent trajectories of your own.

Full fine-tuning: parameters and Adam's moments in float32, computation in
bfloat16, sharded over all devices. The rate and the schedule are conventional
and were not tuned. Hardware: what isft-compile says of it; see the README.
Arguments: batch, rows a step; length, tokens a row. Command:

  isft-prepare --input=RUNS --tokenizer=meta-llama/Meta-Llama-3-70B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/llama3_70b.py:batch=128,length=4096 \\
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
SLICES = (('batch=128,length=4096', 'v5p:4x4x8'),)


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  given = arguments(text, batch=128, length=4096)
  return RunConfig(
    name='llama3_70b',
    rows=given['batch'],
    row_length=given['length'],
    row_targets=0,  # from the records
    epochs=2,
    eval_every=100,
    model=ModelConfig(
      init_from='meta-llama/Meta-Llama-3-70B-Instruct',
      vocab_size=128_256,
      width=8_192,
      layers=80,
      heads=64,
      kv_heads=8,
      head_size=128,
      hidden=28_672,
      rope_theta=500_000.0,
      norm_eps=1e-5,
      tie_embeddings=False,
      qkv_bias=False,
      dtype='bfloat16',
      remat='full',
    ),
    # For v5p's three axes of chips: where fsdp takes all three, libtpu 0.0.42
    # gathers by sums of whole arrays, which send twice the bytes.
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=32),
    optim=OptimConfig(
      learning_rate=5e-6, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )
