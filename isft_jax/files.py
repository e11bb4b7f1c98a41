"""Writes files whole or not at all, and reads files that users name."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import IO, Any, Literal

from etils import epath

from isft_jax import locks

# First bytes of the small file that git stores in place of a large one.
_POINTER = b'version https://git-lfs.github.com/spec/'
# Names of the files that `new_folder` is moving.
_LIST = '.names'
_BLOCK = 1 << 20  # bytes per read for checksums
# Levels of a JSON value that is read. The libraries that read the same file
# recurse over it, and Python's stack has 1,000 levels.
_DEEPEST = 100


def open_bytes(path: epath.Path, mode: Literal['rb', 'wb', 'ab']) -> IO[bytes]:
  """Opens a binary file; typed, unlike `epath.Path.open`."""
  return path.open(mode)


@contextlib.contextmanager
def named(path: os.PathLike) -> Iterator[None]:
  """Names a file in the OSErrors of its block that name none.

  An error of an open file, such as a full disk, does not name it.
  """
  try:
    yield
  except OSError as error:
    error.filename = error.filename or os.fspath(path)
    raise


def sha256(path: epath.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal digits."""
  digest = hashlib.sha256()
  with open_bytes(path, 'rb') as file:
    # A block at a time, because a file may be larger than memory.
    while block := file.read(_BLOCK):
      digest.update(block)
  return digest.hexdigest()


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


def check_output(path: os.PathLike | str) -> None:
  """Raises ValueError if `write_output` cannot write to a path.

  Call it before a long computation, whose result would be lost. The place of a
  bucket (gs://...) is not checked.
  """
  name = os.fspath(path)
  if '://' in name:
    return
  if os.path.isdir(path):
    raise ValueError(f'{name}: a folder; name a file in it')
  folder = os.path.dirname(name) or '.'
  if not os.path.isdir(folder):
    raise ValueError(f'{name}: the folder {folder} does not exist; create it')


@contextlib.contextmanager
def new_folder(path: os.PathLike | str) -> Iterator[pathlib.Path]:
  """Yields a folder for files that appear in `path` when all are written.

  The files are written to a hidden folder, .NAME.part beside `path`, or .part
  inside of it if it exists already. A kill leaves only this, and the next call
  removes it. An exception removes it at once.

  Args:
    path: local folder, which must be empty or not exist.

  Raises:
    ValueError: `path` is a file or is not empty, or another process is writing
      it.
  """
  path = pathlib.Path(os.path.realpath(path))
  part = _check_free(path)

  def refusal(holder: str) -> str:
    return (
      f'{path}: {holder} is writing it; wait for it, or name another --output'
    )

  with locks.locked(path.with_name(f'.{path.name}.lock'), refusal):
    part.mkdir(parents=True, exist_ok=True)
    # Left by a kill. Only files of the list can be in `path`: see `_move_up`.
    for name in _listed(part) if part.parent == path else ():
      (path / name).unlink(missing_ok=True)
    _empty(part)
    try:
      yield part
    except BaseException:
      _empty(part)
      part.rmdir()
      raise
    # From here on, a failure keeps the list of what has been moved.
    if part.parent == path:
      _move_up(part)
    else:
      part.rename(path)


def check_free(path: os.PathLike | str) -> None:
  """Raises ValueError unless a folder is empty or does not exist."""
  _check_free(pathlib.Path(os.path.realpath(path)))


def _check_free(path: pathlib.Path) -> pathlib.Path:
  """Returns the hidden folder of an empty or new folder."""
  if not path.exists():
    return path.with_name(f'.{path.name}.part')
  if not path.is_dir():
    raise ValueError(f'{path}: a file; name a folder')
  part = path / '.part'
  if {each.name for each in path.iterdir()} - {part.name, *_listed(part)}:
    raise ValueError(f'{path} is not empty; name another --output')
  return part


def _move_up(part: pathlib.Path) -> None:
  """Moves the files of a folder into its parent, and removes the folder."""
  # The list tells the next call which files a kill has left in the parent.
  names = sorted(path.name for path in part.iterdir())
  write_atomically(part / _LIST, '\n'.join(names))
  # Readers take a folder for a model if it has a config: it comes last.
  for name in sorted(names, key='config.json'.__eq__):
    (part / name).rename(part.parent / name)
  _empty(part)
  part.rmdir()


def _listed(part: pathlib.Path) -> list[str]:
  path = part / _LIST
  return path.read_text().splitlines() if path.is_file() else []


def _empty(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()


def check_whole(path: os.PathLike | str) -> None:
  """Raises ValueError for a folder, an empty file and a git-lfs pointer.

  Args:
    path: path of an existing local file that should have content.
  """
  name = os.fspath(path)
  if os.path.isdir(path):
    raise ValueError(f'{name}: a folder; name a file')
  with open(path, 'rb') as file:
    _check_start(name, file.read(len(_POINTER)))


def _check_start(name: str, start: bytes) -> None:
  if not start:
    raise ValueError(f'{name}: the file is empty; copy or download it again')
  if start.startswith(_POINTER):
    raise ValueError(
      f'{name}: a git-lfs pointer, not the file itself; run `git lfs pull` in '
      'its folder, or download the file'
    )


def read_text(
  path: os.PathLike | str, newline: Literal['', '\n'] = '\n'
) -> str:
  """Returns the text of a local file.

  Args:
    path: path of the file. A byte order mark at its start is left out.
    newline: '\\n' turns the line ends of other systems into it; '' keeps them.

  Raises:
    ValueError: the path is a folder, or the file is empty, a git-lfs pointer,
      or has NUL bytes or bytes that are not UTF-8.
    OSError: the file cannot be read.
  """
  name = os.fspath(path)
  if os.path.isdir(path):
    raise ValueError(f'{name}: a folder; name a file')
  # Read once, because it may be a pipe.
  data = pathlib.Path(path).read_bytes()
  _check_start(name, data)
  # UTF-16 of plain text has a NUL byte beside each letter.
  if b'\0' in data:
    line = data.count(b'\n', 0, data.index(b'\0')) + 1
    raise ValueError(
      f'{name}, line {line}: a NUL byte; save the file as text in UTF-8'
    )
  try:
    text = data.decode('utf-8-sig')
    return re.sub('\r\n?', '\n', text) if newline else text
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
  try:
    value = json.loads(read_text(path))
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{name}: not JSON ({one_line(error)}); copy or download the file again'
    ) from None
  except RecursionError:
    raise ValueError(f'{name}: nested too deeply to be read') from None
  except ValueError as error:
    if str(error).startswith(name):
      raise
    # More than the 4,300 digits that Python converts to an integer.
    raise ValueError(f'{name}: a number in it has too many digits') from None
  if _is_deep(value):
    raise ValueError(f'{name}: nested too deeply to be read')
  if not isinstance(value, dict):
    raise ValueError(
      f'{name}: must be a JSON object, {{...}} (got {shorten(value)})'
    )
  return value


def _is_deep(value: object) -> bool:
  """Returns whether a JSON value has more than `_DEEPEST` levels."""
  level = [value]
  for _ in range(_DEEPEST):
    level = [
      child
      for each in level
      if isinstance(each, dict | list)
      for child in (each.values() if isinstance(each, dict) else each)
    ]
  return bool(level)


def shorten(value: object, most: int = 60) -> str:
  """Returns the repr of a value from a file, cut to a length for messages."""
  # A list is cut before its repr, which might have millions of characters.
  if isinstance(value, str | bytes | list | tuple):
    value = value[:most]
  text = repr(value)  # escapes what a terminal would obey
  return text if len(text) <= most else f'{text[: most - 3]}...'


def one_line(text: object, most: int = 200) -> str:
  """Returns a text of a library or a file as one line that a terminal can show.

  White space becomes single spaces, characters that a terminal would obey
  become escapes, and the line is cut to `most` characters.
  """
  line = ' '.join(str(text).split())
  line = line if len(line) <= most else f'{line[: most - 3]}...'
  if line.isprintable():
    return line
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def shown(name: str, most: int = 80) -> str:
  """Returns a name from a file for a message; an odd one in quotes and cut."""
  is_plain = name.isprintable() and 0 < len(name) <= most
  return name if is_plain else shorten(name, most)
