"""Llama 3 70B Instruct on your own agent trajectories.

Reproduces: no published run. It is full fine-tuning: parameters and Adam's
  moments in float32, computation in bfloat16, sharded over all devices. The
  learning rate and its schedule are conventional and were not tuned.
Hardware: 128 TPU v5p chips for the default batch, which takes 44.63 of 95.74
  GiB of memory per chip. These figures are from isft-compile; we have not run
  it on TPUs.
Time: 4.9 s per step of the default batch, an estimate by isft-compile.
Expected: no figure, because it depends on your data. `heldout_nll_by_author` in
  metrics.jsonl should fall.
Arguments: batch_size, rows per step (default 128); seq_len, tokens per row
  (default 4096); context, devices that split the tokens of a row (default 1).
Commands:

  isft-prepare --input=RUNS --tokenizer=meta-llama/Meta-Llama-3-70B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/llama3_70b.py:batch_size=128,seq_len=4096 \\
    --config.records=DIR [--config.model.init_from=PLACE]
"""

from isft_jax.config import RunConfig
from isft_jax.configs import _finetune

# (argument, slice) that isft-compile --all checks.
SLICES = (('batch_size=128,seq_len=4096', 'v5p:4x4x8'),)


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return _finetune.run_config(
    text,
    name='llama3_70b',
    model='llama-3-70b',
    init_from='meta-llama/Meta-Llama-3-70B-Instruct',
    batch_size=128,
    seq_len=4096,
    learning_rate=5e-6,
    # For v5p's three axes of chips: if fsdp takes all three, libtpu 0.0.42
    # gathers by sums of whole arrays, which send twice the bytes.
    fsdp_at_most=32,
  )
