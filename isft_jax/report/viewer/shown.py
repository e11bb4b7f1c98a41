"""What a viewer shows: tokens, who wrote each, what each objective weighs it.

`terminal` and `html` draw a `Dialogue`. Neither needs a tokenizer or an
objective: texts and weights come in as values.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from isft_jax.types import Example, Provenance, Verdict

# One letter an author, so that no reader depends on colors. TOOL is the world's
# output: t stands for the template, as in data/rendering/renderer.py.
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


@dataclasses.dataclass(frozen=True)
class Dialogue:
  """An example as it is shown.

  texts: of each token, decoded alone; half a character may be a '\ufffd'.
  weights: objective -> float [T], the weight of each token as a target.
  """

  example: Example
  texts: list[str]
  weights: dict[str, np.ndarray]

  def __post_init__(self) -> None:
    tokens = len(self.example.tokens_T)
    lengths = {name: len(values) for name, values in self.weights.items()}
    for name, length in {'texts': len(self.texts), **lengths}.items():
      if length != tokens:
        raise ValueError(
          f'{self.example.id}: {tokens} tokens, but {length} {name}'
        )


class Turn(NamedTuple):
  """Tokens start to stop of one turn, its author, and the verdict on it."""

  segment: int
  start: int
  stop: int
  author: Provenance
  verdict: Verdict


class Count(NamedTuple):
  """Tokens of an author; how many are scored, and their summed weight."""

  author: Provenance
  tokens: int
  scored: dict[str, int]
  weight: dict[str, float]


def dialogue(
  example: Example,
  decode: Callable[[list[int]], str],
  tables: Mapping[str, np.ndarray],
) -> Dialogue:
  """Returns what a viewer shows of an example.

  decode: ids -> text, as a tokenizer does it.
  tables: objective -> float [provenance, verdict], as `weight_table` gives it.
  """
  weights = {}
  for name, table_PV in tables.items():
    weights_T = np.array(table_PV[example.provenance_T, example.verdict_T])
    # The first token follows nothing; those of an overlap were scored before.
    weights_T[: max(1, example.scored_from)] = 0
    weights[name] = weights_T
  texts = [decode([int(token)]) for token in example.tokens_T]
  return Dialogue(example, texts, weights)


def turns(example: Example) -> list[Turn]:
  """Returns the runs of tokens of one turn, in order; every token is in one.

  A turn's author is who wrote the most of it, protocol aside.
  """
  segment_T = example.segment_T
  bounds = np.flatnonzero(np.diff(segment_T)) + 1
  found = []
  for start, stop in zip([0, *bounds], [*bounds, len(segment_T)], strict=True):
    if start == stop:  # there is no token at all
      continue
    counts = np.bincount(example.provenance_T[start:stop])
    counts[: Provenance.TEMPLATE + 1] = 0
    author = np.argmax(counts) if counts.any() else Provenance.TEMPLATE
    found.append(
      Turn(
        segment=int(segment_T[start]),
        start=int(start),
        stop=int(stop),
        author=Provenance(int(author)),
        # WRONG is above RIGHT: one lie makes a turn a lie.
        verdict=Verdict(int(example.verdict_T[start:stop].max())),
      )
    )
  return found


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
  """Returns the shortest digits that read back as the same weight."""
  return np.format_float_positional(weight, trim='-')
