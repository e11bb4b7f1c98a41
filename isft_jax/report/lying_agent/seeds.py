"""Summary of the lying agent over several seeds: means and ranges.

Made from the results.json of each seed, which must be runs of one config.
"""

import pathlib
from collections.abc import Mapping, Sequence

from isft_jax import files
from isft_jax.report import document, plots, tables
from isft_jax.report.lying_agent import comparison
from isft_jax.report.lying_agent.paper import CITATION
from isft_jax.report.lying_agent.settings import flat, settings
from isft_jax.report.tables import Cell, Table

# Settings that may differ between the runs of a summary: none of them changes
# what is learned.
_FREE = ('seed', 'name', 'mesh: ', 'model: init_from', 'model: remat')


def summary(runs: Mapping[str, Mapping]) -> tuple[tuple, list[tuple]]:
  """Returns header and rows, as text: `comparison.comparison` over seeds.

  A cell is the mean over the seeds with the lowest and the highest value, as in
  '13.7 / 33 (11 to 16)'; one value if all seeds agree.

  Args:
    runs: name of a file -> content of results.json; one for each seed.

  Raises:
    ValueError: if two runs have the same seed, or differ in arms, base model,
      facts or settings.
  """
  _check(runs)
  return comparison.comparison(*(run['arms'] for run in runs.values()))


def page(runs: Mapping[str, Mapping]) -> bytes:
  """Returns the summary as a page, in UTF-8; arguments as for `summary`."""
  arms = [run['arms'] for run in runs.values()]
  first = next(iter(runs.values()))
  return document.page(
    'lying_agent/seeds.html.j2',
    'The lying agent on several seeds',
    answer=answer(arms),
    seeds=', '.join(str(run['seed']) for run in runs.values()),
    base=comparison.describe_base(comparison.base_of(first)),
    citation=CITATION,
    comparison=_table(
      'The figures of the paper and of these runs', *summary(runs)
    ),
    beyond=_table(
      'Facts that no dialogue mentions, and other text',
      *comparison.beyond(*arms),
    ),
    settings=Table(
      'Settings of the runs', ('setting', 'value'), settings(first)
    ),
  )


def answer(runs: Sequence[Mapping]) -> str:
  """Returns in how many of the runs interventional is ahead, as sentences.

  Args:
    runs: `arms` of results.json, one for each seed.
  """
  names = ('interventional', 'observational')
  if not all(name in arms for arms in runs for name in names):
    return (
      'The runs lack the observational or the interventional arm, so they do '
      "not answer the paper's question."
    )
  margins = [[arms[name]['mean_margin'] for name in names] for arms in runs]
  above = sum(do > obs for do, obs in margins)
  beats = []
  for arms in runs:
    ahead = comparison.figures(arms, 'interventional').beats_observational
    assert ahead is not None  # both have margins of all facts
    beats.append(ahead)
  facts = len(runs[0]['interventional']['facts'])
  of_facts = f'{min(beats)} to {max(beats)}'
  if min(beats) == max(beats):
    of_facts = f'{beats[0]}'
  return (
    'The interventional arm ends above the observational one in mean margin '
    f'on {above} of {len(runs)} seeds. It is the higher of the two on '
    f'{of_facts} of {facts} facts.'
  )


def write(
  workdir: pathlib.Path, runs: Mapping[str, Mapping]
) -> list[pathlib.Path]:
  """Writes seeds.html and seeds.md into workdir; returns their paths.

  Args:
    workdir: a folder, which is made if it does not exist.
    runs: as for `summary`.
  """
  contents = {'seeds.html': page(runs), 'seeds.md': _markdown(runs)}
  workdir.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    files.write_atomically(workdir / name, content)
  return [workdir / name for name in contents]


def _markdown(runs: Mapping[str, Mapping]) -> bytes:
  beyond = comparison.beyond(*(run['arms'] for run in runs.values()))
  shown = [table for table in (summary(runs), beyond) if table[1]]
  return '\n'.join(tables.markdown(*table) for table in shown).encode()


def _check(runs: Mapping[str, Mapping]) -> None:
  """Raises ValueError unless the runs differ in their seed alone."""
  (first, reference), *others = runs.items()
  by_seed = {run['seed']: name for name, run in runs.items()}
  for name, run in runs.items():
    if by_seed[run['seed']] != name:
      raise ValueError(
        f'{name} and {by_seed[run["seed"]]} are both of seed {run["seed"]}; '
        'give one file for each seed'
      )
  expected = _identity(reference)
  for name, run in others:
    identity = _identity(run)
    # A setting that only one of the files knows is of another version.
    differing = [
      key
      for key in expected.keys() & identity.keys()
      if expected[key] != identity[key]
    ]
    if differing:
      key = min(differing)
      raise ValueError(
        f'{name} and {first} are not runs of one config: {key} is '
        f'{identity[key]} and {expected[key]}; a summary is over seeds alone'
      )


def _identity(run: Mapping) -> dict[str, str]:
  """Returns what all runs of a summary share, as text."""
  base = comparison.describe_base(comparison.base_of(run))
  topics = next(iter(run['arms'].values()))['facts']
  shared = {
    'arms': ', '.join(plots.arm_order(run['arms'])),
    'base model': base,
    'facts': ', '.join(fact['topic'] for fact in topics),
  }
  for name, value in flat(run.get('config', {})):
    if not name.startswith(_FREE):
      shared[f'config: {name}'] = value
  return shared


def _table(
  title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
  cells = [[first, *map(_below, values)] for first, *values in rows]
  return Table(title, header, cells)


def _below(text: str) -> Cell:
  """Returns a cell with its range on a line of its own."""
  mean, opening, spread = text.partition(' (')
  return Cell(mean, small=opening.strip() + spread)
