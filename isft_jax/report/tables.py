"""Tables as text: for terminals, and as Markdown."""

import io
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple, TextIO

import rich.console
import rich.table
from rich.text import Text

from isft_jax.report.escapes import visible_line

# Columns of a console whose lines never wrap.
_ENDLESS = 100_000


class Cell(NamedTuple):
  """A cell of a page's table that is more than text.

  css, style: class and CSS of the cell. small: a line below the text.
  verdict, faults: what is said about the text, above it.
  """

  text: str
  css: str = ''
  style: str = ''
  small: str = ''
  verdict: str = ''
  faults: Sequence[str] = ()


class Table(NamedTuple):
  """A title, a header, and rows as long as it; all text, or cells on pages."""

  title: str
  header: Sequence[str | Cell]
  rows: Sequence[Sequence[str | Cell]]


def text(table: Table, justify: str = '') -> str:
  """Returns a table as lines without colour, however wide it is.

  Args:
    table: without a title line if its title is empty.
    justify: '<' or '>' for each column, to the left or right; by default only
      the first to the left.
  """
  stream = io.StringIO()
  # Neither FORCE_COLOR nor COLUMNS has a say.
  console = rich.console.Console(file=stream, width=_ENDLESS, _environ={})
  _print(console, table, justify)
  return '\n'.join(line.rstrip() for line in stream.getvalue().splitlines())


def show(*tables: Table, stream: TextIO | None = None) -> None:
  """Prints tables, with empty lines between them, as suits where they go.

  In a terminal, header and title are bold, and cells wrap where the lines would
  be too long. Elsewhere a row is a line without colour.
  """
  stream = stream or sys.stdout
  for number, table in enumerate(tables):
    if number:
      print(file=stream)
    if stream.isatty():
      _print(rich.console.Console(file=stream), table, '')
    else:
      print(text(table), file=stream)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table, its first column to the left."""
  rule = (':--', *('--:' for _ in header[1:]))
  escaped = [[_escape(cell) for cell in row] for row in (header, *rows)]
  lines = [escaped[0], rule, *escaped[1:]]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _print(console, table, justify):
  grid = rich.table.Table(
    box=None,
    pad_edge=False,
    padding=(0, 2, 0, 0),
    header_style='bold',
    show_header=any(table.header),
  )
  justify = justify or '<' + '>' * (len(table.header) - 1)
  for name, side in zip(table.header, justify, strict=True):
    grid.add_column(_text(name), justify='left' if side == '<' else 'right')
  for row in table.rows:
    grid.add_row(*map(_text, row))
  if table.title:
    console.print(Text(visible_line(table.title), 'bold'))
  console.print(grid)


def _text(cell: str) -> Text:
  # As Text, no markup is read in it: it comes from data.
  return Text(visible_line(cell))


def _escape(cell: str) -> str:
  """Returns text as one cell of Markdown, shown exactly as it was written.

  Lines are joined by ↵; whatever Markdown, HTML or GitHub's mathematics would
  take for syntax is escaped.
  """
  line = ' ↵ '.join(part.strip() for part in cell.splitlines())
  # An underscore inside a word is no syntax: agent_only stays legible.
  syntax = r'([\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w))'
  return re.sub(syntax, r'\\\1', line).strip()
