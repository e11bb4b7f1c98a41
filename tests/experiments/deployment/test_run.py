"""The whole experiment, too small to show anything."""

import dataclasses
import json
import re

import pytest

from configs import deployment_tiny
from isft_jax.experiments.config import LoraConfig
from isft_jax.experiments.deployment import arms, continual, results, run


@pytest.fixture(scope='module')
def done(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('deployment')
  return workdir, run.reproduce(config, str(workdir))


def read(path):
  return json.loads(path.read_text())


def without_seconds(tree):
  if isinstance(tree, dict):
    return {k: without_seconds(v) for k, v in tree.items() if k != 'seconds'}
  if isinstance(tree, list):
    return [without_seconds(value) for value in tree]
  return tree


def test_results_have_the_promised_form(config, done):
  workdir, found = done
  assert found == read(workdir / 'results.json')
  assert found['seeds'] == [0, 1]
  assert list(found['arms']) == list(config.arms)
  assert list(found['continual']) == list(config.continual.arms)
  for arm in found['arms'].values():
    for name in results.FIGURES:
      assert len(arm[name]['per_seed']) == 2
    assert arm['first']['number'] == 2 * config.tests
    assert arm['turns'] <= 2 * config.turns
  assert len(found['runs']['arms']) == 2 * len(config.arms)
  for unit in found['runs']['arms']:
    # This policy may solve nothing, and ReST then has no samples.
    if unit['name'] != 'rest':
      assert bool(unit['train']) == (unit['name'] != 'sft')


def test_the_first_policy_is_its_own_reference(done):
  sft = done[1]['arms']['sft']
  assert sft['second']['per_seed'] == sft['after_sft']['per_seed']
  assert 'sft' not in sft['against']
  oracle = done[1]['arms']['oracle']['against']['sft']['first']['per_seed']
  assert len(oracle) == 2


def test_arms_have_equal_steps_and_corrections(config, done):
  found = done[1]['arms']
  for arm in ('oracle', 'interventional_paper', 'observational', 'both'):
    assert found[arm]['steps'] == config.finetune.steps
    assert found[arm]['corrections'] == found['oracle']['corrections']
  assert found['observational_tokens']['steps'] <= config.finetune.steps
  wrong = found['oracle_wrong30']['wrong_corrections']
  assert 0 < wrong < found['oracle']['corrections']
  assert found['oracle']['wrong_corrections'] == 0


def test_observational_scores_every_token_and_the_paper_only_corrections(done):
  tokens = {arm: f['scored_tokens'] for arm, f in done[1]['arms'].items()}
  assert (
    0
    < tokens['interventional_paper']
    < tokens['interventional']
    < tokens['observational']
  )


def test_increments(config, done):
  found = done[1]['continual']
  skills = 10
  for arm in ('interventional', 'oracle', 'solutions'):
    assert len(found[arm]['all']) == skills + 1
    assert [len(found[arm][k]) for k in ('old', 'new', 'unseen')] == [
      skills
    ] * 3
    assert found[arm]['old'][0] is None and found[arm]['unseen'][-1] is None
  assert len(found['joint']['all']) == 2
  assert found['joint']['forgetting'] is None
  # All arms start from the same policy.
  assert len({arm['all'][0]['mean'] for arm in found.values()}) == 1
  steps = {
    run['name']: [trained['steps'] for trained in run['train']]
    for run in done[1]['runs']['continual']
  }
  assert steps['joint'] == [skills * config.continual.steps]
  assert steps['solutions'] == [config.continual.steps] * skills


def test_the_page_has_every_arm(config, done):
  workdir, _ = done
  page = (workdir / 'deployment.html').read_text()
  words = re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', page.split('<main>')[1]))
  for arm in (*config.arms, *config.continual.arms):
    assert arm in words
  for title in ('First and second tries', 'Controls', 'Increments'):
    assert title in words


def test_a_run_that_is_done_is_not_run_again(config, done, monkeypatch):
  workdir, found = done
  monkeypatch.setattr(arms, 'deploy', None)
  assert run.reproduce(config, str(workdir)) == found


def test_a_run_that_is_lost_is_run_again_to_the_same_figures(config, done):
  workdir, _ = done
  lost = (
    workdir / 'arms/seed-1/interventional.json',
    workdir / 'arms/seed-1/reinforce.json',
    workdir / 'continual/seed-0/oracle.json',
  )
  before = [read(path) for path in lost]
  for path in lost:
    path.unlink()
  run.reproduce(config, str(workdir))
  for path, old in zip(lost, before, strict=True):
    assert without_seconds(read(path)) == without_seconds(old)


def test_an_unknown_arm_is_refused_before_anything_runs(config, tmp_path):
  wrong = dataclasses.replace(config, arms=('orcale',))
  with pytest.raises(ValueError, match="unknown objective 'orcale'"):
    run.reproduce(wrong, str(tmp_path / 'x'))
  assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
  'name', ['sft', 'rest', 'reinforce', 'oracle_tokens', 'sft_more']
)
def test_arms_without_increments_are_named(name):
  with pytest.raises(ValueError, match=f"the arm '{name}' does not learn from"):
    continual.check_arm(name)


@pytest.mark.parametrize(
  ('name', 'arm'),
  [
    ('oracle', arms.Arm('pairs', 'DEMONSTRATION=1')),
    ('oracle_wrong10', arms.Arm('pairs', 'DEMONSTRATION=1', 0.1)),
    ('interventional', arms.Arm('stream', 'interventional')),
    ('anchored(0.1)', arms.Arm('stream', 'anchored(0.1)')),
    (
      'observational_tokens',
      arms.Arm('stream', 'observational', has_tokens_of_paper=True),
    ),
    (
      'interventional_paper_wrong30',
      arms.Arm('stream', 'DEMONSTRATION=1', 0.3),
    ),
  ],
)
def test_an_arm_by_its_name(name, arm):
  assert arms.arm_from_name(name) == arm


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('only', 'arm', "config.only must be one of '', 'arms', 'continual'"),
    ('world', 'sums', 'config.world must be one of '),
    ('evaluate_on', 'train', 'config.evaluate_on must be one of '),
    ('samples', 1, 'config.samples must be at least 2 .got 1'),
    ('turns', 0, 'config.turns must be at least 1 .got 0'),
    ('lora', LoraConfig(rank=4), 'config.lora needs a base to adapt'),
  ],
)
def test_settings_that_cannot_work_are_named(config, field, value, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(config, **{field: value}).check()


@pytest.mark.parametrize('part', ['', 'arms', 'continual'])
def test_the_config_takes_a_part(part):
  found = deployment_tiny.get_config(part and f'only={part}')
  whole = deployment_tiny.get_config()
  assert found == dataclasses.replace(whole, only=part)


@pytest.mark.parametrize('text', ['arms', 'part=arms'])
def test_an_argument_that_is_no_part_is_named(text):
  with pytest.raises(ValueError, match=rf"only=PART \(got '{text}'\)"):
    deployment_tiny.get_config(text)
