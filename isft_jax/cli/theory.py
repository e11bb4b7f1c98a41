"""Computes the theory of masking: closed forms, and models that match them.

  isft-theory --workdir=runs/theory
  isft-theory --only=mixture,bandit

The parts: mixture, fire_engine, bandit, imitation, beta, boxes and teaching.
Tables are printed; theory.json, the pictures and theory.html go into the
workdir. Needs no data and no network. If interrupted, run the same command
again to resume.
"""

import contextlib
import pathlib
from collections.abc import Iterator

from absl import flags

from isft_jax import files
from isft_jax.cli import main

ONLY = flags.DEFINE_list(
  'only',
  [],
  'Parts to run, separated by commas: mixture, fire_engine, bandit, imitation, '
  'beta, boxes, teaching (default all).',
)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of all random numbers.')


def _theory() -> None:
  # Imported late: --help need not wait for jax.
  from isft_jax.experiments import environment
  from isft_jax.report import tables
  from isft_jax.report.theory import page
  from isft_jax.report.theory import tables as theory_tables
  from isft_jax.theory.bandit import Bandit
  from isft_jax.theory.learner import model_config
  from isft_jax.theory.run import run as run_parts
  from isft_jax.theory.settings import Settings

  workdir = main.WORKDIR.value or 'runs/theory'
  settings = Settings()
  lesson = settings.lesson
  # The teaching part trains decoders of one size; the environment names it.
  machine = environment.describe(
    model_config(Bandit(), lesson.width, lesson.layers)
  )
  # Results of an earlier command are read from a file, which may be damaged.
  with main.resumable(workdir), _damage_of(pathlib.Path(workdir)):
    results = run_parts(workdir, ONLY.value, SEED.value, settings, machine)
    for part_tables in theory_tables.tables(results).values():
      print()
      tables.show(*part_tables)
    path = page.write(workdir, results)
  print(f'\nopen {path}')


@contextlib.contextmanager
def _damage_of(workdir: pathlib.Path) -> Iterator[None]:
  """Names theory.json in the error of a block, if the file existed before."""
  path = workdir / 'theory.json'
  existed = path.exists()
  try:
    yield
  except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
    if not existed:
      raise  # a bug in isft_jax
    raise ValueError(
      f'{path}: damaged, or of another version ({type(error).__name__}: '
      f'{files.one_line(error)}); remove it to compute it again'
    ) from error


def run() -> None:
  """Runs the console script isft-theory."""
  flags.set_default(main.WORKDIR, 'runs/theory')
  flags.FLAGS[main.WORKDIR.name].help = 'Folder for results.'
  main.run(_theory, __doc__, (ONLY, main.WORKDIR, SEED))
