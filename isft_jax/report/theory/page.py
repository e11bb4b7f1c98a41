"""Writes theory.html, all tables and figures of theory.json in one file."""

import json
import os
import pathlib
from collections.abc import Mapping

from isft_jax import files
from isft_jax.report import document, plots, shapes
from isft_jax.report.document import Block
from isft_jax.report.tables import Table
from isft_jax.report.theory import charts, figures, tables
from isft_jax.report.theory.shape import THEORY

# Part -> heading, in the order of the page.
_PARTS = {
  'mixture': 'Two hypotheses, one gate',
  'fire_engine': 'A fire engine, seen or sent',
  'bandit': 'A bandit whose best arm an expert knows',
  'teaching': 'Predictions taught by a loss, by author of the actions',
  'imitation': 'Universal imitation: its costs, and lock-in',
  'beta': 'Two arms with unknown odds',
  'boxes': 'Two boxes, one prize',
}
# Part -> introduction to its tables.
_WORDS = {
  'fire_engine': 'A fire engine comes to nearly every fire, and hardly ever '
  'to a house that does not burn. So an engine that you see in front of a '
  'house is evidence of a fire. An engine that you sent there yourself is not: '
  'it is there because of your decision, and the chance of a fire does not '
  'change. An agent that takes its own words for evidence confuses the two.'
}


def write(workdir: str | os.PathLike, results: Mapping) -> pathlib.Path:
  """Writes theory.html and its charts as PNGs.

  Args:
    workdir: an existing folder.
    results: content of theory.json, with any parts.

  Returns:
    The path of theory.html.

  Raises:
    ValueError: a value has another type than the page shows.
  """
  path = pathlib.Path(workdir) / 'theory.html'
  shapes.check(results, THEORY, 'theory.json')
  with shapes.readable('theory.json'):
    drawn = draw(results)
    content = page(results, drawn)
  for part_charts in drawn.values():
    for chart in part_charts:
      chart.save_png(workdir)
  files.write_atomically(path, content)
  return path


def draw(results: Mapping) -> dict[str, list[plots.Chart]]:
  """Returns part -> charts, for the parts in theory.json."""
  return {
    part: [charts.draw(figure) for figure in part_figures]
    for part, part_figures in figures.figures(results).items()
  }


def page(results: Mapping, drawn: Mapping[str, list[plots.Chart]]) -> bytes:
  """Returns the page in UTF-8.

  Args:
    results: content of theory.json.
    drawn: its charts, from `draw`.
  """
  by_part = tables.tables(results)
  times = [(part, f'{s:.0f} s') for part, s in results['seconds'].items()]
  return document.page(
    'theory/page.html.j2',
    'When is masking an intervention?',
    seed=results['seed'],
    # Parts that theory.json has, in the order of the page.
    parts=[
      (
        heading,
        _WORDS.get(part, ''),
        [Block(chart, chart.label) for chart in drawn.get(part, [])]
        + [Block(table, table.title) for table in by_part[part]],
      )
      for part, heading in _PARTS.items()
      if part in by_part
    ],
    times=Table('Time of each part', ('part', 'time'), times),
    details={
      name: json.dumps(results[name], indent=2)
      for name in ('settings', 'environment')
    },
  )
