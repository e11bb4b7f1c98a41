"""Commands as a person starts them: with flags, output and an exit code.

Importing jax, orbax and transformers takes longer than what most commands then
do. So a server imports them once, and forks a fresh process for each command.
"""

import contextlib
import gc
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).parents[1]
# They import all that is slow, define none of our flags, and start no jax.
_IMPORTED = [
  'isft_jax.data.preparation.prepare',
  'isft_jax.experiments.lying_agent',  # training, and pages with matplotlib
  'isft_jax.report.training.page',
  'isft_jax.train.loop',
  # These are imported at their first use, which takes a second.
  'jaxlib.mlir.dialects.mhlo',
  'matplotlib.backends.backend_agg',
  'matplotlib.backends.backend_svg',
  'ml_collections.config_flags',
  'transformers.models.auto.tokenization_auto',
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
    self.end()

  def end(self):
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
  # The server inherits what is ignored: SIGINT in the background of a shell,
  # and SIGHUP if a test has loaded libtpu.
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  gc.freeze()  # nothing that is imported is garbage
  function(*arguments)


def _console_script(name, before):
  sys.argv[0] = f'isft-{name}'
  if before:
    before()
  importlib.import_module(f'isft_jax.cli.{name}').run()


# A program of PATH that has the server of a test run the command of its name.
_PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
  asked.connect({address!r})
  asked.sendall(json.dumps([{name!r}, os.getcwd(), *sys.argv[1:]]).encode())
  asked.shutdown(socket.SHUT_WR)
  code, out, error = json.load(asked.makefile())
sys.stdout.write(out)
sys.stderr.write(error)
sys.exit(code)
"""


@contextlib.contextmanager
def on_path(folder: pathlib.Path, before=None):
  """Writes a program into a folder for each console script of the package.

  For shells and other programs that start commands. While the context lasts,
  each program runs `command` in its working directory.
  """

  class Handler(socketserver.StreamRequestHandler):
    def handle(self):
      name, cwd, *argv = json.load(self.rfile)
      done = command(name, *argv, cwd=cwd, before=before)
      answer = done.returncode, done.stdout, done.stderr
      self.wfile.write(json.dumps(answer).encode())

  scripts = importlib.metadata.distribution('isft_jax').entry_points
  address = str(folder / 'socket')
  for script in scripts.select(group='console_scripts'):
    if script.attr == 'run':
      name = script.module.rpartition('.')[2]
      path = folder / script.name
      path.write_text(
        _PROGRAM.format(python=sys.executable, address=address, name=name)
      )
      path.chmod(0o755)
  with socketserver.ThreadingUnixStreamServer(address, Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()


def error_line(name: str, *flags, **options) -> str:
  """Returns the one line with which isft-NAME refuses; it must exit with 1."""
  failed = command(name, *flags, **options)
  assert failed.returncode == 1, failed.stdout
  assert failed.stderr.startswith('error: '), failed.stderr
  assert failed.stderr.count('\n') == 1, failed.stderr
  return failed.stderr
