"""The pictures: right colors in the right places, the same bytes each time."""

import matplotlib
import numpy as np
import pytest
from matplotlib import colors, image

from isft_jax.report import plots

ARMS = ('base', 'observational', 'interventional', 'agent_only')


def results(margins_by_arm):
  return {
    'arms': {
      arm: {
        'facts': [
          {'topic': topic, 'margin': margin}
          for topic, margin in margins.items()
        ]
      }
      for arm, margins in margins_by_arm.items()
    }
  }


def where(path, color):
  """Returns rows and columns of the pixels that have this color."""
  rgb = image.imread(path)[..., :3]
  # PNG stores 8 bits a channel: half a step of 1/255 is exact equality.
  same = np.all(np.abs(rgb - colors.to_rgb(color)) < 0.5 / 255, axis=-1)
  return np.nonzero(same)


def bars(path, arm):
  """The pixels of an arm's bars: its color, without the legend on top."""
  rows, columns = where(path, plots.COLORS[arm])
  # The legend's patches are above the zero line, which spans the axes.
  zero_rows, _ = where_zero_line(path)
  inside = rows > zero_rows.min()
  return rows[inside], columns[inside]


def where_zero_line(path):
  """The column with most black pixels is the zero line."""
  rows, columns = where(path, 'black')
  column = np.bincount(columns).argmax()
  return rows[columns == column], column


def test_each_color_belongs_to_one_arm():
  assert len(set(plots.COLORS.values())) == len(plots.COLORS)
  # An arm keeps its color whatever stands beside it.
  for arms in (ARMS, ARMS[::-1], ('agent_only',), ('x', 'agent_only', 'y')):
    palette = plots.arm_colors(arms)
    assert palette['agent_only'] == plots.COLORS['agent_only']
    assert len(set(palette.values())) == len(arms)


def test_arm_order():
  assert plots.arm_order(['x', 'interventional', 'base', 'a']) == [
    'base',
    'interventional',
    'x',
    'a',
  ]


def test_running_mean():
  #                                   1  1+3  1+3+8 ..  the window shrinks
  np.testing.assert_allclose(
    plots.running_mean([1, 3, 8, 1], 3), [2, 4, 4, 4.5], rtol=1e-12
  )
  np.testing.assert_array_equal(plots.running_mean([1, 3], 1), [1, 3])
  assert plots.running_mean([], 5).size == 0


@pytest.mark.parametrize('present', [ARMS, ARMS[1:3], ARMS[:1]])
def test_margins_draw_the_arms_present_and_no_other(tmp_path, present):
  path = tmp_path / 'margins.png'
  facts = {'one': 0.5, 'two': -0.25}
  plots.margins(results(dict.fromkeys(present, facts)), path)
  for arm in ARMS:
    assert (where(path, plots.COLORS[arm])[0].size > 100) == (arm in present)


def test_margins_stand_on_their_side_of_zero(tmp_path):
  path = tmp_path / 'margins.png'
  plots.margins(
    results({'observational': {'x': -0.5}, 'interventional': {'x': 1.0}}), path
  )
  _, zero = where_zero_line(path)
  _, lies = bars(path, 'observational')
  _, truths = bars(path, 'interventional')
  assert lies.max() < zero < truths.min()
  # Twice the margin, twice the pixels; 2 % for the edges and the zero line.
  assert np.ptp(truths) == pytest.approx(2 * np.ptp(lies), rel=0.02)


def test_margins_are_sorted_by_the_interventional_arm(tmp_path):
  path = tmp_path / 'margins.png'
  facts = {'worst': -1.0, 'best': 2.0, 'middle': 1.0}
  # The other arm ranks the facts the other way round.
  opposite = {topic: -margin for topic, margin in facts.items()}
  plots.margins(
    results({'observational': opposite, 'interventional': facts}), path
  )
  rows, columns = bars(path, 'interventional')
  _, zero = where_zero_line(path)
  ends = [columns[rows == row] for row in np.unique(rows)]
  # From the top, in pixels either side of zero: long, half as long, left.
  reach = [c.max() - zero if c.max() > zero else c.min() - zero for c in ends]
  assert reach == sorted(reach, reverse=True)
  assert len(set(reach)) == 3


def test_facts_must_not_hide_each_other(tmp_path):
  broken = results({'base': {'x': 1.0}})
  broken['arms']['base']['facts'] *= 2
  with pytest.raises(ValueError, match=r"\['x'\]"):
    plots.margins(broken, tmp_path / 'margins.png')
  assert list(tmp_path.iterdir()) == []


def test_loss_curves_fall_from_left_to_right(tmp_path):
  path = tmp_path / 'loss.png'
  plots.loss_curves(
    {
      'observational': [4 * 0.98**i for i in range(100)],
      'interventional': [2 * 0.98**i for i in range(100)],
    },
    path,
  )
  above = {}
  for arm in ('observational', 'interventional'):
    rows, columns = where(path, plots.COLORS[arm])
    curve = rows > 60  # pixels: the legend is above
    rows, columns = rows[curve], columns[curve]
    left, right = columns.min(), columns.max()
    assert right - left > 800  # of 1,080 pixels
    assert rows[columns == left].mean() < rows[columns == right].mean()
    above[arm] = rows.mean()
  assert above['observational'] < above['interventional']
  assert where(path, plots.COLORS['agent_only'])[0].size == 0


def test_loss_curves_stand_at_their_steps(tmp_path):
  """Every 20th step logged: the axis counts steps, not records."""
  losses = {'base': [3.0, 2.0, 1.0]}
  plots.loss_curves(losses, tmp_path / 'counted.png')
  plots.loss_curves(losses, tmp_path / 'same.png', {'base': [1, 2, 3]})
  plots.loss_curves(losses, tmp_path / 'steps.png', {'base': [20, 40, 60]})
  counted = (tmp_path / 'counted.png').read_bytes()
  assert (tmp_path / 'same.png').read_bytes() == counted
  assert (tmp_path / 'steps.png').read_bytes() != counted


DRAWINGS = {
  'loss': lambda path: plots.loss_curves({'base': [3.0, 2.0]}, path),
  'margins': lambda path: plots.margins(results({'base': {'x': 1.0}}), path),
  'no loss': lambda path: plots.loss_curves({}, path),
  'no margins': lambda path: plots.margins({'arms': {}}, path),
}


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('draw', DRAWINGS.values(), ids=DRAWINGS)
def test_same_input_same_bytes(tmp_path, draw):
  draw(tmp_path / 'a.png')
  # Neither a user's matplotlibrc nor the clock may change the file.
  with matplotlib.rc_context({'font.size': 30, 'axes.facecolor': 'red'}):
    draw(tmp_path / 'b.png')
  first = (tmp_path / 'a.png').read_bytes()
  assert first.startswith(b'\x89PNG\r\n\x1a\n')
  assert first == (tmp_path / 'b.png').read_bytes()
  for chunk in (b'tEXt', b'iTXt', b'zTXt', b'tIME'):
    assert chunk not in first
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.png', 'b.png']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'report.md'
  plots.replace_file(path, b'old')

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(OSError, match='disk full'):
    plots.replace_file(path, b'new')
  assert [p.name for p in tmp_path.iterdir()] == ['report.md']
  assert path.read_bytes() == b'old'
