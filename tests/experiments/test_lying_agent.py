"""The command that the README opens with, at a scale of a minute."""

import html
import importlib.util
import json
import os
import signal
import time

import numpy as np
import pytest

from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records.dataset import Records
from isft_jax.experiments import lying_agent
from isft_jax.types import Batch
from isft_jax.worlds.lying_agent.facts import FACTS
from tests.benchmarks import eight_devices, kills
from tests.commands import ROOT, command, error_line, start
from tests.experiments import smoke as experiment

SMOKE = ROOT / 'configs/lying_agent_smoke.py'
ARMS = ('observational', 'interventional', 'agent_only')


def test_results_have_the_promised_form(smoke):
  results = json.loads((smoke.workdir / 'results.json').read_text())
  assert results['seed'] == results['config']['seed'] == 0
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
    # The base is at no distance from itself, and the arms are.
    for distance in arm['costs']['kl'].values():
      assert distance == pytest.approx(0, abs=1e-5) or name != 'base'
      assert distance > 1e-5 or name == 'base'
    if name == 'base':
      assert 'train' not in arm
    else:
      assert set(arm['train']) == {
        'steps',
        'scored_tokens',
        'seconds',
        'final_loss',
      }


def test_arms_can_start_from_the_base_of_another_run(smoke, tmp_path):
  """With the same results: the base is not trained again."""
  done = command(
    *('reproduce', *experiment.FLAGS, f'--workdir={tmp_path}/run'),
    '--config.arms=interventional,replay',
    f'--config.model.init_from={smoke.workdir}/base',
    before=experiment.one_device,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads((tmp_path / 'run' / 'results.json').read_text())['arms']
  whole = json.loads((smoke.workdir / 'results.json').read_text())['arms']
  # An arm with more records, of dialogues that the base has completed.
  replay = found.pop('replay')
  records = Records(str(tmp_path / 'run' / 'records' / 'replay'))
  ids = [records[number].id for number in range(len(records))]
  added = sum(id.endswith('-by-the-base') for id in ids)
  number = len(Records(str(smoke.workdir / 'records' / 'dialogues')))
  assert len(ids) == number + added and 0 < added <= round(number / 4)
  assert replay['train']['steps'] >= found['interventional']['train']['steps']
  assert found.keys() == {'base', 'interventional'}
  for arm in found.values():
    arm.get('train', {}).pop('seconds', None)
  whole['interventional']['train'].pop('seconds')
  assert found == {name: whole[name] for name in found}
  assert not (tmp_path / 'run' / 'records' / 'documents').exists()


def test_arms_take_the_same_steps_and_score_complements(smoke):
  arms = json.loads((smoke.workdir / 'results.json').read_text())['arms']
  assert len({arms[arm]['train']['steps'] for arm in ARMS}) == 1
  scored = {arm: arms[arm]['train']['scored_tokens'] for arm in ARMS}
  assert (
    scored['interventional'] + scored['agent_only'] == scored['observational']
  )


def test_progress_and_the_place_of_the_results_are_printed(smoke):
  workdir, printed = smoke
  assert f'open {workdir}/report.html' in printed.splitlines()[-1]
  for step in (6, 12):
    assert f'base             step {step:>5}/12  loss' in printed
  for arm in ARMS:
    assert f'{arm}: fine-tuning' in printed


def test_report_and_pictures_are_there(smoke):
  workdir = smoke.workdir
  text = (workdir / 'report.html').read_text()
  assert all(html.escape(fact.topic) in text for fact in FACTS)
  for name in ('loss_curves', 'margins'):
    png = (workdir / f'{name}.png').read_bytes()
    assert png.startswith(b'\x89PNG')
    assert f'id="{name}-' in text
  assert not (workdir / 'report.md').exists()


def load_config():
  spec = importlib.util.spec_from_file_location('smoke', SMOKE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def test_arms_differ_in_the_weights_of_their_batches_alone(smoke):
  workdir = smoke.workdir
  config = load_config()
  runs = {arm: lying_agent.make_run(config, workdir, arm) for arm in ARMS}
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


def test_a_workdir_of_another_config_is_an_error_of_one_line(smoke):
  workdir = smoke.workdir
  before = (workdir / 'results.json').read_bytes()
  error = error_line(
    *('reproduce', *experiment.FLAGS, f'--workdir={workdir}'),
    '--config.seed=4',
  )
  assert error.startswith(f'error: {workdir} holds a run of another config: ')
  assert 'seed (there 0, now 4)' in error
  assert (workdir / 'results.json').read_bytes() == before


# ------------------- the same results, whatever happens to a run


def test_killed_and_interrupted_the_results_are_the_same(smoke, tmp_path):
  """Killed in half a checkpoint of the base, Ctrl-C, and killed in an arm's.

  tests/benchmarks/kills.py kills at random moments.
  """
  flags = 'reproduce', *experiment.FLAGS, f'--workdir={tmp_path}/run'

  def kill():
    killed = command(*flags, before=experiment.die_in_checkpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    half = tmp_path.glob('run/*/checkpoints/*checkpoint-tmp*')
    return [path.parts[-3] for path in half]

  assert kill() == ['base']
  with start(*flags, before=experiment.one_device) as running:
    while 'observational    step' not in printed(running):
      assert running.process.is_alive(), printed(running)
      time.sleep(0.05)
    os.kill(running.process.pid, signal.SIGINT)
    stopped = running.wait(60)
  assert stopped.returncode == 130
  assert f'same command again to resume from {tmp_path}/run' in stopped.stderr
  assert 'Traceback' not in stopped.stderr
  (arm,) = kill()
  assert arm in ARMS

  done = command(*flags, before=experiment.one_device)
  assert done.returncode == 0, done.stderr
  assert kills.results(tmp_path / 'run') == kills.results(smoke.workdir)


def printed(running):
  path = running.outputs[0]
  return path.read_text() if path.exists() else ''


def test_a_run_that_is_done_returns_at_once(smoke):
  before = {p: p.stat().st_mtime_ns for p in smoke.workdir.rglob('*.json*')}
  flags = *experiment.FLAGS, f'--workdir={smoke.workdir}'
  done = command('reproduce', *flags)
  assert done.stdout == (
    f'everything is done: open {smoke.workdir}/report.html, or read '
    f'{smoke.workdir}/results.json\n'
  )
  after = {p: p.stat().st_mtime_ns for p in before}
  assert after == before


def test_an_arm_runs_unchanged_on_eight_devices(smoke, tmp_path):
  """All of the experiment: tests/benchmarks/eight_devices.py."""
  done = command(
    *('reproduce', *experiment.FLAGS, f'--workdir={tmp_path}/run'),
    *('--config.mesh.fsdp=8', '--config.arms=interventional'),
    f'--config.model.init_from={smoke.workdir}/base',
    before=experiment.compile_well,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  one, eight = kills.results(smoke.workdir), kills.results(tmp_path / 'run')
  assert eight['config']['mesh']['fsdp'] == 8
  assert list(eight['arms']) == ['base', 'interventional']
  eight_devices.compare(one['arms'], eight['arms'])
  del one['arms']['observational'], one['arms']['agent_only']
  # Another mesh, other rounding.
  assert json.dumps(one['arms']) != json.dumps(eight['arms'])
