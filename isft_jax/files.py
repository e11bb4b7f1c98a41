"""Writes files whole or not at all, and reads files that users name."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any, Literal

from etils import epath

# First bytes of the small file that git stores in place of a large one.
_POINTER = b'version https://git-lfs.github.com/spec/'


def open_bytes(path: epath.Path, mode: Literal['rb', 'wb']) -> IO[bytes]:
  """Opens a binary file; typed, unlike `epath.Path.open`."""
  return path.open(mode)


def write_atomically(path: os.PathLike | str, content: str | bytes) -> None:
  """Writes a file so that no reader and no kill ever sees half of it.

  Args:
    path: path of the file, on a disk or in a bucket (gs://...). Its folder
      must exist.
    content: text is written as UTF-8, with its line ends unchanged.
  """
  if isinstance(content, str):
    content = content.encode()
  with replacing(path) as part:
    part.write_bytes(content)


@contextlib.contextmanager
def replacing(path: os.PathLike | str) -> Iterator[epath.Path]:
  """Yields the path of a new file that takes the place of `path` at the end.

  If an exception leaves the context, `path` stays as it was and the new file
  is removed.
  """
  path = epath.Path(path)
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    yield part
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)


def write_output(path: os.PathLike | str, content: str | bytes) -> None:
  """Writes a file that a user names, such as the value of --output.

  The file is replaced at once, so that a kill leaves the old one. A link keeps
  pointing to the file, and what is no file, such as /dev/stdout, is written to.

  Args:
    path: path of the file. Its folder must exist.
    content: text is written as UTF-8, with its line ends unchanged.

  Raises:
    ValueError: the path is a folder.
  """
  if os.path.isdir(path):
    raise ValueError(f'{os.fspath(path)}: a folder; name a file in it')
  # A rename would put a file in the place of a device or a pipe.
  if os.path.exists(path) and not os.path.isfile(path):
    data = content.encode() if isinstance(content, str) else content
    pathlib.Path(path).write_bytes(data)
    return
  if os.path.islink(path):
    path = os.path.realpath(path)
  write_atomically(path, content)


def check_whole(path: os.PathLike | str) -> None:
  """Raises ValueError for a folder, an empty file and a git-lfs pointer.

  Args:
    path: path of an existing local file that should have content.
  """
  name = os.fspath(path)
  if os.path.isdir(path):
    raise ValueError(f'{name}: a folder; name a file')
  with open(path, 'rb') as file:
    start = file.read(len(_POINTER))
  if not start:
    raise ValueError(f'{name}: the file is empty; copy or download it again')
  if start == _POINTER:
    raise ValueError(
      f'{name}: a git-lfs pointer, not the file itself; run `git lfs pull` in '
      'its folder, or download the file'
    )


def read_text(path: os.PathLike | str) -> str:
  """Returns the text of a local file, with its line ends unchanged.

  Args:
    path: path of the file. A byte order mark at its start is left out.

  Raises:
    ValueError: the path is a folder, or its bytes are not UTF-8.
    OSError: the file cannot be read.
  """
  name = os.fspath(path)
  if os.path.isdir(path):
    raise ValueError(f'{name}: a folder; name a file')
  data = pathlib.Path(path).read_bytes()
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise ValueError(
      f'{name}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save '
      'the file as UTF-8'
    ) from None


def read_json(path: os.PathLike | str) -> dict[str, Any]:
  """Returns the JSON object in a local file.

  Args:
    path: path of the file. NaN and Infinity are read as Python's json module
      does, so that the caller must check numbers.

  Raises:
    ValueError: the file is empty, a folder, a git-lfs pointer, not UTF-8, not
      JSON, or its value is not an object. The message is one line.
    OSError: the file cannot be read.
  """
  name = os.fspath(path)
  check_whole(path)
  try:
    value = json.loads(read_text(path))
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{name}: not JSON ({error}); copy or download the file again'
    ) from None
  except RecursionError:
    raise ValueError(f'{name}: nested too deeply to be read') from None
  except ValueError as error:
    if str(error).startswith(name):
      raise
    # More than the 4,300 digits that Python converts to an integer.
    raise ValueError(f'{name}: a number in it has too many digits') from None
  if not isinstance(value, dict):
    raise ValueError(
      f'{name}: must be a JSON object, {{...}} (got {shorten(value)})'
    )
  return value


def shorten(value: object, most: int = 60) -> str:
  """Returns the repr of a value from a file, cut to a length for messages."""
  # A list is cut before its repr, which might have millions of characters.
  if isinstance(value, str | bytes | list | tuple):
    value = value[:most]
  text = ascii(value) if isinstance(value, str) else repr(value)
  return text if len(text) <= most else f'{text[: most - 3]}...'


def shown(name: str, most: int = 80) -> str:
  """Returns a name from a file for a message; an odd one in quotes and cut."""
  is_plain = name.isprintable() and 0 < len(name) <= most
  return name if is_plain else shorten(name, most)
