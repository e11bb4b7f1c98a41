"""The page of a deployment, from a results.json made by hand."""

import copy
import html
import json
import re

import pytest

from isft_jax.report import rebuild
from isft_jax.report.deployment import page, sections
from isft_jax.statistics import paired, summary, wilson

FIGURES = (
  *('first', 'asked_again', 'second', 'again', 'after_sft'),
  *('repaired_second', 'repaired_again', 'repaired_after_sft'),
)


def share(*right, number=10):
  return summary([each / number for each in right]) | {
    'right': sum(right),
    'number': number * len(right),
    'wilson': wilson(sum(right), number * len(right)),
  }


def arm(first, second, repaired=(1, 1), **more):
  figures = dict.fromkeys(FIGURES, share(3, 3))
  figures |= {
    'first': share(*first),
    'second': share(*second),
    'repaired_second': share(*repaired),
  }
  return figures | {
    'unreadable': 0,
    'turns': 20,
    'corrections': 12,
    'wrong_corrections': 0,
    'steps': 4.0,
    'scored_tokens': 100.0,
    'second_minus_again': paired(
      figures['second']['per_seed'], figures['again']['per_seed']
    ),
    'against': {},
    **more,
  }


def results():
  arms = {
    'sft': arm((4, 5), (5, 6)),
    'oracle': arm((6, 6), (6, 7)),
    'interventional_paper': arm((4, 4), (8, 9), (5, 6)),
    'interventional_paper_wrong10': arm((4, 4), (7, 7)),
    'observational': arm((3, 4), (6, 6)),
    'observational_tokens': arm((4, 4), (6, 6)),
  }
  for name, mine in arms.items():
    mine['against'] = {
      other: {
        figure: paired(
          mine[figure]['per_seed'], arms[other][figure]['per_seed']
        )
        for figure in FIGURES
      }
      for other in ('sft', 'oracle', 'interventional_paper')
      if other != name
    }
  interval = {'mean': 0.5, 'lo': 0.4, 'hi': 0.6}
  increments = {
    'all': [interval] * 3,
    'final': summary([0.5, 0.6]),
    'forgetting': summary([0.1, 0.2]),
    'old': [None, interval],
    'new': [interval, interval],
    'unseen': [interval, None],
    'against': {},
  }
  joint = {
    'all': [interval] * 2,
    'final': summary([0.7, 0.7]),
    'forgetting': None,
    'against': {},
  }
  return {
    'experiment': 'deployment',
    'seed': 0,
    'seeds': [0, 1],
    'config': {
      'world': 'arithmetic',
      'turns': 10,
      'tests': 10,
      'samples': 2,
      'evaluate_on': 'test',
      'lora': {'rank': 0},
      'reinforce': {'batch_size': 2, 'optim': {'learning_rate': 1e-3}},
      'continual': {'turns': 4, 'steps': 1},
    },
    'environment': {},
    'arms': arms,
    'continual': {'observational': increments, 'joint': joint},
    'runs': {
      'arms': [
        {'name': 'sft', 'seed': 0, 'seconds': 1.0, 'train': []},
        {
          'name': 'oracle',
          'seed': 0,
          'seconds': 1.0,
          'train': [
            {'objective': 'DEMONSTRATION=1', 'steps': 4, 'learning_rate': 1e-3}
          ],
        },
      ]
    },
  }


def words(text):
  main = text.split('<main>')[1]
  return html.unescape(re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', main)))


def test_the_plain_statement_in_full():
  """Seeds 0.4 and 0.4 minus 0.4 and 0.5: -5 points; t = 12.7 for two seeds."""
  assert sections.plain_statement(results()['arms']) == (
    'On a first try, training on corrections after own answers (x, y^, v, y*; '
    'only y* scored) solves 40.0 % [21.9, 61.3] of the problems, the first '
    'policy 45.0 % [25.8, 65.8]: -5.0 [-68.5, +58.5] points (0 of 2 seeds '
    'above 0, not distinguishable from 0). The same corrections without the '
    'own answers (x, y*) solve 60.0 % [38.7, 78.1] on a first try: the stream '
    'minus these is -20.0 [-20.0, -20.0] points (0 of 2 seeds above 0). Asked '
    'again about the problems that the deployment corrected, it solves 30.0 % '
    '[14.5, 51.9] on a first try, the first policy 30.0 % [14.5, 51.9]: +0.0 '
    '[+0.0, +0.0] points (0 of 2 seeds above 0, not distinguishable from 0). '
    'On repair, after its own wrong answer and the verdict, it is right in '
    '55.0 % [34.2, 74.2] of second tries, the first policy in 10.0 % [2.8, '
    '30.1]: +45.0 [-18.5, +108.5] points (2 of 2 seeds above 0, not '
    'distinguishable from 0). A second sample for the bare question is right '
    'in 30.0 % [14.5, 51.9]. With the verdict, two tries solve 85.0 % [64.0, '
    '94.8]; with a second sample, 30.0 % [14.5, 51.9]: +55.0 [-8.5, +118.5] '
    'points (2 of 2 seeds above 0, not distinguishable from 0).'
  )


def test_the_page_shows_every_part(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(results()))
  (made,) = rebuild.rebuild([str(path)])
  assert made == tmp_path / 'deployment.html'
  shown = words(made.read_text())
  assert sections.plain_statement(results()['arms']) in shown
  for text in (
    'Most first tries are right for oracle',
    'A share of the corrections is wrong',
    'As many scored tokens as interventional_paper',
    'What each arm is trained on',
    'Right first tries on all skills at the end: observational 55.0',
    'DEMONSTRATION=1 4 0.001',
  ):
    assert text in shown, text


def test_controls_stand_beside_what_they_change():
  blocks = sections.controls(results()['arms']).blocks
  assert [[row[0] for row in block.content.rows] for block in blocks] == [
    ['interventional_paper', 'interventional_paper_wrong10'],
    ['observational', 'observational_tokens'],
  ]


def test_a_share_without_trials_is_none():
  assert sections.share({'wilson': None, 'mean': 0.0}) == 'none'


@pytest.mark.parametrize('missing', ['arms', 'continual'])
def test_a_part_that_is_not_done_has_no_section(missing):
  found = copy.deepcopy(results())
  del found[missing]
  shown = words(page.report(found).decode())
  assert ('First and second tries' in shown) == (missing != 'arms')
  assert ('one skill after the other' in shown) == (missing != 'continual')
  assert ('The arms are not done yet.' in shown) == (missing == 'arms')


def test_an_edited_file_is_one_clear_line(tmp_path):
  path = tmp_path / 'results.json'
  found = results()
  found['arms']['sft']['first']['mean'] = 'high'
  path.write_text(json.dumps(found))
  with pytest.raises(
    ValueError, match=r'arms\.sft\.first\.mean is a text, expected a number'
  ):
    rebuild.rebuild([str(path)])


def test_several_deployments_are_not_a_summary_of_seeds(tmp_path):
  paths = [tmp_path / f'{i}.json' for i in range(2)]
  for path in paths:
    path.write_text(json.dumps(results()))
  with pytest.raises(ValueError, match='the results of a deployment run'):
    rebuild.rebuild([*map(str, paths)])
