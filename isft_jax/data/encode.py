"""From spans of text with an author to tokens with an author."""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isft_jax.data.authorship import Span
from isft_jax.data.rejection import Rejected
from isft_jax.data.tokenizer import encoder_of, special_ids, special_pattern
from isft_jax.types import STRADDLE_ORDER, Example

_RANK = {author: i for i, author in enumerate(STRADDLE_ORDER)}


class Encoded(NamedTuple):
  """An example, and what is known of its text.

  starts_T: the character at which each token starts; None if not asked for.
  straddling: tokens that hold characters of two authors or more.
  """

  example: Example
  text: str
  starts_T: np.ndarray | None
  straddling: int


def encode(
  id: str,
  spans: Sequence[Span],
  tokenizer,
  special_text: str = 'reject',
  with_starts: bool = True,
) -> Encoded:
  """Encodes the joined text once, and looks up each token's author.

  A token that straddles authors goes to the first of `STRADDLE_ORDER` that
  wrote one of its characters; of several spans of that author, to the earliest.

  tokenizer: a transformers fast tokenizer.
  special_text: what becomes of a message that holds the text of a special
    token, and could so forge the end of its turn: 'reject', or 'escape', which
    encodes that text as text. Ids then differ from the chat template's there.
  with_starts: whether to tell where each token starts. To have the offsets of
    all tokens takes longer than everything else here.

  Raises Rejected for special tokens that a message wrote.
  """
  spans = [span for span in spans if span.text]
  text = ''.join(span.text for span in spans)
  escape = special_text == 'escape'
  forged = _forged(spans, special_pattern(tokenizer)) if escape else []
  tokens = _Tokens(text, forged, tokenizer)
  bounds_S = [0, *itertools.accumulate(len(span.text) for span in spans)]
  # Where a span begins among the tokens: the first that holds a character of
  # it. Between two such the tokens are of one span, and at each one straddles.
  first_S = [tokens.at(bound) for bound in bounds_S[1:-1]]
  sizes_S = np.diff([0, *first_S, len(tokens.ids_T)]) if spans else []
  owner_T = np.repeat(np.arange(len(spans)), sizes_S)

  straddling = 0
  for token in set(first_S):
    held = _held(tokens.chars(token), bounds_S)
    owner_T[token] = min(held, key=lambda s: (_RANK[spans[s].provenance], s))
    straddling += len({spans[s].provenance for s in held}) > 1

  # A special token that no message wrote is of one span, and that is literal.
  special = special_ids(tokenizer)
  written_S = np.asarray([span.written for span in spans], bool)
  suspect_T = np.isin(tokens.ids_T, list(special)) & written_S[owner_T]
  for token in {*np.flatnonzero(suspect_T).tolist(), *first_S}:
    name = special.get(int(tokens.ids_T[token]))
    if name is not None:
      _check_special(name, tokens.chars(token), text, spans, bounds_S)

  def of_owner(field, dtype):
    return np.asarray([getattr(s, field) for s in spans], dtype)[owner_T]

  example = Example(
    id=id,
    tokens_T=tokens.ids_T,
    provenance_T=of_owner('provenance', np.uint8),
    segment_T=of_owner('segment', np.int32),
    verdict_T=of_owner('verdict', np.uint8),
  )
  return Encoded(
    example, text, tokens.starts_T() if with_starts else None, straddling
  )


class _Tokens:
  """A text in tokens. Of the characters in `forged`, each is only text."""

  def __init__(self, text: str, forged: list[tuple[int, int]], tokenizer):
    bounds = [0, *itertools.chain.from_iterable(forged), len(text)]
    self._chars, self._firsts, self._encodings = [], [0], []
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
      encoder = encoder_of(tokenizer, as_text=bool(i % 2))
      encoding = encoder.encode(text[start:stop], add_special_tokens=False)
      self._chars.append(start)
      self._encodings.append(encoding)
      self._firsts.append(self._firsts[-1] + len(encoding))
    ids = itertools.chain.from_iterable(e.ids for e in self._encodings)
    self.ids_T = np.fromiter(ids, np.int32, self._firsts[-1])

  def chars(self, token: int) -> tuple[int, int]:
    """Returns the first character of a token, and the one after its last.

    A character that no token claims goes to the next one. Tokens that share a
    character, as parts of one UTF-8 sequence do, keep their own start.
    """
    start, stop = self._offsets(token)
    return min(start, self._offsets(token - 1)[1] if token else 0), stop

  def at(self, character: int) -> int:
    """Returns the first token that ends after a character."""
    ends = range(self._firsts[-1])
    return bisect.bisect_right(
      ends, character, key=lambda token: self._offsets(token)[1]
    )

  def starts_T(self) -> np.ndarray:
    """Returns the first character of each token."""
    pieces = []
    for chars, encoding in zip(self._chars, self._encodings, strict=True):
      offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
      pieces.append(offsets + chars)
    offsets_T2 = np.concatenate(pieces)
    return np.minimum(offsets_T2[:, 0], np.append(0, offsets_T2[:-1, 1]))

  def _offsets(self, token: int) -> tuple[int, int]:
    piece = bisect.bisect_right(self._firsts, token) - 1
    first, chars = self._firsts[piece], self._chars[piece]
    start, stop = self._encodings[piece].token_to_chars(token - first)
    return start + chars, stop + chars


def _held(chars: tuple[int, int], bounds_S: Sequence[int]) -> range:
  """Returns the spans of which some of these characters are."""
  start, stop = chars
  first = bisect.bisect_right(bounds_S, start) - 1
  last = bisect.bisect_left(bounds_S, max(stop, start + 1)) - 1
  return range(first, last + 1)


def _check_special(name, chars, text, spans, bounds_S) -> None:
  """Raises Rejected if a message wrote any of a special token's characters."""
  # Some tokens take the white space around them into their offsets.
  start = max(text.find(name, *chars), chars[0])
  for s in _held((start, start + len(name)), bounds_S):
    if spans[s].written:
      raise Rejected(
        'special_text',
        f'turn {spans[s].segment} holds the text of the special token '
        f'{name!r}, which would end or forge a turn; see --special_text',
      )


def _forged(spans, pattern) -> list[tuple[int, int]]:
  """Returns (start, stop) of special tokens' texts that messages hold."""
  forged, start = [], 0
  for span in spans:
    if span.written:
      matches = pattern.finditer(span.text)
      forged += [(start + m.start(), start + m.end()) for m in matches]
    start += len(span.text)
  return forged
