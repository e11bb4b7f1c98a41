"""Files are written whole or not at all."""

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
