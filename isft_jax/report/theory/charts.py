"""Draws the figures of the theory with matplotlib."""

from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from isft_jax.report import plots
from isft_jax.report.colors import LIGHT
from isft_jax.report.theory.figures import ACCOUNTINGS, Figure, Grid

# Kind of a `Line` -> arguments for matplotlib.
_KINDS: dict[str, dict[str, Any]] = {
  'solid': {'linestyle': '-'},
  'dashed': {'linestyle': (0, (4, 1.6))},
  'dotted': {'linestyle': (0, (1, 1.5))},
  'both': {'linestyle': '-', 'marker': 'o', 'markersize': 5},
  'points': {'linestyle': 'none', 'marker': 'o', 'markersize': 5},
}


def draw(figure: Figure | Grid) -> plots.Chart:
  """Returns a figure as a chart of the same name."""
  # Inches: room for the rows of a grid, or for a legend of several lines.
  if isinstance(figure, Grid):
    height = 1.5 + 0.27 * len(figure.rows)
  else:
    height = 3 + 0.2 * len(figure.lines)
  with plots.drawing(height) as canvas:
    axes = canvas.add_subplot()
    if isinstance(figure, Grid):
      _draw_dots(axes, figure)
    else:
      _draw_lines(axes, figure)
    plots.legend_above(canvas, axes)
  return plots.Chart(
    figure.name, figure.title, canvas, figure.shows, figure.not_shown
  )


def _color(number: int) -> str:
  return LIGHT[f'arm-{number}']


def _draw_lines(axes: Axes, figure: Figure) -> None:
  for line in figure.lines:
    (artist,) = axes.plot(
      line.x,
      line.y,
      color=_color(line.color),
      label=line.name,
      linewidth=1.9,
      **_KINDS[line.kind],
    )
    plots.set_tooltip(artist, line.name)
  # Thresholds are vertical lines, with their names at the top.
  for mark in figure.marks:
    axes.axvline(mark.x, color=_color(mark.color), linewidth=1.2)
    # Names go to the left of a line near the right edge, and of one of the two
    # thresholds that are side by side.
    is_left = mark.name.startswith('greedy') or mark.x > 0.8
    axes.annotate(
      mark.name,
      xy=(mark.x, 1),
      xycoords=axes.get_xaxis_transform(),
      xytext=(-4 if is_left else 4, 0),
      textcoords='offset points',
      ha='right' if is_left else 'left',
      va='top',
      fontsize=9.5,
    )
  axes.set_ylim(bottom=0)
  axes.set_xlabel(figure.x_label)
  axes.set_ylabel(figure.y_label)
  axes.grid(axis='y')


def _draw_dots(axes: Axes, grid: Grid) -> None:
  places = np.arange(len(grid.rows))
  for name, number in ACCOUNTINGS.items():
    for place, row in zip(places, grid.rows, strict=True):
      mean, low, high = row.kl[name]
      # A log scale cannot show an interval that reaches zero: cut it.
      low = max(low, mean / 10)
      # A bar for the interval, and a mark for the mean. Short runs are hollow.
      axes.plot([low, high], [place, place], color=_color(number), linewidth=1)
      (dot,) = axes.plot(
        mean,
        place,
        'o' if name == 'interventional' else 's',
        color=_color(number),
        markerfacecolor=_color(number) if row.headline else LIGHT['paper'],
        markersize=7,
        label=f'to the {name} prediction' if place == 0 else None,
      )
      plots.set_tooltip(dot, f'{row.name}: {mean:.4f} nats to {name}')
  axes.set_xscale('log')
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  names = [
    f'{row.name}{"" if row.headline else " (short)"}' for row in grid.rows
  ]
  axes.set_yticks(places, names)
  axes.set_ylim(len(places) - 0.5, -0.5)  # the first row at the top
  axes.grid(axis='both')
  axes.set_xlabel(
    grid.x_label, loc='right'
  )  # because it is wider than the axes
