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
import functools
import pathlib
from typing import Any

from isft_jax import config as config_lib
from isft_jax import files
from isft_jax.experiments import environment
from isft_jax.experiments.config import PARTS, EvidenceConfig
from isft_jax.experiments.evidence import arms as evidence_arms
from isft_jax.experiments.evidence import bases, flywheel, users
from isft_jax.experiments.evidence import results as evidence_results
from isft_jax.experiments.units import Unit, read_runs, run_all, write_json
from isft_jax.report.evidence import page as report
from isft_jax.train import start


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
  run_all(
    workdir,
    [unit for part in parts for unit in units(config, part)],
    lambda seed: bases.prepare_base(config, workdir, seed),
    {
      'flywheel': functools.partial(flywheel.run, config),
      'arms': functools.partial(evidence_arms.run, config),
      'worlds': functools.partial(users.run, config),
    },
  )

  # Summarise every part whose units are all done, by this run or earlier ones.
  runs = {part: read_runs(workdir, units(config, part)) for part in PARTS}
  results = evidence_results.results(
    config,
    {part: found for part, found in runs.items() if found is not None},
    environment.describe(config.model),
  )
  write_json(workdir / 'results.json', results)
  # The page is made from the file, as `isft-reproduce --from` makes it.
  results = files.read_json(workdir / 'results.json')
  page = report.write(workdir, results)
  print(f'done: open {page}, or read {workdir / "results.json"}', flush=True)
  return results
