"""isft-theory as a person runs it."""

import json
import subprocess
import sys


def command(*flags):
  script = 'from isft_jax.cli import theory; theory.run()'
  return subprocess.run(
    [sys.executable, '-c', script, *map(str, flags)],
    capture_output=True,
    text=True,
    check=False,
  )


def test_parts_are_added_to_what_is_there(tmp_path):
  workdir = tmp_path / 'theory'
  first = command('--only=mixture,beta', f'--workdir={workdir}')
  assert first.returncode == 0, first.stderr
  assert 'interventional    0.3500            0.350000' in first.stdout
  assert 'P(first arm is best | it paid) = 0.6667' in first.stdout
  assert first.stdout.splitlines()[-1] == f'open {workdir / "theory.html"}'
  names = sorted(path.name for path in workdir.iterdir())
  assert names == ['beta.png', 'theory.html', 'theory.json']

  second = command('--only=boxes', f'--workdir={workdir}')
  assert second.returncode == 0, second.stderr
  assert 'Two boxes' in second.stdout
  results = json.loads((workdir / 'theory.json').read_text())
  assert list(results['seconds']) == ['mixture', 'beta', 'boxes']
  assert results['environment']['parameters'] > 0

  other = command('--only=beta', f'--workdir={workdir}', '--seed=1')
  assert other.returncode == 1
  assert other.stderr.startswith('error: ')
  assert 'another seed' in other.stderr and len(other.stderr.split('\n')) == 2


def test_an_unknown_part_is_one_line(tmp_path):
  failed = command('--only=bandits', f'--workdir={tmp_path / "x"}')
  assert failed.returncode == 1
  assert failed.stderr == (
    "error: unknown part 'bandits'; use one of mixture, fire_engine, bandit, "
    'imitation, beta, boxes, teaching\n'
  )
  assert not (tmp_path / 'x').exists()
