"""The evidence's page, from a results.json made by hand."""

import copy
import functools
import html
import json
import re

import pytest

from isft_jax.report.evidence import charts, sections
from isft_jax.report.evidence import page as evidence
from isft_jax.report.evidence import words as evidence_words


def interval(mean, half=0.1, **more):
  return {
    'mean': mean,
    'lo': mean - half,
    'hi': mean + half,
    'per_seed': [mean - half / 2, mean + half / 2],
    **more,
  }


def wheel(*means, against=0.0):
  return {
    'accuracy': [interval(mean, 0.02) for mean in means],
    'per_seed': [list(means), [mean - 0.01 for mean in means]],
    'heldout': {'accuracy': [interval(mean, 0.02) for mean in means]},
    'margin': interval(0.1),
    'unread': 0,
    'against_observational': [
      interval(step * against / (len(means) - 1), 0.03, positive=2)
      for step in range(len(means))
    ],
  }


def half(margin, against=None):
  figures = (
    'prefers_lie',
    'says_truth',
    'truth_after_truth',
    'truth_after_lie',
  )
  found = {'mean_margin': interval(margin)} | {
    name: interval(0.5) for name in figures
  }
  if against is not None:
    found['against_observational'] = {
      'mean_margin': interval(against, positive=2),
      'says_truth': interval(-0.04, 0.01, positive=0),
      'facts_higher': [190, 180],
      'facts': 200,
    }
  return found


def arm(margin, against=None):
  return {'told': half(margin, against), 'heldout': half(margin, against)}


def since_base(arm, against):
  arm['heldout']['against_base'] = {
    'mean_margin': interval(against, positive=0),
    'says_truth': interval(-0.2, 0.3, positive=0),
    'facts_higher': [15, 5],
    'facts': 200,
  }
  return arm


def cost(good):
  nll = {author: interval(1.0) for author in ('TEMPLATE', 'USER', 'AGENT')}
  shares = {
    'ended': interval(0.99),
    'user_like': interval(0.1),
    'good_nll': interval(good),
  }
  return shares | {'nll': nll}


def world(style, wrong, lie, difference):
  return {
    'style': style,
    'p_user_wrong': wrong,
    'p_lie': lie,
    'arms': {
      name: {'mean_margin': interval(-0.5), 'prefers_lie': interval(0.6)}
      for name in ('observational', 'interventional')
    },
    'difference': interval(difference, 0.1, positive=2),
  }


STAGE = {'steps': 24, 'optim': {'learning_rate': 1e-3}}
RESULTS = {
  'experiment': 'evidence',
  'config': {'facts': 400, 'flywheel': {'stage': STAGE}}
  | {'worlds': {'stage': STAGE}},
  'seed': 0,
  'seeds': [0, 1],
  'environment': {'platform': 'cpu'},
  'flywheel': {
    'observational': wheel(0.6, 0.65, 0.7),
    'interventional': wheel(0.6, 0.75, 0.9, against=0.2),
  },
  'arms': {
    'base': arm(0.1, 0.12),
    'observational': arm(-0.02),
    'interventional': arm(0.6, 0.62),
    'weighted(0.3)': arm(0.2, 0.22),
  },
  'heldout': {
    'base': arm(0.1, 0.05),
    'observational': since_base(arm(0.05), -0.25),
    'interventional': since_base(arm(0.08, 0.03), -0.02),
  },
  'costs': {
    'base': cost(1.0),
    'observational': cost(0.5),
    'interventional': cost(2.0),
    'demonstration': cost(0.6),
  },
  'worlds': [
    world(style, wrong, lie, 0.3 if style == 'restate' else -0.2 + wrong)
    for style in ('restate', 'deny')
    for wrong in (0.0, 0.1)
    for lie in (0.3, 0.9)
  ],
  'runs': {
    'flywheel': [
      {
        'seed': 0,
        'name': 'observational',
        'seconds': 3.5,
        'train': [
          {'objective': 'observational', 'steps': 24, 'learning_rate': 1e-3}
        ],
      }
    ],
    'arms': [{'seed': 0, 'name': 'base', 'seconds': 1.0, 'train': []}],
  },
}


def page_of(results):
  return cached_page(json.dumps(results))


@functools.cache
def cached_page(content):
  """The page of results that are given as JSON: five charts take a second."""
  results = json.loads(content)
  wheel = results.get('flywheel')
  price = charts.price(results.get('arms', {}), results.get('costs', {}))
  return evidence.report(results, wheel and charts.flywheel(wheel), price)


def shown(results):
  """The page's words, without its tags."""
  page = page_of(results).decode()
  return re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', page.split('<main>')[1]))


def test_the_answer_names_every_figure_of_the_flywheel_and_the_arms():
  assert evidence.answer(RESULTS) == (
    'Trained for 2 rounds on conversations about its own answers, a model that '
    'was right on 60% of the facts is right on 90% with L_do and on 70% with '
    'L_obs: +20.0 [+17.0, +23.0] points (2 of 2 seeds above 0). On scripted '
    'lies, L_do ends +0.620 [+0.520, +0.720] nats per token (2 of 2 seeds '
    'above 0) in mean margin against L_obs, higher on 370 of 400 facts. On '
    'facts that no dialogue mentions the difference is +0.030 [-0.070, +0.130] '
    'nats per token (2 of 2 seeds above 0, not distinguishable from 0).'
  )


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (
      interval(0.2, positive=2),
      '+0.200 [+0.100, +0.300] nats per token (2 of 2 seeds above 0)',
    ),
    (
      interval(-0.2, positive=0),
      '-0.200 [-0.300, -0.100] nats per token (0 of 2 seeds above 0)',
    ),
    (
      interval(0.05, positive=1),
      '+0.050 [-0.050, +0.150] nats per token (1 of 2 seeds above 0, not '
      'distinguishable from 0)',
    ),
    (
      {'mean': 0.5, 'lo': None, 'hi': None, 'per_seed': [0.5], 'positive': 1},
      '+0.500 nats per token (1 of 1 seeds above 0)',
    ),
  ],
)
def test_a_difference_in_words(value, words):
  assert evidence_words.difference(value) == words


def test_every_section_says_what_it_shows_and_what_not():
  page = shown(RESULTS)
  for title in (
    'Own mistakes: the flywheel',
    'Arms: whose tokens are scored',
    'Facts that no dialogue mentions',
    'Worlds: other corrections, other users',
    'Costs of the mask',
  ):
    section = page.split(title)[-1]
    assert section.index('What it shows.') < section.index('What it does not.')


def test_what_is_held_out_is_compared_with_the_base():
  page = shown(RESULTS)
  assert (
    'Change of the margins of held-out facts by training: observational -0.250 '
    '[-0.350, -0.150] nats per token (0 of 2 seeds above 0); interventional '
    '-0.020 [-0.120, +0.080] nats per token (0 of 2 seeds above 0, not '
    'distinguishable from 0). Questions answered with the truth: base 50.0% '
    '[40.0%, 60.0%], '
    'observational 50.0% [40.0%, 60.0%], interventional 50.0% [40.0%, 60.0%].'
  ) in page
  # Against the base and L_obs: margin, on how many facts above 0, and answers.
  assert (
    'interventional -0.020 [-0.120, +0.080] ? 20 of 400 -20.0 [-50.0, +10.0] ? '
    '+0.030 [-0.070, +0.130] ? 370 of 400 -4.0 [-5.0, -3.0]'
  ) in page


def test_the_flywheel_is_compared_round_by_round():
  page = shown(RESULTS)
  assert (
    'in points arm round 1 round 2 interventional +10.0 [+7.0, +13.0] +20.0 '
    '[+17.0, +23.0]'
  ) in page
  assert 'The seeds begin at 59.0% to 60.0%, each with its own base' in page


def test_a_run_without_observational_has_no_differences():
  """config.arms is free: each part may lack the arm to compare with."""
  results = copy.deepcopy(RESULTS)
  for part in ('flywheel', 'arms', 'heldout'):
    del results[part]['observational']
    for figures in results[part].values():
      for half in (figures, *figures.values()):
        if isinstance(half, dict):
          half.pop('against_observational', None)
  assert evidence.answer(results) == 'No part is done yet.'
  words = shown(results)
  assert 'The seeds begin at 59.0% to 60.0%' in words
  assert 'rounds, against observational:' not in words


def test_arms_above_interventional_are_named():
  assert 'Above interventional: none.' in shown(RESULTS)
  results = copy.deepcopy(RESULTS)
  results['arms']['weighted(0.3)']['told']['mean_margin']['mean'] = 0.7
  assert 'Above interventional: weighted(0.3).' in shown(results)


def test_the_worlds_are_counted_by_sign():
  """8 worlds: 4 at 0.3, two at -0.2, two at -0.1 whose interval ends at 0."""
  page = shown(RESULTS)
  assert (
    'above 0 in 4 of 8 worlds, the interval wholly above 0 in 4 and wholly '
    'below in 2 ("?": it contains 0). It is not above 0 in: deny, user wrong '
    '0, lies 0.3; deny, user wrong 0, lies 0.9; deny, user wrong 0.1, lies '
    '0.3; deny, user wrong 0.1, lies 0.9. In 8 worlds L_do itself prefers the '
    'lie.'
  ) in html.unescape(page)


def test_a_doubtful_cell_of_the_heat_map_is_marked():
  cells = {(0.0, 0.3): interval(0.3, 0.1), (0.0, 0.9): interval(0.05, 0.1)}
  table = sections.heat(cells, ('wrong', [0.0]), ('lies', [0.3, 0.9]), 'x', 0.3)
  assert table.header == ['', 'lies 0.3', 'lies 0.9']
  ((name, sure, doubtful),) = table.rows
  assert name == 'wrong 0'
  assert sure.text == '+0.30 [+0.20, +0.40]'
  assert doubtful.text == '+0.05 [-0.05, +0.15] ?'
  assert 'var(--truth) 55%' in sure.style
  assert 'var(--truth) 9%' in doubtful.style
  assert 'var(--truth) 55%' in page_of(RESULTS).decode()


def test_parts_that_are_not_done_are_left_out():
  for part in ('flywheel', 'arms', 'heldout', 'worlds', 'costs'):
    results = copy.deepcopy(RESULTS)
    del results[part]
    assert page_of(results) != page_of(RESULTS)
  nothing = {
    name: RESULTS[name]
    for name in ('experiment', 'config', 'seed', 'seeds', 'environment')
  } | {'runs': {}}
  assert evidence.answer(nothing) == 'No part is done yet.'
  assert 'No part is done yet.' in shown(nothing)


def test_manners_of_the_flywheel_have_columns():
  results = copy.deepcopy(RESULTS)
  for share, figures in zip(
    (0.25, 0.5), results['flywheel'].values(), strict=True
  ):
    figures['user_like'] = [interval(0.125), interval(share)]
    figures['ended'] = [interval(1.0), interval(0.75)]
  page = shown(results)
  assert 'then talks like the user ends its turn' in page
  assert '25.0%' in page and '50.0%' in page and '75.0%' in page
  assert 'then talks like the user' not in shown(RESULTS)


def test_every_cost_has_a_column():
  results = copy.deepcopy(RESULTS)
  for figures in results['costs'].values():
    for name in ('contradicts', 'entropy', 'elsewhere'):
      figures[name] = interval(0.375)
    figures['kl'] = {'USER': interval(0.0625), 'AGENT': interval(0.03125)}
  page = shown(results)
  for column in (
    'contradicts a user who is right',
    'entropy of the agent',
    'other text',
    'user: from the base',
    'agent: from the base',
  ):
    assert column in page
    assert column not in shown(RESULTS)


def test_seeds_and_every_run_are_on_the_page():
  page = shown(RESULTS)
  assert 'Seeds 0, 1.' in page
  assert 'flywheel: observational 0 observational 24 0.001 3.5' in page
  assert 'arms: base 0 not trained 1' in page


def test_the_page_needs_no_other_file():
  page = page_of(RESULTS).decode()
  assert not re.search(r'(src|href)="(?!#)', page)
  assert page.count('<svg class="chart"') == 7
  assert '://' not in page


def test_a_page_is_made_again_from_results_alone(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(RESULTS))
  page = evidence.rebuild(str(path))
  assert page == tmp_path / 'evidence.html'
  assert page.read_bytes() == page_of(RESULTS)
  assert (tmp_path / 'flywheel.png').read_bytes().startswith(b'\x89PNG')
  other = evidence.rebuild(str(path), str(tmp_path / 'other'))
  assert other.read_bytes() == page.read_bytes()


def test_results_of_another_experiment_are_refused(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text(json.dumps({'arms': {}}))
  with pytest.raises(ValueError, match='not the results of an evidence run'):
    evidence.rebuild(str(path))


def test_a_single_seed_is_drawn_without_a_band():
  results = copy.deepcopy(RESULTS)
  for found in results['flywheel'].values():
    for each in found['accuracy']:
      each['lo'] = each['hi'] = None
  assert '90.0%' in shown(results)


def test_what_a_config_says_cannot_become_markup():
  name = '<script>$x$</script>'
  text = json.dumps(RESULTS).replace('agent_only', name)
  results = json.loads(text.replace('"observational"', json.dumps(name)))
  page = page_of(results).decode()
  assert page.count('<script>') == 1  # the viewer's own
  assert '&lt;script&gt;$x$&lt;/script&gt;' in page


def test_a_mean_stands_in_its_interval():
  """Bar from lo to hi, mark at the mean; both say their numbers."""
  rows = [('a', interval(0.5, 0.25)), ('b', interval(-0.25, 0.125))]
  svg = charts.dots('x', rows, 'Means.', 'nats').svg()
  told = re.findall(r'<title>([^<]*)</title><path d="M (\S+) \S+ L (\S+) ', svg)
  assert [text for text, *_ in told] == [
    'a +0.500 [+0.250, +0.750]',
    'b -0.250 [-0.375, -0.125]',
    'a +0.500 [+0.250, +0.750]',
    'b -0.250 [-0.375, -0.125]',
  ]
  places = [(float(start), float(stop)) for _, start, stop in told]
  (low, high), (low_b, high_b), (mark, _), (mark_b, _) = sorted(
    places, key=lambda place: place[0] == place[1]
  )
  assert mark == pytest.approx((low + high) / 2, abs=0.02)
  assert mark_b == pytest.approx((low_b + high_b) / 2, abs=0.02)
  # Half as wide an interval is half as long.
  assert high - low == pytest.approx(2 * (high_b - low_b), abs=0.04)
