"""Reads and appends to follow.jsonl: all events of a followed folder.

  {"event": "scored", "increment": 3, "file": "a.json", ..., "time": "..."}

A line is an event. A kill or a lost disk may cut the last lines: they are
removed when the file is opened for appending, and their events happen again. An
event is written once, however often it is added.
"""

import datetime
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from isft_jax import files

NAME = 'follow.jsonl'
# Events with which an increment ends.
ENDS = 'accepted', 'rolled_back', 'skipped'
# What tells two events apart. Their other values are measured or counted.
_KEYS = 'event', 'increment', 'file', 'reason', 'sha256'

Event = dict[str, Any]


def read(path: epath.PathLike) -> list[Event]:
  """Returns the whole events of a file; [] if it does not exist.

  Raises:
    ValueError: a line before the last whole one is damaged.
  """
  return _read(epath.Path(path))[0]


def _read(path: epath.Path) -> tuple[list[Event], bytes]:
  """Returns the whole events, and their lines as one text."""
  if not path.exists():
    return [], b''
  with files.open_bytes(path, 'rb') as file:
    lines = file.read().splitlines(keepends=True)
  events = [_parsed(line) for line in lines]
  # What a crash leaves is at the end.
  while events and events[-1] is None:
    events.pop()
  whole = [event for event in events if event is not None]
  if len(whole) < len(events):
    raise ValueError(
      f'{path}, line {events.index(None) + 1}: damaged, and followed by other '
      'events; restore the file, or give another --workdir'
    )
  return whole, b''.join(lines[: len(events)])


def _parsed(line: bytes) -> Event | None:
  if not line.endswith(b'\n'):
    return None
  try:
    event = json.loads(line)
  except (ValueError, RecursionError):
    return None
  is_event = (
    isinstance(event, dict)
    and isinstance(event.get('event'), str)
    and type(event.get('increment')) is int
  )
  return event if is_event else None


class Log:
  """The events of a workdir, for the one process that appends to them.

  Attributes:
    events: all events, in order.
  """

  def __init__(self, workdir: epath.PathLike) -> None:
    """Opens the file, and removes the lines that a crash has damaged.

    Raises:
      ValueError: a line before the last whole one is damaged.
    """
    self._path = epath.Path(workdir) / NAME
    self.events, self._text = _read(self._path)
    self._known = {_key(event) for event in self.events}
    if '://' not in str(self._path) and self._path.exists():
      os.truncate(self._path, len(self._text))

  def add(self, *events: Event) -> list[Event]:
    """Appends events, but for those that are in the file; returns the new ones.

    Args:
      *events: each with 'event', 'increment', and what describes it. 'time' is
        added.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    new = []
    for event in events:
      if _key(event) not in self._known:
        self._known.add(_key(event))
        new.append(event | {'time': now})
    if new:
      self._append(''.join(json.dumps(each) + '\n' for each in new).encode())
      self.events += new
    return new

  def _append(self, text: bytes) -> None:
    # A file in a bucket can only be replaced as a whole.
    if '://' in str(self._path):
      self._text += text
      files.write_atomically(self._path, self._text)
      return
    with (
      files.named(self._path),
      files.open_bytes(self._path, 'ab') as file,
    ):
      file.write(text)
      file.flush()
      os.fsync(file.fileno())

  def of(self, increment: int, event: str) -> list[Event]:
    """Returns the events of one kind of an increment."""
    return [
      each
      for each in self.events
      if each['increment'] == increment and each['event'] == event
    ]


def by_increment(events: Iterable[Event]) -> dict[int, list[Event]]:
  """Returns number -> events of each increment, sorted by number."""
  found: dict[int, list[Event]] = {}
  for event in events:
    found.setdefault(event['increment'], []).append(event)
  return dict(sorted(found.items()))


def describe(event: Event) -> str:
  """Returns an event as a line to print; '' for those that say nothing new."""
  kind, what = event['event'], f'increment {event["increment"]}'
  if kind == 'found':
    number = len(event['files'])
    return f'{what}: {number:,} new transcript{"s" * (number != 1)}'
  if kind == 'set_aside':
    return (
      f'{what}: {files.shown(event["file"])} set aside as {event["reason"]}: '
      f'{event["message"]}'
    )
  if kind == 'changed':
    return (
      f'warning: {files.shown(event["file"])} has changed since it was taken, '
      'and is not taken again; give it another name'
    )
  if kind == 'measured' and 'heldout_loss' in event:
    return f'{what}: held-out loss {event["heldout_loss"]:.4f}'
  if kind in ENDS:
    reason = f': {event["because"]}' if 'because' in event else ''
    return f'{what}: {kind.replace("_", " ")}{reason}'
  return ''


def _key(event: Mapping[str, Any]) -> tuple:
  return tuple(event.get(name) for name in _KEYS)
