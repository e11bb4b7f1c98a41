"""A lock that one process has at a time, and that no kill leaves behind."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from isft_jax import locks


def refusal(holder):
  return f'held by {holder}'


def test_a_lock_is_held_once_and_names_its_holder(tmp_path):
  path = tmp_path / 'new' / 'lock'
  with locks.locked(path, refusal):
    with pytest.raises(ValueError) as raised, locks.locked(path, refusal):
      pass
    assert re.fullmatch(
      rf'held by process {os.getpid()} on {re.escape(socket.gethostname())}, '
      r'since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d',
      str(raised.value),
    )
  # Nothing is left, and the lock is free; also after an error.
  assert [*path.parent.iterdir()] == []
  with pytest.raises(KeyError), locks.locked(path, refusal):
    raise KeyError
  with locks.locked(path, refusal):
    pass


HOLDS = """
import os, sys, time
from isft_jax import locks
with locks.locked(sys.argv[1], str):
  if os.fork() == 0:
    # It has let go of the lock by now; its parent may be quicker than that.
    print('locked', flush=True)
  time.sleep(600)
"""


def test_a_killed_process_does_not_block_nor_does_its_child(tmp_path):
  path = tmp_path / 'lock'
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLDS, path],
    cwd=pathlib.Path(__file__).parents[1],
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  try:
    assert holder.stdout.readline() == 'locked\n'
    expected = f'held by process {holder.pid} on'
    with (
      pytest.raises(ValueError, match=expected),
      locks.locked(path, refusal),
    ):
      pass
    os.kill(holder.pid, signal.SIGKILL)  # its child lives on
    holder.wait()
    assert path.exists()
    with locks.locked(path, refusal):
      assert path.read_text().startswith(f'process {os.getpid()} on')
  finally:
    os.killpg(holder.pid, signal.SIGKILL)
    holder.stdout.close()


def test_a_file_left_by_anybody_does_not_block(tmp_path):
  path = tmp_path / 'lock'
  path.write_bytes(b'\xff' * 10_000)
  with locks.locked(path, refusal):
    pass
  assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
  'place', ['a_file/lock', '/sys/lock', '/proc/1/x/lock']
)
def test_a_folder_that_cannot_be_changed_has_no_lock(place, tmp_path):
  (tmp_path / 'a_file').touch()
  with locks.locked(tmp_path / place, refusal):
    pass


def test_a_bucket_has_no_lock(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = 'gs://bucket/run/lock'
  with locks.locked(path, refusal), locks.locked(path, refusal):
    pass
  assert [*tmp_path.iterdir()] == []
