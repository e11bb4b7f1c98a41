"""Files are written whole or not at all, and locked by one at a time."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest
from etils import epath

from isft_jax import files


def test_text_and_bytes_are_written_as_they_are(tmp_path):
  path = tmp_path / 'a.json'
  files.write_atomically(path, 'Zürich\r\n')
  assert path.read_bytes() == 'Zürich\r\n'.encode()
  files.write_atomically(str(path), b'\x00\xff')
  assert path.read_bytes() == b'\x00\xff'
  assert [*tmp_path.iterdir()] == [path]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
  path = tmp_path / 'a.json'
  path.write_text('old')

  def fill_the_disk(self, content):
    self.write_text('ne')
    raise OSError('no space left on device')

  monkeypatch.setattr(type(epath.Path(path)), 'write_bytes', fill_the_disk)
  with pytest.raises(OSError, match='no space'):
    files.write_atomically(path, 'new')
  assert path.read_text() == 'old'
  assert [*tmp_path.iterdir()] == [path]


def test_a_folder_that_does_not_exist_is_not_made(tmp_path):
  with pytest.raises(FileNotFoundError):
    files.write_atomically(tmp_path / 'no' / 'a.json', '')


# ----------------------------------------------------------------------- a lock


def refusal(holder):
  return f'held by {holder}'


def test_a_lock_is_held_once_and_names_its_holder(tmp_path):
  path = tmp_path / 'new' / 'lock'
  with files.locked(path, refusal):
    with pytest.raises(ValueError) as raised, files.locked(path, refusal):
      pass
    assert re.fullmatch(
      rf'held by process {os.getpid()} on {re.escape(socket.gethostname())}, '
      r'since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d',
      str(raised.value),
    )
  # Nothing is left, and the lock is free; also after an error.
  assert [*path.parent.iterdir()] == []
  with pytest.raises(KeyError), files.locked(path, refusal):
    raise KeyError
  with files.locked(path, refusal):
    pass


HOLDS = """
import os, sys, time
from isft_jax import files
with files.locked(sys.argv[1], str):
  if os.fork() == 0:
    time.sleep(600)
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
      files.locked(path, refusal),
    ):
      pass
    os.kill(holder.pid, signal.SIGKILL)  # its child lives on
    holder.wait()
    assert path.exists()
    with files.locked(path, refusal):
      assert path.read_text().startswith(f'process {os.getpid()} on')
  finally:
    os.killpg(holder.pid, signal.SIGKILL)
    holder.stdout.close()


def test_a_file_left_by_anybody_does_not_block(tmp_path):
  path = tmp_path / 'lock'
  path.write_bytes(b'\xff' * 10_000)
  with files.locked(path, refusal):
    pass
  assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
  'place', ['a_file/lock', '/sys/lock', '/proc/1/x/lock']
)
def test_a_folder_that_cannot_be_changed_has_no_lock(place, tmp_path):
  (tmp_path / 'a_file').touch()
  with files.locked(tmp_path / place, refusal):
    pass


def test_a_bucket_has_no_lock(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = 'gs://bucket/run/lock'
  with files.locked(path, refusal), files.locked(path, refusal):
    pass
  assert [*tmp_path.iterdir()] == []
