"""One preparation per folder, and none is blocked by a dead one."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import lock, prepare, verify
from tests.data.preparation import questions

ROOT = pathlib.Path(__file__).parents[3]


def asked(tmp_path, renderer):
  source = tmp_path / 'runs.jsonl'
  source.write_text('\n'.join(questions.rows(range(20))))
  return prepare.Settings(str(source)), renderer, Rules.default()


def test_a_second_preparation_into_a_folder_ends_with_one_line(
  renderer, tmp_path
):
  arguments = asked(tmp_path, renderer)
  refused = []

  def second(tally):
    if tally.read == 10:
      with pytest.raises(ValueError) as raised:
        prepare.prepare(*arguments, tmp_path / 'out')
      refused.append(str(raised.value))
      # The same folder by another name, and another folder.
      (tmp_path / 'link').symlink_to(tmp_path)
      with pytest.raises(ValueError, match='another process is preparing'):
        prepare.prepare(*arguments, tmp_path / 'link' / 'out')
      prepare.prepare(*arguments, tmp_path / 'other')

  report, existed = prepare.prepare(*arguments, tmp_path / 'out', second)
  assert refused == [
    f'another process is preparing {tmp_path / "out"}; wait for it, or name '
    'another --output'
  ]
  assert not existed
  assert report['rows']['read'] == 20
  for name in ('out', 'other'):
    assert [*verify.damages(str(tmp_path / name))] == []
  # Nothing is left, and the lock is free.
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'link',
    'other',
    'out',
    'runs.jsonl',
  ]
  assert prepare.prepare(*arguments, tmp_path / 'out')[1]


def test_an_error_frees_the_lock(tmp_path):
  with pytest.raises(KeyError), lock.locked(tmp_path / 'new' / 'out'):
    raise KeyError
  with lock.locked(tmp_path / 'new' / 'out'):
    pass
  assert [*(tmp_path / 'new').iterdir()] == []


HOLDS = """
import sys, time
from isft_jax.data.preparation import lock
with lock.locked(sys.argv[1]):
  print('locked', flush=True)
  time.sleep(600)
"""


def test_a_killed_process_does_not_block(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLDS, tmp_path / 'out'],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  with holder:
    assert holder.stdout.readline() == 'locked\n'
    with (
      pytest.raises(ValueError, match='another process is preparing'),
      lock.locked(tmp_path / 'out'),
    ):
      pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock.locked(tmp_path / 'out'):
      pass


def test_a_folder_that_cannot_be_changed_needs_no_lock(tmp_path):
  (tmp_path / 'file').touch()
  with lock.locked(tmp_path / 'file' / 'out'):
    pass


def test_a_remote_output_has_no_lock(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with lock.locked('gs://bucket/out'), lock.locked('gs://bucket/out'):
    pass
  assert [*tmp_path.iterdir()] == []
