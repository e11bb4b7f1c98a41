"""One training run of the tiny decoder, on records that already exist.

Reproduces: nothing. It is for trying your own records.
Hardware: anything.
Time: minutes on two CPU cores. If interrupted, run it again to resume.
Expected: no figure, because it depends on your data.
Commands, for records of isft-prepare:

  isft-train --config=configs/train_tiny.py --config.records=DIR

and for those of an experiment:

  isft-train --config=configs/train_tiny.py --config.model.vocab_size=1024 \\
    --config.records=runs/lying_agent_tiny-seed0/records/dialogues \\
    --config.tokenizer=runs/lying_agent_tiny-seed0/tokenizer \\
    --config.model.init_from=runs/lying_agent_tiny-seed0/base
"""

from isft_jax.config import ModelConfig, OptimConfig, RunConfig


def get_config() -> RunConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return RunConfig(
    name='train_tiny',
    model=ModelConfig(vocab_size=0, mlp_width=384, remat='full'),
    optim=OptimConfig(learning_rate=1e-3),
  )
