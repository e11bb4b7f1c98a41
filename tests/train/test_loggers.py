"""A logger that cannot write is dropped: it neither stops nor hangs a run."""

import contextlib
import glob
import resource
import sys
import threading
import time
import types

import pytest
from etils import epath

from isft_jax.config import RunConfig
from isft_jax.train import loggers as loggers_lib
from isft_jax.train.loggers import Loggers

STEPS = 200
SCALARS = {f'curve_{number}': float(number) for number in range(20)}
DROPPED = 'gets no more points of this run'


def within(seconds, function):
  """Calls a function that may hang; returns whether it ended in time."""
  thread = threading.Thread(target=function, daemon=True)
  thread.start()
  thread.join(seconds)
  return not thread.is_alive()


@contextlib.contextmanager
def full_disk(size):
  """A limit on the size of a file stands for a disk that is full."""
  unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def log(folder, wandb='', steps=STEPS):
  loggers = Loggers(epath.Path(folder), RunConfig(), 0, wandb)
  for step in range(1, steps + 1):
    loggers.add(step, SCALARS)
  loggers.close()


def test_every_point_is_in_the_event_file(tmp_path, capsys):
  log(tmp_path, steps=3)
  (path,) = glob.glob(f'{tmp_path}/tensorboard/events.out.tfevents.*')
  with open(path, 'rb') as file:
    content = file.read()
  for name in SCALARS:
    assert content.count(name.encode()) >= 3
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('size', [0, 10, 200, 2_000, 20_000])
def test_a_full_disk_ends_the_board_with_one_line(size, tmp_path, capsys):
  """From its first byte, and at any later one."""
  with full_disk(size):
    assert within(60, lambda: log(tmp_path))
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f'warning: TensorBoard {DROPPED} (')
  assert 'File too large' in line


def test_a_folder_that_cannot_be_made_ends_the_board(tmp_path, capsys):
  (tmp_path / 'tensorboard').write_text('a file in its place')
  assert within(60, lambda: log(tmp_path))
  assert capsys.readouterr().out.count(DROPPED) == 1


# ------------------------------------------------------------ Weights & Biases


def fail(*args, **kwargs):
  raise ConnectionError('the network is down\nin many lines')


def hang(*args, **kwargs):
  time.sleep(600)


def work(*args, **kwargs):
  pass


@pytest.fixture
def wandb(monkeypatch):
  """A stand-in whose functions can be replaced; no network here."""
  run = types.SimpleNamespace(log=work, finish=work)
  module = types.ModuleType('wandb')
  module.init = lambda **settings: run
  monkeypatch.setitem(sys.modules, 'wandb', module)
  monkeypatch.setattr(loggers_lib, '_PATIENCE', 1.0)
  module.run_stand_in = run
  return module


@pytest.mark.parametrize('name', ['init', 'log', 'finish'])
def test_an_error_of_wandb_is_one_line_and_the_board_goes_on(
  name, wandb, tmp_path, capsys
):
  owner = wandb if name == 'init' else wandb.run_stand_in
  setattr(owner, name, fail)
  assert within(60, lambda: log(tmp_path, 'project', steps=3))
  assert capsys.readouterr().out == (
    f'warning: Weights & Biases {DROPPED} (the network is down); metrics.jsonl '
    'has them all\n'
  )
  (path,) = (tmp_path / 'tensorboard').glob('events.*')
  assert path.read_bytes().count(b'curve_19') >= 3


@pytest.mark.parametrize('name', ['log', 'finish'])
def test_a_call_of_wandb_that_hangs_does_not_hang_the_run(
  name, wandb, tmp_path, capsys
):
  setattr(wandb.run_stand_in, name, hang)
  assert within(60, lambda: log(tmp_path, 'project'))
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f'warning: Weights & Biases {DROPPED} (it did not end')


def test_points_that_wait_for_a_slow_logger_are_bounded(
  wandb, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(loggers_lib, '_WAITING', 50)
  wandb.run_stand_in.log = hang
  loggers = Loggers(epath.Path(tmp_path), RunConfig(), 0, 'project')
  for step in range(STEPS):
    loggers.add(step, {'loss': 1.0})
    time.sleep(0.001)  # TensorBoard keeps up
  assert loggers._loggers[0]._queue.qsize() <= 51
  assert within(60, loggers.close)
  assert 'Biases gets no more points of this run (50 steps wait' in (
    capsys.readouterr().out
  )
