"""Files are written whole or not at all; a bad file is one line."""

import itertools
import os
import signal
import stat
import sys

import pytest
from etils import epath

from isft_jax import files
from tests.commands import in_process

POINTER = (
  b'version https://git-lfs.github.com/spec/v1\n'
  b'oid sha256:4d7a2146714f\nsize 12345\n'
)


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


# ------------------------------------------------- files that users name


def test_an_output_is_replaced_at_once_and_through_links(tmp_path):
  path, link = tmp_path / 'a.json', tmp_path / 'link.json'
  path.write_text('old')
  link.symlink_to('a.json')
  files.write_output(link, 'new')
  assert link.is_symlink() and path.read_text() == 'new'
  files.write_output(os.devnull, 'gone')
  assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
  assert {*tmp_path.iterdir()} == {path, link}
  with pytest.raises(ValueError, match='a folder; name a file in it'):
    files.write_output(tmp_path, 'x')


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'the file is empty; copy or download it again'),
    (POINTER, 'a git-lfs pointer, not the file itself; run `git lfs pull`'),
    (b'a\n\xff', 'line 2: byte 0xff is not UTF-8; save the file as UTF-8'),
    ('{"ä": 1}'.encode('latin-1'), 'line 1: byte 0xe4 is not UTF-8'),
    ('{"a": 1}'.encode('utf-16'), 'line 1: a NUL byte'),
    (b'{"a": 1', r'not JSON \(.*\); copy or download the file again'),
    (b'{\n\x00}', 'line 2: a NUL byte; save the file as text in UTF-8'),
    (b'[1]', r'must be a JSON object, \{...\} \(got \[1\]\)'),
    (b'"' + b'x' * 999 + b'"', r"must be a JSON object.*\(got 'x{50,60}"),
    (b'[' * 100_000, 'nested too deeply'),
    (b'{"a": ' + b'9' * 5000 + b'}', 'a number in it has too many digits'),
  ],
  ids=range(11),
)
def test_a_file_without_a_json_object_is_one_line(content, message, tmp_path):
  path = tmp_path / 'a.json'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as failure:
    files.read_json(path)
  line = str(failure.value)
  assert line.startswith(str(path)) and '\n' not in line and len(line) < 300


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path):
  for read in (files.read_json, files.read_text, files.check_whole):
    with pytest.raises(ValueError, match='a folder; name a file'):
      read(tmp_path)


def test_line_ends_become_those_of_python(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'a\r\nb\rc\n')
  assert files.read_text(path) == 'a\nb\nc\n'
  assert files.read_text(path, newline='') == 'a\r\nb\rc\n'


def test_json_with_a_byte_order_mark_is_read(tmp_path):
  path = tmp_path / 'a.json'
  path.write_bytes('{"ä": 1}'.encode('utf-8-sig'))
  assert files.read_json(path) == {'ä': 1}


# ----------------------------------------------------------- whole folders

NAMES = ('a.safetensors', 'config.json', 'z.json')


def write_folder(target):
  with files.new_folder(target) as folder:
    for name in NAMES:
      (folder / name).write_text(name)


def write_killed(target, number):
  """Writes a folder, and is killed at its number-th change of the disk."""
  changes = itertools.count(1)

  def hook(event, arguments):
    if event in ('open', 'os.mkdir', 'os.rename', 'os.rmdir', 'os.remove'):
      inside = str(target.parent) in str(arguments[0])
      if inside and next(changes) == number:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)
  write_folder(target)


@pytest.mark.parametrize('exists', [False, True])
def test_a_killed_folder_is_whole_or_absent_and_is_written_again(
  exists, tmp_path
):
  kills = 0
  for number in itertools.count(1):
    target = tmp_path / str(number) / 'model'
    (target if exists else target.parent).mkdir(parents=True)
    done = in_process(write_killed, target, number)
    names = {path.name for path in target.glob('[!.]*')}
    # A folder that existed fills up; readers look for its config.
    assert names == set(NAMES) or 'config.json' not in names
    assert exists or not names or names == set(NAMES)
    if done.returncode == 0:
      break
    kills += 1
    assert done.returncode == -signal.SIGKILL
    if names != set(NAMES):
      write_folder(target)
    assert {p.name: p.read_text() for p in target.glob('[!.]*')} == {
      name: name for name in NAMES
    }
    # The file of a lock may stay behind, and blocks nobody.
    left = {path.name for path in target.parent.iterdir()}
    assert left - {'.model.lock'} == {'model'}
  assert kills > 5


def test_a_folder_with_files_of_the_user_is_refused(tmp_path):
  (tmp_path / 'mine.txt').write_text('mine')
  with pytest.raises(ValueError, match='is not empty; name another --output'):
    write_folder(tmp_path)
  with pytest.raises(ValueError, match='a file; name a folder'):
    write_folder(tmp_path / 'mine.txt')
  assert [p.read_text() for p in tmp_path.iterdir()] == ['mine']


def test_an_error_leaves_no_folder(tmp_path):
  target = tmp_path / 'model'
  with pytest.raises(OSError, match='full'), files.new_folder(target) as folder:
    (folder / 'config.json').write_text('x')
    raise OSError('full')
  assert [*tmp_path.iterdir()] == []


def test_two_writers_of_a_folder_are_one_too_many(tmp_path):
  target = tmp_path / 'model'
  with files.new_folder(target) as folder:
    (folder / 'a').write_text('first')
    with pytest.raises(
      ValueError, match=r'process \d+ on .* is writing it; wait'
    ):
      write_folder(target)
  assert [p.read_text() for p in target.iterdir()] == ['first']


def test_an_output_is_checked_before_the_work(tmp_path):
  files.check_output(tmp_path / 'a.json')
  files.check_output(os.devnull)
  files.check_output('gs://bucket/a.json')
  with pytest.raises(ValueError, match='a folder; name a file in it'):
    files.check_output(tmp_path)
  with pytest.raises(ValueError, match='no does not exist; create it'):
    files.check_output(tmp_path / 'no' / 'a.json')


@pytest.mark.parametrize(
  ('text', 'line'),
  [
    ('a\n\tb', 'a b'),
    ('\x1b[31mred\x07', r'\x1b[31mred\x07'),
    ('é \u202e', r'é \u202e'),
    ('x' * 300, 'x' * 197 + '...'),
  ],
)
def test_a_text_of_a_library_becomes_one_line(text, line):
  assert files.one_line(text) == line
