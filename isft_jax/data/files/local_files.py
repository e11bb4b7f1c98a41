"""Finds local files below a folder or by a glob, each by one path.

Symbolic links may give a file many paths, or a folder infinitely many:

    runs/a.jsonl
    runs/self -> .        runs/self/a.jsonl, runs/self/self/a.jsonl, ...

A folder is therefore entered once, and a file has one path.
"""

import glob
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence

_ANY = '**'  # the part of a glob that stands for any number of folders


def search(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields everything below a folder, or the matches of a glob.

  Args:
    path: an absolute path. Hidden files match only a pattern that names them.
      The number of results is finite, but a file may have several paths.
  """
  if path.is_dir():
    path = pathlib.Path(glob.escape(str(path)), _ANY)
  for name in _matches(path.parts):
    yield pathlib.Path(name)


def without_repeats(
  paths: Sequence[str], known: Collection[str] = ()
) -> tuple[list[str], set[str]]:
  """Returns one path for each file.

  Args:
    paths: sorted paths of files.
    known: real paths of files to leave out.

  Returns:
    The sorted paths, and the real paths of all files with the known ones. A
    file with several paths has the one through the fewest links.
  """
  # Most paths have no link, and most files are in few folders.
  folders: dict[str, str] = {}
  by_file: dict[str, list[str]] = {}
  for path in paths:
    folder, name = os.path.split(path)
    if folder not in folders:
      folders[folder] = os.path.realpath(folder)
    is_link = os.path.islink(path)
    file = os.path.realpath(path) if is_link else f'{folders[folder]}/{name}'
    by_file.setdefault(file, []).append(path)
  # A file with several paths keeps the one through the fewest links.
  kept = [
    same[0] if len(same) == 1 else min(same, key=_number_of_links)
    for file, same in by_file.items()
    if file not in known
  ]
  return sorted(kept), {*known, *by_file}


def _number_of_links(path: str) -> int:
  """Returns the number of links on a path."""
  place = pathlib.Path(path)
  return sum(map(os.path.islink, (place, *place.parents)))


def _matches(parts: Sequence[str]) -> Iterator[str]:
  """Yields the matches of a glob that is split at its slashes."""
  if _ANY not in parts:
    yield from glob.glob(os.path.join(*parts))
    return
  # The rest of the glob may match in any folder below.
  first = parts.index(_ANY)
  rest = parts[first + 1 :]
  for base in glob.glob(os.path.join(*parts[:first])):
    for folder, names in _folders(base):
      if rest:
        yield from _matches([glob.escape(folder), *rest])
      else:
        yield from (os.path.join(folder, name) for name in names)


def _folders(base: str) -> Iterator[tuple[str, list[str]]]:
  """Yields a folder and all below it, each with the names of its files."""
  seen = set()
  # Links are followed last, so that folders have their real paths if possible.
  folders: list[str] = [base]
  links: list[str] = []
  while folders or links:
    folder = folders.pop() if folders else links.pop(0)
    try:
      status = os.stat(folder)
      with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:  # as glob does
      continue
    # A folder may be reached twice, through links.
    if (status.st_dev, status.st_ino) in seen:
      continue
    seen.add((status.st_dev, status.st_ino))
    names = []
    for entry in entries:
      # As in globs, hidden files are no matches.
      if entry.name.startswith('.'):
        continue
      if not _is_folder(entry):
        names.append(entry.name)
      elif entry.is_symlink():
        links.append(entry.path)
      else:
        folders.append(entry.path)
    yield folder, names


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False
