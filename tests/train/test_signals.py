"""SIGTERM, SIGHUP and Ctrl-C: a run saves, and ends with one line."""

import hashlib
import os
import signal
import threading
import time

import pytest

from isft_jax.cli import train as train_cli
from isft_jax.train import checkpoint, inputs, loop, signals
from isft_jax.train import metrics as metrics_lib
from tests.commands import in_process
from tests.dialogues import dialogues, write_records

TERM, HUP, INT = signal.SIGTERM, signal.SIGHUP, signal.SIGINT
EARLY = (
  'asked to stop before a step was done; run the same command again to resume\n'
)


def send(number, after=0.0):
  """Sends a signal to this process, now or later."""
  if not after:
    os.kill(os.getpid(), number)
    return
  timer = threading.Timer(after, os.kill, (os.getpid(), number))
  timer.daemon = True
  timer.start()


def block():
  """One call of C, of minutes, that no handler of Python interrupts."""
  hashlib.pbkdf2_hmac('sha256', b'', b'', (1 << 31) - 1)


# ---------------------------------------------------------- without a training


def _blocked(numbers):
  signal.signal(INT, signal.default_int_handler)
  with signals.Watch():
    for delay, number in enumerate(numbers, start=1):
      send(number, delay * 0.5)
    block()


@pytest.mark.parametrize(
  ('number', 'code', 'output', 'errors'),
  [
    (TERM, 75, EARLY, ''),
    (HUP, 75, EARLY, ''),
    (INT, 130, '', '\ninterrupted; run the same command again to resume\n'),
  ],
)
def test_a_process_ends_in_the_middle_of_a_compilation(
  number, code, output, errors
):
  done = in_process(_blocked, [number], timeout=60)
  assert (done.returncode, done.stdout, done.stderr) == (code, output, errors)


def _slow_end():
  try:
    with signals.Watch():
      send(TERM)
      time.sleep(600)
  finally:
    time.sleep(signals._PATIENCE + 1)


def test_a_program_that_ends_by_itself_may_take_its_time():
  done = in_process(_slow_end, timeout=60)
  assert (done.returncode, done.stdout, done.stderr) == (75, EARLY, '')


def _noting(numbers):
  signal.signal(INT, signal.default_int_handler)
  with signals.Watch(), signals.Signals() as noted:
    noted.begin()
    for number in numbers:
      send(number)
      time.sleep(0.2)
    time.sleep(signals._PATIENCE + 0.5)
    print(noted.noted, flush=True)


@pytest.mark.parametrize(
  ('numbers', 'noted'),
  [([TERM], 15), ([HUP], 1), ([INT], 2), ([TERM, TERM], 15), ([HUP, TERM], 1)],
)
def test_a_signal_is_noted_when_there_is_something_to_save(numbers, noted):
  done = in_process(_noting, numbers, timeout=60)
  assert (done.returncode, done.stdout, done.stderr) == (0, f'{noted}\n', '')


def test_a_second_ctrl_c_ends_at_once():
  done = in_process(_noting, [INT, INT], timeout=60)
  assert (done.returncode, done.stdout, done.stderr) == (
    130,
    '',
    '\ninterrupted\n',
  )


def _twice_at_once():
  signal.signal(INT, signal.default_int_handler)
  with signals.Watch(), signals.Signals() as noted:
    noted.begin()
    send(INT)
    send(INT)
    print(noted.noted, flush=True)


def test_a_ctrl_c_that_a_launcher_repeats_is_one():
  assert in_process(_twice_at_once, timeout=60).stdout == '2\n'


def _ignored():
  for number in (HUP, INT):
    signal.signal(number, signal.SIG_IGN)
  with signals.Watch(), signals.Signals():
    for number in (HUP, INT):
      send(number)
  for number in (HUP, INT):
    assert signal.getsignal(number) == signal.SIG_IGN
  print('still here', flush=True)


def test_signals_that_the_shell_ignores_stay_ignored():
  """SIGHUP under nohup, and Ctrl-C for a job in the background."""
  done = in_process(_ignored, timeout=60)
  assert (done.returncode, done.stdout) == (0, 'still here\n')


def _with_a_child(number):
  signal.signal(INT, signal.default_int_handler)
  with signals.Watch(), signals.Signals() as noted:
    noted.begin()
    child = os.fork()
    if not child:
      time.sleep(600)
    time.sleep(0.3)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    time.sleep(0.3)
    print(noted.noted, os.WTERMSIG(status) == number, flush=True)


def test_a_child_process_ends_by_itself():
  done = in_process(_with_a_child, TERM, timeout=60)
  assert (done.returncode, done.stdout) == (0, 'None True\n')


# ------------------------------------------------------------- while it trains


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  folder = tmp_path_factory.mktemp('records')
  write_records(folder / 'records', dialogues()[:12])
  return folder / 'records'


def flags(records, workdir):
  """Its step is the program of test_loop.py, which is compiled once."""
  return [
    *('--config=train_tiny', f'--config.records={records}'),
    *('--config.model.width=16', '--config.model.layers=2'),
    *('--config.model.head_size=4', '--config.model.mlp_width=32'),
    *('--config.seq_len=256', '--config.targets_per_row=256'),
    *('--config.optim.learning_rate=1e-2', '--config.model.remat=none'),
    '--config.steps=6',
    f'--workdir={workdir}',
  ]


# Place -> a function that is called there.
PLACES = {
  'start': (inputs.Records, '__init__'),
  'compile': (loop, 'make_trainer'),
  'restore': (checkpoint.Checkpoints, 'restore'),
  'loop': (metrics_lib.Metrics, 'add'),
}


def _train(place, numbers, at, is_blocked):
  """Trains; its call number `at` of a place sends signals to the process."""
  signal.signal(INT, signal.default_int_handler)
  owner, name = PLACES[place]
  original, calls = getattr(owner, name), []

  def called(*args, **kwargs):
    calls.append(name)
    result = original(*args, **kwargs)
    if len(calls) == at:
      for number in numbers:
        send(number)
        time.sleep(0.2)
      if is_blocked:
        block()
    return result

  setattr(owner, name, called)
  train_cli.run()


def trained(records, workdir, place='loop', numbers=(), at=1, is_blocked=False):
  return in_process(
    _train,
    *(place, numbers, at, is_blocked),
    argv=flags(records, workdir),
    timeout=400,
  )


def saved(workdir):
  return sorted(path.name for path in workdir.glob('checkpoints/step_*'))


@pytest.mark.parametrize('place', ['start', 'compile'])
def test_before_the_first_step_sigterm_exits_with_75(place, records, tmp_path):
  done = trained(records, tmp_path / 'run', place, [TERM])
  assert done.returncode == 75, done.stderr
  assert done.stdout.endswith(EARLY)
  assert done.stderr == ''
  assert saved(tmp_path / 'run') == []


def test_a_run_is_stopped_three_times_and_ends_as_if_it_never_was(
  records, tmp_path
):
  # By SIGHUP after its second step.
  done = trained(records, tmp_path, numbers=[HUP], at=2)
  assert done.returncode == 75, done.stderr
  assert done.stdout.splitlines()[-1] == (
    f'asked to stop: step 2 is saved in {tmp_path}; run the same command again '
    'to resume'
  )
  assert (saved(tmp_path), done.stderr) == (['step_2'], '')

  # By SIGTERM while it resumes.
  done = trained(records, tmp_path, 'restore', [TERM])
  assert done.returncode == 75, done.stderr
  assert done.stdout.endswith(EARLY)
  assert (saved(tmp_path), done.stderr) == (['step_2'], '')

  # By Ctrl-C after two more steps.
  done = trained(records, tmp_path, numbers=[INT], at=2)
  assert done.returncode == 130, done.stderr
  assert done.stderr == (
    f'\ninterrupted; run the same command again to resume from {tmp_path}\n'
  )
  assert saved(tmp_path) == ['step_2', 'step_4']

  # By two Ctrl-C, of which the second ends it at once, even in a long call.
  done = trained(records, tmp_path, numbers=[INT, INT], is_blocked=True)
  assert done.returncode == 130, done.stderr
  assert len(done.stderr.splitlines()) == 2
  assert saved(tmp_path) == ['step_2', 'step_4']

  done = trained(records, tmp_path)
  assert done.returncode == 0, done.stderr
  rows = metrics_lib.read(tmp_path / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(('number', 'code'), [(TERM, 0), (INT, 130)])
def test_a_signal_in_the_last_step_loses_nothing(
  number, code, records, tmp_path
):
  done = trained(records, tmp_path, numbers=[number], at=6)
  assert done.returncode == code, done.stderr
  assert saved(tmp_path) == ['step_6']
