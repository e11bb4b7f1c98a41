"""The evidence: four parts, each a grid of small runs that resumes run by run.

    bases/seed-N --+--> flywheel/seed-N/ARM.json   its own answers, in rounds
                   +--> arms/seed-N/ARM.json       arms, costs, held-out facts
                   '--> worlds/seed-N/WORLD.json   corrections x errors x lies

Files are written atomically. results.json is computed from them, and the page
from results.json only.

Source: questions that de Freitas and Ortega (2026) leave open: several seeds,
facts that no dialogue mentions, the model's own mistakes, users who are wrong.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from isft_jax import config as config_lib
from isft_jax import files, progress_bar
from isft_jax.experiments import environment
from isft_jax.experiments.config import PARTS, EvidenceConfig
from isft_jax.experiments.evidence import arms as evidence_arms
from isft_jax.experiments.evidence import bases, flywheel, users
from isft_jax.experiments.evidence import results as evidence_results
from isft_jax.report.evidence import page as report
from isft_jax.train import start


class Unit(NamedTuple):
  """A run that is not resumed but repeated if it is interrupted."""

  room: str  # 'flywheel', 'arms' or 'worlds': its folder and its function
  seed: int
  name: str  # of the arm or the world; unique in its room and seed
  argument: object  # last argument of the room's `run`: an arm or a `World`

  @property
  def place(self) -> str:
    """Path of its results in the workdir, without .json."""
    return f'{self.room}/seed-{self.seed}/{self.name}'


def units(config: EvidenceConfig, part: str) -> list[Unit]:
  """Returns the runs of a part, grouped by seed."""
  seeds = range(config.seed, config.seed + config.seeds)
  if part == 'worlds':
    return [
      Unit('worlds', seed, world.name, world)
      for seed in seeds[: config.worlds.seeds]
      for world in users.worlds(config)
    ]
  # Every run of an arm probes both halves of the facts, so that `heldout` needs
  # no runs of its own.
  room = 'flywheel' if part == 'flywheel' else 'arms'
  arms = {
    'flywheel': config.flywheel.arms,
    'arms': ('base', *config.arms),
    'heldout': ('base', *config.heldout_arms),
  }[part]
  return [Unit(room, seed, arm, arm) for seed in seeds for arm in arms]


# Room -> run(config, base, folder, argument), which returns JSON results.
_RUN: dict[str, Callable[..., dict[str, Any]]] = {
  'flywheel': flywheel.run,
  'arms': evidence_arms.run,
  'worlds': users.run,
}


def reproduce(
  config: EvidenceConfig, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Runs a part of the evidence, or all parts, in workdir.

  Args:
    config: settings; `config.only` names the part, '' for all.
    workdir: folder for bases and results; parts of one config share it.

  Returns:
    The content of workdir/results.json, with every part that is complete.

  Raises:
    ValueError: a setting is invalid, or workdir belongs to another config.
  """
  # Refuse invalid settings before any work.
  config.check()
  arms = (*config.arms, *config.heldout_arms)
  for arm in (*arms, *config.flywheel.arms, *config.worlds.arms):
    evidence_arms.objective_from_arm(arm)  # raises ValueError if it is unknown
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  workdir = pathlib.Path(workdir)
  # Parts share a workdir, with its bases and runs.
  config_lib.claim(workdir, dataclasses.replace(config, only=''))

  # Run units without results.
  parts = (config.only,) if config.only else PARTS
  wanted = {unit.place: unit for part in parts for unit in units(config, part)}
  todo = [u for u in wanted.values() if not _path(workdir, u).exists()]
  _run_all(config, workdir, todo)

  # Summarise every part whose units are all done, by this run or earlier ones.
  results = evidence_results.results(
    config,
    {
      part: {
        (unit.seed, unit.name): files.read_json(_path(workdir, unit))
        for unit in units(config, part)
      }
      for part in PARTS
      if all(_path(workdir, unit).exists() for unit in units(config, part))
    },
    environment.describe(config.model),
  )
  _write_json(workdir / 'results.json', results)
  # The page is made from the file, as `isft-reproduce --from` makes it.
  results = files.read_json(workdir / 'results.json')
  page = report.write(workdir, results)
  print(f'done: open {page}, or read {workdir / "results.json"}', flush=True)
  return results


def _run_all(
  config: EvidenceConfig, workdir: pathlib.Path, todo: list[Unit]
) -> None:
  """Runs units in order, and prints a line with the time left after each."""
  started = time.perf_counter()
  base: bases.Base | None = None
  # The line of each run says the rest in a log.
  for number, unit in enumerate(
    progress_bar.track(todo, 'all', len(todo), 'runs')
  ):
    # The base of a seed stays in memory for all its units.
    if base is None or base.seed != unit.seed:
      print(f'seed {unit.seed}: the base', flush=True)
      base = bases.prepare_base(config, workdir, unit.seed)
    unit_started = time.perf_counter()
    path = _path(workdir, unit)
    folder = path.with_suffix('')
    folder.mkdir(parents=True, exist_ok=True)
    result = _RUN[unit.room](config, base, folder, unit.argument)
    now = time.perf_counter()
    # Results are written last, so that a file marks a finished run.
    _write_json(path, result | {'seconds': round(now - unit_started, 1)})
    # Estimate of the time left, from the mean of the runs so far.
    left = (now - started) / (number + 1) * (len(todo) - number - 1)
    print(
      f'[{now - started:5.0f} s] {number + 1:>3}/{len(todo)} {unit.place:<44} '
      f'{now - unit_started:5.1f} s  ETA {left // 60:.0f}:{left % 60:02.0f}',
      flush=True,
    )


def _path(workdir: pathlib.Path, unit: Unit) -> pathlib.Path:
  return workdir / f'{unit.place}.json'


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  files.write_atomically(path, json.dumps(value, indent=1) + '\n')
