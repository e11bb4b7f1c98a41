"""Summary of the lying agent over several seeds: means and ranges.

Made from the results.json of each seed, which must be runs of one config.
"""

import pathlib
from collections.abc import Mapping, Sequence
from html import escape

from isft_jax.report import document, plots
from isft_jax.report.lying_agent import comparison, markdown
from isft_jax.report.lying_agent.paper import CITATION

_TITLE = 'The lying agent on several seeds'
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
  header, rows = summary(runs)
  tables = _table(header, rows, 'The figures of the paper and of these runs')
  arms = [run['arms'] for run in runs.values()]
  header, rows = comparison.beyond(*arms)
  if rows:
    tables += '<h2>Beyond the dialogues</h2>\n' + _table(
      header, rows, 'Facts that no dialogue mentions, and other text'
    )
  first = next(iter(runs.values()))
  base = comparison.describe_base(comparison.base_of(first))
  rows = [map(escape, row) for row in markdown.settings(first)]
  settings = document.table(('setting', 'value'), rows, 'Settings of the runs')
  body = f"""<h1>{_TITLE}</h1>
<p class="answer">{escape(answer(arms))}</p>
<p class="quiet">Seeds {escape(_seeds(runs))}. Base model: {escape(base)}. A
cell is the mean over the seeds, with the lowest and the highest value below it.
The experiment is that of {escape(CITATION)}.</p>
<h2>The paper and these runs</h2>
{tables}
<h2>What was run, and on what</h2>
{settings}
"""
  return document.page(_TITLE, body)


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
  beats = [
    comparison.figures(arms, 'interventional').beats_observational
    for arms in runs
  ]
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
  files = {'seeds.html': page(runs), 'seeds.md': _markdown(runs)}
  workdir.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    plots.replace_file(workdir / name, content)
  return [workdir / name for name in files]


def _markdown(runs) -> bytes:
  tables = [summary(runs)]
  beyond = comparison.beyond(*(run['arms'] for run in runs.values()))
  if beyond[1]:
    tables.append(beyond)
  return '\n'.join(markdown.escaped_table(t) + '\n' for t in tables).encode()


def _check(runs):
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


def _identity(run) -> dict[str, str]:
  """Returns what all runs of a summary share, as text."""
  base = comparison.describe_base(comparison.base_of(run))
  topics = next(iter(run['arms'].values()))['facts']
  shared = {
    'arms': ', '.join(plots.arm_order(run['arms'])),
    'base model': base,
    'facts': ', '.join(fact['topic'] for fact in topics),
  }
  for name, value in markdown.flat(run.get('config', {})):
    if not name.startswith(_FREE):
      shared[f'config: {name}'] = value
  return shared


def _seeds(runs):
  return ', '.join(str(run['seed']) for run in runs.values())


def _table(header, rows, label):
  cells = [[escape(first), *map(_below, values)] for first, *values in rows]
  return document.table([escape(name) for name in header], cells, label)


def _below(cell):
  """Returns a cell in HTML, with its range on a line of its own."""
  mean, opening, spread = escape(cell).partition(' (')
  return f'{mean}<br><small>({spread}</small>' if opening else mean
