"""Learning from deployment: a grid of small runs that resumes run by run.

    bases/seed-N --+--> arms/seed-N/ARM.json        one frozen deployment
                   '--> continual/seed-N/ARM.json   increments of skills

Files are written atomically. results.json is computed from them, and the page
from results.json only.

Source: N. de Freitas, "CIC: Continual, Interactive, Causal Agents" (2026). The
paper gives its interventional arm a second try, compares it with arms without
one, and has one seed. This experiment scores all arms on first and on second
tries, on several seeds.
"""

import dataclasses
import functools
import pathlib
from typing import Any

from isft_jax import config as config_lib
from isft_jax import files
from isft_jax.experiments import environment
from isft_jax.experiments.config import DEPLOYMENT_PARTS, DeploymentConfig
from isft_jax.experiments.deployment import arms, continual
from isft_jax.experiments.deployment import results as deployment_results
from isft_jax.experiments.units import Unit, read_runs, run_all, write_json
from isft_jax.report.deployment import page as report
from isft_jax.train import start


def units(config: DeploymentConfig, part: str) -> list[Unit]:
  """Returns the runs of a part, grouped by seed."""
  number = config.seeds
  names = config.arms
  if part == 'continual':
    number, names = min(number, config.continual.seeds), config.continual.arms
  return [
    Unit(part, seed, name, name)
    for seed in range(config.seed, config.seed + number)
    for name in names
  ]


def reproduce(
  config: DeploymentConfig, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Runs a part of the experiment, or both, in workdir.

  Args:
    config: settings; `config.only` names the part, '' for both.
    workdir: folder for bases and results; parts of one config share it.

  Returns:
    The content of workdir/results.json, with every part that is complete.

  Raises:
    ValueError: a setting is invalid, or workdir belongs to another config.
  """
  # Refuse invalid settings before any work.
  config.check()
  for arm in config.arms:
    arms.arm_from_name(arm)
  for arm in config.continual.arms:
    continual.check_arm(arm)
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  workdir = pathlib.Path(workdir)
  # Parts share a workdir, with its bases and runs.
  config_lib.claim(workdir, dataclasses.replace(config, only=''))

  # Run units without results, seed by seed.
  parts = (config.only,) if config.only else DEPLOYMENT_PARTS
  run_all(
    workdir,
    sorted(
      (unit for part in parts for unit in units(config, part)),
      key=lambda unit: unit.seed,
    ),
    lambda seed: arms.deploy(config, workdir, seed),
    {
      'arms': functools.partial(arms.run, config),
      'continual': functools.partial(continual.run, config),
    },
  )

  # Summarise every part whose units are all done, by this run or earlier ones.
  runs = {
    part: read_runs(workdir, units(config, part)) for part in DEPLOYMENT_PARTS
  }
  results = deployment_results.results(
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
