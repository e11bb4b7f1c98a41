"""Encodes text piece by piece, and remembers long pieces.

Agent runs repeat long texts: the system prompt, the tool schemas, files that
are read again. Special tokens split a text into pieces that are encoded
independently, so that a piece has the same ids in every text:

    <|im_start|> | system\\nYou are ... | <|im_end|> | \\n | <|im_start|> | ...
                   remembered

In tau-bench's airline runs, 57 % of the characters are in repeated pieces.
"""

import collections
import functools
import json
import re

import numpy as np
import tokenizers

from isft_jax.data.rendering import byte_offsets
from isft_jax.data.rendering.tokenizer import (
  FastTokenizer,
  rust_tokenizer,
  special_ids,
  special_pattern,
)

# Ids [T] and character offsets [T, 2] of a text.
Encoding = tuple[np.ndarray, np.ndarray]
_SHORTEST = 500  # characters of a piece that is worth remembering
_BUDGET = 4_000_000  # characters of all pieces that are remembered


def encode(text: str, tokenizer: FastTokenizer) -> Encoding:
  """Encodes a text without adding special tokens.

  Args:
    text: the text. Special tokens in it are recognised.
    tokenizer: a transformers fast tokenizer.

  Returns:
    int32 ids [T], and int64 offsets [T, 2]: the first character of each token
    and the one after its last. They equal those of the whole text.
  """
  return _encoder_for(tokenizer, len(tokenizer))(text)


def encode_as_text(text: str, tokenizer: FastTokenizer) -> Encoding:
  """Encodes a text in which special tokens are ordinary text."""
  return _encode(text, tokenizer, rust_tokenizer(tokenizer, as_text=True))


class _PieceEncoder:
  """An encoder with its memory of pieces."""

  def __init__(self, tokenizer: FastTokenizer) -> None:
    self._tokenizer = tokenizer
    self._encoder = rust_tokenizer(tokenizer)
    self._special = (
      special_pattern(tokenizer) if _is_piecewise(tokenizer) else None
    )
    # The piece that was used last is the last.
    self._memory: collections.OrderedDict[str, Encoding] = (
      collections.OrderedDict()
    )
    self._size = 0  # characters in memory

  def __call__(self, text: str) -> Encoding:
    if self._special is None or len(text) < _SHORTEST:
      return _encode(text, self._tokenizer, self._encoder)
    # Long pieces come from memory. All text between them is encoded at once.
    ids, offsets = [], []
    start = 0
    for begin, end in self._long_pieces(text):
      for first, last, is_piece in ((start, begin, False), (begin, end, True)):
        if first < last:
          part = text[first:last]
          encoded = (
            self._remembered(part)
            if is_piece
            else _encode(part, self._tokenizer, self._encoder)
          )
          ids.append(encoded[0])
          offsets.append(encoded[1] + first)
      start = end
    # The text after the last long piece. An empty text has one encoding, too.
    if start < len(text) or not ids:
      encoded = _encode(text[start:], self._tokenizer, self._encoder)
      ids.append(encoded[0])
      offsets.append(encoded[1] + start)
    return np.concatenate(ids), np.concatenate(offsets)

  def _long_pieces(self, text: str) -> list[tuple[int, int]]:
    """Returns (start, stop) of the long pieces between special tokens."""
    assert self._special is not None
    # Special tokens are the bounds of pieces.
    bounds = [bound for m in self._special.finditer(text) for bound in m.span()]
    starts, stops = [0, *bounds[1::2]], [*bounds[::2], len(text)]
    return [
      (start, stop)
      for start, stop in zip(starts, stops, strict=True)
      if stop - start >= _SHORTEST
    ]

  def _remembered(self, piece: str) -> Encoding:
    encoded = self._memory.get(piece)
    if encoded is not None:
      self._memory.move_to_end(piece)
      return encoded
    encoded = _encode(piece, self._tokenizer, self._encoder)
    self._memory[piece] = encoded
    self._size += len(piece)
    # The least recently used pieces are dropped first.
    while self._size > _BUDGET:
      oldest, _ = self._memory.popitem(last=False)
      self._size -= len(oldest)
    return encoded


@functools.lru_cache(maxsize=8)
def _encoder_for(tokenizer: FastTokenizer, size: int) -> _PieceEncoder:
  del size  # part of the cache key: added tokens change the pieces
  return _PieceEncoder(tokenizer)


def _is_piecewise(tokenizer: FastTokenizer) -> bool:
  """Returns whether special tokens split a text into independent pieces."""
  added = tokenizer.added_tokens_decoder.values()
  # A special token must not take white space from its neighbours, and not share
  # characters with another added token.
  takes_space = any(
    token.lstrip or token.rstrip or token.single_word
    for token in added
    if token.special
  )
  special = {*special_ids(tokenizer).values()}
  overlaps = _overlap(special, {token.content for token in added} | special)
  # Some tokenizers treat the first piece of a text in another way.
  settings = json.loads(rust_tokenizer(tokenizer).to_str())
  steps = json.dumps([settings['normalizer'], settings['pre_tokenizer']])
  sees_first = re.search('"(first|Metaspace|Prepend|Strip|Replace)"', steps)
  return bool(special) and not (takes_space or overlaps or sees_first)


def _overlap(special: set[str], added: set[str]) -> bool:
  """Returns whether a special token can share characters with another token."""

  def ends(text: str) -> set[str]:
    return {text[k:] for k in range(1, len(text))}

  def beginnings(text: str) -> set[str]:
    return {text[:k] for k in range(1, len(text))}

  # Tokens may overlap: the end of one is the beginning of another, or one is
  # inside of the other.
  of_special = set().union(*map(beginnings, special))
  of_added = set().union(*map(beginnings, added))
  return (
    any(of_added & ends(text) for text in special)
    or any(of_special & ends(text) for text in added)
    or bool(of_special & added or of_added & special)
    or any(text in other[1:-1] for text in special for other in added)
  )


def _encode(
  text: str, tokenizer: FastTokenizer, encoder: tokenizers.Tokenizer
) -> Encoding:
  # Offsets from the bytes of the tokens are ten times as fast as those of the
  # tokenizer, which remain as the fallback.
  (encoding,) = encoder.encode_batch_fast([text], add_special_tokens=False)
  ids_T = np.asarray(encoding.ids, np.int32)
  offsets_T2 = byte_offsets.offsets(tokenizer, ids_T, text)
  if offsets_T2 is None:
    encoding = encoder.encode(text, add_special_tokens=False)
    ids_T = np.asarray(encoding.ids, np.int32)
    offsets_T2 = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
  return ids_T, offsets_T2
