"""Character offsets of byte-level tokens, computed from their bytes.

Each token of a byte-level vocabulary is a string of bytes. If the bytes of all
tokens, one after another, equal the bytes of the text, the lengths of the
tokens give their positions. The tokenizer's own offsets take ten times as long.
"""

import functools

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
  bytes_of, lengths_V = _vocabulary(tokenizer, len(tokenizer))
  data = text.encode()
  if b''.join([bytes_of.get(i, b'') for i in ids_T.tolist()]) != data:
    return None
  stops_T = np.cumsum(lengths_V[ids_T])
  # A token without bytes has no character of its own.
  if len(stops_T) and not lengths_V[ids_T].all():
    return None
  starts_T = np.append(0, stops_T[:-1])[: len(stops_T)]
  if len(data) > len(text):
    # Convert bytes to characters. UTF-8 continuation bytes are 10xxxxxx; any
    # other byte begins a character.
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    character = np.cumsum(begins) - 1
    starts_T, stops_T = character[starts_T], character[stops_T - 1] + 1
  return np.stack([starts_T, stops_T], axis=1)


@functools.lru_cache(maxsize=8)
def _vocabulary(
  tokenizer: FastTokenizer, size: int
) -> tuple[dict[int, bytes], np.ndarray]:
  """Returns the bytes of each id, and their number; 0 if unknown."""
  del size  # part of the cache key: added tokens change the vocabulary
  byte_of = _byte_of_letter()
  bytes_of = {}
  for token, id in tokenizer.get_vocab().items():
    if all(letter in byte_of for letter in token):
      bytes_of[id] = bytes(byte_of[letter] for letter in token)
  # Added tokens are plain text, not letters that stand for bytes.
  for id, added in tokenizer.added_tokens_decoder.items():
    bytes_of[id] = added.content.encode()
  lengths_V = np.zeros(
    max(tokenizer_lib.size(tokenizer), *bytes_of) + 1, np.int64
  )
  for id, token_bytes in bytes_of.items():
    lengths_V[id] = len(token_bytes)
  return bytes_of, lengths_V


def _byte_of_letter() -> dict[str, int]:
  """Returns the byte for each letter of a byte-level vocabulary.

  GPT-2's alphabet: printable bytes stand for themselves, and the others are
  written with the letters from 256 on.
  """
  printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printing]
  letters = printing + [256 + i for i in range(len(others))]
  return dict(zip(map(chr, letters), printing + others, strict=True))
