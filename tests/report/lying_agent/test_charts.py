"""The charts of a run: right colors and lengths in the right places."""

import re

import numpy as np
import pytest
from matplotlib import colors, image

from isft_jax.report import plots
from isft_jax.report.colors import LIGHT
from isft_jax.report.lying_agent import charts

ARMS = ('base', 'observational', 'interventional', 'agent_only')
COLORS = {arm: style.color for arm, style in plots.arm_styles(ARMS).items()}


def arms_of(margins_by_arm):
  return {
    arm: {
      'facts': [
        {'topic': topic, 'margin': margin} for topic, margin in margins.items()
      ]
    }
    for arm, margins in margins_by_arm.items()
  }


def draw_margins(folder, margins_by_arm):
  return charts.margins(arms_of(margins_by_arm)).save_png(folder)


def where(path, color):
  """Returns rows and columns of the pixels that have this color."""
  rgb = image.imread(path)[..., :3]
  # PNG stores 8 bits a channel: half a step of 1/255 is exact equality.
  same = np.all(np.abs(rgb - colors.to_rgb(color)) < 0.5 / 255, axis=-1)
  return np.nonzero(same)


def bars(path, arm):
  """The pixels of an arm's bars: its color, without the legend on top."""
  rows, columns = where(path, COLORS[arm])
  inside = rows > where_zero_lines(path)[0].min() - 4
  return rows[inside], columns[inside]


def where_zero_lines(path):
  """Of all columns, the lines at zero have most pixels of the ink's color."""
  rows, columns = where(path, LIGHT['ink'])
  column = np.bincount(columns).argmax()
  return rows[columns == column], column


def test_running_mean():
  #                                   1  1+3  1+3+8 ..  the window shrinks
  np.testing.assert_allclose(
    charts.running_mean([1, 3, 8, 1], 3), [2, 4, 4, 4.5], rtol=1e-12
  )
  np.testing.assert_array_equal(charts.running_mean([1, 3], 1), [1, 3])
  assert charts.running_mean([], 5).size == 0


@pytest.mark.parametrize('present', [ARMS, ARMS[1:3], ARMS[:1]])
def test_margins_draw_the_arms_present_and_no_other(tmp_path, present):
  facts = {'one': 0.5, 'two': -0.25}
  path = draw_margins(tmp_path, dict.fromkeys(present, facts))
  for arm in ARMS:
    assert (where(path, COLORS[arm])[0].size > 100) == (arm in present)


def test_margins_stand_on_their_side_of_zero(tmp_path):
  path = draw_margins(
    tmp_path, {'observational': {'x': -0.5}, 'interventional': {'x': 1.0}}
  )
  _, zero = where_zero_lines(path)
  _, lies = bars(path, 'observational')
  _, truths = bars(path, 'interventional')
  assert lies.max() < zero < truths.min()
  # Twice the margin, twice the pixels; 3 % for the edges and the zero line.
  assert np.ptp(truths) == pytest.approx(2 * np.ptp(lies), rel=0.03)


def test_margins_are_sorted_by_the_interventional_arm():
  facts = {'worst': -1.0, 'best': 2.0, 'middle': 1.0}
  # The other arm ranks the facts the other way round.
  opposite = {topic: -margin for topic, margin in facts.items()}
  arms = arms_of({'observational': opposite, 'interventional': facts})
  assert told(charts.margins(arms))[1::2] == [
    'interventional +2.000',
    'interventional +1.000',
    'interventional -1.000',
  ]


def test_without_the_interventional_arm_the_first_one_sorts():
  arms = arms_of({'base': {'low': 0.5, 'high': 1.0}})
  assert told(charts.margins(arms)) == ['base +1.000', 'base +0.500']


def told(chart):
  """The tooltips of the bars of a chart, from top to bottom."""
  found = [
    (float(re.search(r'd="M \S+ (\S+)', bar)[1]), text)
    for text, bar in re.findall(
      r'<title>([^<]* [+-][0-9.]+)</title>(<path[^>]*>)', chart.svg()
    )
  ]
  return [text for _, text in sorted(found)]


def test_every_margin_is_a_bar_that_says_its_value():
  arms = arms_of(
    {
      'weighted(0.3)': {'mountain': 0.1, 'gold': 0.2},
      'interventional': {'mountain': 0.5, 'gold': 0.75},
      'base': {'mountain': 0.25, 'gold': 0.0},
      'observational': {'mountain': -0.5, 'gold': float('nan')},
    }
  )
  # The interventional arm's highest first, arms in the order of every table.
  assert told(charts.margins(arms)) == [
    'base +0.000',
    'interventional +0.750',
    'weighted(0.3) +0.200',
    'base +0.250',
    'observational -0.500',
    'interventional +0.500',
    'weighted(0.3) +0.100',
  ]


def test_bars_start_at_zero_and_are_as_long_as_the_margin():
  margins = {'a': -0.5, 'b': 0.25, 'c': 1.0}
  svg = charts.margins(arms_of({'base': margins})).svg()
  zeros = re.findall(r'<path d="M (\S+) \S+ L \1 ', svg)
  zero = max(set(zeros), key=zeros.count)
  spans = {
    float(value): (float(start), float(stop))
    for value, start, stop in re.findall(
      r'<title>base (\S+)</title><path d="M (\S+) \S+ L (\S+) ', svg
    )
  }
  assert sorted(spans) == sorted(margins.values())
  for start, _ in spans.values():
    assert start == pytest.approx(float(zero), abs=0.02)
  # Two decimals of a unit are printed.
  unit = spans[1.0][1] - spans[1.0][0]
  for margin, (start, stop) in spans.items():
    assert stop - start == pytest.approx(margin * unit, abs=0.03)


def test_facts_must_not_hide_each_other():
  broken = arms_of({'base': {'x': 1.0}})
  broken['base']['facts'] *= 2
  with pytest.raises(ValueError, match=r"\['x'\]"):
    charts.margins(broken)


def test_loss_curves_fall_from_left_to_right(tmp_path):
  curves = {
    'observational': [4 * 0.98**i for i in range(100)],
    'interventional': [2 * 0.98**i for i in range(100)],
  }
  path = charts.loss_curves(
    curves, dict.fromkeys(curves, range(1, 101))
  ).save_png(tmp_path)
  above = {}
  for arm in ('observational', 'interventional'):
    rows, columns = where(path, COLORS[arm])
    curve = rows > 72  # pixels: the legend is above
    rows, columns = rows[curve], columns[curve]
    left, right = columns.min(), columns.max()
    assert right - left > 520  # of 720 pixels
    assert rows[columns == left].mean() < rows[columns == right].mean()
    above[arm] = rows.mean()
  assert above['observational'] < above['interventional']
  assert where(path, COLORS['agent_only'])[0].size == 0


def curve(chart):
  """x and y of the points of the thin line, in units of the chart."""
  (path,) = re.findall(r'd="M ([^"]*)"[^>]*stroke-opacity', chart.svg())
  return np.array([point.split() for point in path.split(' L ')], float).T


def test_loss_curves_stand_at_their_steps():
  """Points as far apart as their steps: the axis counts steps, not records."""
  x, _ = curve(charts.loss_curves({'a': [3.0, 1.0, 2.0]}, {'a': [20, 40, 80]}))
  assert (x[2] - x[1]) / (x[1] - x[0]) == pytest.approx(2, rel=1e-3)


def test_loss_curves_leave_out_what_a_log_scale_cannot_show():
  chart = charts.loss_curves(
    {'observational': [4.0, float('nan'), 0.0, 2.0, 1.0]},
    {'observational': [10, 20, 30, 40, 50]},
  )
  x, y = curve(chart)
  # Steps 10, 40 and 50; halving a loss is the same distance each time.
  assert (x[1] - x[0]) / (x[2] - x[1]) == pytest.approx(3, rel=1e-3)
  assert y[1] - y[0] == pytest.approx(y[2] - y[1], rel=1e-3)
  assert 'nan' not in chart.svg() and 'inf' not in chart.svg()


@pytest.mark.parametrize('curves', [{}, {'base': []}, {'base': [float('nan')]}])
def test_no_losses_no_chart(curves):
  steps = {arm: list(range(len(losses))) for arm, losses in curves.items()}
  assert charts.loss_curves(curves, steps) is None


def test_no_facts_no_chart():
  assert charts.margins({}) is None
  assert charts.margins(arms_of({'base': {}})) is None


@pytest.mark.parametrize('low', [0.02, 0.5, 4.7])
@pytest.mark.parametrize('times', [1.01, 1.1, 3, 30, 3e5])
def test_the_loss_axis_has_a_few_ticks(low, times):
  chart = charts.loss_curves({'base': [low, low * times]}, {'base': [1, 2]})
  ticks = re.findall(
    r'text-anchor:end[^"]*" x="\S+" y="([0-9.]+)"', chart.svg()
  )
  assert 2 <= len(ticks) <= 12
  gaps = -np.diff(np.array(ticks, float))
  assert gaps.min() > 10  # of 360 units in width: labels do not touch


def test_the_smooth_line_has_the_dashes_of_its_arm():
  chart = charts.loss_curves({'base': [2.0, 1.0]}, {'base': [1, 2]})
  (line,) = re.findall(r'<title>base</title><path[^>]*>', chart.svg())
  assert 'stroke-dasharray' in line and 'var(--arm-0)' in line


def test_what_a_run_wrote_cannot_become_markup_or_mathematics():
  hostile = '</svg><script>$x^2$\x00\ud83d\n'
  arms = arms_of({hostile: {hostile: 0.5, 'x' * 200: 0.25}})
  chart = charts.margins(arms)
  losses = charts.loss_curves({hostile: [2.0, 1.0]}, {hostile: [1, 2]})
  for svg in chart.svg(), losses.svg():
    assert '<script' not in svg and svg.count('</svg>') == 1
    assert '&lt;/svg&gt;&lt;script&gt;$x^2$\\x00\\ud83d↵' in svg
  assert 'x' * 200 not in chart.svg()  # it would not fit
