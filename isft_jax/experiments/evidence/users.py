"""Worlds: combinations of correction style, users' error rate and lie rate.

In the paper's world the user is always right and always restates the truth.
This part trains the arms in every combination and measures the margins of the
told facts.
"""

import itertools
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np

from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.evidence import bases
from isft_jax.experiments.evidence.bases import Base
from isft_jax.worlds.lying_agent import generator


class World(NamedTuple):
  """Correction style, users' error rate and agent's lie rate."""

  style: str  # 'restate', 'content_free' or 'deny'
  p_user_wrong: float  # probability that the user takes the lie for the truth
  p_lie: float  # probability that the agent's claim is false

  @property
  def name(self) -> str:
    return f'{self.style}-wrong{self.p_user_wrong:g}-lie{self.p_lie:g}'


def worlds(config: EvidenceConfig) -> list[World]:
  """Returns all combinations of the values in config.worlds."""
  grid = config.worlds
  return [
    World(*values)
    for values in itertools.product(grid.styles, grid.p_user_wrong, grid.p_lie)
  ]


def run(
  config: EvidenceConfig, base: Base, folder: pathlib.Path, world: World
) -> dict[str, Any]:
  """Trains the arms in a world from the base of a seed.

  Args:
    config: settings of the evidence.
    base: the base model of the seed, which stays unchanged.
    folder: scratch folder for records, deleted at the end.
    world: the world.

  Returns:
    arm -> 'mean_margin' of told facts (nats per token), 'prefers_lie' as a
    share of them, and 'train'.
  """
  grid = config.worlds
  results: dict[str, Any] = {}
  # The dialogues of this world, shared by all arms.
  dialogues = generator.dialogues(
    grid.dialogues,
    world.p_lie,
    config.dialogues.p_chitchat,
    base.seed,
    base.told,
    world.style,
    world.p_user_wrong,
    config.dialogues.acknowledge,
  )
  records = base.write(folder, map(base.renderer.example, dialogues))
  # Each arm starts again from the base.
  for arm in grid.arms:
    settings = bases.make_run(config, grid.stage, arm, arm, folder, base.seed)
    params, trained = bases.fit(settings, records, base.params)
    margin_N = base.told_margins(params)
    results[arm] = {
      'mean_margin': float(np.mean(margin_N)),
      'prefers_lie': float(np.mean(margin_N < 0)),
      'train': trained,
    }
  shutil.rmtree(folder)
  return results
