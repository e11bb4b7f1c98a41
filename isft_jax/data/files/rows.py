"""Reads rows from files of trajectories, one row in memory at a time.

A row that cannot be read is returned with an error, so that every row of the
input is accounted for.
"""

import fnmatch
import glob
import io
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

from etils import epath

from isft_jax.data.files import json_stream, strict_json, tables
from isft_jax.files import open_bytes

SUFFIXES = ('.json', '.jsonl', '.traj', *tables.SUFFIXES)
HUB = 'hf://'  # prefix of data sets of the Hugging Face hub
# Files that the datasets library writes beside its tables: metadata, and cached
# results, which contain rows a second time.
_BOOKKEEPING = (
  *('dataset_dict.json', 'dataset_info.json', 'state.json'),
  'cache-*.arrow',
)
# Characters of the first two lines that are examined to detect JSON lines.
_LONGEST_PEEK = 1 << 22
_BLANK = ' \t\r\n'


class Row(NamedTuple):
  """One row of a file."""

  file: str
  number: int  # from 1; of the line in JSON lines, otherwise of the element
  value: object  # None if there is an error
  # One line. It counts characters from 1, in the line of JSON lines, otherwise
  # in the file.
  error: str = ''


def files(pattern: str | os.PathLike, split: str = '') -> list[str]:
  """Returns the files that match a path or a glob, as sorted absolute paths.

  Args:
    pattern: a file, a folder (searched recursively), or a glob (** is allowed).
      Folders and globs match only files with `SUFFIXES` that are not hidden. A
      path may be remote, such as gs://bucket/runs/*.jsonl. hf://org/name is a
      data set of the hub; add /config if it has several.
    split: of a data set of the hub; 'train' by default.

  Raises:
    ValueError: no file matches.
  """
  # 1. A data set of the hub is one file, with its split in the name.
  place = os.fspath(pattern)
  if place.startswith(HUB):
    return [f'{place.rstrip("/")}:{split or "train"}']
  if split:
    raise ValueError(
      f'--split={split} is only for data sets of the hub (hf://...); name the '
      'files of a split with --input'
    )
  # 2. A single file of any name.
  path: epath.Path | pathlib.Path
  candidates: Iterable[epath.Path | pathlib.Path]
  if '://' in place:
    path, candidates = epath.Path(place), _remote(place)
  else:
    # Absolute paths: a file has the same name from every working directory.
    path = pathlib.Path(os.path.abspath(os.path.expanduser(place)))
    candidates = _local(path)
  if path.is_file():
    return [str(path)]
  # 3. Files of a folder or a glob.
  kept = {p for p in candidates if p.suffix.lower() in SUFFIXES and p.is_file()}
  if any(p.suffix.lower() == '.arrow' for p in kept):
    kept = {p for p in kept if not any(map(p.match, _BOOKKEEPING))}
  if not kept:
    raise ValueError(
      f'no trajectories in {place!r}: give a file, a folder or a quoted '
      f'glob with files that end in {", ".join(SUFFIXES)}'
    )
  return [str(p) for p in sorted(kept)]


def stems(files: Sequence[str]) -> list[str]:
  """Returns the stem of each file, for the ids of rows that have none.

  A stem is the path relative to the common folder of all files, without suffix.

  Args:
    files: the result of `files`.
  """
  # A data set of the hub is one file, named by its id and split.
  if files[0].startswith(HUB):
    return [file.removeprefix(HUB) for file in files]
  # Files of the same name in different folders have different stems.
  root = os.path.commonpath([os.path.dirname(file) for file in files])
  return [os.path.splitext(os.path.relpath(f, root or '.'))[0] for f in files]


def size(file: str) -> int | None:
  """Returns the size of a file in bytes; None for a data set of the hub."""
  return None if file.startswith(HUB) else epath.Path(file).stat().length


def read(path: str | os.PathLike) -> Iterator[Row]:
  """Reads a file. Damaged contents become rows with an error.

  Args:
    path: a file of JSON lines, a table, or a JSON file with one row or an array
      of rows. An array of chat messages is one row.

  Yields:
    The rows in order.

  Raises:
    OSError: the file cannot be opened.
  """
  place = os.fspath(path)
  for number, value, error in _rows(place):
    yield Row(place, number, None if error else value, error)


def _rows(place: str) -> Iterator[tuple[int, object, str]]:
  """Yields (number, value, error) of each row, for any kind of file."""
  if place.startswith(HUB):
    yield from tables.of_hub(*place.removeprefix(HUB).rsplit(':', 1))
    return
  path = epath.Path(place)
  suffix = path.suffix.lower()
  # Tables are binary, and all other files are UTF-8 text.
  if suffix in tables.SUFFIXES:
    with open_bytes(path, 'rb') as file:
      yield from tables.of_file(file)
    return
  rows = _lines if suffix == '.jsonl' or _by_line(path) else _whole
  with _open(path) as stream:
    yield from rows(stream)


def _local(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns everything below a local folder, or the matches of a glob."""
  # glob leaves out hidden files.
  if path.is_dir():
    return [path / p for p in glob.glob('**', root_dir=path, recursive=True)]
  return [pathlib.Path(p) for p in glob.glob(str(path), recursive=True)]


def _remote(place: str) -> Iterator[epath.Path]:
  """Yields the files below a remote folder, or the matches of a glob in it."""
  path = epath.Path(place)
  # A glob, which matches names in one folder only.
  if not path.is_dir():
    if '**' in place:
      raise ValueError(f'{place}: name the folder; ** is for local files')
    if path.parent.is_dir():
      siblings = path.parent.iterdir()
      yield from (p for p in siblings if fnmatch.fnmatchcase(p.name, path.name))
    return
  for child in path.iterdir():
    # Hidden files, as in local folders.
    if child.name.startswith('.'):
      continue
    if child.is_dir():
      yield from _remote(str(child))
    else:
      yield child


def _open(path: epath.Path) -> TextIO:
  # A byte that is not UTF-8 must not end the file. `strict_json` reports it.
  return io.TextIOWrapper(
    open_bytes(path, 'rb'),
    encoding='utf-8-sig',
    errors='surrogateescape',
    newline='\n',
  )


def _lines(stream: TextIO) -> Iterator[tuple[int, object, str]]:
  """Yields the rows of a file with one row per line."""
  # Numbers count blank lines too, as editors do.
  for number, line in enumerate(stream, 1):
    if line.strip(_BLANK):
      value, error = _parsed(line.rstrip(_BLANK))
      yield number, value, error


def _parsed(line: str) -> tuple[object, str]:
  """Returns (value, '') of a line, or (None, error)."""
  try:
    return strict_json.parse(line), ''
  except ValueError as error:
    return None, str(error)


def _whole(stream: TextIO) -> Iterator[tuple[int, object, str]]:
  """Yields the rows of a file that is one value: an array, or a single row."""
  pairs = json_stream.values(stream)
  # The first value decides how the others are read.
  first = next(pairs, None)
  if first is None:
    return
  pairs = itertools.chain([first], pairs)
  # An array of chat messages is one row. Its first error makes it unusable.
  if _is_message(first[0]):
    turns, errors = zip(*pairs, strict=True)
    pairs = iter([([*turns], next(filter(None, errors), ''))])
  for number, (value, error) in enumerate(pairs, 1):
    yield number, value, error


def _is_message(value: object) -> bool:
  """Returns whether a value is one message of a chat (ShareGPT or OpenAI)."""
  return isinstance(value, dict) and (
    {'from', 'value'} <= value.keys()
    or ('role' in value and bool({'content', 'tool_calls'} & value.keys()))
  )


def _by_line(path: epath.Path) -> bool:
  """Returns whether a file without the suffix .jsonl has one row per line."""
  # Two lines with the same opening bracket, the first of which is complete.
  head = _head(path)
  if len(head) < 2 or head[0][0] not in '{[' or head[1][0] != head[0][0]:
    return False
  first, second = head
  if not _parsed(first)[1]:
    return True
  # Or the first line is damaged and the second is not. `{"a":` above `{}` may
  # however be one object on two lines, so that the whole file must be read.
  if first[0] == '[' or _parsed(second)[1]:
    return False
  with _open(path) as stream:
    return any(error for _, _, error in _whole(stream))


def _head(path: epath.Path) -> list[str]:
  """Returns the first two lines that are not blank."""
  with _open(path) as stream:
    lines = iter(lambda: stream.readline(_LONGEST_PEEK), '')
    stripped = (line.strip(_BLANK) for line in lines)
    return [*itertools.islice(filter(None, stripped), 2)]
