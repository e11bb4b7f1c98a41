"""Which characters a token covers, told by spelling the tokens out.

The tokens of a byte-level vocabulary are bytes. Where those of all tokens, one
after another, are the bytes of the text, their lengths say where each begins;
to ask the tokenizer for its offsets takes ten times as long.
"""

import functools

import numpy as np

from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer


def offsets(
  tokenizer: FastTokenizer, ids_T: np.ndarray, text: str
) -> np.ndarray | None:
  """Returns int64 [T, 2], the first character of a token and the one after.

  None where the tokens do not spell the text: the tokenizer has other offsets.
  """
  bytes_of, lengths_V = _vocabulary(tokenizer, len(tokenizer))
  data = text.encode()
  if b''.join([bytes_of.get(i, b'') for i in ids_T.tolist()]) != data:
    return None
  stops_T = np.cumsum(lengths_V[ids_T])
  if len(stops_T) and not lengths_V[ids_T].all():
    return None  # a token of nothing stands between two characters
  starts_T = np.append(0, stops_T[:-1])[: len(stops_T)]
  if len(data) > len(text):
    # A character begins at each byte that does not go on with one.
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    character = np.cumsum(begins) - 1
    starts_T, stops_T = character[starts_T], character[stops_T - 1] + 1
  return np.stack([starts_T, stops_T], axis=1)


@functools.lru_cache(maxsize=8)
def _vocabulary(
  tokenizer: FastTokenizer, size: int
) -> tuple[dict[int, bytes], np.ndarray]:
  """Returns the bytes of each id, and how many they are; 0 if not known."""
  del size  # a token that is added makes another vocabulary
  byte_of = _byte_of_letter()
  bytes_of = {}
  for token, id in tokenizer.get_vocab().items():
    if all(letter in byte_of for letter in token):
      bytes_of[id] = bytes(byte_of[letter] for letter in token)
  for id, added in tokenizer.added_tokens_decoder.items():
    bytes_of[id] = added.content.encode()
  lengths_V = np.zeros(
    max(tokenizer_lib.size(tokenizer), *bytes_of) + 1, np.int64
  )
  for id, spelled in bytes_of.items():
    lengths_V[id] = len(spelled)
  return bytes_of, lengths_V


def _byte_of_letter() -> dict[str, int]:
  """The letters that byte-level vocabularies write bytes with, as GPT-2 did:
  those that print stand for themselves, all others for the next after 255."""
  printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printing]
  letters = printing + [256 + i for i in range(len(others))]
  return dict(zip(map(chr, letters), printing + others, strict=True))
