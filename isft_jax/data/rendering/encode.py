"""Encodes spans of text with authors as tokens with authors."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isft_jax.data.rendering import piece_encoder
from isft_jax.data.rendering.attribution import Span
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.tokenizer import (
  FastTokenizer,
  special_ids,
  special_pattern,
)
from isft_jax.types import STRADDLE_ORDER, Example

# The author of the lowest rank owns a token that straddles authors.
_RANK = {author: i for i, author in enumerate(STRADDLE_ORDER)}


class Encoded(NamedTuple):
  """An example with its text."""

  example: Example
  text: str  # the joined text of the spans
  starts_T: np.ndarray  # the character at which each token starts
  straddling: int  # number of tokens with characters of several authors


def encode(
  id: str,
  spans: Sequence[Span],
  tokenizer: FastTokenizer,
  special_text: str = 'reject',
  piecewise: bool = False,
) -> Encoded:
  """Encodes the joined text once and looks up the author of each token.

  A token with characters of several authors belongs to the author that comes
  first in `STRADDLE_ORDER`, and to the earliest span of that author.

  Args:
    id: id of the example.
    spans: the text by author, in order.
    tokenizer: a transformers fast tokenizer.
    special_text: how to treat a message that holds the text of a special token
      and could thereby forge the end of its turn. 'reject' rejects the row;
      'escape' encodes that text as ordinary text, so that the ids differ from
      the chat template's there.
    piecewise: encode the header of each turn separately from its words and the
      text that closes them. A space at the end of a header is then a token of
      its own, and no token holds characters of both:

        whole      |User|:| Hi|.|\\n|Agent|:| Hey|.|\\n|
        piecewise  |User|:| |Hi|.|\\n|Agent|:| |Hey|.|\\n|

      The notebook of de Freitas and Ortega (2026) encodes text in this way.
      The ids then differ from the chat template's at every header.

  Returns:
    The example, its text, and the position of each token.

  Raises:
    Rejected: a message contains a special token, or the tokenizer has no token
      for a character.
  """
  # Ids and character offsets of the joined text.
  text = ''.join(span.text for span in spans)
  # Special tokens inside of messages are escaped here, or rejected below.
  special = special_ids(tokenizer)
  escape = special_text == 'escape'
  # (start, stop) of each text of a special token that a message contains.
  forged = _forged(spans, special_pattern(tokenizer)) if escape else []
  # Characters at which the text is cut, so that no token crosses a turn.
  cuts = _cuts(spans) if piecewise else []
  tokens_T, offsets_T2 = _encode(text, forged, cuts, tokenizer)
  ends_T = offsets_T2[:, 1]
  # A character outside of all offsets goes to the next token. Tokens that share
  # a character, as the bytes of one UTF-8 sequence do, keep their own start.
  starts_T = np.minimum(offsets_T2[:, 0], np.append(0, ends_T[:-1]))

  # First and last span of each token, found by their positions in the text.
  stops_S = np.cumsum([len(span.text) for span in spans])
  first_T, last_T = (
    np.minimum(np.searchsorted(stops_S, char_T, side='right'), len(spans) - 1)
    for char_T in (starts_T, np.maximum(ends_T - 1, starts_T))
  )

  # Most tokens lie in one span. The others are resolved one by one.
  owner_T, straddling = first_T.copy(), 0
  for token in np.flatnonzero(first_T != last_T):
    candidates = [
      (_RANK[spans[s].provenance], s)
      for s in range(first_T[token], last_T[token] + 1)
      if spans[s].text
    ]
    owner_T[token] = min(candidates)[1]
    # Two spans of one author do not count as straddling.
    straddling += len({rank for rank, _ in candidates}) > 1

  # Reject characters without a token. A tokenizer may use one of its special
  # tokens for them, whose own text is no such character.
  unknown = tokenizer.unk_token_id
  for token in np.flatnonzero(tokens_T == (-1 if unknown is None else unknown)):
    shown = text[starts_T[token] : ends_T[token]]
    if str(tokenizer.unk_token) not in shown:
      raise Rejected(
        'unknown_characters',
        f'turn {spans[first_T[token]].segment}: the tokenizer has no token for '
        f'{shown[:40]!r}',
      )

  # Reject special tokens inside of messages. Cumulative counts select the
  # tokens that touch a written span.
  written_S = np.cumsum([0, *(span.written for span in spans)])
  by_message_T = written_S[last_T + 1] > written_S[first_T]
  is_special_T = np.isin(tokens_T, list(special))
  for token in np.flatnonzero(by_message_T & is_special_T):
    name = special[int(tokens_T[token])]
    # Offsets of some special tokens include the white space around them.
    start = max(text.find(name, starts_T[token]), starts_T[token])
    ends = [start, start + len(name) - 1]
    first, last = np.searchsorted(stops_S, ends, side='right')
    for span in spans[first : last + 1]:
      if span.written and span.text:
        raise Rejected(
          'special_text',
          f'turn {span.segment} holds the text of the special token {name!r}, '
          'which would end or forge a turn; see --special_text',
        )

  # Each token has the fields of the span that owns it.
  def of_owner(field: str, dtype: type[np.integer]) -> np.ndarray:
    return np.asarray([getattr(s, field) for s in spans], dtype)[owner_T]

  example = Example(
    id=id,
    tokens_T=tokens_T,
    provenance_T=of_owner('provenance', np.uint8),
    segment_T=of_owner('segment', np.int32),
    verdict_T=of_owner('verdict', np.uint8),
  )
  return Encoded(example, text, starts_T, straddling)


def _encode(
  text: str,
  forged: Sequence[tuple[int, int]],
  cuts: Sequence[int],
  tokenizer: FastTokenizer,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the ids and the character offsets of a text.

  Args:
    text: the text.
    forged: (start, stop) of stretches in which special tokens are ordinary
      text.
    cuts: more positions that no token may cross.
    tokenizer: a transformers fast tokenizer.

  Returns:
    ids [T] and offsets [T, 2].
  """
  # Pieces that start here are encoded as plain text: no special token is
  # recognised in them.
  starts = {start for start, _ in forged}
  bounds = {0, *cuts, *(bound for span in forged for bound in span), len(text)}
  ids, offsets = [np.empty(0, np.int32)], [np.empty((0, 2), np.int64)]
  for start, stop in itertools.pairwise(sorted(bounds)):
    as_text = start in starts
    encode_piece = (
      piece_encoder.encode_as_text if as_text else piece_encoder.encode
    )
    ids_T, piece_T2 = encode_piece(text[start:stop], tokenizer)
    ids.append(ids_T)
    # Offsets in the piece become offsets in the whole text.
    offsets.append(piece_T2 + start)
  return np.concatenate(ids), np.concatenate(offsets)


def _cuts(spans: Sequence[Span]) -> list[int]:
  """Returns the first character of each turn, and of the words of each turn."""
  cuts, start, before = [], 0, None
  for span in spans:
    # A span of another turn, or the first written span after a header.
    if before and (
      span.segment != before.segment or span.written > before.written
    ):
      cuts.append(start)
    start, before = start + len(span.text), span
  return cuts


def _forged(
  spans: Sequence[Span], pattern: re.Pattern
) -> list[tuple[int, int]]:
  """Returns (start, stop) of each special token's text within a message."""
  forged, start = [], 0
  for span in spans:
    if span.written:
      matches = pattern.finditer(span.text)
      forged += [(start + m.start(), start + m.end()) for m in matches]
    start += len(span.text)
  return forged
