"""Data of a comparison: tokens that we and another trainer score.

`tables` and `page` show `Row`s. The two renderings of a conversation are
aligned, because another trainer may render it with another template:

  ours       <|im_start|> user \\n Hi <|im_end|>
  another's  <|im_start|> user \\n Hi <|im_end|> \\n
  A =        6
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from isft_jax.types import Example, Provenance


@dataclasses.dataclass(frozen=True)
class Row:
  """A conversation with A aligned tokens."""

  id: str
  texts: list[str]  # A texts, each token decoded by itself
  provenance_A: np.ndarray  # uint8; PAD for tokens that we do not have
  segment_A: np.ndarray  # int32, index of the turn
  weights_A: np.ndarray  # float32, weight of the token in our objective
  scored_A: np.ndarray  # bool, whether the other trainer scores the token
  in_ours_A: np.ndarray  # bool, whether our rendering has the token
  in_theirs_A: np.ndarray  # bool, whether the other rendering has the token

  @property
  def differs_A(self) -> np.ndarray:
    """Whether only one of both scores the token: bool [A]."""
    return (self.weights_A > 0) != self.scored_A


class Count(NamedTuple):
  """Numbers of tokens."""

  tokens: int
  ours: int  # tokens that we score
  theirs: int  # tokens that the other trainer scores
  both: int
  only_ours: int
  only_theirs: int


class Difference(NamedTuple):
  """Consecutive tokens of one author that only one of both scores."""

  side: str  # 'ours' or 'theirs'
  author: Provenance  # PAD if our rendering does not have the tokens
  text: str


def row(
  example: Example,
  table_PV: np.ndarray,
  their_tokens_T: np.ndarray,
  their_scored_T: np.ndarray,
  pairs_A2: np.ndarray,
  decode: Callable[[int], str],
) -> Row:
  """Returns a conversation with both masks.

  Args:
    example: our rendering.
    table_PV: float [P, V], weights of our objective.
    their_tokens_T: int, the ids of the other rendering.
    their_scored_T: bool, the mask of the other trainer.
    pairs_A2: alignment: indices in both renderings, -1 for none.
    decode: id -> text.
  """
  # An index of -1 marks a token that the other sequence lacks.
  ours_A, theirs_A = pairs_A2.T
  in_ours_A, in_theirs_A = ours_A >= 0, theirs_A >= 0
  weights_T = np.array(table_PV[example.provenance_T, example.verdict_T])
  # The first token has no context.
  weights_T[: max(1, example.scored_from)] = 0

  # A token that we do not have belongs to the turn of the token before it.
  before_A = np.maximum(np.maximum.accumulate(ours_A), 0)
  # The appended value is that of the index -1, and is replaced.
  ids_A = np.where(
    in_ours_A,
    example.tokens_T[before_A],
    np.append(their_tokens_T, 0)[theirs_A],
  )
  return Row(
    id=example.id,
    texts=[decode(int(id)) for id in ids_A],
    provenance_A=np.where(
      in_ours_A, example.provenance_T[before_A], Provenance.PAD
    ),
    segment_A=example.segment_T[before_A],
    weights_A=np.where(in_ours_A, weights_T[before_A], 0),
    scored_A=in_theirs_A & np.append(their_scored_T, False)[theirs_A],
    in_ours_A=in_ours_A,
    in_theirs_A=in_theirs_A,
  )


def count(row: Row, author: Provenance | None = None) -> Count:
  """Counts the tokens of a row, or of one author.

  Args:
    row: the row.
    author: the author; PAD for tokens that our rendering does not have.
  """
  is_counted_A = np.ones(len(row.texts), bool)
  if author is not None:
    is_counted_A = row.provenance_A == author
  ours_A = (row.weights_A > 0) & is_counted_A
  theirs_A = row.scored_A & is_counted_A
  # In the order of the fields of `Count`.
  masks = (
    *(is_counted_A, ours_A, theirs_A, ours_A & theirs_A),
    *(ours_A & ~theirs_A, theirs_A & ~ours_A),
  )
  return Count(*(int(mask_A.sum()) for mask_A in masks))


def add(counts: Sequence[Count]) -> Count:
  """Returns the sums of counts."""
  none = Count(0, 0, 0, 0, 0, 0)
  return Count(*map(sum, zip(none, *counts, strict=True)))


def authors(rows: Sequence[Row]) -> list[Provenance]:
  """Returns the authors of all tokens, PAD last."""
  codes = {int(code) for row in rows for code in np.unique(row.provenance_A)}
  found = [Provenance(code) for code in sorted(codes)]
  # PAD stands for tokens that our rendering does not have.
  return sorted(found, key=lambda author: author == Provenance.PAD)


def differences(rows: Sequence[Row]) -> collections.Counter[Difference]:
  """Counts the stretches that only one of both scores, by side and text."""
  found: collections.Counter[Difference] = collections.Counter()
  for each in rows:
    key_A2 = np.stack([each.provenance_A, each.segment_A], axis=1)
    # One number per token: 0 for agreement, 1 for ours, 2 for theirs.
    side_A = each.differs_A * (1 + each.scored_A)
    # Cut where author, turn or side changes.
    changes = (key_A2[1:] != key_A2[:-1]).any(1) | (side_A[1:] != side_A[:-1])
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(each.texts)]
    for start, stop in itertools.pairwise(bounds):
      if start < stop and side_A[start]:
        side = 'theirs' if each.scored_A[start] else 'ours'
        author = Provenance(int(each.provenance_A[start]))
        text = ''.join(each.texts[start:stop])
        found[Difference(side, author, text)] += 1
  return found
