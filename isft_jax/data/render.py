"""From a trajectory to tokens that know their author.

One function renders, for training, probes and inspection alike:

    Trajectory --plain--> spans of text with an author --encode--> Example

The paper's format, one line a turn, with who wrote what below it
(c CONTEXT, t TEMPLATE, u USER, a AGENT):

    User: Tell me about gold.        Agent: Its symbol is Go.
    ttttttuuuuuuuuuuuuuuuuuuut       tttttttaaaaaaaaaaaaaaaaaa    (+ newline)

The newline that ends an agent's turn is the agent's: to stop is its action.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isft_jax.data.tokenizer import encoder_of
from isft_jax.types import (
  STRADDLE_ORDER,
  Example,
  Provenance,
  Segment,
  Trajectory,
  Verdict,
)


class Span(NamedTuple):
  """Characters with one author, of one turn."""

  text: str
  provenance: Provenance
  segment: int
  verdict: Verdict = Verdict.UNKNOWN


class Encoded(NamedTuple):
  """An example, and the character at which each of its tokens starts."""

  example: Example
  starts_T: np.ndarray


_PREFIX = {'user': 'User: ', 'tool': 'Tool: ', 'agent': 'Agent: '}


def plain(segments: Sequence[Segment]) -> list[Span]:
  """Renders the paper's plain-text format: a prefix and a line a turn.

  Raises ValueError for a turn that is not one line, which would let its author
  forge another's turn, and for an unknown role.
  """
  spans = []
  for i, segment in enumerate(segments):
    if '\n' in segment.text:
      raise ValueError(
        f'turn {i}: the plain format holds one line a turn, and this text has '
        f'a line break: {segment.text[:60]!r}'
      )
    if segment.role == 'context':
      spans.append(Span(segment.text + '\n', Provenance.CONTEXT, i))
      continue
    if segment.role not in _PREFIX:
      raise ValueError(
        f'turn {i}: unknown role {segment.role!r}; the plain format knows '
        f'context, {", ".join(_PREFIX)}'
      )
    spans.append(Span(_PREFIX[segment.role], Provenance.TEMPLATE, i))
    author, verdict = segment.provenance, segment.verdict
    if segment.role == 'agent':
      spans.append(Span(segment.text + '\n', author, i, verdict))
    else:
      spans.append(Span(segment.text, author, i, verdict))
      spans.append(Span('\n', Provenance.TEMPLATE, i))
  return spans


TEMPLATES = {'plain': plain}


def encode(id: str, spans: Sequence[Span], tokenizer) -> Encoded:
  """Encodes the joined text once, and looks up each token's author.

  A token that straddles authors goes to the first of `STRADDLE_ORDER` that
  wrote one of its characters; of several spans of that author, to the earliest.

  tokenizer: a transformers fast tokenizer.
  """
  text = ''.join(span.text for span in spans)
  encoding = encoder_of(tokenizer).encode(text, add_special_tokens=False)
  tokens_T = np.asarray(encoding.ids, np.int32)
  offsets_T2 = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
  ends_T = offsets_T2[:, 1]
  # A character that no token claims goes to the next token. Tokens that share
  # a character, as parts of one UTF-8 sequence do, keep their own start.
  starts_T = np.minimum(offsets_T2[:, 0], np.append(0, ends_T[:-1]))

  rank = {author: i for i, author in enumerate(STRADDLE_ORDER)}
  # The smallest key over a token's characters names its owner.
  keys = [
    rank[span.provenance] * len(spans) + i for i, span in enumerate(spans)
  ]
  lengths = [len(span.text) for span in spans]
  # One more character, so that every end is an index.
  key_of_character = np.repeat(keys + [np.iinfo(np.int64).max], lengths + [1])
  bounds = np.stack([starts_T, ends_T], axis=1).ravel()
  owner_T = np.minimum.reduceat(key_of_character, bounds)[::2] % len(spans)

  def of_owner(field, dtype):
    return np.asarray([getattr(s, field) for s in spans], dtype)[owner_T]

  example = Example(
    id=id,
    tokens_T=tokens_T,
    provenance_T=of_owner('provenance', np.uint8),
    segment_T=of_owner('segment', np.int32),
    verdict_T=of_owner('verdict', np.uint8),
  )
  return Encoded(example, starts_T)


def render(trajectory: Trajectory, tokenizer, template: str) -> Example:
  """Renders a trajectory with a named template and encodes it."""
  spans = TEMPLATES[template](trajectory.segments)
  return encode(trajectory.id, spans, tokenizer).example
