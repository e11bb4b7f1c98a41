"""An agent that learns from its own deployment, with a tiny decoder.

Reproduces: the arms of de Freitas, "CIC: Continual, Interactive, Causal Agents"
  (2026), on a tiny model and integer arithmetic, with the controls that the
  paper leaves open: first and second tries of all arms, wrong corrections,
  verdicts without corrections, equal numbers of scored tokens, five seeds, and
  increments of one skill each.
Hardware: two CPU cores and 4 GB of memory. Nothing is downloaded.
Time: 32 minutes of processor time, and about 3 more for each of the five bases.
Expected: means over seeds 0 to 4, with 500 test problems each. On a first try
  the first policy is right in 36.9 %, oracle in 38.7 %, interventional_paper in
  28.2 %. After a wrong answer of the first policy and a verdict, they are right
  in 7.8, 11.2 and 13.8 %. See docs/evidence.md.
The settings were chosen on seed 0, on problems outside of the deployment and
the test; see tests/golden/deployment_tiny/README.md.
Commands, for one part or for both:

  isft-reproduce --config=configs/deployment_tiny.py:only=arms
  isft-reproduce --config=configs/deployment_tiny.py
"""

from typing import Any

from isft_jax.config import ModelConfig, OptimConfig, StageConfig
from isft_jax.experiments.config import ContinualConfig, DeploymentConfig


def get_config(text: str = '') -> DeploymentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  Args:
    text: 'only=PART', or '' for both parts.

  Raises:
    ValueError: the argument has another form.
  """
  name, _, only = text.partition('=')
  if text and name != 'only':
    raise ValueError(f'its argument must be only=PART (got {text!r})')

  def stage(learning_rate: float, steps: int, **changes: Any) -> StageConfig:
    optim = OptimConfig(learning_rate=learning_rate)
    return StageConfig(steps=steps, optim=optim, **changes)

  return DeploymentConfig(
    name='deployment_tiny',
    only=only,
    world='arithmetic',
    vocab_size=512,
    model=ModelConfig(
      vocab_size=512,
      width=64,
      layers=2,
      kv_heads=2,
      head_size=16,
      mlp_width=256,
    ),
    pretrain=StageConfig(
      batch_size=8,
      seq_len=128,
      steps=2000,
      log_every=500,
      checkpoint_every=1000,
      optim=OptimConfig(
        learning_rate=2e-3, schedule='cosine', warmup_steps=20, b2=0.99
      ),
    ),
    sft=StageConfig(
      batch_size=8,
      seq_len=128,
      steps=600,
      optim=OptimConfig(
        learning_rate=5e-4, schedule='cosine', warmup_steps=20, b2=0.99
      ),
    ),
    # Four records per row, so that a step of any arm has 32 records.
    finetune=stage(
      3e-4,
      100,
      batch_size=8,
      seq_len=168,
      documents_per_row=4,
      targets_per_row=144,
    ),
    # 16 problems per step, with 8 samples each.
    reinforce=stage(1e-4, 60, batch_size=16),
    continual=ContinualConfig(
      seeds=3,
      turns=120,
      tests=200,
      steps=12,
      arms=(
        'observational',
        'interventional_paper',
        'interventional',
        'oracle',
        'solutions',
        'joint',
      ),
    ),
    reply_tokens=10,
  )
