"""Progress bars of long work.

On a terminal, a bar redraws the status line below all other output:

    records  [=====>        ]  41%  4,100/10,000 rows  2 set aside  0:12 left

In a log, such as a file, a pipe or the cell of a notebook, it prints a line
without the bar: at most one per minute, and the last state at the end. Bars
write to stderr. They have no thread: a bar moves when its work calls `update`.
"""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from isft_jax import terminal

Item = TypeVar('Item')

# Seconds between two updates, on a terminal and in a log.
_REDRAW, LOG = 0.1, 60.0
_SHORT = 1.0  # seconds; shorter work needs no bar
_WIDTH = 20  # characters of the bar


class Bar:
  """Context that shows the progress of its block.

  Bars can be nested. The innermost one is shown on a terminal, and only the
  outermost one leaves its last state.
  """

  def __init__(
    self,
    name: str,
    total: int = 0,
    unit: str = '',
    done: int = 0,
    is_silent: bool = False,
    has_lines: bool = False,
  ) -> None:
    """Makes a bar, which appears after a second.

    Args:
      name: the work.
      total: number of units; 0 if unknown.
      unit: unit in the plural, or '%'.
      done: units that were done before.
      is_silent: whether it shows nothing, as on all hosts but the first.
      has_lines: whether the work prints lines with its state, see
        `line_printed`. Then no last state is left.
    """
    self._name, self._total, self._unit = name, total, unit
    self._is_silent, self._has_lines = is_silent, has_lines
    self._first = self._done = done
    self._note = ''
    self._left: float | None = None
    self._is_shown = False

  def __enter__(self) -> Self:
    self._started = time.monotonic()
    self._next = self._started + _SHORT
    if not _bars:
      _log.line_printed()
    _bars.append(self)
    return self

  def __exit__(self, *error: object) -> None:
    _bars.remove(self)
    seconds = time.monotonic() - self._started
    is_last = not _bars and not self._has_lines and seconds >= _SHORT
    if not self._is_silent and self._is_shown:
      terminal.show_status('')
    if not self._is_silent and is_last:
      _print(self._text(seconds, is_last=True))
    # The outer bar is seen again.
    if _bars and not _bars[-1]._is_silent and terminal.has_status():
      _bars[-1]._next = 0.0

  def update(
    self,
    done: int,
    note: str = '',
    left: float | None = None,
    total: int | None = None,
  ) -> None:
    """Notes the state of the work, and shows it when it is time to.

    Args:
      done: units done.
      note: further text about the state.
      left: seconds left, if the work knows better than the mean so far; inf
        if they are unknown.
      total: another number of units.
    """
    self._done, self._note, self._left = done, note, left
    if total is not None:
      self._total = total
    if self.is_due():
      self._show()

  def is_due(self) -> bool:
    """Returns whether the next update is shown."""
    is_seen = not self._is_silent and bool(_bars) and _bars[-1] is self
    return is_seen and time.monotonic() >= self._next

  def line_printed(self) -> None:
    """Notes that the work has printed a line with its state."""
    _log.line_printed()

  def _show(self) -> None:
    now = time.monotonic()
    self._next = now + _REDRAW
    if terminal.has_status():
      terminal.show_status(self._text(now - self._started))
      self._is_shown = True
    elif now >= _log.next:
      # A line says where the whole work is.
      _print('; '.join(bar._text(now - bar._started) for bar in _bars))
      _log.line_printed()

  def _text(self, seconds: float, is_last: bool = False) -> str:
    """Returns the state in one line."""
    parts = [self._name]
    if self._total:
      share = min(self._done / self._total, 1)
      # The bar itself only where it moves.
      if terminal.has_status() and not is_last:
        parts.append(f'{_drawn(share)} {share:4.0%}')
      else:
        parts.append(f'{share:.0%}')
    count = f'{self._done:,}'
    if self._total:
      count += f'/{self._total:,}'
    if self._unit != '%':
      parts.append(f'{count} {self._unit}'.rstrip())
    parts.append(self._note)
    # Time left, from the mean of this process.
    left, new = self._left, self._done - self._first
    if left is None and self._total and new > 0:
      left = seconds / new * max(self._total - self._done, 0)
    if is_last:
      parts.append(f'in {clock(seconds)}')
    elif left is None or math.isinf(left):
      parts.append(f'{clock(seconds)} so far')
    else:
      parts.append(f'{clock(left)} left')
    return '  '.join(filter(None, parts))


def track(
  items: Iterable[Item], name: str, total: int = 0, unit: str = ''
) -> Iterator[Item]:
  """Yields items, and shows how many are done.

  Args:
    items: the items.
    name, total, unit: see `Bar`.
  """
  with Bar(name, total, unit) as bar:
    for done, item in enumerate(items):
      bar.update(done)
      yield item
      bar.update(done + 1)


def clock(seconds: float) -> str:
  """Returns '0:07', '12:30' or '2:05:00'."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02}:{rest:02}'
  return f'{minutes}:{rest:02}'


def _drawn(share: float) -> str:
  full = int(share * _WIDTH)
  return f'[{("=" * full + ">")[:_WIDTH]:{_WIDTH}}]'


def _print(line: str) -> None:
  print(terminal.one_line(line), file=sys.stderr, flush=True)


class _Log:
  """The time from which a log may have another line, of any bar."""

  def __init__(self) -> None:
    self.next = 0.0

  def line_printed(self) -> None:
    self.next = time.monotonic() + LOG


_log = _Log()
_bars: list[Bar] = []  # the innermost one is the last
