"""Text viewer of a dialogue: in color for terminals, plain for pipes.

In color, a ruler below each line repeats the meaning of the colors as letters:

  Agent: Its symbol is Go.↵        capitals and ━: scored
  T━━━━Ta┈┈┈a┈┈┈┈┈┈a┈┈a┈┈aa        small letters and ┈: context only

The plain form has one line per token.
"""

import io
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TextIO

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.style import Style
from rich.text import Text

from isft_jax import terminal
from isft_jax.report import tables
from isft_jax.report.escapes import visible, visible_line
from isft_jax.report.tables import Table
from isft_jax.report.viewer.shown import (
  MARKS,
  Dialogue,
  Turn,
  author_counts,
  exact,
  turns,
)
from isft_jax.types import Provenance, Verdict

# xterm's 256 colors. The contrast of black on each passes WCAG AA. Text without
# a fill keeps the colors of the terminal.
FILLS = {
  Provenance.PAD: 252,
  Provenance.TEMPLATE: 252,
  Provenance.CONTEXT: 182,
  Provenance.USER: 117,
  Provenance.TOOL: 115,
  Provenance.AGENT: 215,
  Provenance.DEMONSTRATION: 228,
  Provenance.HARNESS: 195,
}
_BLACK, _GRAY = 'color(16)', 'color(241)'
_VERDICTS = {Verdict.WRONG: '  ✗ wrong', Verdict.RIGHT: '  ✓ right'}


def has_color(choice: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
  """Returns whether to color a stream.

  Args:
    choice: 'always', 'never', or 'auto', which means in a terminal unless
      NO_COLOR (no-color.org) is set or TERM is 'dumb'.
    stream: the output stream.
    environ: environment variables.
  """
  if choice != 'auto':
    return choice == 'always'
  dumb = environ.get('TERM') == 'dumb'
  return stream.isatty() and not environ.get('NO_COLOR') and not dumb


def show(
  shown: Dialogue,
  objective: str,
  color: str,
  environ: Mapping[str, str],
  stream: TextIO | None = None,
) -> None:
  """Prints a dialogue in color or as plain text.

  Args:
    shown: the dialogue.
    objective: the objective whose weights are shown.
    color, environ: see `has_color`.
    stream: the output stream, by default stdout.
  """
  stream = stream or sys.stdout
  if has_color(color, stream, environ):
    text = colored(shown, objective, shutil.get_terminal_size().columns)
  else:
    text = plain(shown, objective)
  encoding = stream.encoding or 'utf-8'
  # A character that the encoding lacks becomes an escape, not an error.
  text = text.encode(encoding, 'backslashreplace').decode(encoding)
  try:
    print(text, end='', file=terminal.raw(stream), flush=True)
  except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def colored(shown: Dialogue, objective: str, width: int = 80) -> str:
  """Returns the dialogue in ANSI colors, at most `width` columns wide."""
  stream = io.StringIO()
  console = Console(
    file=stream,
    width=width,
    color_system='256',
    force_terminal=True,
    _environ={},  # `has_color` has read NO_COLOR already
  )
  # Title and legend, then each turn with a heading.
  lines = [Text(_title(shown, objective)), Text(), *_legend(shown), Text()]
  for turn in turns(shown.example, len(shown.texts)):
    heading = Text(f'{turn.segment} {turn.author.name}', Style(bold=True))
    lines.append(Text.assemble(heading, _VERDICTS.get(turn.verdict, '')))
    lines += [*_ruled(shown, objective, turn, width), Text()]
  lines += [Text(shown.cut), Text()] if shown.cut else []
  for line in lines:
    console.print(line, soft_wrap=True)
  return f'{stream.getvalue()}{_counts(shown, objective)}\n'


def plain(shown: Dialogue, objective: str) -> str:
  """Returns a table with one line per token."""
  example = shown.example
  header = ('index', 'turn', 'author', 'verdict', 'weight', 'id', 'text')
  rows = [
    (
      str(i),
      str(example.segment_T[i]),
      _author(example.provenance_T[i]),
      _verdict(example.verdict_T[i]) or '-',
      exact(shown.weights[objective][i]),
      str(example.tokens_T[i]),
      _one_line(text),
    )
    for i, text in enumerate(shown.texts)
  ]
  # Numbers to the right, words to the left.
  tokens = tables.text(Table('', header, rows), '>><<>><')
  title, counts = _title(shown, objective), _counts(shown, objective)
  cut = f'{shown.cut}\n\n' if shown.cut else ''
  return f'{title}\n\n{tokens}\n\n{cut}{counts}\n'


def _title(shown: Dialogue, objective: str) -> str:
  window = f', window {shown.example.window}' if shown.example.window else ''
  # An id is from data: escape it, so that it cannot control the terminal.
  name, objective = visible_line(shown.example.id), visible_line(objective)
  return f'{name}{window}: {shown.tokens} tokens, objective {objective}'


def _legend(shown: Dialogue) -> Iterator[Text]:
  authors = [
    Text.assemble(
      _fill(count.author, f' {MARKS[count.author]} '), f' {count.author.name}'
    )
    for count in author_counts(shown)
  ]
  yield Text('  ').join(authors)
  yield Text.assemble(
    _fill(Provenance.PAD, 'filled'),
    ', capitals and ━: scored; ',
    _dim('dim'),
    ', small letters and ┈: in the input only, weight 0',
  )


def _counts(shown: Dialogue, objective: str) -> str:
  counts = author_counts(shown)
  rows = [
    (
      _author(count.author),
      str(count.tokens),
      str(count.scored[objective]),
      f'{count.weight[objective]:g}',
    )
    for count in counts
  ]
  total = (
    'total',
    str(sum(count.tokens for count in counts)),
    str(sum(count.scored[objective] for count in counts)),
    f'{sum(count.weight[objective] for count in counts):g}',
  )
  header = ('author', 'tokens', 'scored', 'weight')
  return tables.text(Table('', header, [*rows, total]))


def _ruled(
  shown: Dialogue, objective: str, turn: Turn, width: int
) -> Iterator[Text]:
  """Yields pairs of lines: the text of a turn, and the ruler below it."""
  text, ruler = Text(), Text()
  for i in range(turn.start, min(turn.stop, len(shown.texts))):
    author = Provenance(int(shown.example.provenance_T[i]))
    scored = shown.weights[objective][i] > 0
    chars = _one_line(shown.texts[i]) or '∅'
    # Start a new pair if the token does not fit.
    if text and text.cell_len + cell_len(chars) > width:
      yield from (text, ruler)
      text, ruler = Text(), Text()
    # A token that is longer than a line continues on the next ones.
    for n, piece in enumerate(chop_cells(chars, width)):
      if n:
        yield from (text, ruler)
        text, ruler = Text(), Text()
      text.append_text(_fill(author, piece) if scored else _dim(piece))
      rule = ('━' if scored else '┈') * cell_len(piece)
      # The author's letter below the first column of the token.
      if n == 0:
        mark = MARKS[author].upper() if scored else MARKS[author]
        ruler.append_text(_fill(author, mark))
        rule = rule[1:]
      ruler.append_text(_dim(rule))
    # The text breaks its lines where the dialogue does.
    if shown.texts[i].endswith('\n') and i + 1 < turn.stop:
      yield from (text, ruler)
      text, ruler = Text(), Text()
  if text:
    yield from (text, ruler)


def _one_line(text: str) -> str:
  return visible(text).replace('\n', '').replace(' ', '·')


def _fill(author: Provenance, text: str) -> Text:
  filled = Text(text, Style(color=_BLACK, bgcolor=f'color({FILLS[author]})'))
  if '·' in text:  # a space is visible, but less so than a letter
    filled.highlight_regex('·', Style(color=_GRAY))
  return filled


def _dim(text: str) -> Text:
  return Text(text, Style(dim=True))


def _author(code: int) -> str:
  author = Provenance(int(code))
  return f'{MARKS[author]} {author.name}'


def _verdict(code: int) -> str:
  return '' if code == Verdict.UNKNOWN else Verdict(int(code)).name.lower()
