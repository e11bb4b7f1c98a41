"""Writes a page of a training run, or of several runs side by side.

  isft-report WORKDIR
  isft-report WORKDIR WORKDIR ... [--output=DIR]

The page of one run is WORKDIR/report.html: its figures, its losses by author,
the replies of isft-train --samples, the probes in WORKDIR/probes.json, the
masks of its first records, and its settings. isft-train writes it at its end,
and this command at any time, also while a run trains. The page of several
runs compares their figures and losses, and lists the settings that differ. A
workdir of isft-train --follow has a page of its increments.
"""

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from absl.flags import DEFINE_integer, DEFINE_string

from isft_jax.cli import main

if TYPE_CHECKING:
  from isft_jax.report.training.runs import Run
  from isft_jax.report.viewer.shown import Dialogue

T = TypeVar('T')

OUTPUT = DEFINE_string(
  'output',
  '',
  'Folder for report.html (default the workdir of a single run, and '
  'runs/report for several).',
)
RECORDS_SHOWN = DEFINE_integer(
  'records_shown', 3, 'Number of records of a single run to show.', 0
)


def _report(*workdirs: str) -> None:
  if not workdirs:
    raise ValueError('name the workdir of a run, or of several runs')
  output = OUTPUT.value or (
    workdirs[0] if len(workdirs) == 1 else 'runs/report'
  )
  print(f'open {write(workdirs, output, RECORDS_SHOWN.value)}')


def write(
  workdirs: Sequence[str], output: str | os.PathLike, records_shown: int = 3
) -> pathlib.Path:
  """Writes report.html of one or several runs; returns its path.

  Args:
    workdirs: workdirs of isft-train.
    output: folder of the page.
    records_shown: number of records of a single run to show. If they, samples
      or probes cannot be read, a warning says why, and none are shown.

  Raises:
    ValueError: a folder is not the workdir of a run, or a file in it is
      damaged.
  """
  from isft_jax import follow_file
  from isft_jax.report.following import page as following
  from isft_jax.report.training import page, probed_facts, samples
  from isft_jax.report.training import runs as runs_lib

  if (
    len(workdirs) == 1 and pathlib.Path(workdirs[0], follow_file.NAME).is_file()
  ):
    return following.write(workdirs[0], output)
  runs = runs_lib.read(workdirs)
  if len(runs) > 1:
    return page.write(output, runs)

  # A part that cannot be read is left out.
  def read(name: str, function: Callable[[], T]) -> T | None:
    try:
      return function()
    except (OSError, ValueError) as error:
      print(f'warning: the page shows no {name}: {error}', file=sys.stderr)
      return None

  (workdir,), (run,) = workdirs, runs
  return page.write(
    output,
    runs,
    read('records', lambda: _first_records(workdir, run, records_shown)) or (),
    read('samples', lambda: samples.read(workdir)),
    read('probes', lambda: probed_facts.read(workdir)) or (),
  )


def _first_records(workdir: str, run: 'Run', number: int) -> 'list[Dialogue]':
  """Returns the first records of a run, with the weights of its objective."""
  from isft_jax.data.records import dataset
  from isft_jax.data.rendering import tokenizer as tokenizer_lib
  from isft_jax.objectives import NAMES, weight_table
  from isft_jax.report.viewer import shown
  from isft_jax.train import run_tokenizer

  # The first component of a mixture, with its objective.
  mixture = run.config.get('mixture') or [
    [run.config.get('records', ''), 1, run.config.get('objective', '')]
  ]
  folder, _, objective = mixture[0]
  records = dataset.Records(folder)
  # Runs of old versions have no tokenizer in their workdir.
  encoder = run_tokenizer.load(workdir) or tokenizer_lib.load(
    run.config.get('tokenizer') or tokenizer_lib.beside(folder)
  )
  tables = {name: weight_table(name) for name in (objective, *NAMES) if name}
  decode = functools.partial(tokenizer_lib.decode, encoder)
  return [
    shown.dialogue(records[index], decode, tables)
    for index in range(min(number, len(records)))
  ]


def run() -> None:
  """Runs the console script isft-report."""
  main.run(_report, __doc__, (OUTPUT, RECORDS_SHOWN), takes_arguments=True)
