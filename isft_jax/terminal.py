r"""Keeps escape sequences of data out of terminals.

Replies, file names, keys of rows and errors of templates may hold characters
that move the cursor, color or clear a terminal, or reverse its direction:

    'a\x1b[2Jb'   is printed as   a\x1b[2Jb
"""

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

# Controls except tab and line feed, separators of lines and paragraphs, marks
# of direction, and halves of surrogate pairs, which no encoding can express.
_UNSAFE = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069'
  '\ufeff\ufff9-\ufffb\ud800-\udfff]'
)
# What the progress bars of tqdm move the cursor with.
_MOVES = re.compile('(\r|\x1b\\[A)')


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

  Args:
    stream: any stream. One that is not guarded is returned unchanged.
  """
  return stream.stream if isinstance(stream, SafeStream) else stream


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
      self.stream.write(''.join(pieces))
    else:
      self.stream.write(safe(text))
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    """Writes lines, which have their line breaks."""
    for line in lines:
      self.write(line)

  # Everything else, such as isatty, fileno and encoding.
  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)


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
