"""Ends a run in order when SIGTERM, SIGHUP or SIGINT (Ctrl-C) arrives.

            before the first step     afterwards     again
  SIGTERM   SystemExit(75)            noted          noted
  SIGHUP    SystemExit(75)            noted          noted
  SIGINT    KeyboardInterrupt         noted          KeyboardInterrupt

The training loop saves a checkpoint after the step in which a signal was noted.
Before the first step there is nothing to save. A signal that was ignored when
the process started, as SIGHUP under nohup, stays ignored.

Python calls a handler only between two instructions of the main thread, and a
compilation is one instruction. `Watch` ends such a process from a thread.
"""

import os
import signal
import sys
import threading
import time
import types
from collections.abc import Sequence
from typing import Any, Self

from isft_jax import terminal

# Exit status of a stopped run, 75: "temporary failure; the user is invited to
# retry" (sysexits.h). The same command resumes the run.
EXIT_CODE = os.EX_TEMPFAIL
_INTERRUPTED = 128 + signal.SIGINT  # as a shell reports it
_ALL = signal.SIGTERM, signal.SIGHUP, signal.SIGINT
_PATIENCE = 2.0  # seconds in which the main thread may end by itself
# A launcher may pass on the SIGINT that the terminal sends to all processes.
# No person is that fast.
_SAME = 0.1  # seconds within which two SIGINT are one
_EARLY = (
  'asked to stop before a step was done; run the same command again to resume'
)


class StoppedEarly(SystemExit):
  """SIGTERM or SIGHUP came when there was nothing to save."""

  def __init__(self) -> None:
    super().__init__(EXIT_CODE)


class Signals:
  """Context that handles signals; in other threads than the main one, none.

  Attributes:
    noted: the first signal after `begin`, or None.
    is_noting: whether there is something to save.
  """

  def __init__(self, signals: Sequence[int] = _ALL) -> None:
    """Makes a context for some signals."""
    self.noted: int | None = None
    self.is_noting = False
    self._signals = signals
    self._interrupts = _Interrupts()
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> Self:
    _active.append(self)
    # Python lets only the main thread set a handler.
    if threading.current_thread() is threading.main_thread():
      for number in self._signals:
        previous = signal.getsignal(number)
        if previous != signal.SIG_IGN or number == signal.SIGTERM:
          self._previous[number] = previous
          signal.signal(number, self._handle)
    return self

  def __exit__(self, *error: object) -> None:
    _active.remove(self)
    for number, previous in self._previous.items():
      # None is a handler that was not set from Python.
      signal.signal(number, previous or signal.SIG_DFL)

  def begin(self) -> None:
    """Notes signals from now on."""
    self.is_noting = True

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    is_again = number == signal.SIGINT and self._interrupts.add()
    if self.is_noting and not is_again:
      self.noted = self.noted or number
    elif number == signal.SIGINT:
      raise KeyboardInterrupt
    else:
      raise StoppedEarly


class _Interrupts:
  """Tells a second Ctrl-C from the first."""

  def __init__(self) -> None:
    self._first = 0.0

  def add(self) -> bool:
    """Counts one more, and returns whether it is a second one."""
    now = time.monotonic()
    self._first = self._first or now
    return now - self._first > _SAME


_active: list[Signals] = []  # the last one has its handlers set


class Watch:
  """Context of a program that handles signals from its start to its end.

  If the main thread does not end within two seconds of a signal that ends the
  program, because it compiles or waits for a disk, a thread ends the process.
  Nothing is lost, because files are written whole or not at all.
  """

  def __enter__(self) -> Self:
    self._signals = Signals().__enter__()
    # The C code of Python writes the number of each signal into this pipe, also
    # while the main thread does not run Python.
    self._reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._previous = signal.set_wakeup_fd(
      self._writer, warn_on_full_buffer=False
    )
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=self._watch, daemon=True).start()
    return self

  def __exit__(
    self, kind: object, error: BaseException | None, traceback: object
  ) -> None:
    signal.set_wakeup_fd(self._previous)
    self._signals.__exit__()
    os.close(self._writer)  # ends the thread
    if isinstance(error, StoppedEarly):
      print(_EARLY, flush=True)
    if isinstance(error, KeyboardInterrupt):
      print('\ninterrupted', file=sys.stderr)
      sys.exit(_INTERRUPTED)

  def _watch(self) -> None:
    interrupts = _Interrupts()
    while numbers := os.read(self._reader, 1):
      number = numbers[0]
      if number not in _ALL:
        continue
      is_again = number == signal.SIGINT and interrupts.add()
      if _ends_program(is_again):
        time.sleep(_PATIENCE)
        # The first step may have ended meanwhile: then the signal is noted.
        if _ends_program(is_again):
          _end(number)
    os.close(self._reader)


def _ends_program(is_again: bool) -> bool:
  """Returns whether a signal is not just noted.

  After the end of `Watch`, the program is about to end by itself.
  """
  return bool(_active) and (is_again or not _active[-1].is_noting)


def _end(number: int) -> None:
  """Ends the process, whatever its main thread does."""
  if number == signal.SIGINT:
    line = b'\ninterrupted; run the same command again to resume\n'
    output, code = 2, _INTERRUPTED
  else:
    line, output, code = f'{_EARLY}\n'.encode(), 1, EXIT_CODE
  try:
    os.write(2, terminal.status_eraser())
    os.write(output, line)
  finally:
    os._exit(code)


def _forget() -> None:
  # A child process shares the pipe, and handles signals in its own way.
  if threading.current_thread() is not threading.main_thread():
    return
  signal.set_wakeup_fd(-1)
  for number in _ALL:
    if isinstance(getattr(signal.getsignal(number), '__self__', None), Signals):
      is_interrupt = number == signal.SIGINT
      default = signal.default_int_handler if is_interrupt else signal.SIG_DFL
      signal.signal(number, default)
