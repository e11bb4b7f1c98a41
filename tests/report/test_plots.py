"""Charts: drawn once, the same bytes each time, in the colors of their page."""

import pathlib
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import image

from isft_jax.report import colors, plots
from isft_jax.report.evidence import charts as evidence
from isft_jax.report.lying_agent import charts as lying_agent
from isft_jax.report.theory import charts as theory
from isft_jax.report.theory.figures import Figure, Grid, Line, Mark, Row

INTERVAL = {'mean': 0.5, 'lo': 0.4, 'hi': 0.7}
LINES = tuple(
  Line(kind, [0, 1], [0.5, number], number, kind)
  for number, kind in enumerate(('solid', 'dashed', 'dotted', 'both', 'points'))
)
KL = {'interventional': (0.1, 0.05, 0.2), 'conditional': (0.2, 0.1, 0.3)}
ROWS = (Row('first', True, KL), Row('second', False, KL))
MARKS = (Mark('here', 0.25), Mark('greedy', 0.5))
ABOUT = ('What it shows.', 'What it does not.')
CHARTS = {
  'losses': lambda: lying_agent.loss_curves(
    {'base': [3.0, 2.0]}, {'base': [1, 2]}
  ),
  'margins': lambda: lying_agent.margins(
    {'base': {'facts': [{'topic': 'gold', 'margin': 0.5}]}}
  ),
  'flywheel': lambda: evidence.flywheel(
    {'base': {'accuracy': [INTERVAL, INTERVAL]}}
  ),
  'dots': lambda: evidence.dots(
    'arms', [('base', INTERVAL)], 'A mean.', 'nats'
  ),
  'lines': lambda: theory.draw(
    Figure('lines', 'Lines', 'x', 'y', LINES, *ABOUT, MARKS)
  ),
  'grid': lambda: theory.draw(Grid('grid', 'Rows', 'nats', ROWS, *ABOUT)),
}
WORDS = {
  'losses': {'base', 'optimizer step', 'loss, nats per scored token'},
  'margins': {'base', 'gold', '← prefers the lie', 'nats per token'},
  'flywheel': {'base 50% → 50%', 'sampled answers that are right'},
  'dots': {'base', 'nats'},
  'lines': {'solid', 'points', 'x', 'y', 'here', 'greedy'},
  'grid': {'first', 'second (short)', 'to the conditional prediction', 'nats'},
}


@pytest.fixture(params=CHARTS)
def name(request):
  return request.param


@pytest.fixture
def chart(name):
  return CHARTS[name]()


# ----------------------------------------------------------------- arms' styles


def test_arm_order():
  assert plots.arm_order(['x', 'interventional', 'base', 'a']) == [
    'base',
    'interventional',
    'x',
    'a',
  ]


@pytest.mark.parametrize(
  'arms', [plots.ARMS, plots.ARMS[::-1], ('agent_only',), ('x', 'agent_only')]
)
def test_an_arm_has_its_style_whatever_stands_beside_it(arms):
  styles = plots.arm_styles(arms)
  assert styles['agent_only'] == plots.arm_styles(plots.ARMS)['agent_only']
  assert len(set(styles.values())) == len(arms)


def test_arms_differ_in_dashes_as_well_as_in_color():
  arms = [*plots.ARMS, 'weighted(0.3)', 'weighted(0.7)', 'USER=1']
  styles = plots.arm_styles(arms)
  assert list(styles) == arms
  assert len({style.color for style in styles.values()}) == 9
  assert len({style.dashes for style in styles.values()}) == 9


# -------------------------------------------------------------------------- SVG


def test_text_is_text(name, chart):
  root = ElementTree.fromstring(chart.svg())
  found = {' '.join(text.text.split()) for text in root.iter('text')}
  assert WORDS[name] <= found
  # The page's own font, and no letter as an outline.
  assert 'DejaVu' not in chart.svg() and '<font' not in chart.svg()


def test_colors_are_variables_of_both_schemes(chart):
  svg = chart.svg()
  assert not re.search(
    r'#[0-9a-fA-F]{3,8}\b(?!")', re.sub(r'"#[^"]*"|url\([^)]*\)', '', svg)
  )
  used = set(re.findall(r'var\(--([a-z0-9-]+)\)', svg))
  assert {'ink', 'paper'} < used
  assert used <= colors.LIGHT.keys() & colors.DARK.keys()
  # What no rule colors would be black on a dark page.
  for text in ElementTree.fromstring(svg).iter('text'):
    assert 'fill:var(--' in text.attrib['style']


def test_a_color_that_is_no_role_is_an_error():
  with plots.drawing(1) as figure:
    figure.add_subplot().plot([1, 2], color='#123456')
  with pytest.raises(KeyError, match='#123456'):
    plots.Chart('a', 'A line', figure).svg()


def test_roles_have_colors_of_their_own():
  light = [colors.LIGHT[role] for role in colors.CHART_ROLES]
  assert len(set(light)) == len(light) and '#000000' not in light


def test_ids_begin_with_the_name_and_every_reference_has_its_target(chart):
  svg = chart.svg()
  ids = re.findall(r' id="([^"]*)"', svg)
  references = re.findall(r'(?:url\(|href=")#([^)"]*)', svg)
  assert len(ids) == len(set(ids)) and set(references) == set(ids)
  assert all(each.startswith(f'{chart.name}-') for each in ids)


def test_a_chart_needs_nothing_from_outside(chart):
  svg = chart.svg()
  assert '://' not in svg and '<style' not in svg and '<metadata' not in svg
  assert not re.search(r'(href|src)="(?!#)|url\((?!#)', svg)


def test_a_chart_says_what_it_shows(chart):
  root = ElementTree.fromstring(chart.svg())
  assert root.attrib['aria-label'] == chart.label != ''
  told = [each for each in root.iter() if each.find('title') is not None]
  assert len(told) > 0
  for each in told:
    assert each.attrib['role'] == 'img'
    assert each.attrib['aria-label'] == each.find('title').text


def test_a_chart_grows_and_shrinks_with_its_page(chart):
  root = ElementTree.fromstring(chart.svg())
  assert not {'width', 'height'} & root.attrib.keys()
  *_, width, height = map(float, root.attrib['viewBox'].split())
  assert width == 72 * plots.WIDTH == 360
  # On a phone, where a unit is a pixel, text is 9 pixels high at least.
  sizes = re.findall(r'font-size:([0-9.]+)px', chart.svg())
  assert min(map(float, sizes)) >= 9
  for text in root.iter('text'):
    if 'x' in text.attrib:
      assert 0 <= float(text.attrib['x']) <= width
      assert 0 <= float(text.attrib['y']) <= height


# ------------------------------------------------------------------- one figure


def test_png_and_svg_are_of_one_figure(chart, tmp_path):
  """In either order: saving one does not move what the other shows."""
  path = chart.save_png(tmp_path)
  assert path == tmp_path / f'{chart.name}.png'
  png, svg = path.read_bytes(), chart.svg()
  assert chart.save_png(tmp_path).read_bytes() == png
  assert chart.svg() == svg
  height, width, _ = image.imread(path).shape
  *_, svg_width, svg_height = map(
    float, re.findall(r'[0-9.]+', re.search(r'viewBox="[^"]*"', svg)[0])
  )
  # 144 pixels and 72 units an inch; a pixel is rounded.
  np.testing.assert_allclose(
    [width, height], [2 * svg_width, 2 * svg_height], atol=1
  )


@pytest.mark.filterwarnings('error')
def test_same_input_same_bytes(name, tmp_path):
  first = CHARTS[name]()
  # Neither a user's matplotlibrc nor the clock may change the file.
  with matplotlib.rc_context({'font.size': 30, 'axes.facecolor': 'red'}):
    second = CHARTS[name]()
    assert first.svg() == second.svg()
    again = second.save_png(tmp_path).read_bytes()
  png = first.save_png(tmp_path).read_bytes()
  assert png.startswith(b'\x89PNG\r\n\x1a\n') and png == again
  for chunk in (b'tEXt', b'iTXt', b'zTXt', b'tIME'):
    assert chunk not in png
  assert [path.name for path in tmp_path.iterdir()] == [f'{first.name}.png']


def test_charts_need_no_jax_and_no_pyplot():
  code = (
    'import sys\n'
    'from isft_jax.report import rebuild\n'
    'from isft_jax.report.theory import page\n'
    "print([m for m in ('jax', 'jaxlib', 'flax', 'matplotlib.pyplot') "
    'if m in sys.modules])'
  )
  run = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stdout == '[]\n'
