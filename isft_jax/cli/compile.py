"""Compiles the train step of a run for a TPU slice, without a TPU.

  isft-compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4 [--json]
  isft-compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4 \\
    --num_slices=2 --config.mesh.data=2
  isft-compile --all --output=slices.md
  isft-compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4 \\
    --search --output=fast.py

It needs the compiler of libtpu (pip install -e '.[tpu-compile]') and runs
on any Linux machine. Nothing is allocated: it reports the memory that the step
needs, the collectives between chips, and the bottleneck. Exits with 1 if the
step does not fit.

--search compiles the step with other settings that do not change its result:
what the backward pass recomputes, the mesh, chunks of the head and
microbatches. It prints the fastest settings that fit.
"""

import contextlib
import copy
import functools
import json
import os
import pathlib
import runpy
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl.flags import (
  DEFINE_boolean,
  DEFINE_float,
  DEFINE_integer,
  DEFINE_string,
)

import isft_jax.configs as configs
from isft_jax.cli import config_file, main
from isft_jax.config import RunConfig
from isft_jax.experiments.config import LyingAgentConfig

if TYPE_CHECKING:
  from isft_jax.tpu.search import Search, Trial

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
  'output',
  '',
  'File for a Markdown table of the results. With --search: for a config with '
  'the fastest settings.',
)
SEARCH = DEFINE_boolean(
  'search',
  False,
  'Search for the settings of remat, mesh, head chunks and microbatches with '
  'the fastest step that fits.',
)
MINUTES = DEFINE_float(
  'search_minutes', 10, 'Minutes after which --search stops.', lower_bound=0
)
HEADROOM = DEFINE_float(
  'headroom',
  0.1,
  'Share of the memory of a chip that --search leaves free.',
  lower_bound=0,
  upper_bound=0.9,
)


def _compile() -> None:
  os.environ['JAX_PLATFORMS'] = 'cpu'
  # Imported late: jax reads the environment when it is imported, and --help
  # need not wait for it.
  from isft_jax.report import compile as report_lib
  from isft_jax.tpu.compile import compile_run

  if SEARCH.value:
    _search()
    return
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


def _search() -> None:
  """Compiles candidates, and prints the fastest settings that fit."""
  from isft_jax.report import search as report_lib
  from isft_jax.tpu.search import Search

  if ALL.value:
    raise ValueError('--search takes one --config and --topology, not --all')
  ((config, topology, slices),) = _jobs()
  # JSON is the only output, and the progress then is on stderr.
  show = functools.partial(
    print, file=sys.stderr if JSON.value else sys.stdout, flush=True
  )
  search = Search(
    *(_training_run(config), topology, slices),
    minutes=MINUTES.value,
    headroom=HEADROOM.value,
  )
  show(report_lib.header(search.summary()))
  # Ctrl-C ends the search, and not the command.
  with contextlib.suppress(KeyboardInterrupt):
    for number, trial in enumerate(search.run(), 1):
      changes = _changes(config, search, trial)
      show(report_lib.trial(number, search.result(trial), changes))
  show(report_lib.counts(search.summary()))
  best = search.best
  if best is None:
    main.fail(
      'no settings were found that fit; give more --search_minutes, less '
      '--headroom, fewer rows or a larger slice'
    )
  changes = _changes(config, search, best)
  if JSON.value:
    print(json.dumps({**best.report, 'settings': changes}))
  else:
    print(report_lib.verdict(best.report, search.own_report, changes))
  if OUTPUT.value:
    doc = (
      f'{config.name}, with what isft-compile --search found for '
      f'{search.topology}.'
    )
    faster = copy.deepcopy(config)
    for name, value in changes.items():
      *groups, field = name.split('.')
      setattr(functools.reduce(getattr, groups, faster), field, value)
    pathlib.Path(OUTPUT.value).write_text(config_file.source(faster, doc))
    print(
      f'the config is in {OUTPUT.value}; train with --config={OUTPUT.value}',
      file=sys.stderr,
    )


def _changes(
  config: RunConfig | LyingAgentConfig, search: 'Search', trial: 'Trial'
) -> dict[str, Any]:
  """Returns the settings of a trial that differ from the config's."""
  # The optimizer of an experiment is that of its stage.
  stage = '' if isinstance(config, RunConfig) else 'finetune.'
  own = search.candidates[0].settings
  changes = {
    (stage if name.startswith('optim.') else '') + name: value
    for name, value in trial.candidate.settings.items()
    if value != own[name]
  }
  # A size that the config leaves open would change with the others.
  if any(name.startswith('mesh.') for name in changes):
    changes |= {
      name: value
      for name, value in trial.candidate.settings.items()
      if name.startswith('mesh.')
    }
  return changes


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
  flags = (
    *(main.CONFIG, TOPOLOGY, SLICES, JSON, ALL, OUTPUT),
    *(SEARCH, MINUTES, HEADROOM),
  )
  main.run(_compile, __doc__, flags, (RunConfig, LyingAgentConfig))
