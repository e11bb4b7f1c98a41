"""Errors of a command: one line with the remedy, exit code 1, nothing done."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = 'configs/lying_agent_smoke.py'


def command(name, *flags, cwd=ROOT):
  """Runs a console script as a person would."""
  return subprocess.run(
    [
      sys.executable,
      '-c',
      f'from isft_jax.cli import {name}; {name}.run()',
      *map(str, flags),
    ],
    cwd=cwd,
    capture_output=True,
    text=True,
    check=False,
  )


BAD = {
  'no config': ([], 'name the settings, as in --config=configs/NAME.py'),
  'missing config file': (
    ['--config=configs/nope.py'],
    'no config file configs/nope.py; the package has lying_agent_smoke, '
    'lying_agent_tiny, train_tiny',
  ),
  'a config file that is no Python': (
    ['--config=README.md'],
    'the config file raised SyntaxError',
  ),
  'unknown flag': (
    [f'--config={SMOKE}', '--wrkdir=x'],
    "Unknown command line flag 'wrkdir'. Did you mean: workdir ?",
  ),
  'unknown field': (
    [f'--config={SMOKE}', '--config.model.layer=2'],
    "ModelConfig has no field 'layer'; did you mean layers?",
  ),
  'wrong type': (
    [f'--config={SMOKE}', '--config.seed=abc'],
    "flag --config.seed=abc: invalid literal for int() with base 10: 'abc'",
  ),
  'a fraction for a count': (
    [f'--config={SMOKE}', '--config.pretrain.rows=1.5'],
    'flag --config.pretrain.rows=1.5',
  ),
  'a value out of range': (
    [f'--config={SMOKE}', '--config.dialogues.p_lie=1.5'],
    'config.dialogues.p_lie=1.5 must be 0 to 1',
  ),
  'unknown arm': (
    [f'--config={SMOKE}', "--config.arms=('observatoinal',)"],
    "unknown objective 'observatoinal'; use one of observational, ",
  ),
  'stray argument': (
    [f'--config={SMOKE}', 'seed=1'],
    "unexpected argument 'seed=1'; a flag is --NAME=VALUE",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_flags_are_one_clear_line(case, tmp_path):
  flags, message = BAD[case]
  workdir = tmp_path / 'run'
  failed = command('reproduce', f'--workdir={workdir}', *flags)
  assert failed.returncode == 1
  assert failed.stderr.startswith('error: ')
  assert failed.stderr.count('\n') == 1
  assert message in failed.stderr
  assert not workdir.exists()


def test_missing_records_are_one_clear_line(tmp_path):
  failed = command(
    'train',
    '--config=train_tiny',
    f'--config.records={tmp_path}/none',
    f'--config.tokenizer={tmp_path}',
    f'--workdir={tmp_path}/run',
    cwd=tmp_path,
  )
  assert failed.returncode == 1
  assert failed.stderr == (
    f'error: {tmp_path}/none: no records there; prepare them first\n'
  )


@pytest.mark.parametrize('name', ['reproduce', 'train'])
def test_help_shows_the_command_and_its_flags(name):
  shown = command(name, '--help')
  assert f'isft-{name} --config=configs/' in shown.stdout
  for flag in ('--config:', '--workdir:'):
    assert flag in shown.stdout
