"""Gemma-3-1B on your own agent trajectories.

Reproduces: no published run. It is full fine-tuning: parameters and Adam's
  moments in float32, computation in bfloat16, sharded over all devices. The
  learning rate and its schedule are conventional and were not tuned.
Hardware: 4 TPU v5e chips for the default batch, which takes 5.12 of 15.75 GiB
  of memory per chip. These figures are from isft-compile; we have not run it on
  TPUs.
Time: 0.31 s per step of the default batch, an estimate by isft-compile.
Expected: no figure, because it depends on your data. `heldout_nll_by_author` in
  metrics.jsonl should fall.
Arguments: batch_size, rows per step (default 8); seq_len, tokens per row
  (default 4096); context, devices that split the tokens of a row (default 1);
  fastest=1, the settings that isft-compile --search found for v5e:2x2.
Commands:

  isft-prepare --input=RUNS --tokenizer=google/gemma-3-1b-it \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/gemma3_1b.py:batch_size=8,seq_len=4096 \\
    --config.records=DIR [--config.model.init_from=PLACE]
"""

from isft_jax.config import RunConfig
from isft_jax.configs import _finetune

# (argument, slice) that isft-compile --all checks.
SLICES = (
  ('batch_size=8,seq_len=4096', 'v5e:2x2'),
  ('fastest=1', 'v5e:2x2'),
)
# What isft-compile --search found for v5e:2x2; see docs/tpu.md. Other numbers
# of devices may not divide its microbatches or its mesh.
FASTEST = {
  'model.remat': 'q,k,v,attention,o,gate,up,down',
  'model.head_chunk': 0,
  'optim.accumulate': 2,
}


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return _finetune.run_config(
    text,
    name='gemma3_1b',
    model='gemma-3-1b',
    init_from='google/gemma-3-1b-it',
    batch_size=8,
    seq_len=4096,
    learning_rate=1e-5,
    fsdp_at_most=16,
    fastest=FASTEST,
  )
