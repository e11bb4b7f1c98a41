"""Reads rows of CSV and TSV files, whose first line names the columns.

A cell with a JSON array or object is parsed. Other cells are text. Empty cells
are left out, because these files cannot tell empty text from no value.
"""

import csv
import itertools
from collections.abc import Iterator
from typing import TextIO

from isft_jax.data.files import strict_json, text_lines

SUFFIXES = ('.csv', '.tsv')
_GONE = 'the rest of the file is not read'


def rows(stream: TextIO, tabs: bool) -> Iterator[tuple[int, object, str]]:
  """Reads a file.

  Args:
    stream: its text, with the line ends of the file.
    tabs: whether tabs separate the cells. Otherwise the first line decides
      between commas and semicolons.

  Yields:
    (number, value, error) of each row below the first line, counted from 1. A
    syntax error ends the iteration, because the limits of the next rows are
    unknown.
  """
  # A limit of the whole process: 131,072 characters, unless it is raised.
  csv.field_size_limit(max(text_lines.LONGEST, csv.field_size_limit()))
  lines = _lines(stream)
  number = 0
  try:
    # Spreadsheets of some languages separate cells by semicolons.
    first = next(filter(str.strip, lines), '')
    delimiter = '\t' if tabs else max(',;', key=first.count)
    lines = itertools.chain([first], lines)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names = next(reader, [])
    if flaw := strict_json.not_utf8(first):
      raise csv.Error(flaw)
    if repeated := [name for name in names if names.count(name) > 1]:
      raise csv.Error(f'two columns are called {repeated[0]!r}')
    for cells in filter(None, reader):  # a blank line has no cells
      number += 1
      yield (number, *_row(names, cells))
  except csv.Error as error:
    yield number + 1, None, f'{error}; {_GONE}'


def _lines(stream: TextIO) -> Iterator[str]:
  for line in text_lines.read(stream):
    if line is None:
      raise csv.Error(text_lines.TOO_LONG)
    yield line


def _row(names: list[str], cells: list[str]) -> tuple[dict | None, str]:
  """Returns a row and its error."""
  if len(cells) != len(names):
    return (
      None,
      f'{len(cells)} cells, expected {len(names)} as in the first line',
    )
  row = {}
  for name, cell in zip(names, cells, strict=True):
    if cell:
      row[name], error = _cell(cell)
      if error:
        return None, f'column {name!r}: {error}'
  return row, ''


def _cell(text: str) -> tuple[object, str]:
  """Returns the value of a cell and its error."""
  # Text may begin with a bracket, too. JSON with a flaw stays an error.
  if text.lstrip().startswith(('[', '{')):
    start = len(text) - len(text.lstrip())
    try:
      value, end, flaw = strict_json.scan(text, start, lenient=True)
    except ValueError:
      pass
    else:
      if not text[end:].strip():
        return value, flaw
  # Text needs no syntax, but must be UTF-8.
  return text, strict_json.not_utf8(text)
