"""Many processes: the bytes of one, in the order of one, or a clear end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import outcomes, prepare, verify, workers
from isft_jax.data.preparation.counters import Tally
from tests.data.preparation.questions import contents, rows

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  lines = [*rows(range(100)), 'no row']
  (folder / 'a.jsonl').write_text('\n'.join(lines[:37]))
  (folder / 'b.jsonl').write_text('\n'.join(lines[37:]))
  return folder


def test_the_data_set_is_that_of_one_process_byte_for_byte(
  renderer, source, tmp_path
):
  settings = prepare.Settings(
    str(source), heldout=0.2, max_length=20, num_shards=3
  )
  read = []
  for number in (1, 2):
    prepare.prepare(
      settings,
      renderer,
      Rules.default(),
      str(tmp_path / f'{number}'),
      lambda tally: read.append(tally.read),
      num_workers=number,
    )
  one, two = (contents(tmp_path / f'{number}') for number in (1, 2))
  assert one == two
  assert one['report']['rows'] == {'read': 101, 'written': 89, 'rejected': 12}
  assert one['report']['splits'].keys() == {'train', 'heldout'}
  assert read == [*range(1, 102)] + [16, 32, 48, 64, 80, 96, 101]


class Dies:
  """Prepares nothing, and takes its process with it at row 40."""

  def __call__(self, task, tally):
    if task == 40:
      os.kill(os.getpid(), signal.SIGKILL)
    tally.read += 1
    return task


def test_a_worker_that_dies_is_an_error_and_no_hang():
  read = Tally()
  with pytest.raises(ValueError, match='a worker process ended before its ro'):
    for _, counts in workers.outcomes(Dies(), range(100), 2):
      read.merge(counts)
  assert read.read in (0, 16, 32)


class DiesAtRow40:
  """The same, of the rows of a file."""

  def __call__(self, task, tally):
    if task.row.number == 40:
      os.kill(os.getpid(), signal.SIGKILL)
    return outcomes.Outcome(task.key, 'train', [], None)


def test_a_worker_that_dies_leaves_no_data_set_and_the_next_run_is_whole(
  renderer, source, tmp_path, monkeypatch
):
  asked = prepare.Settings(str(source)), renderer, Rules.default()
  with monkeypatch.context() as dying:
    dying.setattr(outcomes, 'Preparer', lambda *_: DiesAtRow40())
    with pytest.raises(ValueError, match='a worker process ended before its'):
      prepare.prepare(*asked, str(tmp_path / 'out'), num_workers=2)
  assert not (tmp_path / 'out').exists()
  report, was_there = prepare.prepare(*asked, str(tmp_path / 'out'))
  assert not was_there
  assert report['rows'] == {'read': 101, 'written': 89, 'rejected': 12}
  assert [*verify.damages(str(tmp_path / 'out'))] == []


class Fails:
  """Has a bug at row 40."""

  def __call__(self, task, tally):
    if task == 40:
      raise RuntimeError('a bug')
    return task


@pytest.mark.parametrize('number', [1, 2])
def test_a_bug_in_a_worker_is_that_bug_here(number):
  done = []
  with pytest.raises(RuntimeError, match='a bug'):
    for found, _ in workers.outcomes(Fails(), range(100), number):
      done += found
  assert done == [*range(40 if number == 1 else 32)]


ORPHANED = """
import os, signal, sys, time
from isft_jax.data.preparation import workers

class Tells:
  def __call__(self, task, tally):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == '__main__':
  list(workers.outcomes(Tells(), range(40), 2))
"""


def test_workers_end_with_the_process_that_they_work_for(tmp_path):
  script = tmp_path / 'orphaned.py'
  script.write_text(ORPHANED)
  main = subprocess.Popen(
    [sys.executable, script],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  with main:
    worker = int(main.stdout.readline())
    os.kill(worker, 0)
    main.kill()
    for _ in range(300):
      if _ended(worker):
        break
      time.sleep(0.1)
    assert _ended(worker)


def _ended(process):
  try:
    state = pathlib.Path(f'/proc/{process}/stat').read_text()
  except OSError:
    return True
  return state.rpartition(')')[2].split()[0] == 'Z'
