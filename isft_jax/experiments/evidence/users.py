"""Worlds: how users correct, how often wrongly, how often the agent lies.

In the paper's world the user is always right and always restates the truth.
Here every combination is tried; the margins of the told facts are measured.
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
  """What users say who disagree, how often they are wrong, and agents lie."""

  style: str
  p_user_wrong: float
  p_lie: float

  @property
  def name(self) -> str:
    return f'{self.style}-wrong{self.p_user_wrong:g}-lie{self.p_lie:g}'


def worlds(config: EvidenceConfig) -> list[World]:
  """Returns every combination of the config's values."""
  grid = config.worlds
  return [
    World(*values)
    for values in itertools.product(grid.styles, grid.p_user_wrong, grid.p_lie)
  ]


def run(
  config: EvidenceConfig, base: Base, folder: pathlib.Path, world: World
) -> dict[str, Any]:
  """Trains the arms in a world; returns arm -> margin and share of lies."""
  grid = config.worlds
  results: dict[str, Any] = {}
  made = generator.dialogues(
    grid.dialogues,
    world.p_lie,
    config.dialogues.p_chitchat,
    base.seed,
    base.told,
    world.style,
    world.p_user_wrong,
    config.dialogues.acknowledge,
  )
  found = base.write(folder, map(base.renderer.example, made))
  for arm in grid.arms:
    settings = bases.run_of(config, grid.stage, arm, arm, folder, base.seed)
    params, trained = bases.fit(settings, found, base.params)
    margin_N = base.told_margins(params)
    results[arm] = {
      'mean_margin': float(np.mean(margin_N)),
      'prefers_lie': float(np.mean(margin_N < 0)),
      'train': trained,
    }
  shutil.rmtree(folder)
  return results
