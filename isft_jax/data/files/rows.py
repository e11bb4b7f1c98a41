"""Files of trajectories to rows, one row in memory at a time.

What a file holds can be broken in any way: a row that cannot be read is a row
with an error, so that every row of the input is accounted for.
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
HUB = 'hf://'
# What the datasets library writes beside a table of its own: about it, and what
# it has computed of it, rows again among them.
_BOOKKEEPING = (
  *('dataset_dict.json', 'dataset_info.json', 'state.json'),
  'cache-*.arrow',
)
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


def files(pattern: str | os.PathLike, split: str = '') -> list[str]:
  """Returns the files that a path or a glob names, sorted, by whole paths.

  pattern: a file; a folder, searched through; or a glob, ** included. Folders
    and globs give files of `SUFFIXES` alone, and nothing hidden. A path may be
    remote, as gs://bucket/runs/*.jsonl. Or hf://org/name, a data set of the
    hub, with /config where it has several.
  split: of a data set of the hub; 'train' unless it is named.

  Raises ValueError when there is none.
  """
  place = os.fspath(pattern)
  if place.startswith(HUB):
    return [f'{place.rstrip("/")}:{split or "train"}']
  if split:
    raise ValueError(
      f'--split={split} is of data sets of the hub; name the files of a split '
      'with --input'
    )
  path: epath.Path | pathlib.Path
  found: Iterable[epath.Path | pathlib.Path]
  if '://' in place:
    path, found = epath.Path(place), _remote(place)
  else:
    # One name for a file, whatever it is called and from where.
    path = pathlib.Path(os.path.abspath(os.path.expanduser(place)))
    found = _local(path)
  if path.is_file():
    return [str(path)]
  kept = {p for p in found if p.suffix.lower() in SUFFIXES and p.is_file()}
  if any(p.suffix.lower() == '.arrow' for p in kept):
    kept = {p for p in kept if not any(map(p.match, _BOOKKEEPING))}
  if not kept:
    raise ValueError(
      f'no trajectories in {place!r}: give a file, a folder or a quoted '
      f'glob that holds files of {", ".join(SUFFIXES)}'
    )
  return [str(p) for p in sorted(kept)]


def stems(files: Sequence[str]) -> list[str]:
  """Returns what rows without an id of their own are named after, a file."""
  if files[0].startswith(HUB):
    return [file.removeprefix(HUB) for file in files]
  root = os.path.commonpath([os.path.dirname(file) for file in files])
  return [os.path.splitext(os.path.relpath(f, root or '.'))[0] for f in files]


def size(file: str) -> int | None:
  """Returns the bytes of a file; None for a data set of the hub."""
  return None if file.startswith(HUB) else epath.Path(file).stat().length


def read(path: str | os.PathLike) -> Iterator[Row]:
  """Yields the rows of a file; never raises on what the file holds.

  path: .jsonl, a table, or a file with an array of rows, one row, or a row a
    line. An array of chat messages is one row.

  Raises OSError when it cannot be opened.
  """
  place = os.fspath(path)
  for number, value, error in _rows(place):
    yield Row(place, number, None if error else value, error)


def _rows(place: str) -> Iterator[tuple[int, object, str]]:
  if place.startswith(HUB):
    yield from tables.of_hub(*place.removeprefix(HUB).rsplit(':', 1))
    return
  path = epath.Path(place)
  suffix = path.suffix.lower()
  if suffix in tables.SUFFIXES:
    with open_bytes(path, 'rb') as file:
      yield from tables.of_file(file)
    return
  rows = _lines if suffix == '.jsonl' or _by_line(path) else _whole
  with _open(path) as stream:
    yield from rows(stream)


def _local(path: pathlib.Path) -> list[pathlib.Path]:
  if path.is_dir():
    return [path / p for p in glob.glob('**', root_dir=path, recursive=True)]
  return [pathlib.Path(p) for p in glob.glob(str(path), recursive=True)]


def _remote(place: str) -> Iterator[epath.Path]:
  """The files below a remote folder, or of a glob of one folder's files."""
  path = epath.Path(place)
  if not path.is_dir():
    if '**' in place:
      raise ValueError(f'{place}: name the folder; ** is for local files')
    if path.parent.is_dir():
      beside = path.parent.iterdir()
      yield from (p for p in beside if fnmatch.fnmatchcase(p.name, path.name))
    return
  for child in path.iterdir():
    if child.name.startswith('.'):
      continue
    if child.is_dir():
      yield from _remote(str(child))
    else:
      yield child


def _open(path: epath.Path) -> TextIO:
  # A byte that is no UTF-8 must not end the file: `strict_json` names it.
  return io.TextIOWrapper(
    open_bytes(path, 'rb'),
    encoding='utf-8-sig',
    errors='surrogateescape',
    newline='\n',
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
    pairs = iter([([*turns], next(filter(None, errors), ''))])
  for number, (value, error) in enumerate(pairs, 1):
    yield number, value, error


def _is_message(value: object) -> bool:
  return isinstance(value, dict) and (
    {'from', 'value'} <= value.keys()
    or ('role' in value and bool({'content', 'tool_calls'} & value.keys()))
  )


def _by_line(path: epath.Path) -> bool:
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


def _head(path: epath.Path) -> list[str]:
  """The first two lines that are not blank."""
  with _open(path) as stream:
    lines = iter(lambda: stream.readline(_LONGEST_PEEK), '')
    stripped = (line.strip(_BLANK) for line in lines)
    return [*itertools.islice(filter(None, stripped), 2)]
