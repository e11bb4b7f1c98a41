"""Tables of isft-diff, for a terminal and for a page."""

import collections
from collections.abc import Mapping, Sequence

from isft_jax.report.diff import compared
from isft_jax.report.escapes import visible_line
from isft_jax.report.tables import Table
from isft_jax.types import Provenance

# Characters of a text in the table of differences.
_LONGEST = 48
# Name of the author of tokens that our rendering does not have.
NOT_OURS = 'not in ours'


def by_author(rows: Sequence[compared.Row], theirs: str) -> Table[str]:
  """Returns the numbers of scored tokens by author and in total.

  Args:
    rows: the compared rows.
    theirs: short name of the other trainer.
  """
  header = _header('author', theirs)
  lines = []
  for author in compared.authors(rows):
    counts = compared.add([compared.count(row, author) for row in rows])
    lines.append((author_name(author), *_cells(counts)))
  total = compared.add([compared.count(row) for row in rows])
  return Table('', header, [*lines, ('total', *_cells(total))])


def by_row(rows: Sequence[compared.Row], theirs: str) -> Table[str]:
  """Returns the numbers of scored tokens of each row."""
  lines = [(visible_line(row.id), *_cells(compared.count(row))) for row in rows]
  return Table('', _header('row', theirs), lines)


def not_compared(reasons: Mapping[str, int]) -> Table[str]:
  """Returns the reasons for rows that are not compared, with their numbers."""
  most = collections.Counter(reasons).most_common()
  lines = [(reason, f'{number:,}') for reason, number in most]
  return Table('', ('rows not compared', 'rows'), lines)


def differences(
  rows: Sequence[compared.Row], theirs: str, most: int = 10
) -> Table[str]:
  """Returns the most frequent differences.

  Args:
    rows: the compared rows.
    theirs: short name of the other trainer.
    most: maximum number of lines.
  """
  found = compared.differences(rows).most_common(most)
  lines = [
    (
      _short(difference.text),
      author_name(difference.author),
      'ours' if difference.side == 'ours' else theirs,
      f'{number:,}',
    )
    for difference, number in found
  ]
  return Table('', ('text', 'author', 'scored only by', 'times'), lines)


def author_name(author: Provenance) -> str:
  """Returns the name of an author, where PAD is `NOT_OURS`."""
  return NOT_OURS if author == Provenance.PAD else author.name


def _header(first: str, theirs: str) -> tuple[str, ...]:
  return (
    *(first, 'tokens', 'ours', theirs, 'both'),
    *('only ours', f'only {theirs}'),
  )


def _cells(counts: compared.Count) -> list[str]:
  return [f'{number:,}' for number in counts]


def _short(text: str) -> str:
  """Returns the beginning of a text on one line."""
  line = visible_line(text.replace(' ', '·'))
  return line if len(line) <= _LONGEST else f'{line[:_LONGEST]}...'
