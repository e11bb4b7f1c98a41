"""isft-export: its flags, and errors as one line."""

import pytest

from tests.commands import command, error_line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name --checkpoint=WORKDIR and --output=FOLDER'),
    (['--checkpoint=nowhere', '--output=x'], 'nowhere: no checkpoints there'),
    (['--dtype=int4'], 'int4'),
  ],
)
def test_bad_flags_are_one_clear_line(flags, message):
  assert message in error_line('export', *flags)


def test_help_shows_the_command_and_its_flags():
  shown = command('export', '--help').stdout
  assert 'isft-export --checkpoint=WORKDIR --output=FOLDER' in shown
  for flag in ('checkpoint', 'output', 'dtype'):
    assert f'--{flag}:' in shown
