"""The figures of the theory as PNGs, in the manner of `plots`."""

import os
import pathlib

import numpy as np
from matplotlib import ticker

from isft_jax.report import plots
from isft_jax.report.theory.figures import ACCOUNTINGS, Figure, Grid

_COLORS = list(plots.COLORS.values())
_KINDS = {
  'solid': {'linestyle': '-'},
  'dashed': {'linestyle': (0, (5, 2))},
  'dotted': {'linestyle': (0, (1.2, 1.8))},
  'both': {'linestyle': '-', 'marker': 'o', 'markersize': 6},
  'points': {'linestyle': 'none', 'marker': 'o', 'markersize': 6},
}


def draw(figure: Figure | Grid, folder: str | os.PathLike) -> pathlib.Path:
  """Draws `<name>.png` into a folder, replaced atomically; returns its path."""
  path = pathlib.Path(folder) / f'{figure.name}.png'
  is_grid = isinstance(figure, Grid)
  inches = (8, 1.9 + 0.32 * len(figure.rows)) if is_grid else (9, 5.2)
  with plots._drawing(inches, path) as canvas:
    axes = canvas.add_subplot()
    (_dots if is_grid else _lines)(axes, figure)
    axes.set_title(figure.title, loc='left', fontsize=12, fontweight='bold')
    axes.set_xlabel(figure.x_label)
    axes.spines[['top', 'right']].set_visible(False)
    canvas.legend(
      *axes.get_legend_handles_labels(),
      loc='outside lower center',
      ncols=2,
      frameon=False,
      fontsize=10,
    )
  return path


def _lines(axes, figure):
  for line in figure.lines:
    kind = _KINDS[line.kind]
    color = _COLORS[line.color]
    axes.plot(line.x, line.y, color=color, label=line.name, lw=2.2, **kind)
  for mark in figure.marks:
    axes.axvline(mark.x, color=_COLORS[mark.color], lw=1.2)
    axes.annotate(
      f' {mark.name}',
      xy=(mark.x, 1),
      xycoords=axes.get_xaxis_transform(),
      # The thresholds of two agents stand side by side.
      ha='right' if mark.name.startswith('greedy') else 'left',
      va='top',
      fontsize=9.5,
      color='0.3',
    )
  axes.set_ylim(bottom=0)
  axes.set_ylabel(figure.y_label)
  axes.grid(axis='y', color='0.9')


def _dots(axes, figure):
  places = np.arange(len(figure.rows))
  for name, number in ACCOUNTINGS.items():
    mean, lo, hi = np.array([row.kl[name] for row in figure.rows]).T
    for solid in (True, False):
      rows = [row.headline == solid for row in figure.rows]
      axes.errorbar(
        mean[rows],
        places[rows],
        # What is within the error of zero has no place on a log scale.
        xerr=[(mean - np.maximum(lo, mean / 10))[rows], (hi - mean)[rows]],
        fmt='o' if name == 'interventional' else 's',
        color=_COLORS[number],
        markerfacecolor=None if solid else 'white',
        markersize=8,
        label=f'to the {name} prediction' if solid else None,
      )
  axes.set_xscale('log')
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  names = [
    f'{row.name}{"" if row.headline else " (short)"}' for row in figure.rows
  ]
  axes.set_yticks(places, names)
  axes.set_ylim(len(places) - 0.5, -0.5)  # the first on top
  axes.grid(axis='both', color='0.9')
