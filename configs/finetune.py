"""Fine-tunes a model of yours on your records, on whatever this machine has.

Reproduces: no published run.
Hardware: two CPU cores and 8 GB for a model of 135 M parameters; one GPU or TPU
  for a few billion. The other configs here are for named models and slices.
Time: on two cores that did other work as well, 6 minutes for the 24 short runs
  of docs/shop_runs.jsonl with SmolLM2-135M-Instruct.
Expected: on those runs the loss falls from 2.3 to 0.15, and the model answers
  "Where is my order 2222?" with LOOKUP 2222.
Commands:

  isft-prepare --input=docs/shop_runs.jsonl --authors=docs/shop_authors.json \\
    --tokenizer=smollm2-135m-instruct --output=records
  isft-train --config=finetune --config.records=records \\
    --config.seq_len=256 --config.model.init_from=smollm2-135m-instruct
"""

from isft_jax.config import LoraConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.configs import _finetune


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  Args:
    text: 'lora=RANK' to train adapters, or ''.

  Raises:
    ValueError: the text has another form.
  """
  rank = _finetune.parse_rank(text)
  return RunConfig(
    name='finetune',
    batch_size=1,
    seq_len=512,  # longer runs need longer rows
    epochs=3,
    log_every=5,
    checkpoint_every=100,
    model=ModelConfig(vocab_size=0, remat='full'),
    lora=LoraConfig(rank=rank),
    optim=OptimConfig(
      # Adapters begin as nothing, and need larger steps than trained weights.
      learning_rate=5e-4 if rank else 5e-5,
      schedule='cosine',
      final_fraction=0.1,
      warmup_steps=5,
      weight_decay=0.01,
      clip_norm=1.0,
    ),
  )
