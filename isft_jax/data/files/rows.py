"""Reads rows from files of trajectories, one row in memory at a time.

    files --archives--> text --lines, documents, cells--> rows

A row that cannot be read is returned with an error, so that every row of the
input is accounted for.
"""

import fnmatch
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from etils import epath

from isft_jax.data.files import (
  archives,
  containers,
  delimited,
  json_stream,
  local_files,
  own_output,
  sessions,
  strict_json,
  tables,
  text_lines,
)

# Suffixes of files that may be compressed: .jsonl.gz, .jsonl.zst.
TEXTS = ('.json', '.jsonl', '.traj', *delimited.SUFFIXES)
SUFFIXES = (*TEXTS, *tables.SUFFIXES, containers.EVAL, archives.ZIP)
HUB = 'hf://'  # prefix of data sets of the Hugging Face hub
# Files that the datasets library writes beside its tables: metadata, and cached
# results, which contain rows a second time.
_BOOKKEEPING = (
  *('dataset_dict.json', 'dataset_info.json', 'state.json'),
  'cache-*.arrow',
)
# Keys of a message or an event. An array of them is one row.
_MESSAGES = (
  {'role', 'content'},
  {'role', 'tool_calls'},
  {'from', 'value'},  # ShareGPT
  {'role', 'parts'},  # Gemini
  {'source', 'action'},  # OpenHands
  {'source', 'observation'},
  {'source', 'kind'},
  {'source', 'content', 'type'},  # AutoGen
  {'lc', 'kwargs'},  # LangChain
)
# Types of messages without such keys, and keys of which they have one.
_TYPES = (
  ({'human', 'ai', 'system', 'tool'}, {'content', 'data'}),  # LangChain
  ({'reasoning', 'function_call'}, {'summary', 'call_id'}),  # Responses
)
# Characters of the first two lines that are examined to detect JSON lines.
_LONGEST_PEEK = 1 << 22
_CHUNK = 1 << 16  # characters per read
_LARGE = 1 << 24  # characters of a JSON object that is read as a whole
_FIRST = 8  # lines that are examined to detect a session
_BLANK = ' \t\r\n'
_GONE = 'the rest of the file is not read'


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
      Folders and globs match only files with `SUFFIXES`, or with `TEXTS` and
      .gz or .zst, that are not hidden and not our own output (`own_output`).
      If symbolic links give a file several paths, only one of them is returned.
      A zip archive stands for its members.
      A path may be remote, such as gs://bucket/runs/*.jsonl. hf://org/name is a
      data set of the hub; add /config if it has several.
    split: of a data set of the hub; 'train' by default.

  Raises:
    ValueError: no file matches.
  """
  # A data set of the hub is one file, with its split in the name.
  place = os.fspath(pattern)
  if place.startswith(HUB):
    return [f'{place.rstrip("/")}:{split or "train"}']
  if split:
    raise ValueError(
      f'--split={split} is only for data sets of the hub (hf://...); name the '
      'files of a split with --input'
    )
  kept, _ = _search(place)
  if not kept:
    raise ValueError(
      f'no trajectories in {place!r}: give a file, a folder or a quoted '
      f'glob with files that end in {", ".join(SUFFIXES)}; texts may also be '
      f'compressed ({", ".join(archives.COMPRESSIONS)})'
    )
  return kept


def unread(pattern: str | os.PathLike) -> list[str]:
  """Returns the files of a folder, glob or archive that `files` leaves out.

  Args:
    pattern: as for `files`.

  Returns:
    Sorted paths of the files with other suffixes. Hidden files and bookkeeping
    of the datasets library are not among them.
  """
  place = os.fspath(pattern)
  return [] if place.startswith(HUB) else _search(place)[1]


def readable(folder: str | os.PathLike) -> list[str]:
  """Returns the files of a folder that are read, as sorted paths.

  Unlike `files`, it returns an archive and not its members, does not leave out
  our own output, and returns [] if there is nothing to read.

  Args:
    folder: a folder, local or remote.
  """
  place = os.fspath(folder)
  # A folder of a bucket exists once it has a file.
  if '://' in place:
    is_folder = epath.Path(place).is_dir()
    found = [*_remote(place)] if is_folder else []
    return sorted(str(path) for path in found if _is_read(path.name))
  # A file that vanishes meanwhile is none.
  paths = local_files.search(pathlib.Path(os.path.abspath(place)))
  reads = sorted(str(p) for p in paths if _is_read(p.name) and p.is_file())
  return local_files.without_repeats(reads)[0]


def stems(files: Sequence[str]) -> list[str]:
  """Returns the stem of each file, for the ids of rows that have none.

  A stem is the path relative to the common folder of all files, without suffix
  unless another file has the same.

  Args:
    files: the result of `files`.
  """
  # A data set of the hub is one file, named by its id and split.
  if files[0].startswith(HUB):
    return [file.removeprefix(HUB) for file in files]
  # Files of the same name in different folders have different stems.
  root = os.path.commonpath([os.path.dirname(file) for file in files])
  paths = [os.path.relpath(file, root or '.') for file in files]
  roots = [os.path.splitext(archives.bare(path))[0] for path in paths]
  # a.jsonl and a.json.gz must not give two rows the same id.
  times = Counter(roots)
  return [p if times[s] > 1 else s for p, s in zip(paths, roots, strict=True)]


def size(file: str) -> int | None:
  """Returns the size of a file in bytes; None for a data set of the hub."""
  return None if file.startswith(HUB) else archives.size(file)


def digest(file: str) -> str | None:
  """Returns a digest of a file's contents; None for a data set of the hub."""
  return None if file.startswith(HUB) else archives.digest(file)


def read(path: str | os.PathLike) -> Iterator[Row]:
  """Reads a file. Damaged contents become rows with an error.

  Args:
    path: a file of JSON lines, a table, a zip archive of files, or a JSON file
      with one row or an array of rows. An array of chat messages is one row. A
      session of Claude Code or Codex is a row per trajectory, and a log of
      tau2-bench or inspect_ai is a row per run.

  Yields:
    The rows in order.

  Raises:
    OSError: the file cannot be opened.
  """
  place = os.fspath(path)
  number = 0
  try:
    # `files` has replaced archives by their members, unless it cannot.
    if place.lower().endswith(archives.ZIP) and not archives.split(place)[1]:
      for member in _members(place)[0]:
        yield from read(member)
      return
    for number, value, error in _rows(place):
      yield Row(place, number, None if error else value, error)
  except archives.Damaged as damage:
    yield Row(place, number + 1, None, f'{damage}; {_GONE}')


def _rows(place: str) -> Iterator[tuple[int, object, str]]:
  """Yields (number, value, error) of each row, for any kind of file."""
  if place.startswith(HUB):
    yield from tables.read_hub(*place.removeprefix(HUB).rsplit(':', 1))
    return
  suffix = _suffix(archives.bare(place))
  # Tables and archives are binary, and all other files are UTF-8 text.
  if suffix in tables.SUFFIXES:
    with archives.open_place(place) as file:
      yield from tables.read_file(file)
  elif suffix == containers.EVAL:
    for number, (value, error) in enumerate(containers.samples(place), 1):
      yield number, value, error
  elif suffix in delimited.SUFFIXES:
    with archives.open_text(place, newline='') as stream:
      yield from delimited.rows(stream, tabs=suffix == '.tsv')
  # Files without the suffix .jsonl may have one row per line, too.
  elif suffix == '.jsonl' or _by_line(place):
    yield from _by_row_or_session(place)
  else:
    yield from _whole(place)


def _search(place: str) -> tuple[list[str], list[str]]:
  """Returns the files of a path or glob, and those that are not read."""
  # 1. A single file of any name, or a member of an archive.
  path: epath.Path | pathlib.Path
  candidates: Iterable[epath.Path | pathlib.Path]
  is_local = '://' not in place
  if is_local:
    # Absolute paths: a file has the same name from every working directory.
    path = pathlib.Path(os.path.abspath(os.path.expanduser(place)))
    candidates = local_files.search(path)
  else:
    path, candidates = epath.Path(place), _remote(place)
  if path.is_file():
    return _expanded([str(path)])
  if archives.has(str(path)):
    return [str(path)], []
  # 2. Files of a folder or a glob. Our own output is no input: the metrics of a
  # run in the same folder are no trajectories.
  found = sorted(p for p in candidates if p.is_file())
  outputs = own_output.folders(found)
  ours = [str(p) for p in found if own_output.is_below(p, outputs)]
  found = [p for p in found if not own_output.is_below(p, outputs)]
  if any(_suffix(p.name) == '.arrow' for p in found):
    found = [p for p in found if not any(map(p.match, _BOOKKEEPING))]
  reads = [str(p) for p in found if _is_read(p.name)]
  leaves = [str(p) for p in found if not _is_read(p.name)]
  # 3. One path for each file, which links may give several.
  if is_local:
    reads, known = local_files.without_repeats(reads)
    leaves, _ = local_files.without_repeats(leaves, known)
  kept, others = _expanded(reads)
  return kept, sorted(others + leaves + ours)


def _expanded(found: list[str]) -> tuple[list[str], list[str]]:
  """Replaces archives by their members; also returns members not to read."""
  kept, others = [], []
  # An archive is replaced by those of its members that are read.
  for place in found:
    if _suffix(place) != archives.ZIP:
      kept.append(place)
      continue
    try:
      read, left = _members(place)
    except archives.Damaged:
      read, left = [place], []  # a row with the error
    kept += read
    others += left
  return kept, others


def _members(archive: str) -> tuple[list[str], list[str]]:
  """Returns the places of members to read, and of others, sorted."""
  names = sorted(info.filename for info in archives.members(archive))
  # Hidden files, as in folders.
  names = [n for n in names if not any(p[:1] == '.' for p in n.split('/'))]
  kept = [n for n in names if _suffix(archives.bare(n)) in TEXTS]
  others = [n for n in names if _suffix(archives.bare(n)) not in TEXTS]
  places = ([f'{archive}/{name}' for name in part] for part in (kept, others))
  return next(places), next(places)


def _is_read(name: str) -> bool:
  """Returns whether files of this name are read in a folder."""
  return _suffix(name) in SUFFIXES or _suffix(archives.bare(name)) in TEXTS


def _suffix(name: str) -> str:
  return os.path.splitext(name)[1].lower()


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


def _by_row_or_session(place: str) -> Iterator[tuple[int, object, str]]:
  """Yields the rows of a file with one row, or one event of a run, per line."""
  lines = _lines(place)
  # The first lines decide. They are read again only in a session.
  first = [*itertools.islice(lines, _FIRST)]
  if any(sessions.is_event(value) for _, value, _ in first):
    lines.close()
    yield from sessions.rows(lambda: _lines(place))
  else:
    yield from first
    yield from lines


def _lines(place: str) -> Generator[tuple[int, object, str], None, None]:
  """Yields the lines of a file that are not blank. Damage is the last."""
  number = 0
  try:
    with archives.open_text(place) as stream:
      # Numbers count blank lines too, as editors do.
      for number, line in enumerate(text_lines.read(stream), 1):
        if line is None:
          yield number, None, text_lines.TOO_LONG
        elif line.strip(_BLANK):
          value, error = _parsed(line.rstrip(_BLANK))
          yield number, value, error
  except archives.Damaged as damage:
    yield number + 1, None, f'{damage}; {_GONE}'


def _parsed(line: str) -> tuple[object, str]:
  """Returns (value, '') of a line, or (None, error)."""
  try:
    return strict_json.parse(line, lenient=True), ''
  except ValueError as error:
    return None, str(error)


def _whole(place: str) -> Iterator[tuple[int, object, str]]:
  """Yields the rows of a file that is one value: an array, or a single row."""
  if _is_large_object(place):
    runs = containers.stream(lambda: archives.open_text(place))
    if runs is not None:
      for number, (value, error) in enumerate(runs, 1):
        yield number, value, error
      return
  pairs = _values(place)
  # The first value decides how the others are read.
  first = next(pairs, None)
  if first is None:
    return
  pairs = itertools.chain([first], pairs)
  # An array of messages is one row. Its first error makes it unusable.
  if _is_message(first[0]):
    turns, errors = zip(*pairs, strict=True)
    pairs = iter([([*turns], next(filter(None, errors), ''))])
  number = 0
  for value, error in pairs:
    # A log may hold many rows.
    for run in containers.runs(value) or [value]:
      number += 1
      yield number, run, error


def _is_large_object(place: str) -> bool:
  """Returns whether a JSON file is an object that is better streamed."""
  is_packed = archives.bare(place) != place
  if not is_packed and archives.size(place) <= _LARGE:
    return False
  try:
    with archives.open_text(place) as stream:
      chunks = (stream.read(_CHUNK) for _ in range(_LARGE // _CHUNK + 1))
      return next(chunks).lstrip(_BLANK)[:1] == '{' and all(chunks)
  except archives.Damaged:
    return False  # the rows before the damage are read


def _values(place: str) -> Iterator[tuple[object, str]]:
  """Yields the values of a JSON file and their errors. Damage is the last."""
  try:
    with archives.open_text(place) as stream:
      yield from json_stream.values(stream)
  except archives.Damaged as damage:
    yield None, f'{damage}; {_GONE}'


def _is_message(value: object) -> bool:
  """Returns whether a value is one message or event of an agent's run."""
  if not isinstance(value, dict):
    return False
  keys, type_ = value.keys(), value.get('type')
  if any(message <= keys for message in _MESSAGES):
    return True
  if isinstance(type_, str) and any(
    type_ in types and not has.isdisjoint(keys) for types, has in _TYPES
  ):
    return True
  return sessions.is_event(value)


def _by_line(place: str) -> bool:
  """Returns whether a file without the suffix .jsonl has one row per line."""
  # Two lines with the same opening bracket, the first of which is complete.
  head = _head(place)
  if len(head) < 2 or head[0][0] not in '{[' or head[1][0] != head[0][0]:
    return False
  first, second = head
  if not _parsed(first)[1]:
    return True
  # Or the first line is damaged and the second is not. `{"a":` above `{}` may
  # however be one object on two lines, so that the whole file must be read.
  if first[0] == '[' or _parsed(second)[1]:
    return False
  return any(error for _, _, error in _whole(place))


def _head(place: str) -> list[str]:
  """Returns the first two lines that are not blank, if they can be read."""
  head: list[str] = []
  try:
    with archives.open_text(place) as stream:
      while len(head) < 2 and (line := stream.readline(_LONGEST_PEEK)):
        if stripped := line.strip(_BLANK):
          head.append(stripped)
  except archives.Damaged:
    pass  # the rows before the damage are read, and its error is the last
  return head
