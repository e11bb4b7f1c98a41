"""Commands as a person starts them: with flags, output and an exit code.

Importing jax, orbax and transformers takes longer than what most commands then
do. So a server imports them once, and forks a fresh process for each command.
"""

import importlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
# They import all that is slow, define none of our flags, and start no jax.
_IMPORTED = [
  'isft_jax.data.preparation.prepare',
  'isft_jax.experiments.lying_agent',  # training, and pages with matplotlib
  'isft_jax.train.loop',
]


def command(
  name: str, *flags, cwd=ROOT, before=None, timeout=None
) -> subprocess.CompletedProcess:
  """Runs isft-NAME with flags in a process of its own.

  before: a function of a module to call first in that process.
  """
  return in_process(
    _console_script, name, before, argv=flags, cwd=cwd, timeout=timeout
  )


def in_process(
  function, *arguments, argv=(), cwd=ROOT, timeout=None
) -> subprocess.CompletedProcess:
  """Calls a function of a module as the program of a process with sys.argv."""
  with Running(function, *arguments, argv=argv, cwd=cwd) as running:
    return running.wait(timeout)


class Running:
  """A function that runs as the program of a process with sys.argv.

  As a context it ends with its block: the process is killed, and its output is
  deleted.
  """

  def __init__(self, function, *arguments, argv=(), cwd=ROOT):
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(_IMPORTED)
    self.argv = ['program', *map(str, argv)]
    self.folder = tempfile.TemporaryDirectory()
    self.outputs = [
      pathlib.Path(self.folder.name, name) for name in ('stdout', 'stderr')
    ]
    self.process = server.Process(
      target=_become, args=(function, arguments, self.argv, cwd, self.outputs)
    )
    self.process.start()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.process.kill()
    self.process.join()
    self.folder.cleanup()

  def wait(self, timeout=None) -> subprocess.CompletedProcess:
    """Returns how it ended; raises TimeoutExpired if it runs longer."""
    self.process.join(timeout)
    if self.process.exitcode is None:
      raise subprocess.TimeoutExpired(self.argv, timeout)
    # A process that was killed at once may have written nothing.
    written = (
      path.read_text() if path.exists() else '' for path in self.outputs
    )
    return subprocess.CompletedProcess(
      self.argv, self.process.exitcode, *written
    )


def start(name: str, *flags, cwd=ROOT, before=None) -> Running:
  """Starts isft-NAME with flags, as `command` does, without waiting for it."""
  return Running(_console_script, name, before, argv=flags, cwd=cwd)


def _become(function, arguments, argv, cwd, outputs):
  for number, path in enumerate(outputs, start=1):
    with path.open('w') as file:
      os.dup2(file.fileno(), number)
  os.chdir(cwd)
  sys.argv[:] = argv
  # The server inherits that libtpu has SIGHUP ignored, if a test loaded it.
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  function(*arguments)


def _console_script(name, before):
  sys.argv[0] = f'isft-{name}'
  if before:
    before()
  importlib.import_module(f'isft_jax.cli.{name}').run()


def error_line(name: str, *flags, **options) -> str:
  """Returns the one line with which isft-NAME refuses; it must exit with 1."""
  failed = command(name, *flags, **options)
  assert failed.returncode == 1, failed.stdout
  assert failed.stderr.startswith('error: '), failed.stderr
  assert failed.stderr.count('\n') == 1, failed.stderr
  return failed.stderr
