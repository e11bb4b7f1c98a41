"""Two pictures of a run: how the losses fell, and which claims it prefers.

Drawn on matplotlib's Agg canvas through the object API, so that no display,
no pyplot state and no matplotlibrc has a say: the same input gives the same
bytes.
"""

import contextlib
import io
import os
import pathlib
import textwrap

import numpy as np
from matplotlib import style, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, which readers without red or green can tell apart.
# The order is the order of arms in every table and figure.
COLORS = {
  'base': '#999999',
  'observational': '#D55E00',
  'interventional': '#0072B2',
  'agent_only': '#E69F00',
  'error_masked': '#009E73',
  'truth_only': '#CC79A7',
}
_SPARE_COLORS = ('#56B4E9', '#000000', '#F0E442')

_STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 11,
  'axes.unicode_minus': False,  # the minus of Python's numbers beside it
  'axes.axisbelow': True,
}
_DPI = 120


def arm_order(arms) -> list[str]:
  """Returns the names of `arms`: known ones as in COLORS, others after."""
  return [arm for arm in COLORS if arm in arms] + [
    arm for arm in arms if arm not in COLORS
  ]


def arm_colors(arms) -> dict[str, str]:
  """Returns a color for each arm; a known arm always has its own."""
  unknown = [arm for arm in arms if arm not in COLORS]
  spare = {
    arm: _SPARE_COLORS[i % len(_SPARE_COLORS)] for i, arm in enumerate(unknown)
  }
  return {arm: COLORS.get(arm) or spare[arm] for arm in arm_order(arms)}


def margins_by_topic(
  arm: dict, field: str = 'margin'
) -> dict[str, float | None]:
  """Returns topic -> margin of an arm of results.json, nats per token.

  Args:
    arm: an entry of `arms`.
    field: 'margin', or 'paper_margin' for the paper's way of scoring, which is
      None where the file does not have it.

  Raises:
    ValueError: if two facts share a topic: one would hide the other.
  """
  margins = {fact['topic']: fact.get(field) for fact in arm['facts']}
  if len(margins) != len(arm['facts']):
    topics = [fact['topic'] for fact in arm['facts']]
    twice = sorted({topic for topic in topics if topics.count(topic) > 1})
    raise ValueError(f'several facts share a topic: {twice}; rename them')
  return margins


def running_mean(values, window: int) -> np.ndarray:
  """Returns the mean of `window` (odd) values around each, fewer at the ends.

  Centered, because a mean of past values lags above a falling loss.
  """
  total = np.cumsum(np.concatenate([[0.0], np.asarray(values, np.float64)]))
  here = np.arange(len(values))
  start = np.maximum(here - window // 2, 0)
  stop = np.minimum(here + window // 2 + 1, len(values))
  return (total[stop] - total[start]) / (stop - start)


def loss_curves(
  curves: dict[str, list[float]],
  path: str | os.PathLike,
  steps: dict[str, list[int]] | None = None,
) -> None:
  """Draws the training loss of each arm, raw and smoothed, as a PNG.

  curves: arm -> losses in order, mean nats per scored token.
  path: of the PNG, replaced atomically.
  steps: arm -> the step of each loss; without it they count from 1.
  """
  longest = max((len(losses) for losses in curves.values()), default=0)
  window = max(5, longest // 20) | 1
  with _drawing((9, 5.4), path) as figure:
    axes = figure.add_subplot()
    for arm, color in arm_colors(curves).items():
      losses = curves[arm]
      x = steps[arm] if steps else np.arange(1, len(losses) + 1)
      axes.plot(x, losses, color=color, linewidth=0.8, alpha=0.3)
      smooth = running_mean(losses, window)
      axes.plot(x, smooth, color=color, linewidth=2.4, label=arm)
    axes.set_yscale('log')
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=_subs(curves)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(axis='y', color='0.9')
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_ylabel('loss, nats per scored token (log scale)')
    axes.set_xlabel('optimizer step')
    _note_under(
      figure,
      f'Thin: each logged step. Thick: running mean of {window} of them.\n'
      'Each objective scores different tokens: compare the shape of the '
      'curves, not their level.',
    )
    if curves:
      _legend_above(figure, axes, len(curves))
    else:
      _say_empty(axes, 'no arm was trained')


def margins(results: dict, path: str | os.PathLike) -> None:
  """Draws every fact's margin in every arm as bars, as a PNG.

  Facts are sorted by their interventional margin, or by that of the first arm
  where there is no interventional one.

  results: the content of results.json.
  path: of the PNG, replaced atomically.

  Raises ValueError if two facts of an arm share a topic.
  """
  arms = results['arms']
  values = {arm: margins_by_topic(arms[arm]) for arm in arm_order(arms)}
  topics = sorted_topics(values)
  colors = arm_colors(arms)
  bar = 0.8 / max(1, len(values))
  inches = 1.8 + len(topics) * max(0.3, 0.095 * len(values))
  with _drawing((10, max(3.0, inches)), path) as figure:
    axes = figure.add_subplot()
    rows = np.arange(len(topics))
    for row in rows[::2]:
      axes.axhspan(row - 0.5, row + 0.5, color='0.955', linewidth=0, zorder=0)
    for i, (arm, by_topic) in enumerate(values.items()):
      axes.barh(
        rows + (i - (len(values) - 1) / 2) * bar,
        [by_topic.get(topic, np.nan) for topic in topics],
        height=bar,
        color=colors[arm],
        label=_arm_label(arm, arms[arm]),
        zorder=2,
      )
    axes.axvline(0, color='black', linewidth=1.2, zorder=3)
    axes.set_xlim(*limits(values))
    axes.set_ylim(max(1, len(topics)) - 0.5, -0.5)  # the first on top
    labels = [textwrap.fill(topic, 38) for topic in topics]
    axes.set_yticks(rows, labels, parse_math=False)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='x', color='0.85')
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.set_xlabel('margin, log p(true) - log p(false), nats per token')
    for text, side, align in (
      ('← prefers the lie', -1, 'right'),
      ('prefers the truth →', 1, 'left'),
    ):
      axes.annotate(
        text,
        xy=(0, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(6 * side, 5),
        textcoords='offset points',
        ha=align,
        va='bottom',
        fontweight='bold',
      )
    if topics:
      _legend_above(figure, axes, len(values))
    else:
      _say_empty(axes, 'no fact was probed')


def replace_file(path: str | os.PathLike, content: bytes) -> None:
  """Writes a file whole or not at all: a reader never sees half of it."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(content)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _drawing(inches, path):
  with style.context(['default', _STYLE]):
    figure = Figure(figsize=inches, dpi=_DPI, layout='constrained')
    # Inches: tick labels must not touch the edge of the picture.
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    yield figure
    png = io.BytesIO()
    # matplotlib would sign the file with its version.
    FigureCanvasAgg(figure).print_png(png, metadata={'Software': None})
  replace_file(path, png.getvalue())


def _subs(curves):
  # A loss rarely spans a decade: powers of ten alone would label one tick.
  losses = np.concatenate([[1.0], *curves.values()])
  losses = losses[np.isfinite(losses) & (losses > 0)]
  span = losses.max() / losses.min()
  return (1, 1.5, 2, 3, 5, 7) if span < 50 else (1, 3) if span < 1e4 else (1,)


def sorted_topics(values: dict[str, dict[str, float]]) -> list[str]:
  """Returns all topics, the interventional arm's highest margin first.

  values: arm -> topic -> margin. Without that arm, the first one sorts.
  """
  if not values:
    return []
  leader = (
    'interventional' if 'interventional' in values else next(iter(values))
  )
  topics = {topic: None for by_topic in values.values() for topic in by_topic}
  return sorted(topics, key=lambda t: -values[leader].get(t, -np.inf))


def limits(values: dict[str, dict[str, float]]) -> tuple[float, float]:
  """Returns the ends of the margins' axis; both sides of 0 have room."""
  margins = [m for by_topic in values.values() for m in by_topic.values()]
  finite = [m for m in margins if np.isfinite(m)]
  low, high = min(finite, default=0), max(finite, default=0)
  # Both sides of zero stay wide enough for the words above them.
  room = 0.3 * (max(high, 0) - min(low, 0)) or 1
  return min(1.04 * low, -room), max(1.04 * high, room)


def _arm_label(name, arm):
  mean = arm.get('mean_margin')
  return name if mean is None else f'{name} (mean {mean:+.3f})'


def _legend_above(figure, axes, entries):
  figure.legend(
    *axes.get_legend_handles_labels(),
    loc='outside upper center',
    ncols=entries if entries <= 4 else 3,
    frameon=False,
    fontsize=10,
    handlelength=1.4,
    columnspacing=1.4,
  )


def _note_under(figure, text):
  figure.supxlabel(text, fontsize=9.5, color='0.3')


def _say_empty(axes, text):
  axes.text(
    0.5,
    0.5,
    text,
    transform=axes.transAxes,
    ha='center',
    bbox={'facecolor': 'white', 'edgecolor': 'none'},
    zorder=4,
  )
