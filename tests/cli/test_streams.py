"""Output that nobody reads: a run continues, other commands end quietly."""

import os
import subprocess
import sys
import threading
import time

import pytest

from isft_jax.cli import commands, main, streams
from tests.commands import ROOT, in_process


def _without_reader(number):
  reader, writer = os.pipe()
  os.close(reader)
  os.dup2(writer, number)


def _closed(number):
  """As by `>&-`: Python then starts without the stream."""
  os.close(number)
  name = ('stdout', 'stderr')[number - 1]
  setattr(sys, name, None)
  setattr(sys, f'__{name}__', None)


def _full(number):
  os.dup2(os.open('/dev/full', os.O_WRONLY), number)


def _terminal_gone(number):
  controller, terminal = os.openpty()
  os.dup2(terminal, number)
  os.close(terminal)
  os.close(controller)


def _talk(path):
  for line in range(2_000):
    print(f'line {line}' + 40 * ' ', flush=line % 100 == 0)
    print(f'warning {line}', file=sys.stderr)
  with open(path, 'w') as file:
    # The numbers of closed files are not given to it.
    assert file.fileno() > 2
    file.write('done')


def _run(damage, numbers, is_lasting, path):
  for number in numbers:
    damage(number)
  sys.argv[1:] = []
  main.run(lambda: _talk(path), '', (), is_lasting=is_lasting)


@pytest.mark.parametrize('numbers', [(1,), (2,), (1, 2)])
@pytest.mark.parametrize(
  'damage', [_without_reader, _closed, _full, _terminal_gone]
)
def test_a_lasting_command_continues(damage, numbers, tmp_path):
  done = in_process(_run, damage, numbers, True, tmp_path / 'file')
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'file').read_text() == 'done'
  # The other stream has all of its lines.
  if numbers == (1,):
    assert done.stderr.splitlines()[-1] == 'warning 1999'
    assert done.stderr.count('\n') == 2_000
  if numbers == (2,):
    assert done.stdout.count('\n') == 2_000


@pytest.mark.parametrize('damage', [_without_reader, _terminal_gone])
def test_another_command_ends_quietly(damage, tmp_path):
  done = in_process(_run, damage, (1,), False, tmp_path / 'file')
  assert done.returncode == 141
  assert set(done.stderr.split()) <= {'warning', '0'}
  assert not (tmp_path / 'file').exists()


def test_another_command_names_a_full_disk(tmp_path):
  done = in_process(_run, _full, (1,), False, tmp_path / 'file')
  assert done.returncode == 1
  assert 'No space left on device; free some space' in done.stderr
  assert 'Traceback' not in done.stderr


def _help(script, argv):
  _without_reader(1)
  sys.argv[:] = argv
  script()


def _inspect():
  from isft_jax.cli import inspect

  inspect.run()


@pytest.mark.parametrize(
  ('script', 'argv'),
  [
    (commands.main, ['isft']),
    (commands.main, ['isft', '--version']),
    (commands.main, ['isft', 'inspect', '--help']),
    (_inspect, ['isft-inspect', '--help']),
    (_inspect, ['isft-inspect', '--version']),
  ],
)
def test_help_without_a_reader_ends_quietly(script, argv):
  done = in_process(_help, script, argv)
  assert (done.returncode, done.stderr) == (141, '')


def _full_pipe(path):
  """A pipe that raises instead of waiting for its slow reader."""
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  os.dup2(writer, 1)

  def read():
    while os.read(reader, 100):
      time.sleep(0.001)

  threading.Thread(target=read, daemon=True).start()
  with streams.guarded(is_lasting=True):
    _talk(path)


def test_a_pipe_that_does_not_wait_is_waited_for(tmp_path):
  done = in_process(_full_pipe, tmp_path / 'file')
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'file').read_text() == 'done'


def test_a_stand_in_is_left_alone(capsys):
  with streams.guarded():
    print('seen')
  assert capsys.readouterr().out == 'seen\n'


def test_a_command_in_a_real_pipe():
  """As in a shell, where the interpreter also flushes at its end."""
  done = subprocess.run(
    [
      'bash',
      '-c',
      f'{sys.executable} -m isft_jax theory --help | true; '
      'echo ${PIPESTATUS[0]}',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.stdout, done.stderr) == ('141\n', '')
