"""Charts of a lying-agent run: training losses and margins of facts."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker

from isft_jax.report import plots
from isft_jax.report.colors import LIGHT
from isft_jax.report.escapes import visible_line
from isft_jax.report.lying_agent.comparison import margins_by_topic


def running_mean(
  values: Sequence[float] | np.ndarray, window: int
) -> np.ndarray:
  """Returns the centered mean of `window` (odd) values, fewer at the ends.

  It is centered because a mean of past values lags above a falling loss.
  """
  # Sums of windows are differences of prefix sums: O(n) for any window.
  total = np.cumsum(np.concatenate([[0.0], np.asarray(values, np.float64)]))
  here = np.arange(len(values))
  start = np.maximum(here - window // 2, 0)
  stop = np.minimum(here + window // 2 + 1, len(values))
  return (total[stop] - total[start]) / (stop - start)


def loss_curves(
  curves: Mapping[str, Sequence[float]], steps: Mapping[str, Sequence[int]]
) -> plots.Chart | None:
  """Draws the training loss of each arm, raw and smoothed.

  Args:
    curves: arm -> losses in order, mean nats per scored token.
    steps: arm -> the step of each loss.

  Returns:
    The chart, or None if a log scale can show no loss.
  """
  # Drop losses that a log scale cannot show.
  shown = {}
  for arm in plots.arm_order(curves):
    loss, step = np.asarray(curves[arm], np.float64), np.asarray(steps[arm])
    kept = np.isfinite(loss) & (loss > 0)
    if kept.any():
      shown[arm] = step[kept], loss[kept]
  if not shown:
    return None
  # An odd window of about a twentieth of the longest curve.
  window = max(5, max(len(loss) for _, loss in shown.values()) // 20) | 1
  with plots.drawing(4.2) as figure:
    axes = figure.add_subplot()
    for arm, (color, dashes) in plots.arm_styles(shown).items():
      step, loss = shown[arm]
      # Thin: each step. Thick: the running mean.
      axes.plot(step, loss, color=color, linewidth=0.8, alpha=0.35)
      (line,) = axes.plot(
        step,
        running_mean(loss, window),
        color=color,
        linestyle=dashes,
        linewidth=2,
        label=visible_line(arm),
      )
      plots.set_tooltip(line, arm)
    # A log scale with a few round ticks.
    axes.set_yscale('log')
    ticks = _loss_ticks(*axes.get_ylim())
    axes.yaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.grid(axis='y')
    axes.set_ylabel('loss, nats per scored token')
    axes.set_xlabel('optimizer step')
    plots.legend_above(figure, axes)
  return plots.Chart(
    'loss_curves',
    'Training loss of ' + ', '.join(shown),
    figure,
    'Loss in nats per scored token, on a log scale. Thin: each logged step. '
    f'Thick: running mean of {window} of them. Each objective scores different '
    'tokens: compare the shape of the curves, not their level.',
  )


def margins(arms: Mapping[str, dict]) -> plots.Chart | None:
  """Draws every fact's margin in every arm as bars.

  Facts are sorted by the margin of the interventional arm, or of the first arm
  if there is no interventional one.

  Args:
    arms: `arms` of results.json.

  Returns:
    The chart, or None if no fact was probed.

  Raises:
    ValueError: two facts of an arm share a topic.
  """
  # Arms and facts in the order of the chart.
  values = {arm: _known_margins(arms[arm]) for arm in plots.arm_order(arms)}
  topics = _sorted_topics(values)
  if not topics:
    return None
  styles = plots.arm_styles(values)
  # In inches from the top: a line of text, then a bar for each arm.
  bar, line = 0.085, 0.22
  row = line + len(values) * bar + 0.1
  with plots.drawing(1.4 + 0.2 * len(values) / 2 + row * len(topics)) as figure:
    axes = figure.add_subplot()
    # Bars with a known margin, and a tooltip for each.
    for i, (arm, by_topic) in enumerate(values.items()):
      # The bars of a topic are below its title, one per arm.
      bars = axes.barh(
        [n * row + line + i * bar for n in range(len(topics))],
        [by_topic.get(topic, np.nan) for topic in topics],
        height=bar,
        align='edge',
        color=styles[arm].color,
        label=_legend_label(arm, arms[arm]),
      )
      for patch, topic in zip(bars, topics, strict=True):
        margin = by_topic.get(topic, np.nan)
        if np.isfinite(margin):
          plots.set_tooltip(patch, f'{arm} {margin:+.3f}')
        else:
          patch.remove()
    # A title and a piece of the zero line per fact.
    for n, topic in enumerate(topics):
      top = n * row
      # The zero line leaves out the title.
      zero = axes.vlines(0, top + line - 0.02, top + row - 0.08, linewidth=1)
      zero.set(color=LIGHT['ink'], zorder=3)
      axes.text(
        0,
        top + line / 2,
        textwrap.shorten(visible_line(topic), 64, placeholder=' …'),
        transform=axes.get_yaxis_transform(),
        fontsize=9.5,
        va='center',
        # The box hides the lines of the grid behind the text.
        bbox={'facecolor': LIGHT['paper'], 'edgecolor': 'none', 'pad': 1},
      )
    # The axes, with a word for each side of zero.
    axes.set_xlim(*_limits(values))
    # Titles of topics take the place of ticks.
    axes.set_ylim(row * len(topics), 0)  # the first on top
    axes.set_yticks([])
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.grid(axis='x')
    axes.spines['left'].set_visible(False)
    axes.set_xlabel('nats per token')
    for text, side, align in (
      ('← prefers the lie', -1, 'right'),
      ('prefers the truth →', 1, 'left'),
    ):
      # The words stand at the top of the zero line, a few points beside it.
      axes.annotate(
        text,
        xy=(0, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(4 * side, 3),
        textcoords='offset points',
        ha=align,
        va='bottom',
        fontsize=9.5,
        fontweight='bold',
      )
    plots.legend_above(figure, axes)
  return plots.Chart(
    'margins',
    'Margin of each fact in each arm',
    figure,
    'The margin of a fact is log p(true claim) - log p(false claim) in the '
    "agent's slot, in nats per token, after a question about the topic: left "
    'of 0 the model prefers the lie. The arms of each row are in the order of '
    'the legend, column by column, from top to bottom.',
  )


def _known_margins(arm: Mapping) -> dict[str, float]:
  margins = margins_by_topic(arm)
  return {topic: value for topic, value in margins.items() if value is not None}


def _legend_label(name: str, arm: Mapping) -> str:
  mean = arm.get('mean_margin')
  name = visible_line(name)
  return name if mean is None else f'{name} (mean {mean:+.3f})'


def _sorted_topics(values: dict[str, dict[str, float]]) -> list[str]:
  """Returns all topics, highest margin of the interventional arm first."""
  if not values:
    return []
  # Without an interventional arm, the first one gives the order.
  leader = values.get('interventional', next(iter(values.values())))
  topics = {topic: None for by_topic in values.values() for topic in by_topic}
  # Topics without a margin in the leading arm come last.
  return sorted(topics, key=lambda topic: -leader.get(topic, -np.inf))


def _limits(values: dict[str, dict[str, float]]) -> tuple[float, float]:
  """Returns the limits of the margins' axis, with room on both sides of 0."""
  margins = [m for by_topic in values.values() for m in by_topic.values()]
  finite = [m for m in margins if np.isfinite(m)]
  # Without any finite margin the axis is -1 to 1.
  low, high = min(finite, default=0), max(finite, default=0)
  # Both sides of zero are wide enough for the words above them.
  room = 0.45 * (max(high, 0) - min(low, 0)) or 1
  return min(1.04 * low, -room), max(1.04 * high, room)


def _loss_ticks(low: float, high: float) -> list[float]:
  """Returns a few round losses between low and high, on a log scale."""
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  # The coarsest steps per decade that give at least four ticks.
  for steps in (1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7):
    ticks = [s * 10.0**d for d in decades for s in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= 4:
      return ticks
  # Less than a decade: the log scale is nearly straight.
  even = ticker.MaxNLocator(5).tick_values(low, high)
  return [tick for tick in even if low <= tick <= high]
