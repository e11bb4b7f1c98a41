"""Tables and progress of isft-prepare for a terminal."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from isft_jax.report import shapes
from isft_jax.report.escapes import visible_line
from isft_jax.report.tables import Table

_MOST_LINES = 40  # of a table of keys
_COUNTS = {...: int}
# Shape of the report. A finished data set has it as a file.
_REPORT = {
  'rows': dict.fromkeys(('read', 'written', 'rejected'), int),
  **dict.fromkeys(('rejected', 'tokens_by_author', 'lost'), _COUNTS),
  'splits': {...: {'records': int, 'rows': int}},
  **dict.fromkeys(('tokens', 'straddling_tokens'), int),
  'scored_share': {...: float},
  'length_quantiles': _COUNTS,
  'seconds': float,
  **dict.fromkeys(('unexpected_errors?', 'marks_not_understood?'), _COUNTS),
  **dict.fromkeys(('keys_not_used?', 'turns_left_out?'), _COUNTS),
}


def table(report: Mapping) -> Table:
  """Returns the numbers of rows read, written and set aside, and of tokens.

  Args:
    report: the report of `data.preparation.prepare.prepare`.

  Raises:
    ValueError: a value of the report has another type, as in a file that was
      edited.
  """
  shapes.check(report, _REPORT, 'the report of the data set')
  rows, tokens = report['rows'], report['tokens']
  # Rows: read, written by split, set aside by reason.
  lines: list[tuple[str] | tuple[str, int] | tuple[str, int, float]]
  lines = [('rows read', rows['read']), ('  written', rows['written'])]
  lines += [
    (f'    {split}, {counts["records"]:,} records', counts['rows'])
    for split, counts in report['splits'].items()
  ]
  lines += [('  set aside', rows['rejected'])]
  lines += [(f'    {reason}', n) for reason, n in report['rejected'].items()]
  # Tokens: by author, and those whose characters two authors wrote.
  lines += [('tokens', tokens)]
  lines += [
    (f'  {author}', n, n / max(tokens, 1))
    for author, n in report['tokens_by_author'].items()
  ]
  straddling = report['straddling_tokens']
  lines += [('  of two authors', straddling, straddling / max(tokens, 1))]
  # The share of tokens that each objective scores.
  lines += [('scored under',)]
  lines += [
    (f'  {objective}', round(share * tokens), share)
    for objective, share in report['scored_share'].items()
  ]
  # Parts of messages that the template does not render, then lengths of rows.
  lines += [('left out by the template',)]
  lines += [
    (f'  {field.replace("_", " ")}', n) for field, n in report['lost'].items()
  ]
  lines += [('tokens per row',)]
  lines += [
    (f'  {_quantile(float(q))}', length)
    for q, length in report['length_quantiles'].items()
  ]
  lines += [('tokens per second', round(tokens / max(report['seconds'], 0.01)))]
  # No title and no header: each line names its count.
  return Table('', ('', '', ''), [_row(*line) for line in lines])


def unread_tables(report: Mapping) -> list[Table]:
  """Returns tables of bugs, of marks and keys not used, and of turns left out.

  Args:
    report: as in `table`. Reports of older versions have no such counts.
  """
  tables = []
  for name, title, kind, unit in (
    ('unexpected_errors', 'bugs: please report these rows', 'error', 'rows'),
    (
      'marks_not_understood',
      'marks that were not understood and have no effect',
      'mark',
      'rows',
    ),
    ('keys_not_used', 'keys that were not used', 'key', 'rows'),
    ('turns_left_out', 'turns left out', 'kind', 'turns'),
  ):
    counts = report.get(name, {})
    lines = [(key, f'{n:,}') for key, n in counts.items()]
    # Rows may have hundreds of different keys.
    if len(lines) > _MOST_LINES:
      rest = len(lines) - _MOST_LINES
      lines[_MOST_LINES:] = [(f'and {rest:,} more, in the report', '')]
    if lines:
      tables.append(Table(title, (kind, unit), lines))
  return tables


def unread_lines(unused: Iterable[str], left_out: Mapping[str, int]) -> str:
  """Returns lines about one row: its keys and turns that were not used.

  Args:
    unused: paths of keys that nothing used.
    left_out: turns left out on purpose, by kind.
  """
  kinds = [f'{kind} ({number})' for kind, number in left_out.items()]
  lines = {
    'keys that were not used': ', '.join(sorted(unused)),
    'turns left out': ', '.join(kinds),
  }
  return '\n'.join(
    visible_line(f'{name}: {text}') for name, text in lines.items() if text
  )


def progress(rejected: int, tokens: int, seconds: float) -> str:
  """Returns text about the progress of a preparation."""
  return (
    f'{rejected:,} set aside, {tokens:,} tokens, '
    f'{tokens / max(seconds, 1e-9):,.0f} tokens/s'
  )


def unread(files: Sequence[str], most: int = 5) -> str:
  """Returns a line about files that are left out; '' if there are none.

  Args:
    files: paths of files with suffixes that are not read.
    most: maximum number of names.
  """
  if not files:
    return ''
  suffixes = Counter(os.path.splitext(file)[1] or 'no suffix' for file in files)
  numbers = ', '.join(f'{n:,} {suffix}' for suffix, n in suffixes.most_common())
  # Paths in buckets are not relative to the working directory.
  names = [f if '://' in f else os.path.relpath(f) for f in files[:most]]
  names += ['...'] if len(files) > most else []
  return f'files not read, because of their suffix ({numbers}): ' + ', '.join(
    names
  )


def _quantile(q: float) -> str:
  names = {0: 'shortest', 0.5: 'median', 1: 'longest'}
  return names.get(q, f'{q:.0%} are shorter')


def _row(
  name: str, number: int | None = None, share: float | None = None
) -> tuple[str, str, str]:
  return (
    name,
    '' if number is None else f'{number:,}',
    '' if share is None else f'{share:.1%}',
  )
