"""Charts of a deployment."""

from collections.abc import Mapping

from matplotlib import ticker

from isft_jax.report import plots
from isft_jax.report.escapes import visible_line
from isft_jax.report.evidence.words import ends


def increments(arms: Mapping[str, Mapping]) -> plots.Chart:
  """Draws the accuracy on all skills by increment, with its interval as a band.

  Args:
    arms: `continual` of results.json. An arm without increments is a line from
      the start to its end.
  """
  last = max(len(figures['all']) for figures in arms.values()) - 1
  with plots.drawing(4.2) as figure:
    axes = figure.add_subplot()
    for arm, (color, dashes) in plots.arm_styles(arms).items():
      values = arms[arm]['all']
      # The reference has only a start and an end.
      steps = range(last + 1) if len(values) == last + 1 else (0, last)
      low, high = zip(*map(ends, values), strict=True)
      means = [value['mean'] for value in values]
      change = f'{visible_line(arm)}  {means[0]:.0%} → {means[-1]:.0%}'
      axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
      (line,) = axes.plot(
        steps,
        means,
        color=color,
        linestyle=dashes,
        marker='o',
        markersize=4,
        linewidth=2,
        label=change,
      )
      plots.set_tooltip(line, change)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(10, integer=True))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.grid(axis='y')
    axes.set_xlabel('increments, one skill each')
    axes.set_ylabel('first tries that are right, all skills')
    plots.legend_above(figure, axes)
  label = 'Share of first tries that are right on all skills, by increment'
  return plots.Chart(
    'increments', label, figure, f'{label}. Bands: 95 % interval over seeds.'
  )
