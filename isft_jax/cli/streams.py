"""Keeps commands from failing when nobody reads their output any more.

isft-train ... | head -1      the training continues
isft-inspect ... | head -1    the command ends, without a traceback
"""

import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import Any

_GONE = errno.EPIPE, errno.EIO  # the reader of a pipe, a terminal
_ENDED = 128 + signal.SIGPIPE  # as a shell reports a command without a reader


@contextlib.contextmanager
def guarded(is_lasting: bool = False) -> Iterator[None]:
  """Guards stdout and stderr while a command runs.

  Args:
    is_lasting: whether the command has other results than its output, and
      continues if stdout cannot be written. Otherwise it ends with 141, as
      programs in C do. An error of stderr never ends a command.
  """
  _open_standard_files()
  # A stand-in, as in a notebook or a test, has other errors.
  if sys.stdout is sys.__stdout__:
    sys.stdout = _guard(sys.stdout, is_lasting)
  if sys.stderr is sys.__stderr__:
    sys.stderr = _guard(sys.stderr, True)
  try:
    yield
  finally:
    # The interpreter would flush it too late to end without a traceback.
    sys.stdout.flush()


def _open_standard_files() -> None:
  """Opens closed ones on /dev/null.

  Otherwise the next file that the command opens, such as its metrics, would get
  the number 1 or 2, and with it what libraries print.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if getattr(sys, name) is None:
      mode = 'w' if number else 'r'
      stream = open(number, mode, closefd=False)  # noqa: SIM115 (until the end)
      setattr(sys, name, stream)
      setattr(sys, f'__{name}__', stream)


def _guard(stream: Any, is_lasting: bool) -> io.TextIOWrapper:
  """Returns a stream to the same file, without errors of a missing reader."""
  stream.flush()
  return io.TextIOWrapper(
    io.BufferedWriter(_Guarded(stream.fileno(), is_lasting)),
    encoding=stream.encoding,
    errors=stream.errors,
    line_buffering=stream.line_buffering,
    write_through=stream.write_through,
  )


class _Guarded(io.FileIO):
  """A file whose errors end the program in order, or are dropped."""

  def __init__(self, number: int, is_lasting: bool) -> None:
    super().__init__(number, 'w', closefd=False)
    self._is_lasting = is_lasting
    self._is_gone = False

  def write(self, data: Any) -> Any:
    if self._is_gone:
      return len(data)
    try:
      # None: a pipe that never waits is full, as of some programs' children.
      while (written := super().write(data)) is None:
        select.select((), (self,), ())
      return written
    except OSError as error:
      # Once only, because the interpreter tries again at its end.
      self._is_gone = True
      if not self._is_lasting and error.errno in _GONE:
        raise SystemExit(_ENDED) from None
      if not self._is_lasting:
        raise
    return len(data)
