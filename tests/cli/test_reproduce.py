"""--from: a page from its results; --dialogues, --facts; --seeds."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from configs import lying_agent_tiny
from isft_jax import config as config_lib
from isft_jax.train import lock
from tests.commands import ROOT, command, error_line

GOLDEN = ROOT / 'tests' / 'golden' / 'lying_agent_tiny'

RESULTS = {
  'experiment': 'evidence',
  'config': {
    name: {'stage': {'steps': 1, 'optim': {'learning_rate': 1.0}}}
    for name in ('flywheel', 'worlds')
  }
  | {'facts': 4},
  'seed': 0,
  'seeds': [0],
  'environment': {},
  'runs': {},
}


WITHOUT_JAX = """
import atexit, sys
from isft_jax.cli import reproduce
atexit.register(lambda: print('jax' in sys.modules, file=sys.stderr))
reproduce.run()
"""


def test_a_page_is_made_from_results_without_jax(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(RESULTS))
  flags = f'--from={path}', f'--workdir={tmp_path / "page"}'
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT_JAX, *flags], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == f'open {tmp_path / "page" / "evidence.html"}\n'
  assert done.stderr == 'False\n'
  assert 'No part is done yet' in (tmp_path / 'page/evidence.html').read_text()


@pytest.mark.parametrize(
  ('flag', 'field'),
  [('--dialogues', 'dialogues.file'), ('--facts', 'facts_file')],
)
def test_files_that_others_wrote_are_named_by_flags(tmp_path, flag, field):
  error = error_line(
    'reproduce',
    '--config=lying_agent_smoke',
    f'{flag}={tmp_path}/nowhere',
    f'--workdir={tmp_path / "run"}',
  )
  assert (
    error
    == f"error: config.{field}='{tmp_path}/nowhere': the file does not exist\n"
  )
  assert not (tmp_path / 'run').exists()


def test_results_of_another_experiment_are_one_clear_line(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text('{"arms": {}}')
  error = error_line('reproduce', f'--from={path}')
  assert error.startswith(f'error: {path}: not the results of ')
  assert [p.name for p in tmp_path.iterdir()] == ['results.json']


def test_a_second_experiment_in_a_workdir_is_one_clear_line(tmp_path):
  with lock.locked(tmp_path):
    error = error_line(
      'reproduce', '--config=lying_agent_smoke', f'--workdir={tmp_path}'
    )
  assert f'{tmp_path}: another training is writing there (process ' in error
  assert [*tmp_path.iterdir()] == []


def test_seeds_run_one_after_the_other_and_are_summarized(tmp_path):
  """Both seeds are already finished, so that nothing is trained."""
  for seed in (0, 1):
    folder = tmp_path / f'seed{seed}'
    config_lib.claim(
      folder, dataclasses.replace(lying_agent_tiny.get_config(), seed=seed)
    )
    shutil.copy(GOLDEN / f'seed-{seed}.json', folder / 'results.json')
  done = command(
    *('reproduce', '--config=lying_agent_tiny', '--seeds=0:2'),
    f'--workdir={tmp_path}',
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == f'seed 0 (1 of 2): {tmp_path}/seed0'
  assert lines[1].startswith('everything is done: ')
  assert lines[2] == f'seed 1 (2 of 2): {tmp_path}/seed1'
  assert lines[-1] == f'open {tmp_path}/seeds.html, or read {tmp_path}/seeds.md'
  assert 'Seeds 0, 1.' in (tmp_path / 'seeds.html').read_text()


@pytest.mark.parametrize(
  'seeds', ['0', '3:3', '2:3', '0,0', '1:b', '0:4:', ',']
)
def test_seeds_that_cannot_be_compared_are_refused(seeds):
  error = error_line(
    'reproduce', '--config=lying_agent_smoke', f'--seeds={seeds}'
  )
  assert error.startswith(f'error: --seeds={seeds} must be two or more ')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config=evidence_tiny'], '--seeds needs the --config of a lying agent'),
    (['--config=configs/deployment_tiny.py'], '--seeds needs the --config of '),
    ([], '--seeds needs the --config of a lying agent'),
    (['--from=a.json'], '--from and --seeds exclude each other'),
  ],
)
def test_seeds_belong_to_a_lying_agent(flags, message):
  error = error_line('reproduce', '--seeds=0:2', *flags)
  assert error.startswith(f'error: {message}')


@pytest.mark.parametrize('flag', ['--dialogues=x', '--facts=x'])
def test_a_deployment_takes_no_files(tmp_path, flag):
  error = error_line(
    'reproduce',
    '--config=configs/deployment_tiny.py',
    flag,
    f'--workdir={tmp_path / "run"}',
  )
  assert error.startswith('error: --dialogues and --facts are for the lying ')
  assert not (tmp_path / 'run').exists()


def test_arms_are_a_plain_list(tmp_path):
  """The unknown one is named, so that both were read."""
  flags = f'--workdir={tmp_path / "run"}', '--config=lying_agent_smoke'
  error = error_line('reproduce', *flags, '--config.arms=weighted(0.1),nope')
  assert error.startswith("error: unknown objective 'nope'; ")
  error = error_line('reproduce', *flags, '--config.arms=agent_only,agent_only')
  assert 'config.arms' in error and 'agent_only' in error
