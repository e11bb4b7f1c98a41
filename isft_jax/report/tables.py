"""Tables as text for terminals and pipes, and as Markdown."""

import re
import sys
from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, TextIO, TypeVar

import rich.table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from isft_jax import terminal
from isft_jax.report.escapes import visible_line

# Minimum width of the first column in a terminal, in characters.
_FIRST_WIDTH = 24


class Cell(NamedTuple):
  """A cell of a page's table with more than text."""

  text: str
  css: str = ''  # class of the cell
  style: str = ''  # CSS of the cell
  small: str = ''  # a line below the text
  verdict: str = ''  # shown above the text
  faults: Sequence[str] = ()  # shown above the text, after the verdict


Content = TypeVar('Content', str, str | Cell)


class Table(NamedTuple, Generic[Content]):
  """A title, a header and rows of equal length: text, or `Cell` on pages."""

  title: str
  header: Sequence[Content]
  rows: Sequence[Sequence[Content]]


def text(table: Table[str], justify: str = '') -> str:
  """Returns a table as lines of any width, without colour.

  Args:
    table: a table. An empty title or header has no line.
    justify: '<' (left) or '>' (right) for each column; by default the first
      column is left-justified and the others are right-justified.
  """
  header = [table.header] if any(table.header) else []
  rows = [
    [visible_line(cell) for cell in row] for row in header + [*table.rows]
  ]
  # Widths in terminal cells: some characters take two.
  widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
  justify = justify or '<' + '>' * (len(widths) - 1)
  lines = [visible_line(table.title)] if table.title else []
  # Pad each cell to the width of its column.
  for row in rows:
    cells = []
    for cell, side, width in zip(row, justify, widths, strict=True):
      space = ' ' * (width - cell_len(cell))
      cells.append(space + cell if side == '>' else cell + space)
    lines.append('  '.join(cells).rstrip())
  return '\n'.join(lines)


def show(*tables: Table[str], stream: TextIO | None = None) -> None:
  """Prints tables with empty lines between them.

  In a terminal, header and title are bold, and the first column wraps if lines
  would be too long. In a file or pipe, each row is a line without colour.

  Args:
    *tables: the tables.
    stream: output stream, by default stdout.
  """
  stream = stream or sys.stdout
  for number, table in enumerate(tables):
    if number:
      print(file=stream)
    if stream.isatty():
      # All its text is made visible; the colors are those of rich.
      _print(Console(file=terminal.raw(stream)), table)
    else:
      print(text(table), file=stream)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table whose first column is left-justified."""
  rule = (':--', *('--:' for _ in header[1:]))
  escaped = [[_escape(cell) for cell in row] for row in (header, *rows)]
  lines = [escaped[0], rule, *escaped[1:]]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _print(console: Console, table: Table[str]) -> None:
  """Prints a table whose first column wraps, so that other columns fit."""
  # The other columns get their full width, the first one the rest.
  header, *rows = [
    [visible_line(cell) for cell in row] for row in (table.header, *table.rows)
  ]
  first, *others = [
    max(map(cell_len, column)) for column in zip(header, *rows, strict=True)
  ]
  room = console.width - sum(width + 2 for width in others)
  first = min(first, max(room, _FIRST_WIDTH))
  # No lines around cells. All columns but the first are right-justified.
  grid = rich.table.Table(
    box=None,
    pad_edge=False,
    padding=(0, 2, 0, 0),
    header_style='bold',
    show_header=any(header),
  )
  for name, width in zip(header, (first, *others), strict=True):
    side: Literal['left', 'right'] = 'right' if grid.columns else 'left'
    grid.add_column(Text(name), justify=side, width=width)
  for row in rows:
    grid.add_row(*map(Text, row))  # rich does not parse markup in a Text
  if table.title:
    console.print(Text(visible_line(table.title), 'bold'))
  # Let a narrow terminal break lines itself: rich would truncate numbers.
  console.width = max(console.width, first + sum(width + 2 for width in others))
  console.print(grid)


def _escape(cell: str) -> str:
  """Returns text as one cell of Markdown that renders as the same text.

  Lines are joined by ↵. Syntax of Markdown, HTML and GitHub's mathematics is
  escaped, and so are characters that control a terminal.
  """
  line = ' ↵ '.join(part.strip() for part in cell.splitlines())
  line = terminal.safe(line)
  # An underscore inside a word is not syntax: agent_only stays legible.
  syntax = r'([\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w))'
  return re.sub(syntax, r'\\\1', line).strip()
