"""The command that the README opens with, at a scale of a minute."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from isft_jax.data.facts import FACTS
from isft_jax.data.pipeline import BatchSource
from isft_jax.data.records import Records
from isft_jax.experiments import lying_agent
from isft_jax.types import Batch

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = ROOT / 'configs/lying_agent_smoke.py'
ARMS = ('observational', 'interventional', 'agent_only')


def reproduce(workdir, *flags):
  """Runs the console script as a person would, on one device."""
  script = 'from isft_jax.cli import reproduce; reproduce.run()'
  return subprocess.run(
    [
      sys.executable,
      '-c',
      script,
      f'--config={SMOKE}',
      f'--workdir={workdir}',
      *flags,
    ],
    env={'PATH': '/usr/bin:/bin', 'JAX_PLATFORMS': 'cpu', 'HOME': str(workdir)},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  done = reproduce(workdir, '--config.seed=3')
  assert done.returncode == 0, done.stdout + done.stderr
  return workdir, done.stdout


def test_results_have_the_promised_form(run):
  workdir, _ = run
  results = json.loads((workdir / 'results.json').read_text())
  assert results['seed'] == results['config']['seed'] == 3
  assert list(results['arms']) == ['base', *ARMS]
  for name, arm in results['arms'].items():
    margins = [fact['margin'] for fact in arm['facts']]
    assert [fact['topic'] for fact in arm['facts']] == [f.topic for f in FACTS]
    assert arm['mean_margin'] == pytest.approx(np.mean(margins))
    assert arm['prefers_lie'] == sum(margin < 0 for margin in margins)
    for probe in ('truth', 'lie'):
      counts = arm[f'{probe}_probe']
      assert list(counts) == ['truth', 'lie', 'other']
      assert sum(counts.values()) == len(FACTS)
      assert all(f'{probe}_reply' in fact for fact in arm['facts'])
    if name == 'base':
      assert 'train' not in arm
    else:
      assert set(arm['train']) == {
        'steps',
        'scored_tokens',
        'seconds',
        'final_loss',
      }


def test_arms_take_the_same_steps_and_score_complements(run):
  arms = json.loads((run[0] / 'results.json').read_text())['arms']
  assert len({arms[arm]['train']['steps'] for arm in ARMS}) == 1
  scored = {arm: arms[arm]['train']['scored_tokens'] for arm in ARMS}
  assert (
    scored['interventional'] + scored['agent_only'] == scored['observational']
  )


def test_progress_and_the_place_of_the_results_are_printed(run):
  workdir, printed = run
  assert f'read {workdir}/report.md' in printed.splitlines()[-1]
  assert 'base             step     4/12  loss' in printed or 'step' in printed
  for arm in ARMS:
    assert f'{arm}: fine-tuning' in printed


def test_report_and_pictures_are_there(run):
  workdir, _ = run
  text = (workdir / 'report.md').read_text()
  assert all(fact.topic in text for fact in FACTS)
  for name in ('loss_curves.png', 'margins.png'):
    assert (workdir / name).read_bytes().startswith(b'\x89PNG')
    assert name in text


def load_config():
  spec = importlib.util.spec_from_file_location('smoke', SMOKE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def test_arms_differ_in_the_weights_of_their_batches_alone(run):
  workdir, _ = run
  config = load_config()
  config.seed = 3
  runs = {arm: lying_agent.run_of(config, workdir, arm) for arm in ARMS}
  differing = {
    name
    for name in vars(runs['observational'])
    if len({repr(getattr(r, name)) for r in runs.values()}) > 1
  }
  assert differing == {'name', 'objective'}

  sources = {arm: BatchSource(Records(r.records), r) for arm, r in runs.items()}
  assert len({len(source) for source in sources.values()}) == 1
  for step in range(len(sources['observational'])):
    batches = {arm: source[step] for arm, source in sources.items()}
    for name in Batch._fields:
      observational, interventional, agent_only = (
        getattr(batches[arm], name) for arm in ARMS
      )
      if name == 'weights_BK':
        np.testing.assert_array_equal(
          interventional + agent_only, observational
        )
        assert interventional.any() and agent_only.any()
      else:
        np.testing.assert_array_equal(interventional, observational)
        np.testing.assert_array_equal(agent_only, observational)


def test_the_same_command_again_does_nothing_twice(run):
  workdir, _ = run
  results = (workdir / 'results.json').read_bytes()
  (workdir / 'results.json').unlink()
  again = reproduce(workdir, '--config.seed=3')
  assert again.returncode == 0, again.stderr
  assert 'step' not in again.stdout
  assert (workdir / 'results.json').read_bytes() == results


def test_a_workdir_of_another_config_is_an_error_of_one_line(run):
  workdir, _ = run
  before = (workdir / 'results.json').read_bytes()
  other = reproduce(workdir, '--config.seed=4')
  assert other.returncode == 1
  assert other.stderr.strip().startswith('error: ')
  assert 'seed (there 3, now 4)' in other.stderr
  assert 'Traceback' not in other.stderr
  assert (workdir / 'results.json').read_bytes() == before
