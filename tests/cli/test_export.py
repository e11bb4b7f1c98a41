"""isft-export: its flags, and errors as one line."""

import subprocess
import sys

import pytest


def command(*flags):
  return subprocess.run(
    [
      sys.executable,
      '-c',
      'from isft_jax.cli import export; export.run()',
      *map(str, flags),
    ],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name --checkpoint=WORKDIR and --output=FOLDER'),
    (['--checkpoint=nowhere', '--output=x'], 'nowhere: no checkpoints there'),
    (['--dtype=int4'], 'int4'),
  ],
)
def test_bad_flags_are_one_clear_line(flags, message):
  failed = command(*flags)
  assert failed.returncode == 1
  assert failed.stderr.startswith('error: ')
  assert failed.stderr.count('\n') == 1
  assert message in failed.stderr


def test_help_shows_the_command_and_its_flags():
  shown = command('--help').stdout
  assert 'isft-export --checkpoint=WORKDIR --output=FOLDER' in shown
  for flag in ('checkpoint', 'output', 'dtype'):
    assert f'--{flag}:' in shown
