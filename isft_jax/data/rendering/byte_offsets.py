"""Character offsets of byte-level tokens, computed from their bytes.

Each token of a byte-level vocabulary is a string of bytes. If the bytes of all
tokens, one after another, equal the bytes of the text, the lengths of the
tokens give their positions. The tokenizer's own offsets take ten times as long.
"""

import functools
from typing import NamedTuple

import numpy as np

from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer


def offsets(
  tokenizer: FastTokenizer, ids_T: np.ndarray, text: str
) -> np.ndarray | None:
  """Computes the characters that each token covers.

  Args:
    tokenizer: a transformers fast tokenizer.
    ids_T: the ids of the text.
    text: the text.

  Returns:
    int64 [T, 2]: the first character of each token, and the one after its
    last. None if the bytes of the tokens are not those of the text; the
    tokenizer's offsets must then be used.
  """
  vocabulary = _vocabulary(tokenizer, len(tokenizer))
  data = np.frombuffer(text.encode(), np.uint8)
  lengths_T = vocabulary.lengths_V[ids_T]
  stops_T = np.cumsum(lengths_T)
  starts_T = stops_T - lengths_T
  # A token without bytes has no character of its own.
  if not lengths_T.all() or lengths_T.sum() != len(data):
    return None
  # Byte i of the text is byte i - start of its token.
  shifts_T = vocabulary.starts_V[ids_T] - starts_T
  places = np.arange(len(data)) + np.repeat(shifts_T, lengths_T)
  if not np.array_equal(vocabulary.bytes[places], data):
    return None
  if len(data) > len(text):
    # Convert bytes to characters. UTF-8 continuation bytes are 10xxxxxx; any
    # other byte begins a character.
    begins = (data & 0xC0) != 0x80
    character = np.cumsum(begins) - 1
    starts_T, stops_T = character[starts_T], character[stops_T - 1] + 1
  return np.stack([starts_T, stops_T], axis=1)


class _Vocabulary(NamedTuple):
  """The bytes of each id, one after another."""

  bytes: np.ndarray  # uint8, of all ids
  starts_V: np.ndarray  # first byte of each id
  lengths_V: np.ndarray  # number of its bytes; 0 if they are unknown


@functools.lru_cache(maxsize=8)
def _vocabulary(tokenizer: FastTokenizer, size: int) -> _Vocabulary:
  """Returns the bytes of each id."""
  del size  # part of the cache key: added tokens change the vocabulary
  byte_of = _byte_of_letter()
  bytes_of = {}
  for token, id in tokenizer.get_vocab().items():
    if all(letter in byte_of for letter in token):
      bytes_of[id] = bytes(byte_of[letter] for letter in token)
  # Added tokens are plain text, not letters that stand for bytes.
  for id, added in tokenizer.added_tokens_decoder.items():
    bytes_of[id] = added.content.encode()
  number = max(tokenizer_lib.size(tokenizer), *bytes_of) + 1
  by_id = [bytes_of.get(id, b'') for id in range(number)]
  lengths_V = np.array([len(token_bytes) for token_bytes in by_id])
  everything = np.frombuffer(b''.join(by_id), np.uint8)
  return _Vocabulary(everything, np.cumsum(lengths_V) - lengths_V, lengths_V)


def _byte_of_letter() -> dict[str, int]:
  """Returns the byte for each letter of a byte-level vocabulary.

  GPT-2's alphabet: printable bytes stand for themselves, and the others are
  written with the letters from 256 on.
  """
  printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printing]
  letters = printing + [256 + i for i in range(len(others))]
  return dict(zip(map(chr, letters), printing + others, strict=True))
