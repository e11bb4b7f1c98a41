"""Tables and progress of isft-prepare for a terminal."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from isft_jax.report.tables import Table


def table(report: Mapping) -> Table:
  """Returns the numbers of rows read, written and set aside, and of tokens.

  Args:
    report: the report of `data.preparation.prepare.prepare`.
  """
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
    (f'  {author}', n, n / tokens)
    for author, n in report['tokens_by_author'].items()
  ]
  straddling = report['straddling_tokens']
  lines += [('  of two authors', straddling, straddling / tokens)]
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


def progress(read: int, rejected: int, tokens: int, seconds: float) -> str:
  """Returns a line with the progress of a preparation."""
  return (
    f'{read:,} rows read, {rejected:,} set aside, {tokens:,} tokens, '
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
