"""The theory's tables, pictures and page: theory.json in, nothing else."""

import functools
import html
import itertools
import json
import re

import numpy as np
import pytest
from matplotlib import colors, image

from isft_jax.report.colors import LIGHT
from isft_jax.report.tables import text
from isft_jax.report.theory import charts, tables
from isft_jax.report.theory import figures as theory_figures
from isft_jax.report.theory import page as theory_page
from isft_jax.report.theory.figures import Figure, Grid


def curves(start, sum_kl):
  return {
    'p_best': [start, start + 0.1, start + 0.2],
    'p_best_error': [0.0, 0.001, 0.001],
    'sum_kl': sum_kl,
    'sum_kl_error': 0.05,
    'sum_reward_kl': 0.4,
    'sum_reward_kl_error': 0.01,
    'sure_and_wrong': 0.25,
    'sure_and_wrong_error': 0.002,
    'entropy': 0.1,
    'total_error': 0.01,
  }


def cell(behaviour, loss, near, far, seeds=1):
  def around(mean):
    return {'mean': mean, 'lo': 0.9 * mean, 'hi': 1.1 * mean}

  return {
    'behaviour': behaviour,
    'loss': loss,
    'seeds': seeds,
    'steps': 10,
    'kl_to_conditional': around(far),
    'kl_to_interventional': around(near),
    'reward': around(0.4),
    'p_best': [0.2, 0.25],
  }


RESULTS = {
  'seed': 3,
  'settings': {'note': '<&>'},
  'environment': {'platform': 'cpu'},
  'seconds': {'mixture': 0.4, 'teaching': 61.0},
  'mixture': {
    'prior': 0.35,
    'predicts_b': 0.345,
    'interventional': [0.35, 0.811594],
    'naive': [0.10687, 0.489083],
  },
  'fire_engine': {
    'p_fire': 0.001,
    'p_engine_if_fire': 0.999,
    'p_engine_if_no_fire': 1 / 19000,
    'seen': 0.95,
    'sent': 0.001,
  },
  'bandit': {
    'own': {
      'interventional': curves(0.2, 5.37),
      'conditional': curves(0.1, 47.9),
    },
    'expert': {
      'interventional': curves(0.3, 3.06),
      'conditional': curves(0.4, 1.21),
    },
    'long': {
      'interventional': {'steps': 200, 'sum_kl': 5.4, 'sum_kl_error': 0.1},
      'conditional': {'steps': 200, 'sum_kl': 479.0, 'sum_kl_error': 2.0},
    },
    'phase': {'0.75': 0.54, '0.6': 0.77, '0.9': 0.0},
    'phase_error': {'0.75': 0.01, '0.6': 0.02, '0.9': 0.0},
    'boundary': 6 / 7,
  },
  'imitation': {
    f'{rho:g}': {
      'agent_kl': rho,
      'world_kl': 1.05,
      'bound': 2 * rho,
      'world_bound': 1.06,
      'taught_bound': 1.06 * rho,
      'agent_kl_sampled': {'mean': rho, 'error': 0.01},
      'taught': {'mean': rho / 2, 'error': 0.01},
      'locked_sampling': rho / 4,
      'locked_greedy': rho / 3,
    }
    for rho in (0.1, 0.9)
  },
  'lock_in': {'sampling': 0.543, 'greedy': 0.475},
  'blocks': {'agent': [0.8, 0.8, 0.9], 'third_party': [0.8, 0.2, 0.7]},
  'beta': {
    'p_first_is_best': 2 / 3,
    'interventional': {'regret': [0.1] * 20, 'p_best': [0.75] * 20},
    'conditional': {'regret': [0.2] * 20, 'p_best': [0.5] * 20},
  },
  'boxes': {
    q: {
      'conditional': float(q),
      'interventional': 0.5,
      'masked_on_expert': float(q),
      'masked_on_blind': 0.5,
    }
    for q in ('0.5', '0.9')
  },
  'teaching': [
    cell('expert', 'actions', 0.2, 0.001, seeds=3),
    cell('own', 'counterfactual', 0.002, 0.1, seeds=3),
    cell('random', 'all', 0.02, 0.03),
  ],
}
# Part: the figures that it gives.
FIGURES = {
  'mixture': [],
  'fire_engine': [],
  'bandit': ['bandit', 'bandit_phase'],
  'imitation': ['imitation', 'lock_in'],
  'beta': ['beta'],
  'boxes': ['boxes'],
  'teaching': ['teaching', 'teaching_curves'],
}
ABOUT = ('seed', 'settings', 'environment', 'seconds')


def only(part):
  keys = {part, 'lock_in', 'blocks'} if part == 'imitation' else {part}
  return {key: RESULTS[key] for key in (*ABOUT, *keys)}


def every(by_part):
  """All that there is of the parts, in their order."""
  return [each for of_part in by_part.values() for each in of_part]


def page_of(results):
  return cached_page(json.dumps(results))


@functools.cache
def cached_page(content):
  """The page of results that are given as JSON: eight charts take seconds."""
  results = json.loads(content)
  return theory_page.page(results, theory_page.draw(results))


def where(path, number):
  """Rows and columns of the pixels of a color."""
  rgb = image.imread(path)[..., :3]
  color = colors.to_rgb(LIGHT[f'arm-{number}'])
  return np.nonzero(np.all(np.abs(rgb - color) < 0.5 / 255, axis=-1))


# --------------------------------------------------------------------- tables


def test_tables_read_as_printed():
  (two,) = tables.tables(RESULTS)['mixture']
  assert text(two) == (
    'The weight of p_B\n'
    'accounting      at first  the agent writes A  the world writes B\n'
    'interventional    0.3500            0.350000            0.811594\n'
    'naive             0.3500            0.106870            0.489083'
  )


def test_an_engine_seen_and_an_engine_sent():
  model, engine = tables.tables(RESULTS)['fire_engine']
  assert [chance for _, chance in model.rows] == ['0.001', '0.999', '5.26e-05']
  assert engine.rows == [
    ('seen', '0.001', '0.950', 'P(fire | engine)'),
    ('sent', '0.001', '0.001', 'P(fire | do(engine))'),
  ]


def test_what_is_sampled_has_two_standard_errors():
  bandit, total, long, phase = tables.tables(RESULTS)['bandit']
  assert '± 0.0020 at most' in bandit.title
  assert bandit.rows[1][-3:] == (
    '47.900 ± 0.100',
    '0.400 ± 0.020',
    '25.0% ± 0.4%',
  )
  assert total.rows[0][-1] == '1.7100 ± 0.0200'
  assert long.rows[1] == ('conditional', '200', '479.00 ± 4.00')
  assert phase.rows[1] == ('±', '0.020', '0.040', '0.000')


def test_each_figure_of_a_cell_is_in_the_table():
  (teaching,) = tables.tables(RESULTS)['teaching']
  assert teaching.rows[1] == (
    'counterfactual, own',
    '3 x 10',
    '0.0020 (0.0018, 0.0022)',
    '0.1000 (0.0900, 0.1100)',
    '0.4000 (0.3600, 0.4400)',
  )


def test_boxes_are_predicted_from_the_expert_and_from_the_blind():
  (boxes,) = tables.tables(RESULTS)['boxes']
  assert text(boxes) == (
    'Two boxes: P(prize), and its prediction learned with masked actions\n'
    "q    given a  given do(a)  from the expert's data  blind data\n"
    '0.5   0.5000       0.5000                  0.5000      0.5000\n'
    '0.9   0.9000       0.5000                  0.9000      0.5000'
  )


@pytest.mark.parametrize('part', FIGURES)
def test_a_part_alone_has_its_tables_and_figures(part, tmp_path):
  results = only(part)
  assert list(tables.tables(results)) == [part]
  figures = every(theory_figures.figures(results))
  assert [figure.name for figure in figures] == FIGURES[part]
  assert theory_page.write(tmp_path, results).exists()
  # Each is drawn into the page and into a file.
  page = (tmp_path / 'theory.html').read_text()
  pictures = {path.stem for path in tmp_path.glob('*.png')}
  assert pictures == set(FIGURES[part])
  assert page.count('<svg class="chart"') == len(pictures)


def test_nothing_run_is_a_page_without_figures():
  nothing = {key: RESULTS[key] for key in ABOUT}
  assert tables.tables(nothing) == {}
  assert b'<figure>' not in page_of(nothing)


# -------------------------------------------------------------------- figures


def test_every_figure_says_what_it_shows_and_what_not():
  for figure in every(theory_figures.figures(RESULTS)):
    for sentence in (figure.shows, figure.not_shown):
      assert len(sentence) > 40 and sentence.endswith('.')
    if isinstance(figure, Figure):
      for line in figure.lines:
        assert len(line.x) == len(line.y) > 0
        assert list(line.x) == sorted(line.x)


def test_keys_are_sorted_as_numbers():
  _, phase = theory_figures.figures(RESULTS)['bandit']
  assert phase.lines[0].x == [0.6, 0.75, 0.9]
  assert phase.lines[0].y == [0.77, 0.54, 0.0]


def test_a_dot_says_its_kl():
  grid, _ = theory_figures.figures(RESULTS)['teaching']
  told = re.findall(r'<title>(.*?)</title>', charts.draw(grid).svg())
  assert 'counterfactual, learner acts: 0.0020 nats to interventional' in told
  assert len(told) == 2 * len(grid.rows)


def test_a_dot_stands_where_its_kl_is(tmp_path):
  """On a log scale: 0.002 left of 0.02, as far as 0.02 of 0.2."""
  grid, _ = theory_figures.figures(RESULTS)['teaching']
  assert isinstance(grid, Grid)
  path = charts.draw(grid).save_png(tmp_path)
  rows, columns = where(path, theory_figures.BLUE)
  inside = rows > rows.min() + 40  # the legend is above
  rows, columns = rows[inside], columns[inside]
  cuts = np.linspace(rows.min() - 1, rows.max() + 1, 4)
  # Sorted: those with most seeds first, then by what the loss trains.
  means = [
    columns[(rows > a) & (rows < b)].mean() for a, b in itertools.pairwise(cuts)
  ]
  counterfactual, factual, both = means
  assert counterfactual < both < factual
  # Two pixels of the intervals, which are not symmetrical on it.
  assert factual - both == pytest.approx(both - counterfactual, abs=4)


# ----------------------------------------------------------------------- page


def test_the_page_needs_no_other_file():
  page = page_of(RESULTS).decode()
  assert "default-src 'none'" in page
  assert not re.search(r'(src|href)="(?!#)', page)
  assert page.count('<figure>') == page.count('What it does not show:') == 8
  assert page.count('<svg class="chart"') == 8
  assert '&lt;&amp;&gt;' in page and '<&>' not in page


def test_the_page_holds_each_number_of_the_tables():
  page = html.unescape(page_of(RESULTS).decode())
  for table in every(tables.tables(RESULTS)):
    for row in table.rows:
      for cell in row:
        assert f'>{cell}</t' in page


def test_lines_run_where_their_numbers_are():
  """A regret of 0.1 is half as high as 0.2, over an axis that begins at 0."""
  (regret,) = theory_figures.figures(RESULTS)['beta']
  svg = charts.draw(regret).svg()
  (zero,) = re.findall(r'y="(\S+)">0.00</text>', svg)
  heights = {
    name: float(zero) - float(y)
    for name, y in re.findall(
      r'<title>(\w+)</title><path d="M \S+ (\S+) L', svg
    )
  }
  # The number of a tick stands below its line, by as much for both.
  (top,) = re.findall(r'y="(\S+)">0.20</text>', svg)
  step = (float(zero) - float(top)) / 2
  offset = heights['interventional'] - step
  assert heights['conditional'] - offset == pytest.approx(2 * step, abs=0.05)
  assert abs(offset) < 5


def test_colors_come_from_the_style_sheet():
  """In light and in dark: no color is written into a page."""
  page = page_of(RESULTS).decode()
  body = page[page.index('<body>') :]
  assert not re.search(r'#[0-9a-fA-F]{6}\b', body.split('<script>')[0])
  used = set(re.findall(r'var\(--([a-z0-9-]+)', body))
  assert used and used <= LIGHT.keys()


def test_results_are_plain_json():
  again = theory_page.page(RESULTS, theory_page.draw(RESULTS))
  assert again == page_of(RESULTS)
