"""Adapters (LoRA) of a known model on your own agent trajectories.

Reproduces: no published run. The weights of the model are frozen, in bfloat16
  or int8, and adapters of all linear maps learn, in float32. The learning rate
  and its schedule are conventional and were not tuned.
Hardware: one TPU v5e chip (16 GB) for models of up to 7 B parameters, eight for
  8 B in bfloat16. docs/tpu.md has the memory of each, from isft-compile; we
  have not run it on TPUs.
Time: see docs/tpu.md for estimates by isft-compile.
Expected: no figure, because it depends on your data. `heldout_nll_by_author` in
  metrics.jsonl should fall.
Arguments: model, one of MODELS (default qwen2.5-0.5b); base, bfloat16 (default)
  or int8; rank (default 16); batch_size, rows per step (default 8); seq_len,
  tokens per row (default 2048).
Commands:

  isft-prepare --input=RUNS --tokenizer=Qwen/Qwen2.5-7B-Instruct \\
    --output=DIR --max_length=4096 --heldout=0.05
  isft-train --config=lora:model=qwen2.5-7b,base=int8,batch_size=1 \\
    --config.seq_len=4096 --config.records=DIR
"""

from isft_jax.config import LoraConfig, RunConfig
from isft_jax.configs import _finetune

# Name of a shape in isft_jax/models/presets.py -> id on the Hugging Face hub.
MODELS = {
  'qwen2.5-0.5b': 'Qwen/Qwen2.5-0.5B-Instruct',
  'qwen2.5-1.5b': 'Qwen/Qwen2.5-1.5B-Instruct',
  'qwen2.5-3b': 'Qwen/Qwen2.5-3B-Instruct',
  'qwen2.5-7b': 'Qwen/Qwen2.5-7B-Instruct',
  'qwen3-8b': 'Qwen/Qwen3-8B',
}
# (argument, slice) that isft-compile --all checks.
SLICES = (
  ('model=qwen2.5-0.5b,batch_size=8,seq_len=4096', 'v5e:1x1'),
  ('model=qwen2.5-1.5b,batch_size=2,seq_len=4096', 'v5e:1x1'),
  ('model=qwen2.5-3b,batch_size=1,seq_len=4096', 'v5e:1x1'),
  ('model=qwen2.5-7b,base=int8,batch_size=1,seq_len=4096', 'v5e:1x1'),
  ('model=qwen3-8b,batch_size=8,seq_len=4096', 'v5e:2x4'),
)


def get_config(text: str = '') -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  choices = {'model': tuple(MODELS), 'base': ('bfloat16', 'int8')}
  words, rest = _finetune.parse_words(text, **choices)
  numbers = _finetune.parse_numbers(rest, rank=16, batch_size=8, seq_len=2048)
  rank = numbers.pop('rank')
  config = _finetune.run_config(
    '',
    name='lora',
    model=words['model'],
    init_from=MODELS[words['model']],
    learning_rate=2e-4,
    fsdp_at_most=8,
    **numbers,
  )
  config.model.param_dtype = words['base']
  config.lora = LoraConfig(rank=rank)
  return config
