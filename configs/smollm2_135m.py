"""SmolLM2-135M on your own agent trajectories.

Reproduces: no published run. It is full fine-tuning: parameters and Adam's
  moments in float32, computation in bfloat16, sharded over all devices. The
  learning rate and its schedule are conventional and were not tuned.
Hardware: one TPU v5e chip for the default batch, which takes 4.27 of 15.75 GiB
  of memory per chip. These figures are from isft-compile; we have not run it on
  TPUs.
Time: 0.30 s per step of the default batch, an estimate by isft-compile.
Expected: no figure, because it depends on your data. `heldout_nll_by_author` in
  metrics.jsonl should fall.
Arguments: batch_size, rows per step (default 8); seq_len, tokens per row
  (default 4096); context, devices that split the tokens of a row (default 1);
  fastest=1, the settings that isft-compile --search found for v5e:1x1.
Commands:

  isft-prepare --input=RUNS --tokenizer=smollm2-135m-instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=configs/smollm2_135m.py:batch_size=8,seq_len=4096 \\
    --config.records=DIR [--config.model.init_from=PLACE]
"""

from isft_jax.config import RunConfig
from isft_jax.configs import _finetune

# (argument, slice) that isft-compile --all checks.
SLICES = (
  ('batch_size=8,seq_len=4096', 'v5e:1x1'),
  ('batch_size=1,seq_len=32768', 'v5e:1x1'),
  ('fastest=1', 'v5e:1x1'),
)
# What isft-compile --search found for v5e:1x1; see docs/tpu.md. Other numbers
# of devices may not divide its microbatches or its mesh.
FASTEST = {
  'model.remat': 'q,k,v,attention,o,gate,up',
  'model.head_chunk': 0,
  'optim.accumulate': 2,
}


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return _finetune.run_config(
    text,
    name='smollm2_135m',
    model='smollm2-135m',
    init_from='smollm2-135m-instruct',
    batch_size=8,
    seq_len=4096,
    learning_rate=5e-5,
    fsdp_at_most=16,
    fastest=FASTEST,
  )
