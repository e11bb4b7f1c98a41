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
_NEXT = -2  # group of a line that goes with the next event
# Types of lines of Codex, beside {"timestamp": ..., "payload": {...}}.
_CODEX = ('session_meta', 'response_item', 'event_msg', 'turn_context')
# Keys of the first line of Codex's oldest rollouts. The others are bare items.
_OLD_CODEX = {'id', 'timestamp', 'instructions'}
_OLD_CODEX_TOO = {'git', 'cwd', 'originator', 'cli_version', 'source'}
# Types of lines of Claude Code that have a message, and of --output-format
# stream-json, which calls its keys session_id and parent_tool_use_id.
_SPEAKERS = ('user', 'assistant')
_STREAMED = (*_SPEAKERS, 'system', 'result', 'stream_event')


def is_event(value: object) -> bool:
  """Returns whether a value is an event of Claude Code or Codex."""
  return isinstance(value, dict) and (
    _is_codex(value) or _is_old_codex(value) or _is_claude(value)
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
    # Rows keep the order of their first lines.
    while waiting and waiting[0][1] <= number:
      first, _, value, error = waiting.popleft()
      yield first, value, error
  for first, _, value, _ in waiting:
    yield first, value, 'The file has changed while it was read'


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
      continue
    group = grouper.group(value)
    # A line about a session belongs to the next event.
    if group == _NEXT:
      orphans.append(number)
    elif group != _ALONE:
      for line in (*orphans, number):
        groups[line - 1] = group
      orphans = []
  # Without any event, they are a row of their own.
  for line in orphans:
    groups[line - 1] = grouper.latest
  return groups, damaged


def _spans(groups: array.array, damaged: dict[int, str]) -> list[_Span]:
  """Returns the span of each group."""
  # First and last line of each group.
  first: dict[int, int] = {}
  last: dict[int, int] = {}
  for number, group in enumerate(groups, 1):
    if group != _ALONE:
      first.setdefault(group, number)
      last[group] = number
  # Lines that cannot be read damage every run that they interrupt.
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
    # Codex: the current rollout, whether it has other events than metadata, and
    # whether its items are bare.
    self._rollout = ''
    self._begun = True
    self._bare = False

  def group(self, value: object) -> int:
    """Returns the group of the next line, `_ALONE` or `_NEXT`."""
    group = _ALONE
    if not isinstance(value, dict):
      return group
    # Each kind of event names its run in another way.
    if _is_old_codex(value):
      self._bare = True
      group = self._new()
    elif _is_codex(value):
      self._bare = False
      group = self._codex(value)
    elif self._bare and {'type', 'role', 'record_type'} & value.keys():
      group = self.latest
    elif _is_claude(value):
      group = self._claude(value)
    # Lines that name no run belong to the latest one.
    self.latest = group if group >= 0 else self.latest
    return group

  def _claude(self, event: dict) -> int:
    session = _text(event, 'sessionId') or _text(event, 'session_id')
    uuid = _text(event, 'uuid')
    key = ('main', session, '')
    # A line about a session: a summary, a title, a snapshot of files.
    if not uuid and 'message' not in event:
      if session:
        return self._groups.get(key, _NEXT)
      return self.latest if self._count else _NEXT
    # A sidechain is a run of a subagent, which is a separate row.
    parent = self._of_event.get(_text(event, 'parentUuid'))
    caller = _text(event, 'parent_tool_use_id')
    sidechain = event.get('isSidechain') is True or bool(caller)
    if sidechain:
      # Older versions have no agentId: the chain tells the agent.
      agent = _text(event, 'agentId') or caller
      key = ('agent', session, agent or uuid)
      joins = not agent and parent in self._sidechains
    else:
      # A session that was resumed under another id continues its parent.
      joins = key not in self._groups and parent not in self._sidechains
    # Continue the run of the parent, or begin a new one.
    if joins and parent is not None:
      self._groups[key] = parent
    group = self._groups.get(key)
    if group is None:
      group = self._groups[key] = self._new()
    if sidechain:
      self._sidechains.add(group)
    # Later events may name this one as their parent.
    if uuid:
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
  type_ = event.get('type')
  if not isinstance(type_, str) or 'payload' not in event:
    return False
  return 'timestamp' in event or type_ in _CODEX


def _is_old_codex(event: dict) -> bool:
  keys = event.keys()
  return keys >= _OLD_CODEX and not keys - _OLD_CODEX - _OLD_CODEX_TOO


def _is_claude(event: dict) -> bool:
  type_ = event.get('type')
  if not isinstance(type_, str):
    return False
  # 1. A message, or an event between messages.
  if isinstance(event.get('uuid'), str) and 'parentUuid' in event:
    return 'sessionId' in event or 'message' in event
  if 'session_id' in event:
    has = {'message', 'subtype', 'event'} & event.keys()
    return type_ in _STREAMED and bool(has)
  if type_ in _SPEAKERS and isinstance(event.get('message'), dict):
    return 'sessionId' in event or 'uuid' in event
  # 2. A line about the session. Rows of other formats have lists of messages.
  if type_ == 'summary':
    return 'leafUuid' in event
  if type_ == 'file-history-snapshot':
    return 'snapshot' in event
  return isinstance(event.get('sessionId'), str) and not any(
    isinstance(value, list) for value in event.values()
  )


def _text(event: dict, key: str) -> str:
  """Returns a field that is text; '' if it is anything else."""
  value = event.get(key)
  return value if isinstance(value, str) else ''
