"""isft-theory as a person runs it."""

import json

from tests.commands import command, error_line


def test_parts_are_added_to_what_is_there(tmp_path):
  workdir = tmp_path / 'theory'
  first = command('theory', '--only=mixture,beta', f'--workdir={workdir}')
  assert first.returncode == 0, first.stderr
  assert 'interventional    0.3500            0.350000' in first.stdout
  assert 'P(first arm is best | it paid) = 0.6667' in first.stdout
  assert first.stdout.splitlines()[-1] == f'open {workdir / "theory.html"}'
  names = sorted(path.name for path in workdir.iterdir())
  assert names == ['beta.png', 'theory.html', 'theory.json']

  second = command('theory', '--only=fire_engine', f'--workdir={workdir}')
  assert second.returncode == 0, second.stderr
  assert 'The model: fire -> engine' in second.stdout
  results = json.loads((workdir / 'theory.json').read_text())
  assert list(results['seconds']) == ['mixture', 'beta', 'fire_engine']
  assert results['environment']['parameters'] > 0

  flags = '--only=beta', f'--workdir={workdir}', '--seed=1'
  assert 'with seed 0, not 1' in error_line('theory', *flags)


def test_an_unknown_part_is_one_line(tmp_path):
  flags = '--only=bandits', f'--workdir={tmp_path / "x"}'
  assert error_line('theory', *flags) == (
    'error: --only must be one of mixture, fire_engine, bandit, imitation, '
    "beta, boxes, teaching (got 'bandits')\n"
  )
  assert not (tmp_path / 'x').exists()
