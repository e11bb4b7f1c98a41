"""The evidence: four parts, each a grid of small runs that resumes run by run.

    bases/seed-N --+--> flywheel/seed-N/ARM.json   its own answers, in rounds
                   +--> arms/seed-N/ARM.json       arms, costs, held-out facts
                   '--> worlds/seed-N/WORLD.json   corrections x errors x lies

Every file is written whole or not at all. results.json is put together from
them, and the page from results.json alone.

Source: what de Freitas and Ortega (2026) leave open: several seeds, facts that
no dialogue mentions, the model's own mistakes, users who are wrong.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from isft_jax import config as config_lib
from isft_jax import files
from isft_jax.experiments import environment
from isft_jax.experiments.config import PARTS, EvidenceConfig
from isft_jax.experiments.evidence import arms as evidence_arms
from isft_jax.experiments.evidence import bases, flywheel, users
from isft_jax.experiments.evidence import results as evidence_results
from isft_jax.report.evidence import page as report
from isft_jax.train import start


class Unit(NamedTuple):
  """A run that is done as a whole: of a seed, with a name in its room.

  argument: what the room's `run` is given.
  """

  room: str
  seed: int
  name: str
  argument: object

  @property
  def place(self) -> str:
    return f'{self.room}/seed-{self.seed}/{self.name}'


def units(config: EvidenceConfig, part: str) -> list[Unit]:
  """Returns the runs of a part, a seed's together."""
  seeds = range(config.seed, config.seed + config.seeds)
  if part == 'worlds':
    return [
      Unit('worlds', seed, world.name, world)
      for seed in seeds[: config.worlds.seeds]
      for world in users.worlds(config)
    ]
  # What is held out is probed with the rest: these are runs of the arms.
  room = 'flywheel' if part == 'flywheel' else 'arms'
  arms = {
    'flywheel': config.flywheel.arms,
    'arms': ('base', *config.arms),
    'heldout': ('base', *config.heldout_arms),
  }[part]
  return [Unit(room, seed, arm, arm) for seed in seeds for arm in arms]


_RUN: dict[str, Callable[..., dict[str, Any]]] = {
  'flywheel': flywheel.run,
  'arms': evidence_arms.run,
  'worlds': users.run,
}


def reproduce(
  config: EvidenceConfig, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Runs a part, or all, into workdir; returns what results.json holds."""
  config.check()
  arms = (*config.arms, *config.heldout_arms)
  for arm in (*arms, *config.flywheel.arms, *config.worlds.arms):
    evidence_arms.objective_of(arm)  # raises for one that is unknown
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  workdir = pathlib.Path(workdir)
  # Parts share a workdir, and what they have in common.
  config_lib.claim(workdir, dataclasses.replace(config, only=''))
  parts = (config.only,) if config.only else PARTS
  wanted = {unit.place: unit for part in parts for unit in units(config, part)}
  todo = [u for u in wanted.values() if not _path(workdir, u).exists()]
  _run_all(config, workdir, todo)

  results = evidence_results.results(
    config,
    {
      part: {
        (unit.seed, unit.name): json.loads(_path(workdir, unit).read_text())
        for unit in units(config, part)
      }
      for part in PARTS
      if all(_path(workdir, unit).exists() for unit in units(config, part))
    },
    environment.describe(config.model),
  )
  _write_json(workdir / 'results.json', results)
  results = json.loads((workdir / 'results.json').read_text())
  page = report.write(workdir, results)
  print(f'done: open {page}, or read {workdir / "results.json"}', flush=True)
  return results


def _run_all(
  config: EvidenceConfig, workdir: pathlib.Path, todo: list[Unit]
) -> None:
  started = time.perf_counter()
  base: bases.Base | None = None
  for number, unit in enumerate(todo):
    if base is None or base.seed != unit.seed:
      print(f'seed {unit.seed}: the base', flush=True)
      base = bases.base_of(config, workdir, unit.seed)
    begun = time.perf_counter()
    path = _path(workdir, unit)
    folder = path.with_suffix('')
    folder.mkdir(parents=True, exist_ok=True)
    found = _RUN[unit.room](config, base, folder, unit.argument)
    now = time.perf_counter()
    _write_json(path, found | {'seconds': round(now - begun, 1)})
    left = (now - started) / (number + 1) * (len(todo) - number - 1)
    print(
      f'[{now - started:5.0f} s] {number + 1:>3}/{len(todo)} {unit.place:<44} '
      f'{now - begun:5.1f} s  ETA {left // 60:.0f}:{left % 60:02.0f}',
      flush=True,
    )


def _path(workdir: pathlib.Path, unit: Unit) -> pathlib.Path:
  return workdir / f'{unit.place}.json'


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  files.write_atomically(path, json.dumps(value, indent=1) + '\n')
