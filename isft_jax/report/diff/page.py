"""HTML page of isft-diff: two masks of the same tokens, side by side."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from isft_jax.report import document
from isft_jax.report.diff import compared, tables
from isft_jax.report.escapes import visible
from isft_jax.report.viewer.shown import MARKS, MOST_TOKENS, exact
from isft_jax.types import Provenance


class Settings(NamedTuple):
  """The two sides of a comparison."""

  objective: str  # ours
  theirs: str  # short name of the other trainer
  trainer: str  # its name with its version


def page(
  shown: Sequence[compared.Row],
  rows: Sequence[compared.Row],
  reasons: Mapping[str, int],
  settings: Settings,
) -> bytes:
  """Returns a complete page in UTF-8.

  Args:
    shown: the rows whose tokens are on the page.
    rows: all compared rows, for the tables.
    reasons: reasons of rows that are not compared, with their numbers.
    settings: the two sides.
  """
  title = f'Scored by {settings.objective} and by {settings.theirs}'
  return document.page(
    'diff/page.html.j2',
    title,
    settings=settings,
    number=len(rows),
    by_author=tables.by_author(rows, settings.theirs),
    by_row=tables.by_row(rows, settings.theirs),
    differences=tables.differences(rows, settings.theirs),
    reasons=tables.not_compared(reasons),
    marks=MARKS,
    authors=compared.authors(shown),
    not_ours=tables.NOT_OURS,
    rows=[_row(row) for row in shown],
    pad=Provenance.PAD,
  )


def _row(row: compared.Row) -> dict:
  """Returns the values of one row for the template."""
  tokens = len(row.texts)
  cut = ''
  if tokens > MOST_TOKENS:
    cut = (
      f'The first {MOST_TOKENS:,} of {tokens:,} tokens are shown. The '
      'counts are of all.'
    )
  return {
    'id': row.id,
    'count': compared.count(row),
    'cut': cut,
    'turns': list(_turns(row)),
  }


def _turns(row: compared.Row) -> Iterator[dict]:
  """Yields the values of each turn of a row."""
  # A turn ends where the index of the segment changes.
  bounds = np.flatnonzero(np.diff(row.segment_A)) + 1
  stops = [*bounds.tolist(), len(row.texts)]
  for start, stop in itertools.pairwise([0, *stops]):
    if start >= MOST_TOKENS:
      return
    tokens = range(start, min(stop, MOST_TOKENS))
    counts = np.bincount(row.provenance_A[start:stop], minlength=2)
    # The author of most tokens, without the tokens of the template.
    counts[: Provenance.TEMPLATE + 1] = 0
    author = np.argmax(counts) if counts.any() else Provenance.TEMPLATE
    yield {
      'segment': int(row.segment_A[start]),
      'author': Provenance(int(author)),
      'differs': int(row.differs_A[start:stop].sum()),
      'ours': [_token(row, i, True) for i in tokens if row.in_ours_A[i]],
      'theirs': [_token(row, i, False) for i in tokens if row.in_theirs_A[i]],
    }


def _token(row: compared.Row, i: int, is_ours: bool) -> dict:
  """Returns the values of a token in one of both renderings."""
  author = Provenance(int(row.provenance_A[i]))
  weight = exact(row.weights_A[i])
  is_scored = bool(row.weights_A[i] > 0 if is_ours else row.scored_A[i])
  is_in_both = row.in_ours_A[i] and row.in_theirs_A[i]
  # A letter where an author begins, in this rendering or in both.
  begins = i == 0 or row.provenance_A[i - 1] != author
  about = f'{tables.author_name(author)}, our weight {weight}, '
  about += 'scored by the other' if row.scored_A[i] else 'not by the other'
  if not is_in_both:
    about += ', only in ours' if is_ours else ', only in theirs'
  return {
    'author': author,
    'begins': begins,
    'scored': is_scored,
    'weight': weight if is_ours and is_scored else '1',
    'differs': bool(row.differs_A[i]),
    'about': about,
    # Style sheets make <i> visible, and copied text still has a space.
    'text': escape(visible(row.texts[i])).replace(' ', Markup('<i> </i>')),
  }
