"""A real language model learns from its own deployment, with adapters.

Reproduces: the arms of de Freitas, "CIC: Continual, Interactive, Causal Agents"
  (2026), on another model and other problems: SmolLM2-135M-Instruct (from a
  package on PyPI) with LoRA of rank 16 answers questions about real facts
  by sampling. A harness says whether it is right, and shows the solution if it
  is not. Facts do not follow from each other, so the arms are asked about the
  facts of the deployment again, in other words.
Hardware: a CPU with 10 GB of memory, or an accelerator.
Time: 50 minutes per seed on one CPU core that did other work as well.
Expected: means over seeds 0 to 2. On a first try the first policy is right in
  58.7 %, oracle in 86.9 %, interventional_paper in 82.1 %, interventional in
  73.0 % and observational in 65.5 %. After a wrong answer of the first policy
  and a verdict, the first three are right in 4.9, 40.3 and 53.7 %.
Command:

  isft-reproduce --config=deployment_smollm2
"""

from typing import Any

from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  OptimConfig,
  StageConfig,
)
from isft_jax.experiments.config import ContinualConfig, DeploymentConfig
from isft_jax.models.presets import model_config


def get_config() -> DeploymentConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""

  def stage(steps: int, **changes: Any) -> StageConfig:
    settings = {
      'batch_size': 4,
      'seq_len': 168,
      'documents_per_row': 2,
      'targets_per_row': 168,
      'optim': OptimConfig(learning_rate=2e-4),
    }
    return StageConfig(steps=steps, **{**settings, **changes})

  return DeploymentConfig(
    name='deployment_smollm2',
    only='arms',
    seeds=3,
    world='facts',
    # All facts of each split.
    turns=84,
    tests=84,
    evaluate_on='agent',
    arms=(
      'sft',
      'oracle',
      'observational',
      'interventional_paper',
      'interventional',
      'weighted_first(0.3)',
      'rest',
      'reinforce',
    ),
    model=model_config(
      'smollm2-135m',
      init_from='smollm2-135m-instruct',
      head_chunk=0,  # the logits of a row are small
    ),
    lora=LoraConfig(rank=16),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),
    sft=stage(20),
    finetune=stage(20),
    reinforce=stage(20),
    continual=ContinualConfig(turns=84, tests=40, steps=20),
    reply_tokens=24,
  )
