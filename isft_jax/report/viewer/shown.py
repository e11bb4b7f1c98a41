"""Data of a viewer: tokens with their texts, authors and weights.

`terminal` and `html` show a `Dialogue`. It has texts and weights as values, so
that they need neither a tokenizer nor an objective.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from isft_jax.types import Example, Provenance, Verdict

# One letter per author, for readers who do not see colors. TOOL is o, as in
# output, because t is the template, as in data/rendering/renderer.py.
MARKS = {
  Provenance.PAD: 'p',
  Provenance.TEMPLATE: 't',
  Provenance.CONTEXT: 'c',
  Provenance.USER: 'u',
  Provenance.TOOL: 'o',
  Provenance.AGENT: 'a',
  Provenance.DEMONSTRATION: 'd',
  Provenance.HARNESS: 'h',
}

# Tokens of one dialogue that are shown: a browser needs seconds for more.
MOST_TOKENS = 20_000


@dataclasses.dataclass(frozen=True)
class Dialogue:
  """An example with the texts of its tokens and the weights of each.

  Only the first `MOST_TOKENS` tokens have texts.
  """

  example: Example
  # Each token decoded by itself; a part of a character becomes U+FFFD.
  texts: list[str]
  # Objective -> float [T], the weight of each token as a target.
  weights: dict[str, np.ndarray]

  def __post_init__(self) -> None:
    lengths = {name: len(values) for name, values in self.weights.items()}
    texts = len(self.texts)
    if texts == min(self.tokens, MOST_TOKENS):
      texts = self.tokens
    for name, length in {'texts': texts, **lengths}.items():
      if length != self.tokens:
        raise ValueError(
          f'{self.example.id}: {self.tokens} tokens, but {length} {name}'
        )

  @property
  def tokens(self) -> int:
    """Number of all tokens."""
    return len(self.example.tokens_T)

  @property
  def cut(self) -> str:
    """A sentence about tokens that are not shown; '' if all are."""
    if len(self.texts) == self.tokens:
      return ''
    return (
      f'The first {len(self.texts):,} of {self.tokens:,} tokens are shown. The '
      'counts are of all.'
    )


class Turn(NamedTuple):
  """Tokens of one turn, its author, and the verdict on it."""

  segment: int  # index of the turn in the conversation
  start: int  # index of its first token
  stop: int  # index after its last token
  author: Provenance
  verdict: Verdict


class Count(NamedTuple):
  """Number of tokens of an author, of scored tokens, and their total weight."""

  author: Provenance
  tokens: int
  scored: dict[str, int]  # objective -> tokens with a weight above 0
  weight: dict[str, float]  # objective -> sum of weights


def dialogue(
  example: Example,
  decode: Callable[[list[int]], str],
  tables: Mapping[str, np.ndarray],
) -> Dialogue:
  """Returns an example with decoded texts and weights.

  Args:
    example: an example of T tokens.
    decode: ids -> text, from a tokenizer.
    tables: objective -> float [P, V], from `objectives.weight_table`.
  """
  weights = {}
  for name, table_PV in tables.items():
    weights_T = np.array(table_PV[example.provenance_T, example.verdict_T])
    # The first token has no context, and tokens before `scored_from` are scored
    # in another window.
    weights_T[: max(1, example.scored_from)] = 0
    weights[name] = weights_T
  texts = [decode([int(token)]) for token in example.tokens_T[:MOST_TOKENS]]
  return Dialogue(example, texts, weights)


def turns(example: Example, most: int | None = None) -> list[Turn]:
  """Returns the turns in order; every token belongs to one.

  The author of a turn is the author of most of its tokens, without the tokens
  of the template.

  Args:
    example: the example.
    most: number of tokens; turns that begin after them are left out.
  """
  segment_T = example.segment_T
  # A turn ends where the index of the segment changes.
  bounds = np.flatnonzero(np.diff(segment_T)) + 1
  starts, stops = [0, *bounds], [*bounds, len(segment_T)]
  if most is not None:
    starts = [0, *bounds[bounds < most]]
    stops = stops[: len(starts)]
  result = []
  for start, stop in zip(starts, stops, strict=True):
    if start == stop:  # the example has no tokens
      continue
    counts = np.bincount(example.provenance_T[start:stop])
    # Codes up to TEMPLATE are no authors of turns.
    counts[: Provenance.TEMPLATE + 1] = 0
    author = np.argmax(counts) if counts.any() else Provenance.TEMPLATE
    result.append(
      Turn(
        segment=int(segment_T[start]),
        start=int(start),
        stop=int(stop),
        author=Provenance(int(author)),
        # WRONG is greater than RIGHT: one wrong token makes the turn wrong.
        verdict=Verdict(int(example.verdict_T[start:stop].max())),
      )
    )
  return result


def author_counts(shown: Dialogue) -> list[Count]:
  """Returns a `Count` for each author that wrote a token."""
  author_T = shown.example.provenance_T
  return [
    Count(
      author=Provenance(int(author)),
      tokens=int((author_T == author).sum()),
      scored={
        name: int((weights_T[author_T == author] > 0).sum())
        for name, weights_T in shown.weights.items()
      },
      weight={
        name: float(weights_T[author_T == author].sum())
        for name, weights_T in shown.weights.items()
      },
    )
    for author in np.unique(author_T)
  ]


def exact(weight: np.floating) -> str:
  """Returns the shortest decimal number that parses as the same weight."""
  return np.format_float_positional(weight, trim='-')
