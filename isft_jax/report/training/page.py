"""Writes report.html of training runs: curves, figures, masks and settings."""

import os
import pathlib
from collections.abc import Sequence

from markupsafe import Markup

from isft_jax import files
from isft_jax.report import document, plots
from isft_jax.report.escapes import visible_line
from isft_jax.report.lying_agent.charts import loss_curves
from isft_jax.report.lying_agent.settings import flat
from isft_jax.report.tables import Cell, Table
from isft_jax.report.training import charts
from isft_jax.report.training.runs import Curve, Run
from isft_jax.report.viewer import html
from isft_jax.report.viewer.shown import Dialogue

NAME = 'report.html'
_HELDOUT = 'heldout_nll_by_author'
_TRAIN = 'nll_by_author'
_SCORED = 'heldout_loss'
_UNIT = 'nats per token'


def write(
  folder: str | os.PathLike,
  runs: Sequence[Run],
  dialogues: Sequence[Dialogue] = (),
  samples: document.Block | None = None,
  probed: Sequence[document.Block] = (),
) -> pathlib.Path:
  """Writes report.html into a folder, which is created; returns its path.

  Args:
    folder: the folder of the page.
    runs: one run, or several to compare.
    dialogues: records of a single run to show with authors and weights.
    samples: replies of a single run; see `samples.read`.
    probed: probes of a single run; see `probed_facts.read`.
  """
  path = pathlib.Path(folder) / NAME
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_atomically(path, page(runs, dialogues, samples, probed))
  return path


def page(
  runs: Sequence[Run],
  dialogues: Sequence[Dialogue] = (),
  samples: document.Block | None = None,
  probed: Sequence[document.Block] = (),
) -> bytes:
  """Returns the page in UTF-8; see `write` for arguments."""
  names = ', '.join(run.name for run in runs)
  objective = str(runs[0].config.get('objective', 'interventional'))
  return document.page(
    'training/page.html.j2',
    f'Training of {visible_line(names)}',
    answer=answer(runs),
    figures=Table('Figures of the runs', *figures(runs)),
    losses=loss_curves(
      {run.name: run.curve('loss')[1] for run in runs},
      {run.name: run.curve('loss')[0] for run in runs},
    ),
    samples=samples,
    probed=probed,
    by_author=_one(runs[0]) if len(runs) == 1 else _several(runs),
    dialogues=[
      (visible_line(shown.example.id), _viewer(shown, objective, f'd{n}'))
      for n, shown in enumerate(dialogues)
    ],
    differing=Table(
      'Settings that differ', ('setting', *_names(runs)), differing(runs)
    ),
    settings=Table('Settings', ('setting', 'value'), shared(runs)),
    several=len(runs) > 1,
  )


def answer(runs: Sequence[Run]) -> str:
  """Returns a sentence for each run, written from its figures."""
  sentences = []
  for run in runs:
    steps = run.rows[-1]['step']
    said = (
      f'{run.name}: {steps:,} step{"s" * (steps != 1)} on {run.targets:,.0f} '
      'scored tokens'
    )
    changes = [
      f'{author} {values[0]:.3f} to {values[-1]:.3f}'
      for author, (_, values) in run.curves(_HELDOUT).items()
      if len(values) > 1
    ]
    if changes:
      said += f'; loss on held-out records, {_UNIT}: {", ".join(changes)}'
    sentences.append(said + '.')
  return ' '.join(sentences)


def figures(runs: Sequence[Run]) -> tuple[tuple, list[tuple]]:
  """Returns header and rows: a row for each figure, a column for each run."""
  columns = [_figures(run) for run in runs]
  names = {name: None for column in columns for name in column}
  rows = [
    (name, *(column.get(name, '-') for column in columns)) for name in names
  ]
  return ('figure', *_names(runs)), rows


def _figures(run: Run) -> dict[str, str | Cell]:
  """Returns figure -> value, in the order of the table."""
  steps, losses = run.curve('loss')
  found: dict[str, str | Cell] = {
    'steps': f'{run.rows[-1]["step"]:,}',
    'scored tokens': f'{run.targets:,.0f}',
    'seconds of training': f'{run.seconds:,.0f}',
  }
  if losses:
    found[f'loss of the last step, {_UNIT}'] = f'{losses[-1]:.4f}'
  # The loss that config.keep_best compares.
  if run.curve(_SCORED)[0]:
    found[f'held-out loss of scored tokens, {_UNIT}'] = _lowest(
      run.curve(_SCORED)
    )
  # Each author after the last step, and the step at which it was lowest.
  for author, (steps, values) in run.curves(_HELDOUT).items():
    found[f'held-out loss, {author}'] = _lowest((steps, values))
  for name, (_, values) in run.curves('probe').items():
    found[f'probe: {name.replace("_", " ")}'] = f'{values[-1]:.4g}'
  return found


def _lowest(curve: Curve) -> Cell:
  """Returns a cell with the last value of a curve, and the lowest below it."""
  steps, values = curve
  lowest = min(range(len(values)), key=values.__getitem__)
  return Cell(
    f'{values[-1]:.4f}',
    small=f'lowest {values[lowest]:.4f} at step {steps[lowest]:,}',
  )


def differing(runs: Sequence[Run]) -> list[tuple[str, ...]]:
  """Returns (setting, value of each run) for settings that differ."""
  settings = [dict(flat(dict(run.config))) for run in runs]
  names = {name: None for values in settings for name in values}
  rows = [(name, *(each.get(name, '-') for each in settings)) for name in names]
  return [row for row in rows if len({*row[1:]}) > 1]


def shared(runs: Sequence[Run]) -> list[tuple[str, str]]:
  """Returns (setting, value) for settings that all runs share."""
  others = {name for name, *_ in differing(runs)}
  rows = flat(dict(runs[0].config))
  return [row for row in rows if row[0] not in others and row[1] != '']


def _names(runs: Sequence[Run]) -> list[str]:
  return [visible_line(run.name) for run in runs]


def _one(run: Run) -> list[plots.Chart]:
  """Returns the charts of one run: held-out and trained losses, and probes."""
  heldout, trained = run.curves(_HELDOUT), run.curves(_TRAIN)
  probes = {
    name: curve
    for name, curve in run.curves('probe').items()
    if name == 'mean_margin'
  }
  found = (
    charts.curves(
      'heldout',
      'Held-out loss by author',
      heldout,
      charts.author_styles(heldout),
      _UNIT,
      'Loss on held-out records, by the author of the predicted token, also '
      'where the objective does not train on it.',
    ),
    charts.curves(
      'trained',
      'Training loss by author',
      trained,
      charts.author_styles(trained),
      _UNIT,
      'Loss on the scored tokens of each batch, by their author.',
    ),
    charts.curves(
      'probe',
      'Margin of the probes',
      probes,
      plots.arm_styles(probes),
      _UNIT,
      'Mean margin of truth over lie on the facts of --probe.',
    ),
  )
  return [*filter(None, found)]


def _several(runs: Sequence[Run]) -> list[plots.Chart]:
  """Returns a chart per author of held-out tokens, a line for each run."""
  by_run = {run.name: run.curves(_HELDOUT) for run in runs}
  authors = {author: None for curves in by_run.values() for author in curves}
  found = []
  for author in authors:
    lines = {
      name: curves[author]
      for name, curves in by_run.items()
      if author in curves
    }
    found.append(
      charts.curves(
        f'heldout_{author.lower()}',
        f'Held-out loss on tokens of {author}',
        lines,
        plots.arm_styles(lines),
        _UNIT,
        f'Loss on held-out tokens of {author}.',
      )
    )
  return [*filter(None, found)]


def _viewer(shown: Dialogue, objective: str, prefix: str) -> Markup:
  first = objective if objective in shown.weights else next(iter(shown.weights))
  return html.fragment(shown, first, prefix)
