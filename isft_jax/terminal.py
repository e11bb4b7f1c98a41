r"""Guards terminals against escape sequences, and keeps a status line on them.

Replies, file names, keys of rows and errors of templates may hold characters
that move the cursor, color or clear a terminal, or reverse its direction:

    'a\x1b[2Jb'   is printed as   a\x1b[2Jb

The status line stands below all output of a guarded process. Output removes it,
and it is drawn again below the output. It needs no escape sequences, only
carriage returns and spaces, so that it also works in the cells of notebooks.
"""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich import cells

# Controls except tab and line feed, separators of lines and paragraphs, marks
# of direction, and halves of surrogate pairs, which no encoding can express.
_UNSAFE = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069'
  '\ufeff\ufff9-\ufffb\ud800-\udfff]'
)
# What the progress bars of tqdm move the cursor with.
_MOVES = re.compile('(\r|\x1b\\[A)')
# Terminals that show what is written, and nothing else.
_DUMB = '', 'dumb', 'unknown'


def safe(text: str) -> str:
  r"""Returns text with escapes in place of characters that control a terminal.

  Tabs, line breaks, letters and signs of all languages stay. Escapes above
  \x1f are those of JSON, so that a line of JSON stays valid.

  Args:
    text: any text. Text that is safe is returned unchanged.
  """
  return _UNSAFE.sub(_escape, text)


def safe_line(text: str) -> str:
  """Returns `safe(text)` on one line, with single spaces."""
  return safe(' '.join(text.split()))


def one_line(text: str) -> str:
  """Returns `safe(text)` with its spaces, and \\n for a line break."""
  return safe(text).replace('\t', ' ').replace('\n', '\\n')


def guard() -> None:
  """Makes stdout and stderr of this process print only `safe` text.

  This is the one point for print, logs, warnings and tracebacks. Code that
  prints colors writes them to `raw(stream)`.
  """
  for name in 'stdout', 'stderr':
    stream = getattr(sys, name)
    if stream is not None and not isinstance(stream, SafeStream):
      setattr(sys, name, SafeStream(stream))


def raw(stream: TextIO) -> TextIO:
  """Returns the stream that a guarded stream writes to.

  The status line is removed, because other output follows.

  Args:
    stream: any stream. One that is not guarded is returned unchanged.
  """
  if not isinstance(stream, SafeStream):
    return stream
  _status.remove()
  return stream.stream


def has_status() -> bool:
  """Returns whether stderr is a guarded terminal that can redraw a line."""
  return (
    isinstance(sys.stderr, SafeStream)
    and os.environ.get('TERM', '') not in _DUMB
    and sys.stderr.isatty()
  )


def show_status(text: str) -> None:
  """Draws the status line in place of the one before.

  Args:
    text: one line; it is cut to the width of the terminal. '' removes the line.
  """
  _status.show(one_line(text))


def status_eraser() -> bytes:
  """Returns bytes that remove the status line, for a process that is ending."""
  return _status.eraser().encode()


class SafeStream:
  """A text stream that writes `safe` text to another stream."""

  def __init__(self, stream: TextIO) -> None:
    self.stream = stream

  def write(self, text: str) -> int:
    """Writes text; returns its length, as other streams do."""
    # Progress bars of downloads redraw their line.
    if _caller(2).startswith('tqdm.'):
      pieces = _MOVES.split(text)
      pieces[::2] = map(safe, pieces[::2])
      shown = ''.join(pieces)
    else:
      shown = safe(text)
    with _status.below(self.stream, shown):
      self.stream.write(shown)
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    """Writes lines, which have their line breaks."""
    for line in lines:
      self.write(line)

  # Everything else, such as isatty, fileno and encoding.
  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)


class _Status:
  """The status line, and whether the cursor is where it can be drawn."""

  def __init__(self) -> None:
    self._text = ''
    self._columns = 0  # that the line takes on the terminal; 0: not drawn
    self._is_in_line = False  # whether other output has begun a line
    # Warnings of other threads move the line, too.
    self._lock = threading.RLock()

  def show(self, text: str) -> None:
    """Draws a text; '' removes the line."""
    with self._lock:
      self._text = text
      if text:
        self._draw()
      else:
        self.remove()

  def remove(self) -> None:
    """Removes the line from the terminal until it is drawn again."""
    with self._lock:
      if self._columns:
        self._write(self.eraser())
        self._columns = 0

  def eraser(self) -> str:
    """Returns the text that removes the line."""
    # The terminal may be narrower than when the line was drawn.
    spaces = ' ' * min(self._columns, max(_columns() - 1, 1))
    return f'\r{spaces}\r' if self._columns else ''

  @contextlib.contextmanager
  def below(self, stream: TextIO, text: str) -> Iterator[None]:
    """Keeps the line below a text that the block writes to a stream."""
    with self._lock:
      # A pipe may end on the same terminal, as with tee.
      self.remove()
      yield
      if text and stream.isatty():
        self._is_in_line = not text.endswith('\n')
        if self._text and not self._is_in_line:
          self._draw()

  def _draw(self) -> None:
    # A prompt or a reply is being written: the line would end up inside it.
    if self._is_in_line:
      return
    # The last column stays free, because some terminals wrap after it.
    columns = max(_columns() - 1, 1)
    text = cells.set_cell_size(self._text, columns).rstrip()
    drawn = cells.cell_len(text)
    self._write('\r' + text + ' ' * min(self._columns - drawn, columns - drawn))
    self._columns = max(drawn, min(self._columns, columns))

  def _write(self, text: str) -> None:
    stream = sys.stderr
    if isinstance(stream, SafeStream):
      stream.stream.write(text)
      stream.stream.flush()


def _columns() -> int:
  """Returns the width of the terminal at stderr."""
  with contextlib.suppress(OSError, ValueError):
    # 0: a terminal without a window, as that of a notebook.
    if columns := os.get_terminal_size(sys.stderr.fileno()).columns:
      return columns
  return 80


_status = _Status()


def _forget() -> None:
  """Gives a child process another status line than its parent's."""
  global _status
  _status = _Status()


if hasattr(os, 'register_at_fork'):  # Windows has no fork
  os.register_at_fork(after_in_child=_forget)


def _caller(depth: int) -> str:
  """Returns the module of a caller; '' for the interpreter at its end."""
  try:
    return sys._getframe(depth).f_globals.get('__name__', '')
  except ValueError:
    return ''


def _escape(match: re.Match[str]) -> str:
  char = match[0]
  # repr knows \r, \x1b and \u202e; JSON has no \x9b.
  return repr(char)[1:-1] if char < '\x7f' else f'\\u{ord(char):04x}'
