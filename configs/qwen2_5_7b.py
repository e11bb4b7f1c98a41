"""Qwen2.5-7B-Instruct on your own agent trajectories.

Reproduces: no published run. It is full fine-tuning: parameters and Adam's
  moments in float32, computation in bfloat16, sharded over all devices. The
  learning rate and its schedule are conventional and were not tuned.
Hardware: 16 TPU v5e chips for the default batch, which takes 9.76 of 15.75 GiB
  of memory per chip. These figures are from isft-compile; we have not run it on
  TPUs.
Time: 1.2 s per step of the default batch, an estimate by isft-compile.
Expected: no figure, because it depends on your data. `heldout_nll_by_author` in
  metrics.jsonl should fall.
Arguments: batch_size, rows per step (default 16); seq_len, tokens per row
  (default 4096); context, devices that split the tokens of a row (default 1);
  fastest=1, the settings that isft-compile --search found for v5e:4x4.
Commands:

  isft-prepare --input=RUNS --tokenizer=Qwen/Qwen2.5-7B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/qwen2_5_7b.py:batch_size=16,seq_len=4096 \\
    --config.records=DIR [--config.model.init_from=PLACE]
"""

from isft_jax.config import RunConfig
from isft_jax.configs import _finetune

# (argument, slice) that isft-compile --all checks.
SLICES = (
  ('batch_size=16,seq_len=4096', 'v5e:4x4'),
  ('batch_size=1,seq_len=131072,context=32', 'v5e:4x8'),
  ('fastest=1', 'v5e:4x4'),
)
# What isft-compile --search found for v5e:4x4; see docs/tpu.md. Other numbers
# of devices may not divide its microbatches or its mesh.
FASTEST = {
  'model.remat': 'q,k,v,attention,o,gate,up',
  'optim.accumulate': 4,
  'mesh.fsdp': 4,
  'mesh.tensor': 4,
}


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return _finetune.run_config(
    text,
    name='qwen2_5_7b',
    model='qwen2.5-7b',
    init_from='Qwen/Qwen2.5-7B-Instruct',
    batch_size=16,
    seq_len=4096,
    learning_rate=5e-6,
    fsdp_at_most=16,
    fastest=FASTEST,
  )
