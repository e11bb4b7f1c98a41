"""Groups the lines of agents' session files into one row per trajectory.

Claude Code and Codex append a line per event. A row is the list of the events
of one trajectory:

    line 1  {"type": "user", "sessionId": "s", ...}           row 1
    line 2  {"type": "assistant", "sessionId": "s", ...}      row 1
    line 3  {..., "sessionId": "s", "isSidechain": true}      row 3
    line 4  {"type": "user", "sessionId": "s", ...}           row 1

The file is read twice: first to assign lines to rows, then to return each row
after its last line. Memory therefore holds only trajectories that overlap.
"""

import array
import bisect
import collections
from collections.abc import Callable, Iterator
from typing import NamedTuple

# (number, value, error) of a line or a row.
Numbered = tuple[int, object, str]

_ALONE = -1  # group of a line that is a row of its own
# Codex writes {"timestamp": ..., "type": ..., "payload": {...}}.
_CODEX = ('session_meta', 'response_item', 'event_msg', 'turn_context')


def is_event(value: object) -> bool:
  """Returns whether a value is an event of Claude Code or Codex."""
  return (
    isinstance(value, dict)
    and isinstance(value.get('type'), str)
    and (_is_codex(value) or _is_claude(value))
  )


def rows(lines: Callable[[], Iterator[Numbered]]) -> Iterator[Numbered]:
  """Reads a session file.

  Args:
    lines: returns an iterator over the lines of the file.

  Yields:
    (number, events, '') of each trajectory; the number is that of its first
    line. Lines that are no events are rows of their own. An unreadable line
    makes the trajectory around it unusable, because it may be one of its
    events.
  """
  groups, damaged = _grouped(lines())
  spans = _spans(groups, damaged)
  inside = {line for span in spans for line in span.damaged}
  # Rows wait here for their last lines, in the order of their first lines.
  waiting: collections.deque[tuple[int, int, object, str]] = collections.deque()
  events: dict[int, list] = {}  # of each group that is incomplete
  for number, value, error in lines():
    # A session that is still written has more lines than before.
    group = groups[number - 1] if number <= len(groups) else _ALONE
    if group != _ALONE:
      span = spans[group]
      if number == span.first:
        events[group] = []
        waiting.append((number, span.last, events[group], span.error))
      events[group].append(value)
      if number == span.last:
        del events[group]
    elif number not in inside:
      waiting.append((number, number, value, error))
    while waiting and waiting[0][1] <= number:
      first, _, value, error = waiting.popleft()
      yield first, value, error


class _Span(NamedTuple):
  """Lines of a trajectory."""

  first: int
  last: int
  damaged: list[int]  # unreadable lines between them
  error: str


def _grouped(lines: Iterator[Numbered]) -> tuple[array.array, dict[int, str]]:
  """Returns the group of each line, and the errors of unreadable lines."""
  groups = array.array('q')  # element i is for line i + 1
  damaged: dict[int, str] = {}
  grouper = _Grouper()
  orphans: list[int] = []  # lines that go with the next event
  for number, value, error in lines:
    # Blank lines have no group.
    groups.extend([_ALONE] * (number - len(groups)))
    if error:
      damaged[number] = error
    elif isinstance(value, dict) and is_event(value):
      orphans.append(number)
      group = grouper.group(value)
      if group is not None:
        for line in orphans:
          groups[line - 1] = group
        orphans = []
  for line in orphans:
    groups[line - 1] = grouper.latest
  return groups, damaged


def _spans(groups: array.array, damaged: dict[int, str]) -> list[_Span]:
  """Returns the span of each group."""
  first: dict[int, int] = {}
  last: dict[int, int] = {}
  for number, group in enumerate(groups, 1):
    if group != _ALONE:
      first.setdefault(group, number)
      last[group] = number
  bad = sorted(damaged)
  spans = []
  for group in sorted(first):
    start, stop = first[group], last[group]
    between = bad[bisect.bisect(bad, start) : bisect.bisect(bad, stop)]
    error = f'line {between[0]}: {damaged[between[0]]}' if between else ''
    spans.append(_Span(start, stop, between, error))
  return spans


class _Grouper:
  """Numbers the trajectories of a file, in the order of their first events."""

  def __init__(self) -> None:
    self.latest = 0  # group of the event before
    self._count = 0
    # Claude Code: groups of sessions and agents, and of events by uuid.
    self._groups: dict[tuple[str, str, str], int] = {}
    self._of_event: dict[str, int] = {}
    self._sidechains: set[int] = set()
    # Codex: the current rollout, and whether it has other events than metadata.
    self._rollout = ''
    self._begun = True

  def group(self, event: dict) -> int | None:
    """Returns the group of an event; None if it goes with the next event."""
    group = (self._codex if _is_codex(event) else self._claude)(event)
    self.latest = self.latest if group is None else group
    return group

  def _claude(self, event: dict) -> int | None:
    session, uuid = _text(event, 'sessionId'), _text(event, 'uuid')
    key = ('main', session, '')
    # A line about a session: a summary, a title, a snapshot of files.
    if not uuid:
      if session:
        return self._groups.get(key)
      return self.latest if self._count else None
    parent = self._of_event.get(_text(event, 'parentUuid'))
    sidechain = event.get('isSidechain') is True
    if sidechain:
      # Older versions have no agentId: the chain tells the agent.
      agent = _text(event, 'agentId')
      key = ('agent', session, agent or uuid)
      joins = not agent and parent in self._sidechains
    else:
      # A session that was resumed under another id goes on from its parent.
      joins = key not in self._groups and parent not in self._sidechains
    if joins and parent is not None:
      self._groups[key] = parent
    group = self._groups.get(key)
    if group is None:
      group = self._groups[key] = self._new()
    if sidechain:
      self._sidechains.add(group)
    self._of_event[uuid] = group
    return group

  def _codex(self, event: dict) -> int:
    if event['type'] != 'session_meta':
      self._begun = True
      return self.latest if self._count else self._new()
    payload = event.get('payload')
    id = _text(payload, 'id') if isinstance(payload, dict) else ''
    # A fork begins with its own metadata and those of the session it copied.
    if self._begun and not (id and id == self._rollout):
      self._rollout, self._begun = id, False
      return self._new()
    return self.latest

  def _new(self) -> int:
    self._count += 1
    return self._count - 1


def _is_codex(event: dict) -> bool:
  return 'payload' in event and (
    'timestamp' in event or event['type'] in _CODEX
  )


def _is_claude(event: dict) -> bool:
  # Messages and notes of the system.
  if isinstance(event.get('uuid'), str) and 'parentUuid' in event:
    return 'sessionId' in event or 'message' in event
  # Lines about the session. Rows of other formats hold lists of messages.
  return (
    (event['type'] == 'summary' and 'leafUuid' in event)
    or (event['type'] == 'file-history-snapshot' and 'snapshot' in event)
    or (
      isinstance(event.get('sessionId'), str)
      and not any(isinstance(value, list) for value in event.values())
    )
  )


def _text(event: dict, key: str) -> str:
  """Returns a field that is text; '' if it is anything else."""
  value = event.get(key)
  return value if isinstance(value, str) else ''
