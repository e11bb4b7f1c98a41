"""--from: a page from its results; --dialogues, --facts: files of others."""

import json
import subprocess
import sys

import pytest

from isft_jax.train import lock
from tests.commands import error_line

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
