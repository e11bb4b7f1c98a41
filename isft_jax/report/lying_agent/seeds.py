"""Summary of the lying agent over several seeds: means and ranges.

The input is one results.json per seed, all of runs of one config.
"""

import pathlib
from collections.abc import Mapping, Sequence

from isft_jax import files, statistics
from isft_jax.config import with_new_names
from isft_jax.report import document, plots, tables
from isft_jax.report.lying_agent import comparison
from isft_jax.report.lying_agent.paper import CITATION
from isft_jax.report.lying_agent.settings import flat, settings
from isft_jax.report.tables import Cell, Table

# Settings that may differ between the runs of a summary, because they do not
# change the result of training.
_FREE = ('seed', 'name', 'mesh: ', 'model: init_from', 'model: remat')


def summary(runs: Mapping[str, Mapping]) -> tuple[tuple, list[tuple]]:
  """Returns header and rows as text: `comparison.comparison` over seeds.

  A cell is the mean over the seeds with the lowest and the highest value, as in
  '13.7 / 33 (11 to 16)'. If all seeds agree, it is one value.

  Args:
    runs: name of a file -> content of results.json, one per seed.

  Raises:
    ValueError: two runs have the same seed, or differ in arms, base model,
      facts or settings.
  """
  _check(runs)
  return comparison.comparison(*(run['arms'] for run in runs.values()))


def page(runs: Mapping[str, Mapping]) -> bytes:
  """Returns the summary as a page in UTF-8; see `summary` for arguments."""
  arms = [run['arms'] for run in runs.values()]
  # All runs have the same config, so that the first one describes them.
  first = next(iter(runs.values()))
  return document.page(
    'lying_agent/seeds.html.j2',
    'The lying agent on several seeds',
    answer=answer(arms),
    seeds=', '.join(str(run['seed']) for run in runs.values()),
    base=comparison.describe_base(comparison.base_from_results(first)),
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
  """Returns sentences on how far interventional is above observational.

  The interval is that of the difference of the two arms, paired by seed.

  Args:
    runs: `arms` of results.json, one per seed.
  """
  names = ('interventional', 'observational')
  if not all(name in arms for arms in runs for name in names):
    return (
      'The runs lack the observational or the interventional arm, so they do '
      "not answer the paper's question."
    )
  # Seeds with the higher mean margin, and facts with the higher margin.
  margins = [[arms[name]['mean_margin'] for name in names] for arms in runs]
  above = sum(do > obs for do, obs in margins)
  beats = []
  for arms in runs:
    ahead = comparison.figures(arms, 'interventional').beats_observational
    assert ahead is not None  # because both arms have margins of all facts
    beats.append(ahead)
  facts = len(runs[0]['interventional']['facts'])
  of_facts = f'{min(beats)} to {max(beats)}'
  if min(beats) == max(beats):
    of_facts = f'{beats[0]}'
  said = (
    'The interventional arm ends above the observational one in mean margin '
    f'on {above} of {len(runs)} seeds. It is the higher of the two on '
    f'{of_facts} of {facts} facts.'
  )
  if len(runs) < 2:
    return said
  # Arms of a seed share data, initialisation and order.
  apart = statistics.paired(*zip(*margins, strict=True))
  return said + (
    f' Its mean margin is {apart["mean"]:+.3f} nats per token higher; the 95 % '
    'confidence interval of this difference, paired by seed, is '
    f'{apart["lo"]:+.3f} to {apart["hi"]:+.3f}.'
  )


def write(
  workdir: pathlib.Path, runs: Mapping[str, Mapping]
) -> list[pathlib.Path]:
  """Writes seeds.html and seeds.md into workdir; returns their paths.

  Args:
    workdir: a folder, which is created if it does not exist.
    runs: see `summary`.
  """
  # HTML to read, Markdown to paste.
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
  """Raises ValueError unless the runs differ in their seeds only."""
  (first, reference), *others = runs.items()
  # Two files of one seed would count it twice.
  by_seed = {run['seed']: name for name, run in runs.items()}
  for name, run in runs.items():
    if by_seed[run['seed']] != name:
      raise ValueError(
        f'{name} and {by_seed[run["seed"]]} are both of seed {run["seed"]}; '
        'name one file per seed'
      )
  # All settings but the seed must be equal.
  expected = _identity(reference)
  for name, run in others:
    identity = _identity(run)
    # A setting in only one of the files was added by another version.
    differing = [
      key
      for key in expected.keys() & identity.keys()
      if expected[key] != identity[key]
    ]
    if differing:
      key = min(differing)
      raise ValueError(
        f'{name} and {first} are not runs of one config: {key} is '
        f'{identity[key]} and {expected[key]}; only the seeds may differ'
      )


def _identity(run: Mapping) -> dict[str, str]:
  """Returns arms, base model, facts and settings, which runs must share."""
  base = comparison.describe_base(comparison.base_from_results(run))
  # All arms of a run probe the same facts, so the first one names them.
  topics = next(iter(run['arms'].values()))['facts']
  shared = {
    'arms': ', '.join(plots.arm_order(run['arms'])),
    'base model': base,
    'facts': ', '.join(fact['topic'] for fact in topics),
  }
  for name, value in flat(with_new_names(run.get('config', {}))):
    if not name.startswith(_FREE):
      shared[f'config: {name}'] = value
  return shared


def _table(
  title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
  cells = [[first, *map(_below, values)] for first, *values in rows]
  return Table(title, header, cells)


def _below(text: str) -> Cell:
  """Returns a cell with its range on a separate line."""
  mean, opening, spread = text.partition(' (')
  return Cell(mean, small=opening.strip() + spread)
