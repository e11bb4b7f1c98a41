"""The published run of the theory: whole, of this code, and near theory's own.

What the suite samples in seconds is here with 200,000 episodes.
"""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from isft_jax.report.theory import page as theory_page
from isft_jax.report.theory import tables
from isft_jax.theory import bandit, beta, imitation, lessons, mixture
from isft_jax.theory.parts import PARTS
from isft_jax.theory.settings import Settings

FOLDER = pathlib.Path(__file__).parent / 'theory'
SETTINGS = Settings()
ERRORS = 4  # standard errors
THEIR_EPISODES = 200_000  # of the figures that were published


@pytest.fixture(scope='module')
def results():
  return json.loads((FOLDER / 'theory.json').read_text())


def test_the_settings_are_those_of_the_command(results):
  now = json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
  assert results['settings'] == now


def test_every_part_and_cell_is_there(results):
  assert sorted(results['seconds']) == sorted(PARTS)
  assert results['unfinished'] == {}
  cells = {(cell['behaviour'], cell['loss']) for cell in results['teaching']}
  assert cells == {
    (behaviour, loss)
    for behaviour in lessons.BEHAVIOURS
    for loss in lessons.LOSSES
  }


def test_the_page_is_made_again(results):
  page = theory_page.page(results, theory_page.draw(results))
  assert sorted(tables.tables(results)) == sorted(PARTS)
  assert page.count(b'<figure>') == 8


def test_what_is_exact_is_what_the_code_gives_now(results):
  assert results['mixture']['naive'] == pytest.approx(
    mixture.two_steps()['naive'], rel=1e-12
  )
  assert results['bandit']['boundary'] == bandit.boundary(bandit.Bandit())
  regret_T = beta.thompson(SETTINGS.beta_steps).regret_T
  np.testing.assert_allclose(
    results['beta']['interventional']['regret'], regret_T, rtol=1e-9
  )
  found = results['imitation']['0.7']
  exact = imitation.costs(0.7, SETTINGS.slots)
  assert found['agent_kl'] == pytest.approx(exact.agent, rel=1e-9)
  assert found['world_kl'] == pytest.approx(exact.world, rel=1e-9)
  for agent in ('sampling', 'greedy'):
    assert found[f'locked_{agent}'] == pytest.approx(
      imitation.locked(0.7, SETTINGS.slots, agent == 'greedy'), rel=1e-9
    )


# Who acts, accounting: P(best arm) at t = 0, 5, 10, 20, 50, 99; the sum of KL
# and its last digit; the share that is sure and wrong.
TABLE = {
  ('own', 'interventional'): (
    [0.200, 0.299, 0.390, 0.503, 0.592, 0.600],
    (5.37, 0.005),
    0,
  ),
  ('own', 'conditional'): (
    [0.200, 0.281, 0.309, 0.326, 0.331, 0.332],
    (47.9, 0.05),
    0.537,
  ),
  ('expert', 'conditional'): (
    [0.200, 0.532, 0.587, 0.600, 0.600, 0.600],
    (1.21, 0.005),
    0,
  ),
  ('expert', 'interventional'): (
    [0.200, 0.381, 0.477, 0.559, 0.598, 0.600],
    (3.06, 0.005),
    0,
  ),
}


@pytest.mark.parametrize(('side', 'accounting'), TABLE)
def test_the_table_of_the_bandit(results, side, accounting):
  """Theirs is sampled too: its errors are taken to be as large."""
  found = results['bandit'][side][accounting]
  p_best, (sum_kl, digit), share = TABLE[side, accounting]
  for t, p in zip((0, 5, 10, 20, 50, 99), p_best, strict=True):
    theirs = math.sqrt(p * (1 - p) / THEIR_EPISODES)
    error = math.hypot(found['p_best_error'][t], theirs)
    assert abs(found['p_best'][t] - p) < ERRORS * error + 0.0005
  error = math.sqrt(2) * found['sum_kl_error']
  assert abs(found['sum_kl'] - sum_kl) < ERRORS * error + digit
  error = math.sqrt(2) * found['sure_and_wrong_error']
  assert abs(found['sure_and_wrong'] - share) <= ERRORS * error + 0.0005


@pytest.mark.parametrize(
  ('accounting', 'sum_kl', 'digit'),
  [('interventional', 5.38, 0.005), ('conditional', 479, 0.5)],
)
def test_the_long_rollouts(results, accounting, sum_kl, digit):
  found = results['bandit']['long'][accounting]
  assert found['steps'] == 1000
  gap = abs(found['sum_kl'] - sum_kl)
  assert gap < ERRORS * found['sum_kl_error'] + digit


def test_the_phases(results):
  shares = {
    '0.6': 0.767,
    '0.7': 0.650,
    '0.75': 0.540,
    '0.8': 0.364,
    '0.85': 0.082,
    '0.88': 0.002,
    '0.9': 0,
  }
  found = results['bandit']
  assert list(found['phase']) == list(shares)
  for h, share in shares.items():
    theirs = math.sqrt(share * (1 - share) / THEIR_EPISODES)
    error = math.hypot(found['phase_error'][h], theirs)
    assert abs(found['phase'][h] - share) <= ERRORS * error + 0.0005


@pytest.mark.parametrize(
  ('behaviour', 'loss', 'near', 'far'),
  [
    ('expert', 'actions', 'conditional', 'interventional'),
    ('own', 'counterfactual', 'interventional', 'conditional'),
    ('expert', 'observations', 'conditional', 'interventional'),
    ('random', 'observations', 'interventional', 'conditional'),
  ],
)
def test_the_headlines_of_teaching(results, behaviour, loss, near, far):
  """Every seed, with the error of its rollouts; nats a step."""
  (cell,) = (
    cell
    for cell in results['teaching']
    if (cell['behaviour'], cell['loss']) == (behaviour, loss)
  )
  assert cell['seeds'] == 3
  assert cell[f'kl_to_{near}']['hi'] < 0.02
  assert cell[f'kl_to_{far}']['lo'] > 0.05


def test_who_is_deluded_earns_less(results):
  reward = {
    (cell['behaviour'], cell['loss']): cell['reward']
    for cell in results['teaching']
  }
  factual = reward['expert', 'actions']
  assert factual['hi'] < reward['own', 'counterfactual']['lo']
