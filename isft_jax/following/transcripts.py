"""Finds new transcripts in a folder, and copies those that are complete.

A file is complete if its size and its time are the same in two looks. Its copy
is what an increment is made of: the file itself may change or vanish.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from etils import epath

from isft_jax import files
from isft_jax.data.files import rows
from isft_jax.follow_file import Event

LARGEST = 1 << 30  # bytes of a transcript
_BLOCK = 1 << 20  # bytes per read


class State(NamedTuple):
  """Size in bytes and time of the last change of a file."""

  bytes: int
  modified: int


class Look(NamedTuple):
  """What a look into the folder found.

  Attributes:
    ready: names of new and complete files, sorted.
    growing: number of new files that are not complete yet.
    changed: names of files that were taken, and have another size or time now.
  """

  ready: list[str]
  growing: int
  changed: list[str]


class Folder:
  """A folder in which transcripts appear. Names are relative to it."""

  def __init__(self, place: str) -> None:
    self.place = place if '://' in place else os.path.abspath(place)
    # A folder of a bucket exists once it has a file.
    if '://' not in place and not os.path.isdir(place):
      raise ValueError(
        f'--follow={place}: not a folder; create the folder, or name another'
      )
    self._states: dict[str, State] = {}  # of the last look
    self._unreadable: set[str] = set()

  def look(self, taken: dict[str, State]) -> Look:
    """Looks for files, and compares them with those of the last look.

    Args:
      taken: files that were taken, with their state at that time.
    """
    before, self._states = self._states, self._list(taken)
    new = {n: s for n, s in self._states.items() if n not in taken}
    # Files that cannot be read would come first at every look.
    new = {n: s for n, s in new.items() if n not in self._unreadable}
    ready = [name for name in new if before.get(name) == new[name]]
    changed = [
      name
      for name, state in self._states.items()
      if name in taken and state != taken[name]
    ]
    return Look(ready, len(new) - len(ready), changed)

  def _list(self, taken: Collection[str]) -> dict[str, State]:
    found = {}
    for path in rows.readable(self.place):
      name = path[len(self.place) :].lstrip('/')
      # A request per file and look would be slow: of a bucket, files that were
      # taken are compared only once.
      if '://' in self.place and name in taken and name in self._states:
        found[name] = self._states[name]
        continue
      try:
        found[name] = _state(path)
      except OSError:  # it has vanished
        continue
    return dict(sorted(found.items()))

  def state(self, name: str) -> State:
    """Returns the state of a file in the last look."""
    return self._states[name]

  def digest(self, name: str) -> str:
    """Returns the SHA-256 of a file; '' if it cannot be read."""
    try:
      return files.sha256(epath.Path(self._path(name)))
    except OSError:
      return ''

  def copy(self, name: str, target: epath.Path) -> dict[str, Any] | None:
    """Copies a file, unless it is larger than `LARGEST`.

    Returns:
      Its `file`, `bytes`, `modified` and `sha256`, which is '' for a file that
      is too large; None if the file cannot be read or has changed since the
      last look.
    """
    state = self._states[name]
    entry = {'file': name, **state._asdict(), 'sha256': ''}
    if state.bytes > LARGEST:
      return entry
    digest = hashlib.sha256()
    try:
      source = files.open_bytes(epath.Path(self._path(name)), 'rb')
    except FileNotFoundError:  # it has vanished
      return None
    except OSError as error:
      self._leave(name, error)
      return None
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, files.named(target), files.open_bytes(target, 'wb') as file:
      # Not more than expected: somebody may write faster than this reads.
      left = state.bytes
      while left and (block := source.read(min(_BLOCK, left))):
        digest.update(block)
        file.write(block)
        left -= len(block)
    try:
      is_same = not left and _state(self._path(name)) == state
    except OSError:
      is_same = False
    return entry | {'sha256': digest.hexdigest()} if is_same else None

  def _path(self, name: str) -> str:
    return f'{self.place.rstrip("/")}/{name}'

  def _leave(self, name: str, error: OSError) -> None:
    self._unreadable.add(name)
    print(
      f'warning: {files.shown(name)} cannot be read '
      f'({error.strerror or error}); it is tried again when the command starts',
      flush=True,
    )


def taken(events: Iterable[Event]) -> dict[str, State]:
  """Returns the state of each file that was taken into an increment."""
  return {
    each['file']: State(each['bytes'], each['modified'])
    for event in events
    if event['event'] == 'found'
    for each in event['files']
  }


def learned(events: Sequence[Event]) -> dict[str, str]:
  """Returns SHA-256 -> name of each file that was learned.

  Files that were set aside or rolled back are not among them: under another
  name, they are tried again.
  """
  accepted = {e['increment'] for e in events if e['event'] == 'accepted'}
  scored = {
    (e['increment'], e['file']) for e in events if e['event'] == 'scored'
  }
  return {
    each['sha256']: each['file']
    for event in events
    if event['event'] == 'found' and event['increment'] in accepted
    for each in event['files']
    if (event['increment'], each['file']) in scored
  }


def duplicates(
  entries: Iterable[Event], known: dict[str, str]
) -> dict[str, str]:
  """Returns name -> name of an earlier file with the same content.

  Args:
    entries: the files of an increment.
    known: files of earlier increments, as `learned` returns them.
  """
  seen, found = dict(known), {}
  for each in entries:
    if not each['sha256']:
      continue
    if (first := seen.setdefault(each['sha256'], each['file'])) != each['file']:
      found[each['file']] = first
  return found


def clear(folder: epath.Path, keep: Collection[str] = ()) -> None:
  """Removes what is in a folder, but for some names."""
  if folder.exists():
    for path in folder.iterdir():
      if path.name not in keep:
        path.rmtree() if path.is_dir() else path.unlink()


def _state(path: str) -> State:
  if '://' not in path:
    status = os.stat(path)
    return State(status.st_size, status.st_mtime_ns)
  remote = epath.Path(path).stat()
  return State(remote.length, int(remote.mtime))
