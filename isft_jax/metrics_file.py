"""Reads metrics.jsonl and files like it, whose lines may be damaged.

A crash may cut the last line, or leave NUL bytes for what had not reached the
disk. A later row may then follow on the same line. Whole rows are kept.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from etils import epath

from isft_jax import files

# Bytes of a line in memory. Rows have about 500, and more for many components.
_LONGEST = 1 << 24
# Between rows that share a line. NUL bytes stand in place of lost ones, so that
# what is before and after them must not be joined.
_BETWEEN = re.compile(rb'\0+|(?={"step": )')
_decode = json.JSONDecoder().raw_decode
_NUMBERS = 'loss', 'targets', 'seconds'  # of every row, also of old versions


class Line(NamedTuple):
  """One line of the file.

  Attributes:
    raw: its bytes.
    rows: its rows; exactly one if the line is undamaged.
    is_damaged: whether the line is anything else than one row.
  """

  raw: bytes
  rows: list[dict[str, Any]]
  is_damaged: bool


def read(path: epath.PathLike) -> list[dict[str, Any]]:
  """Returns the whole rows of a file, in memory; [] if it does not exist."""
  path = epath.Path(path)
  if not path.exists():
    return []
  return [row for line in lines(path) for row in line.rows]


def has_numbers(row: dict[str, Any]) -> bool:
  """Returns whether an object has the numbers of every row of metrics."""
  return all(type(row.get(name)) in (float, int) for name in _NUMBERS)


def lines(
  path: epath.Path,
  is_row: Callable[[dict[str, Any]], bool] = has_numbers,
  start: int = 0,
) -> Iterator[Line]:
  """Yields the lines of a file.

  Args:
    path: the file, on a disk or in a bucket.
    is_row: whether an object with an integer `step`, its first key, is a row.
    start: bytes to skip.
  """
  with files.open_bytes(path, 'rb') as file:
    file.seek(start)
    while raw := file.readline(_LONGEST):
      row = _row(raw[:-1], is_row)
      if row is not None and raw.endswith(b'\n'):
        yield Line(raw, [row], False)
      else:
        pieces = _BETWEEN.split(raw)
        parsed = [_row(piece.strip(), is_row) for piece in pieces]
        rows = [row for row in parsed if row is not None]
        yield Line(raw, rows, True)


def _row(
  text: bytes, is_row: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
  # Half the time of json.loads: a run may have a million rows.
  try:
    line = text.decode()
    row, end = _decode(line)
  except (ValueError, RecursionError):
    return None
  if (
    end < len(line) or type(row) is not dict or type(row.get('step')) is not int
  ):
    return None
  return row if is_row(row) else None
