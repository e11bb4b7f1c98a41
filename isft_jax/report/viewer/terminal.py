"""A dialogue in a terminal, or as plain text where there is none.

In color, a ruler below each line says without color what the color says:

  Agent: Its symbol is Go.↵        capitals and ━: scored
  T━━━━Ta┈┈┈a┈┈┈┈┈┈a┈┈a┈┈aa        small letters and ┈: context only

Plain, a line a token, for pipes.
"""

import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping

from isft_jax.report.viewer.shown import (
  MARKS,
  Dialogue,
  author_counts,
  exact,
  turns,
  visible,
)
from isft_jax.types import Provenance, Verdict

# xterm's 256 colors; black on any of them passes WCAG AA. Text that is not
# filled keeps the terminal's own colors, which its owner can read.
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
_BLACK, _GRAY = 16, 241
_BOLD, _DIM, _RESET = '\x1b[1m', '\x1b[2m', '\x1b[0m'


def has_color(choice: str, stream, environ: Mapping[str, str]) -> bool:
  """Returns whether to color a stream.

  choice: 'always', 'never', or 'auto': in a terminal, unless the environment
    sets NO_COLOR (no-color.org) or says that the terminal is dumb.
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
  stream=None,
) -> None:
  """Prints the dialogue as suits where it goes, by default stdout.

  color, environ: see `has_color`.
  """
  stream = stream or sys.stdout
  if has_color(color, stream, environ):
    text = colored(shown, objective, shutil.get_terminal_size().columns)
  else:
    text = plain(shown, objective)
  encoding = stream.encoding or 'utf-8'
  # Where a sign does not exist, its number is better than an error.
  text = text.encode(encoding, 'backslashreplace').decode(encoding)
  try:
    print(text, end='', file=stream, flush=True)
  except BrokenPipeError:  # `| head` has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def colored(shown: Dialogue, objective: str, width: int = 80) -> str:
  """Returns the dialogue in ANSI colors, in lines of at most width columns."""
  lines = [_title(shown, objective), '', _legend(shown), '']
  for turn in turns(shown.example):
    verdict = _verdict(turn.verdict)
    note = {'wrong': '  ✗ wrong', 'right': '  ✓ right'}.get(verdict, '')
    lines.append(f'{_BOLD}{turn.segment} {turn.author.name}{_RESET}{note}')
    lines += _ruled(shown, objective, turn, width)
    lines.append('')
  return '\n'.join([*lines, *_counts(shown, objective)]) + '\n'


def plain(shown: Dialogue, objective: str) -> str:
  """Returns a line a token: index, turn, author, verdict, weight, id, text."""
  example = shown.example
  rows = [('index', 'turn', 'author', 'verdict', 'weight', 'id', 'text')]
  for i, text in enumerate(shown.texts):
    rows.append(
      (
        str(i),
        str(example.segment_T[i]),
        _author(example.provenance_T[i]),
        _verdict(example.verdict_T[i]) or '-',
        exact(shown.weights[objective][i]),
        str(example.tokens_T[i]),
        _one_line(text),
      )
    )
  lines = [_title(shown, objective), '', *_align(rows, '>><<>><'), '']
  return '\n'.join([*lines, *_counts(shown, objective)]) + '\n'


def _title(shown, objective):
  window = f', window {shown.example.window}' if shown.example.window else ''
  # An id comes from data: it must not color the terminal either.
  name = visible(shown.example.id).replace('\n', ' ')
  return f'{name}{window}: {len(shown.texts)} tokens, objective {objective}'


def _legend(shown):
  authors = '  '.join(
    f'{_fill(count.author, f" {MARKS[count.author]} ")} {count.author.name}'
    for count in author_counts(shown)
  )
  return (
    f'{authors}\n{_fill(Provenance.PAD, "filled")}, capitals and ━: scored; '
    f'{_dim("dim")}, small letters and ┈: in the input only, weight 0'
  )


def _counts(shown, objective):
  rows = [('author', 'tokens', 'scored', 'weight')]
  counts = author_counts(shown)
  for count in counts:
    weight = count.weight[objective]
    rows.append(
      (
        _author(count.author),
        str(count.tokens),
        str(count.scored[objective]),
        f'{weight:g}',
      )
    )
  rows.append(
    (
      'total',
      str(sum(count.tokens for count in counts)),
      str(sum(count.scored[objective] for count in counts)),
      f'{sum(count.weight[objective] for count in counts):g}',
    )
  )
  return _align(rows, '<>>>')


def _ruled(shown, objective, turn, width):
  """Yields pairs of lines: text, and below it who wrote it."""
  text = ruler = ''
  used = 0
  for i in range(turn.start, turn.stop):
    author = Provenance(int(shown.example.provenance_T[i]))
    scored = shown.weights[objective][i] > 0
    chars = _one_line(shown.texts[i]) or '∅'
    if used and used + _columns(chars) > width:
      yield from (text, ruler)
      text, ruler, used = '', '', 0
    # A token that is longer than a line goes over as many as it needs.
    for n, part in enumerate(_cut(chars, width)):
      if n:
        yield from (text, ruler)
        text, ruler, used = '', '', 0
      columns = _columns(part)
      text += _fill(author, part) if scored else _dim(part)
      rule = ('━' if scored else '┈') * columns
      if n == 0:
        mark = MARKS[author].upper() if scored else MARKS[author]
        ruler += _fill(author, mark)
        rule = rule[1:]
      ruler += _dim(rule)
      used += columns
    if shown.texts[i].endswith('\n') and i + 1 < turn.stop:
      yield from (text, ruler)
      text, ruler, used = '', '', 0
  if used:
    yield from (text, ruler)


def _cut(chars, width):
  parts = ['']
  for char in chars:
    if parts[-1] and _columns(parts[-1] + char) > width:
      parts.append('')
    parts[-1] += char
  return parts


def _columns(text):
  return sum(
    0
    if unicodedata.combining(char)
    else 1 + (unicodedata.east_asian_width(char) in 'WF')
    for char in text
  )


def _one_line(text):
  return visible(text).replace('\n', '').replace(' ', '·')


def _fill(author, text):
  # A space stays visible, and quieter than a letter.
  text = text.replace('·', f'\x1b[38;5;{_GRAY}m·\x1b[38;5;{_BLACK}m')
  return f'\x1b[38;5;{_BLACK};48;5;{FILLS[author]}m{text}{_RESET}'


def _dim(text):
  return f'{_DIM}{text}{_RESET}' if text else ''


def _author(code):
  author = Provenance(int(code))
  return f'{MARKS[author]} {author.name}'


def _verdict(code):
  return '' if code == Verdict.UNKNOWN else Verdict(int(code)).name.lower()


def _align(rows, sides):
  widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = []
    for cell, side, width in zip(row, sides, widths, strict=True):
      space = ' ' * (width - _columns(cell))
      cells.append(space + cell if side == '>' else cell + space)
    lines.append('  '.join(cells).rstrip())
  return lines
