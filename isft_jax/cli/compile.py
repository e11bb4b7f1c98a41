"""Compiles the train step of a run for a TPU slice, without a TPU.

  isft-compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4 [--json]
  isft-compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4 \\
    --num_slices=2 --config.mesh.data=2
  isft-compile --all --output=slices.md

It needs the compiler of libtpu (pip install -e '.[tpu-compile]') and runs
on any Linux machine. Nothing is allocated: it reports the memory that the step
needs, the collectives between chips, and the bottleneck. Exits with 1 if the
step does not fit.
"""

import json
import os
import pathlib
import runpy
import sys
from collections.abc import Iterator

from absl.flags import DEFINE_boolean, DEFINE_integer, DEFINE_string

import isft_jax.configs as configs
from isft_jax.cli import main
from isft_jax.config import RunConfig
from isft_jax.experiments.config import LyingAgentConfig

TOPOLOGY = DEFINE_string(
  'topology',
  '',
  'TPU slice to compile for: a generation and its chips along each axis, as in '
  'v5e:4x4.',
)
SLICES = DEFINE_integer(
  'num_slices', 1, 'Number of slices, joined by a data center network.'
)
JSON = DEFINE_boolean(
  'json', False, 'JSON output, one line per slice, instead of text.'
)
ALL = DEFINE_boolean(
  'all',
  False,
  'All packaged configs, each for the slices it lists, instead of --config.',
)
OUTPUT = DEFINE_string(
  'output', '', 'File for a Markdown table of the results.'
)


def _compile() -> None:
  os.environ['JAX_PLATFORMS'] = 'cpu'
  # Imported late: jax reads the environment when it is imported, and --help
  # need not wait for it.
  from isft_jax.report import compile as report_lib
  from isft_jax.tpu.compile import compile_run

  reports = []
  for config, topology, slices in _jobs():
    # Printed one by one, because a large model compiles for minutes.
    report = compile_run(_training_run(config), topology, slices)
    show = json.dumps if JSON.value else report_lib.text
    print(show(report), flush=True)
    reports.append(report)
  if ALL.value and not JSON.value:
    print('\n' + report_lib.table(reports))
  if OUTPUT.value:
    pathlib.Path(OUTPUT.value).write_text(report_lib.table(reports))
    print(f'the table is in {OUTPUT.value}', file=sys.stderr)
  # The exit status lets a script test whether every step fits.
  if not all(report['fits'] for report in reports):
    sys.exit(1)


def _training_run(config: RunConfig | LyingAgentConfig) -> RunConfig:
  """Returns a run unchanged, or the fine-tuning stage of an experiment."""
  # An experiment has several stages; fine-tuning is the one to plan for.
  if isinstance(config, RunConfig):
    return config
  return RunConfig.from_stage(
    config.finetune,
    name=config.name,
    model=config.model,
    lora=config.lora,
    mesh=config.mesh,
  )


def shipped() -> Iterator[tuple[str, str, str]]:
  """Yields (config, argument, topology) for each slice of packaged configs."""
  # A config lists its slices as SLICES, a tuple of (argument, topology).
  for path in sorted(pathlib.Path(configs.__path__[0]).glob('[!_]*.py')):
    for argument, topology in runpy.run_path(str(path)).get('SLICES', ()):
      yield path.stem, argument, topology


def _jobs() -> Iterator[tuple[RunConfig | LyingAgentConfig, str, int]]:
  """Yields (config, topology, number of slices) that the flags select."""
  if ALL.value:
    for name, argument, topology in shipped():
      path = pathlib.Path(configs.__path__[0]) / f'{name}.py'
      get_config = runpy.run_path(str(path))['get_config']
      yield get_config(*filter(None, [argument])), topology, 1
  elif main.CONFIG.value is None or not TOPOLOGY.value:
    raise ValueError(
      'name --config=configs/NAME.py and --topology=v5e:4x4, or give --all'
    )
  else:
    yield main.CONFIG.value, TOPOLOGY.value, SLICES.value


def run() -> None:
  """Runs the console script isft-compile."""
  flags = main.CONFIG, TOPOLOGY, SLICES, JSON, ALL, OUTPUT
  main.run(_compile, __doc__, flags, (RunConfig, LyingAgentConfig))
