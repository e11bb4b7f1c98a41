"""theory.json: what it holds, and that a run goes on where it stopped."""

import json

import pytest

from isft_jax.theory import parts
from isft_jax.theory.run import run
from isft_jax.theory.settings import Settings

SETTINGS = Settings(accuracies=(0.5, 0.9), beta_steps=3)
ENVIRONMENT = {'platform': 'none'}


def read(workdir):
  return json.loads((workdir / 'theory.json').read_text())


def fake(monkeypatch, *entries):
  """Makes the only part one that yields these, or raises them."""
  calls = []

  def part(settings, seed, tell, so_far):
    calls.append(dict(so_far))
    for entry in entries:
      if isinstance(entry, BaseException):
        raise entry
      yield entry

  monkeypatch.setattr('isft_jax.theory.run.PARTS', {'fake': part})
  return calls


def test_closed_parts(tmp_path):
  only = ['mixture', 'fire_engine', 'beta', 'boxes']
  found = run(tmp_path, only, 7, SETTINGS, ENVIRONMENT)
  assert found == read(tmp_path)
  assert list(found['seconds']) == only
  assert found['seed'] == 7
  assert found['environment'] == ENVIRONMENT
  assert found['settings']['accuracies'] == [0.5, 0.9]
  assert found['mixture']['interventional'] == pytest.approx(
    [0.35, 0.811594], abs=5e-7
  )
  assert found['mixture']['naive'] == pytest.approx(
    [0.106870, 0.489083], abs=5e-7
  )
  assert found['mixture']['predicts_b'] == pytest.approx(0.345)
  assert found['fire_engine']['seen'] == 0.95
  assert found['fire_engine']['sent'] == 0.001
  assert len(found['beta']['interventional']['regret']) == 3
  assert found['boxes']['0.9'] == pytest.approx(
    {
      'conditional': 0.9,
      'interventional': 0.5,
      'masked_on_expert': 0.9,
      'masked_on_blind': 0.5,
    },
    abs=1e-5,
  )
  assert not list(tmp_path.glob('*.part'))


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
  calls = fake(monkeypatch, {'answer': 42})
  first = run(tmp_path, [], 0, SETTINGS, ENVIRONMENT)
  assert capsys.readouterr().out
  again = run(tmp_path, [], 0, SETTINGS, {'platform': 'another'})
  assert len(calls) == 1
  # The environment is that of the figures.
  assert again == first == read(tmp_path)
  assert capsys.readouterr().out == ''


def test_a_part_goes_on_where_it_stopped(tmp_path, monkeypatch):
  fake(monkeypatch, {'cells': [1]}, {'cells': [1, 2]}, KeyboardInterrupt())
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path, [], 0, SETTINGS, ENVIRONMENT)
  stopped = read(tmp_path)
  assert stopped['cells'] == [1, 2]
  assert stopped['seconds'] == {}
  calls = fake(monkeypatch, {'cells': [1, 2, 3]})
  found = run(tmp_path, [], 0, SETTINGS, ENVIRONMENT)
  assert calls[0]['cells'] == [1, 2]
  assert found['cells'] == [1, 2, 3]
  assert found['seconds']['fake'] > stopped['unfinished']['fake']
  assert found['unfinished'] == {}


def test_teaching_takes_up_the_cells_that_are_missing(monkeypatch):
  taught = []

  def cell(learner, behaviour, loss, seeds, tell):
    taught.append((behaviour, loss, len(seeds), learner.lesson.steps))
    return {'behaviour': behaviour, 'loss': loss}

  monkeypatch.setattr(parts.teaching, 'cell', cell)
  *_, all_cells = parts.compute_teaching(SETTINGS, 0, print, {})
  assert len(all_cells['teaching']) == 12
  full, short = SETTINGS.lesson.steps, SETTINGS.other_steps
  assert taught[:4] == [
    ('expert', 'actions', 3, full),
    ('own', 'counterfactual', 3, full),
    ('expert', 'observations', 3, full),
    ('random', 'observations', 3, full),
  ]
  assert {each[2:] for each in taught[4:]} == {(1, short)}
  assert len({each[:2] for each in taught}) == 12
  taught.clear()
  so_far = {'teaching': all_cells['teaching'][:11]}
  *_, again = parts.compute_teaching(SETTINGS, 0, print, so_far)
  assert len(taught) == 1
  assert again == all_cells


@pytest.mark.parametrize(
  ('seed', 'settings', 'message'),
  [
    (1, SETTINGS, 'results with seed 0, not 1'),
    (0, Settings(), 'results with settings'),
  ],
)
def test_figures_of_another_run_are_not_mixed_in(
  tmp_path, monkeypatch, seed, settings, message
):
  fake(monkeypatch, {'answer': 42})
  run(tmp_path, [], 0, SETTINGS, ENVIRONMENT)
  before = (tmp_path / 'theory.json').read_bytes()
  with pytest.raises(ValueError, match=message):
    run(tmp_path, [], seed, settings, ENVIRONMENT)
  assert (tmp_path / 'theory.json').read_bytes() == before


def test_an_unknown_part(tmp_path):
  with pytest.raises(
    ValueError, match=r'must be one of mixture, fire.*bandits'
  ):
    run(tmp_path / 'new', ['bandits'], 0, SETTINGS, ENVIRONMENT)
  assert not (tmp_path / 'new').exists()


def test_the_sampled_parts(tmp_path):
  """Few episodes: what theory.json is asked for, not how exact it is.

  All of one shape, which is compiled once.
  """
  small = Settings(
    episodes=50,
    steps=12,
    long_episodes=50,
    long_steps=12,
    phase_episodes=50,
    phase_steps=12,
    phase_rewards=(0.75,),
    rhos=(0.5,),
    slots=20,
    turns=10,
    samples=50,
  )
  found = run(tmp_path, ['bandit', 'imitation'], 0, small, ENVIRONMENT)
  for side in ('own', 'expert'):
    for name in ('interventional', 'conditional'):
      cell = found['bandit'][side][name]
      assert len(cell['p_best']) == len(cell['p_best_error']) == 12
      assert cell['sum_kl'] > 0
      assert 0 <= cell['sure_and_wrong'] <= 1
  assert found['bandit']['predictive']['conditional'][-1] == pytest.approx(
    [0.325, 0.125, 0.325, 0.1125, 0.1125], abs=1e-6
  )
  assert list(found['bandit']['phase']) == ['0.75']
  assert list(found['bandit']['phase_error']) == ['0.75']
  cell = found['imitation']['0.5']
  assert cell['agent_kl'] == pytest.approx(cell['bound'], abs=0.01)
  assert found['lock_in']['sampling'] == pytest.approx(0.543, abs=0.0005)
  blocks = found['blocks']
  assert blocks['agent'][1] == pytest.approx(blocks['agent'][0], rel=1e-12)
  assert blocks['third_party'][1] < blocks['agent'][1]
