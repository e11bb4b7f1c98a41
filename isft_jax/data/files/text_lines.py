"""Reads lines of text with a limit, so that none can fill the memory.

A small compressed file can hold a line of many gigabytes.
"""

from collections.abc import Iterator
from typing import TextIO

# Characters of a line, or of one JSON value. More is no trajectory: a model's
# context of a million tokens has about five million characters.
LONGEST = 1 << 27
TOO_LONG = f'Longer than {LONGEST:,} characters'
_CHUNK = 1 << 16  # characters per read of a line that is skipped


def read(stream: TextIO) -> Iterator[str | None]:
  """Yields the lines of a stream; None for a line above `LONGEST`."""
  while line := stream.readline(LONGEST):
    if len(line) < LONGEST or line.endswith('\n'):
      yield line
      continue
    while line and not line.endswith('\n'):
      line = stream.readline(_CHUNK)
    yield None
