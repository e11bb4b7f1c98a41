"""Charts of the evidence: means with confidence intervals."""

from collections.abc import Mapping, Sequence

from matplotlib import ticker

from isft_jax.report import plots
from isft_jax.report.colors import LIGHT
from isft_jax.report.escapes import visible_line
from isft_jax.report.evidence.words import Interval, ends, text


def flywheel(wheel: Mapping[str, Mapping]) -> plots.Chart:
  """Draws the accuracy of each arm by round, with its 95 % interval as a band.

  Args:
    wheel: `flywheel` of results.json.
  """
  return curves(
    'flywheel',
    {
      arm: (range(len(figures['accuracy'])), figures['accuracy'])
      for arm, figures in wheel.items()
    },
    'Share of sampled answers that are right, by rounds of training',
    ('rounds of training on its own answers', 'sampled answers that are right'),
  )


def curves(
  name: str,
  arms: Mapping[str, tuple[Sequence[int], Sequence[Interval]]],
  label: str,
  axis_labels: tuple[str, str],
) -> plots.Chart:
  """Draws a share of each arm over time, with its 95 % interval as a band.

  Args:
    name: the name of the chart.
    arms: arm -> (whole numbers on the x axis, shares).
    label: description of the chart.
    axis_labels: labels of the two axes.
  """
  with plots.drawing(4.2) as figure:
    axes = figure.add_subplot()
    for arm, (color, dashes) in plots.arm_styles(arms).items():
      # The band is the interval; the label has the first and the last mean.
      steps, values = arms[arm]
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
    # Steps are whole numbers, and shares are in per cent.
    axes.xaxis.set_major_locator(ticker.MaxNLocator(10, integer=True))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.grid(axis='y')
    axes.set_xlabel(axis_labels[0])
    axes.set_ylabel(axis_labels[1])
    plots.legend_above(figure, axes)
  caption = f'{label}. Bands: 95 % interval over seeds.'
  return plots.Chart(name, label, figure, caption)


def price(
  arms: Mapping[str, Mapping], costs: Mapping[str, Mapping]
) -> plots.Chart | None:
  """Draws each arm at its margin and at its share of turns like the user's.

  Args:
    arms: `arms` of results.json; {} without that part.
    costs: its `costs`; {} without that part.

  Returns:
    The chart, or None if no arm has both.
  """
  both = [arm for arm in costs if arm in arms]
  if not both:
    return None
  margins = {arm: arms[arm]['told']['mean_margin'] for arm in both}
  user_like = {arm: costs[arm]['user_like'] for arm in both}
  with plots.drawing(4.6) as figure:
    axes = figure.add_subplot()
    for arm, (color, _) in plots.arm_styles(margins).items():
      margin, share = margins[arm], user_like[arm]
      across, up = (
        [[value['mean'] - low], [high - value['mean']]]
        for value in (margin, share)
        for low, high in [ends(value)]
      )
      line = axes.errorbar(
        margin['mean'],
        share['mean'],
        xerr=across,
        yerr=up,
        color=color,
        marker='o',
        markersize=5,
        elinewidth=1,
      )
      told = f'{visible_line(arm)}  {text(margin)}, {text(share, ".1%")}'
      plots.set_tooltip(line.lines[0], told)
    # Names stand in a column, in the order of the marks, joined by thin lines.
    styles = plots.arm_styles(margins)
    ranked = sorted(styles, key=lambda arm: user_like[arm]['mean'])
    for rank, arm in enumerate(ranked):
      axes.annotate(
        visible_line(arm),
        (margins[arm]['mean'], user_like[arm]['mean']),
        xytext=(1.06, (rank + 0.5) / len(ranked)),
        textcoords='axes fraction',
        va='center',
        fontsize='small',
        color=styles[arm][0],
        arrowprops={
          'arrowstyle': '-',
          'color': styles[arm][0],
          'lw': 0.5,
          'relpos': (0, 0.5),
        },
      )
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.set_xlabel('mean margin of told facts, nats per token')
    axes.set_ylabel('turns that talk like the user')
  caption = (
    'What an arm learns against what it costs: better is right and low. Bars: '
    '95 % interval over seeds.'
  )
  return plots.Chart('price', caption, figure, caption)


def dots(
  name: str, rows: Sequence[tuple[str, Interval]], label: str, unit: str
) -> plots.Chart:
  """Draws a row per mean: the mean as a mark, its interval as a bar.

  Args:
    name: the name of the chart.
    rows: (label, interval) of each row.
    label: description of the chart, which begins the caption.
    unit: label of the axis.
  """
  with plots.drawing(0.8 + 0.27 * len(rows)) as figure:
    axes = figure.add_subplot()
    for place, (row, value) in enumerate(rows):
      # One seed has no interval: its bar has no width.
      low, high = ends(value)
      bar = axes.barh(place, high - low, left=low, height=0.4, alpha=0.45)[0]
      bar.set(color=LIGHT['link'])
      bar.sticky_edges.x.clear()  # the last mark is not cut
      mark = axes.vlines(value['mean'], place - 0.4, place + 0.4, linewidth=2.5)
      mark.set(color=LIGHT['ink'])
      for part in bar, mark:
        plots.set_tooltip(part, f'{row} {text(value)}')
    # The line at 0 shows which intervals contain it.
    axes.axvline(0, color=LIGHT['ink'], linewidth=0.8)
    axes.set_yticks(range(len(rows)), [visible_line(row) for row, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    axes.grid(axis='x')
    axes.set_xlabel(unit, loc='right')
  caption = f'{label} Mark: mean over seeds; bar: its 95 % interval.'
  return plots.Chart(name, label, figure, caption)
