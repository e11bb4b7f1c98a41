"""The evidence in pictures: means with their intervals, as HTML and SVG.

As in `charts`, lines stretch and text does not, and colors follow the page.
"""

from collections.abc import Mapping, Sequence
from html import escape

from matplotlib import ticker

from isft_jax.report import charts, document

Interval = Mapping[str, float | None]


def text(value: Interval, form: str = '+.3f') -> str:
  """Returns 'mean [lo, hi]', or the mean alone of a single seed."""
  mean = format(value['mean'], form)
  if value['lo'] is None:
    return mean
  return f'{mean} [{format(value["lo"], form)}, {format(value["hi"], form)}]'


def ends(value: Interval) -> tuple[float, float]:
  """Returns the ends of an interval; of a single seed, its value twice."""
  if value['lo'] is None:
    return value['mean'], value['mean']
  return value['lo'], value['hi']


def lines(
  series: Mapping[str, Sequence[Interval]], label: str, axis: str
) -> str:
  """Returns a figure of a line an arm, with its 95 % band; shares from 0 to 1.

  series: arm -> the interval of each round. label: what is drawn. axis: of x.
  """
  style = charts.style_index(series)
  last = max(len(values) for values in series.values()) - 1
  found = [end for values in series.values() for v in values for end in ends(v)]
  low, high = min(0.5, *found) - 0.02, min(1.02, max(0.6, *found) + 0.02)

  def left(step):
    return 100 * step / max(last, 1)

  def top(share):
    return 100 * (high - min(max(share, low), high)) / (high - low)

  shapes = texts = ''
  for tick in ticker.MaxNLocator(5).tick_values(low, high):
    if low <= tick <= high:
      shapes += f'<path class="grid" d="M0 {top(tick):.2f}H100"/>'
      texts += (
        f'<span class="tick y" style="top:{top(tick):.2f}%">{tick:.0%}</span>'
      )
  for step in range(last + 1):
    texts += (
      f'<span class="tick x" style="left:{left(step):.2f}%">{step}</span>'
    )
  for arm, index in style.items():
    steps = range(len(series[arm]))
    upper = [f'{left(i):.2f} {top(ends(series[arm][i])[1]):.2f}' for i in steps]
    lower = [f'{left(i):.2f} {top(ends(series[arm][i])[0]):.2f}' for i in steps]
    means = [f'{left(i):.2f} {top(series[arm][i]["mean"]):.2f}' for i in steps]
    color = f'var(--arm-{index})'
    shapes += (
      f'<path style="fill:{color};opacity:.1" '
      f'd="M{"L".join(upper + lower[::-1])}Z"/>'
      f'<path class="smooth" style="stroke:{color}" d="M{"L".join(means)}"/>'
    )
  legend = ''.join(
    f'<li><svg viewBox="0 0 36 12" aria-hidden="true"><path d="M0 6H36" '
    f'stroke-width="5" style="stroke:var(--arm-{index})"/></svg>'
    f'{escape(arm)} <small>{series[arm][0]["mean"]:.0%} → '
    f'{series[arm][-1]["mean"]:.0%}</small></li>\n'
    for arm, index in style.items()
  )
  return f"""<figure>
<ul class="arms">
{legend}</ul>
<div class="curves"><svg viewBox="0 0 100 100" preserveAspectRatio="none"
role="img" aria-label="{escape(label)}">{shapes}</svg>{texts}
<span class="axis">{escape(axis)}</span></div>
<figcaption>{escape(label)} Bands: 95 % interval over seeds.</figcaption>
</figure>
"""


def dots(rows: Sequence[tuple[str, Interval]], label: str, unit: str) -> str:
  """Returns a figure of rows: the mean a mark, its interval a bar."""
  found = [end for _, value in rows for end in ends(value)]
  low, high = min(0.0, *found), max(0.0, *found)
  room = 0.06 * (high - low) or 0.5
  low, high = low - room, high + room

  def left(value):
    return 100 * (value - low) / (high - low)

  lines = ''
  for name, value in rows:
    start, stop = ends(value)
    about = escape(f'{name} {text(value)}')
    bar = (
      f'margin-left:{left(start):.2f}%;width:{left(stop) - left(start):.2f}%;'
      'background:var(--link);opacity:.45'
    )
    mark = (
      f'margin-left:calc({left(value["mean"]):.2f}% - 2px);width:4px;'
      'margin-top:-.7rem;height:1rem;background:var(--ink)'
    )
    lines += (
      f'<tr><th scope="row">{escape(name)}</th><td><div class="plot" '
      f'role="img" aria-label="{about}" title="{about}">'
      f'<div class="bar" style="{bar}"></div>'
      f'<div class="bar" style="{mark}"></div></div></td></tr>\n'
    )
  ticks = ''.join(
    f'<span class="tick" style="left:{left(tick):.2f}%">{tick:g}</span>'
    for tick in ticker.MaxNLocator(5).tick_values(low, high)
    if low <= tick <= high
  )
  return f"""<figure style="--zero:{left(0):.2f}%">
<table class="margins">
<tbody>
{lines}</tbody>
<tfoot><tr><td></td><td><div class="scale">{ticks}</div>
<div class="unit">{escape(unit)}</div></td></tr></tfoot>
</table>
<figcaption>{escape(label)} Mark: mean over seeds; bar: its 95 %
interval.</figcaption>
</figure>
"""


def heat(
  cells: Mapping[tuple[float, float], Interval],
  rows: tuple[str, Sequence[float]],
  columns: tuple[str, Sequence[float]],
  label: str,
  largest: float,
) -> str:
  """Returns a table whose cells are the more colored the larger they are.

  cells: (row value, column value) -> interval. rows, columns: name and values.
  largest: the absolute value that has the full color; blue is above 0.
  """

  def cell(value):
    side = 'truth' if value['mean'] > 0 else 'lie'
    share = min(abs(value['mean']) / largest, 1) if largest else 0
    doubt = value['lo'] is not None and value['lo'] <= 0 <= value['hi']
    return (
      f'<td style="background:color-mix(in srgb, var(--{side}) '
      f'{55 * share:.0f}%, var(--paper))">{text(value, "+.2f")}'
      f'{" ?" if doubt else ""}</td>'
    )

  table = [
    [f'{rows[0]} {row:g}', *(cell(cells[row, column]) for column in columns[1])]
    for row in rows[1]
  ]
  header = [''] + [f'{columns[0]} {column:g}' for column in columns[1]]
  return document.table(header, table, escape(label))
