"""Charts of training runs: losses by step, by author and by run."""

from collections.abc import Mapping

import numpy as np
from matplotlib import ticker

from isft_jax.report import plots
from isft_jax.report.colors import LIGHT
from isft_jax.report.escapes import visible_line
from isft_jax.report.plots import ArmStyle
from isft_jax.report.training.runs import Curve

# Author -> the color of its lines: that of pages, as far as charts have it.
_COLORS = {
  'TEMPLATE': 0,
  'AGENT': 1,
  'USER': 2,
  'DEMONSTRATION': 3,
  'TOOL': 4,
  'CONTEXT': 5,
  'HARNESS': 6,
}


def author_styles(authors: Mapping[str, Curve]) -> dict[str, ArmStyle]:
  """Returns author -> style. An author always has the same style."""
  return {
    author: ArmStyle(
      LIGHT[f'arm-{_COLORS[author]}'],
      plots.dashes(plots.DASHES[_COLORS[author]]),
    )
    for author in authors
    if author in _COLORS
  }


def curves(
  name: str,
  label: str,
  lines: Mapping[str, Curve],
  styles: Mapping[str, ArmStyle],
  unit: str,
  caption: str,
  across: str = 'optimizer step',
) -> plots.Chart | None:
  """Draws values by step, a line for each curve that has a style.

  Args:
    name: of the chart, in letters, digits and _.
    label: alternative text for screen readers.
    lines: words of the legend -> its curve. Values that are not finite are
      left out.
    styles: color and dashes of each line.
    unit: what the values are measured in.
    caption: text below the chart.
    across: what the steps are.

  Returns:
    The chart, or None if there is nothing to draw.
  """
  shown = {}
  for each in styles:
    steps, values = np.asarray(lines[each][0]), np.asarray(lines[each][1])
    kept = np.isfinite(values)
    if kept.any():
      shown[each] = steps[kept], values[kept]
  if not shown:
    return None
  with plots.drawing(3.6) as figure:
    axes = figure.add_subplot()
    for each, (steps, values) in shown.items():
      color, dashes = styles[each]
      # A curve of one point would be invisible without a mark, and so would
      # points without a line.
      (line,) = axes.plot(
        steps,
        values,
        color=color,
        linestyle=dashes,
        linewidth=2,
        marker='o' if len(steps) <= 30 or not dashes else '',
        markersize=4,
        label=visible_line(each),
      )
      plots.set_tooltip(line, f'{each}: {values[0]:.4f} to {values[-1]:.4f}')
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.grid(axis='y')
    axes.set_ylabel(unit)
    axes.set_xlabel(across)
    plots.legend_above(figure, axes)
  return plots.Chart(name, label, figure, caption)
