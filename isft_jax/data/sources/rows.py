"""Files of trajectories to rows, one row in memory at a time.

What a file holds can be broken in any way: a row that cannot be read is a row
with an error, so that every row of the input is accounted for.
"""

import glob
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from isft_jax.data.sources import json_stream, strict_json

SUFFIXES = ('.json', '.jsonl', '.traj')
_LONGEST_PEEK = 1 << 22  # characters; a longer first line is not looked through
_BLANK = ' \t\r\n'


class Row(NamedTuple):
  """One row of a file. value: None where `error` says why.

  number: counted from 1: of the line in JSON lines, else of the element.
  error: one line; its character is counted from 1 in that line, or the file.
  """

  file: str
  number: int
  value: object
  error: str = ''


def files(pattern: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the files that a path or a glob names, sorted.

  pattern: a file; a folder, searched through; or a glob, ** included. Folders
    and globs give .json, .jsonl and .traj alone, and nothing hidden.
  Raises ValueError when there is none.
  """
  path = pathlib.Path(pattern).expanduser()
  if path.is_file():
    return [path]
  if path.is_dir():
    found = [path / p for p in glob.glob('**', root_dir=path, recursive=True)]
  else:
    found = [pathlib.Path(p) for p in glob.glob(str(path), recursive=True)]
  kept = {p for p in found if p.suffix.lower() in SUFFIXES and p.is_file()}
  if not kept:
    raise ValueError(
      f'no trajectories in {str(pattern)!r}: give a file, a folder or a quoted '
      f'glob that holds files of {", ".join(SUFFIXES)}'
    )
  return sorted(kept)


def read(path: str | os.PathLike) -> Iterator[Row]:
  """Yields the rows of a file; never raises on what the file holds.

  path: .jsonl, or a file with an array of rows, one row, or a row a line. An
    array of chat messages is one row.
  Raises OSError when it cannot be opened.
  """
  path = pathlib.Path(path)
  rows = _lines if path.suffix.lower() == '.jsonl' or _by_line(path) else _whole
  with _open(path) as stream:
    for number, value, error in rows(stream):
      yield Row(str(path), number, None if error else value, error)


def _open(path: pathlib.Path) -> TextIO:
  # A byte that is no UTF-8 must not end the file: `strict_json` names it.
  return open(
    path, encoding='utf-8-sig', errors='surrogateescape', newline='\n'
  )


def _lines(stream: TextIO) -> Iterator[tuple[int, object, str]]:
  """The rows of a file with a row a line."""
  for number, line in enumerate(stream, 1):
    if line.strip(_BLANK):
      value, error = _parsed(line.rstrip(_BLANK))
      yield number, value, error


def _parsed(line: str) -> tuple[object, str]:
  try:
    return strict_json.parse(line), ''
  except ValueError as error:
    return None, str(error)


def _whole(stream: TextIO) -> Iterator[tuple[int, object, str]]:
  """The rows of a file that is one value: an array's elements, or one row."""
  pairs = json_stream.values(stream)
  first = next(pairs, None)
  if first is None:
    return
  pairs = itertools.chain([first], pairs)
  if _is_message(first[0]):
    turns, errors = zip(*pairs, strict=True)
    pairs = [([*turns], next(filter(None, errors), ''))]
  for number, (value, error) in enumerate(pairs, 1):
    yield number, value, error


def _is_message(value: object) -> bool:
  return isinstance(value, dict) and (
    {'from', 'value'} <= value.keys()
    or ('role' in value and bool({'content', 'tool_calls'} & value.keys()))
  )


def _by_line(path: pathlib.Path) -> bool:
  """Whether a file has a row a line, though it is not called .jsonl."""
  head = _head(path)
  if len(head) < 2 or head[0][0] not in '{[' or head[1][0] != head[0][0]:
    return False
  first, second = head
  if not _parsed(first)[1]:
    return True
  # Or the first row is broken. `{"a":` over `{}` may be one object, though.
  if first[0] == '[' or _parsed(second)[1]:
    return False
  with _open(path) as stream:
    return any(error for _, _, error in _whole(stream))


def _head(path: pathlib.Path) -> list[str]:
  """The first two lines that are not blank."""
  with _open(path) as stream:
    lines = iter(lambda: stream.readline(_LONGEST_PEEK), '')
    stripped = (line.strip(_BLANK) for line in lines)
    return [*itertools.islice(filter(None, stripped), 2)]
