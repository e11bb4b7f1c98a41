"""theory.html: every table and figure of theory.json, in one file."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from html import escape

from matplotlib import ticker

from isft_jax.report import document, plots
from isft_jax.report.theory import tables as theory_tables
from isft_jax.report.theory.figures import ACCOUNTINGS, Figure, Grid, figures

# In the order of the page.
_PARTS = {
  'mixture': 'Two hypotheses, one gate',
  'fire_engine': 'A fire engine, seen or sent',
  'bandit': 'A bandit whose best arm an expert knows',
  'teaching': 'What a loss teaches, by who wrote the actions',
  'imitation': 'Universal imitation: its costs, and lock-in',
  'beta': 'Two arms with unknown odds',
  'boxes': 'Two boxes, one prize',
}
# What a part's tables need to be understood.
_WORDS = {
  'fire_engine': 'A fire engine comes to nearly every fire, and hardly ever '
  'to a house that does not burn. So an engine that you see in front of a '
  'house is evidence of a fire. An engine that you sent there yourself is not: '
  'your decision is why it is there, and the chance of a fire stays what it '
  'was. An agent that takes its own words for evidence confuses the two.'
}
_TITLE = 'When is masking an intervention?'
_DASHES = {'solid': '', 'both': '', 'dashed': '8 3', 'dotted': '1 3'}
_DOT = (
  'position:absolute;width:.6rem;height:.6rem;transform:translate(-50%,-50%);'
)


def write(workdir: str | os.PathLike, results: Mapping) -> pathlib.Path:
  """Writes theory.html into workdir and returns its path.

  results: the content of theory.json; any parts of it.
  """
  path = pathlib.Path(workdir) / 'theory.html'
  plots.replace_file(path, page(results))
  return path


def page(results: Mapping) -> bytes:
  """Returns the page, in UTF-8."""
  parts = [
    f'<h1>{_TITLE}</h1>',
    '<p class="answer">What an agent writes is an intervention: it says '
    'nothing about the world. Leaving its tokens out of the loss makes a model '
    'of interventions only if they were written without sight of what the '
    'model is to find out.</p>',
    f'<p class="quiet">Seed {results["seed"]}. Every figure is made from '
    'theory.json; ± is two standard errors of what was sampled.</p>',
  ]
  tables, charts = theory_tables.tables(results), figures(results)
  for part, heading in _PARTS.items():
    if part in tables:
      parts.append(f'<h2>{heading}</h2>')
      if part in _WORDS:
        parts.append(f'<p>{escape(_WORDS[part])}</p>')
      parts += [_figure(figure) for figure in charts.get(part, [])]
      parts += [_table(table) for table in tables[part]]
  parts.append('<h2>What was run, and on what</h2>')
  rows = [(part, f'{s:.0f} s') for part, s in results['seconds'].items()]
  parts.append(document.table(('part', 'time'), rows, 'Time of each part'))
  for name in 'settings', 'environment':
    content = escape(json.dumps(results[name], indent=2))
    parts.append(
      f'<details><summary>{name}</summary><pre>{content}</pre></details>'
    )
  return document.page(_TITLE, '\n'.join(parts) + '\n')


def _table(table: theory_tables.Table) -> str:
  title = escape(table.title)
  header = [escape(cell) for cell in table.header]
  rows = [[escape(cell) for cell in row] for row in table.rows]
  return f'<h3>{title}</h3>\n{document.table(header, rows, title)}'


def _figure(figure: Figure | Grid) -> str:
  chart = _dots(figure) if isinstance(figure, Grid) else _lines(figure)
  return (
    f'<h3>{escape(figure.title)}</h3>\n<figure>{chart}<figcaption>'
    f'{escape(figure.shows)} <em>What it does not show:</em> '
    f'{escape(figure.not_shown)}</figcaption></figure>'
  )


def _ticks(low: float, high: float, number: int) -> list[float]:
  found = ticker.MaxNLocator(number, steps=(1, 2, 5, 10)).tick_values(low, high)
  return [tick for tick in found if low <= tick <= high]


def _lines(figure: Figure) -> str:
  xs = [x for line in figure.lines for x in line.x]
  xs += [mark.x for mark in figure.marks]
  x_low, x_high = min(xs), max(xs)
  y_high = 1.05 * max(y for line in figure.lines for y in line.y) or 1

  def left(x):
    return 100 * (x - x_low) / ((x_high - x_low) or 1)

  def top(y):
    return 100 * (1 - y / y_high)

  paths = texts = dots = ''
  for tick in _ticks(0, y_high, 5):
    paths += f'<path class="grid" d="M0 {top(tick):.2f}H100"/>'
    texts += f'<span class="tick y" style="top:{top(tick):.2f}%">{tick:g}'
    texts += '</span>'
  for tick in _ticks(x_low, x_high, 5):
    texts += f'<span class="tick x" style="left:{left(tick):.2f}%">{tick:g}'
    texts += '</span>'
  for mark in figure.marks:
    at = left(mark.x)
    paths += (
      f'<path style="stroke:var(--arm-{mark.color})" stroke-width="1.2" '
      f'd="M{at:.2f} 0V100"/>'
    )
  for line in figure.lines:
    places = [(left(x), top(y)) for x, y in zip(line.x, line.y, strict=True)]
    if line.kind in ('points', 'both'):
      dots += ''.join(_dot(x, y, line.color) for x, y in places)
    if line.kind != 'points':
      path = 'L'.join(f'{x:.2f} {y:.2f}' for x, y in places)
      paths += (
        f'<path class="smooth" style="stroke:var(--arm-{line.color})"'
        f'{_dashes(line.kind)} d="M{path}"/>'
      )
  marks = ''.join(
    f'<li><svg viewBox="0 0 36 12" aria-hidden="true"><path d="M18 0V12" '
    f'style="stroke:var(--arm-{mark.color})" stroke-width="1.2"/></svg>'
    f'{escape(mark.name)}</li>'
    for mark in figure.marks
  )
  keys = ''.join(
    _key(line.name, line.color, line.kind) for line in figure.lines
  )
  return f"""<ul class="arms">{keys}{marks}</ul>
<p class="quiet">{escape(figure.y_label)}</p>
<div class="curves"><svg viewBox="0 0 100 100" preserveAspectRatio="none"
role="img" aria-label="{escape(figure.title)}">{paths}</svg>{texts}{dots}
<span class="axis">{escape(figure.x_label)}</span></div>
"""


def _dots(grid: Grid) -> str:
  means = [row.kl[name][0] for row in grid.rows for name in ACCOUNTINGS]
  low = math.floor(math.log10(min(means)))
  high = math.ceil(math.log10(max(means)))

  def left(kl):
    return 100 * (math.log10(kl) - low) / ((high - low) or 1)

  rows = ''
  for row in grid.rows:
    dots = ''
    for name, color in ACCOUNTINGS.items():
      about = f'{row.kl[name][0]:.4f} nats to {name}'
      square = name != 'interventional'
      dots += _dot(left(row.kl[name][0]), 100, color, about, square)
    weight = '600' if row.headline else '400'
    rows += (
      f'<tr><th scope="row" style="font-weight:{weight}">{escape(row.name)}'
      '</th><td style="padding:.3rem .8rem"><div style="position:relative;'
      'height:.6rem;margin-bottom:.6rem;border-bottom:1px solid var(--line)">'
      f'{dots}</div></td></tr>\n'
    )
  ticks = ''.join(
    f'<span class="tick" style="left:{left(10.0**p):.2f}%">{10.0**p:g}</span>'
    for p in range(low, high + 1)
  )
  keys = ''.join(
    _key(f'to the {name} prediction', color, 'points', name != 'interventional')
    for name, color in ACCOUNTINGS.items()
  )
  return f"""<ul class="arms">{keys}</ul>
<table class="margins"><tbody>
{rows}</tbody><tfoot><tr><td></td><td style="padding:0 .8rem">
<div class="scale">{ticks}</div>
<div class="unit">{escape(grid.x_label)}</div></td></tr></tfoot></table>
"""


def _dot(x, y, color, about='', square=False):
  label = f' role="img" aria-label="{about}" title="{about}"' if about else ''
  radius = '0' if square else '50%'
  return (
    f'<span{label} style="{_DOT}left:{x:.2f}%;top:{y:.2f}%;'
    f'border-radius:{radius};background:var(--arm-{color})"></span>'
  )


def _key(name, color, kind, square=False):
  if kind == 'points':
    shape = (
      f'<rect x="13" y="1" width="10" height="10" rx="{0 if square else 5}" '
      f'style="fill:var(--arm-{color})"/>'
    )
  else:
    shape = (
      f'<path d="M0 6H36" style="stroke:var(--arm-{color})"{_dashes(kind)}/>'
    )
  return (
    f'<li><svg viewBox="0 0 36 12" aria-hidden="true">{shape}</svg>'
    f'{escape(name)}</li>'
  )


def _dashes(kind):
  return f' stroke-dasharray="{_DASHES[kind]}"' if _DASHES[kind] else ''
