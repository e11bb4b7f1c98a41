"""Lays a batch of prompts out in columns, and finds what they share.

All rows of a cache are written at the same columns, so prompts are padded on
the left, and end at the same column.
"""

from collections.abc import Sequence

import numpy as np

# Fewer tokens that are read once are not worth compiling a program for one row.
FEWEST_SHARED = 64


def bucket(length: int) -> int:
  """Rounds a length up to one of a few lengths that programs are compiled for.

  The result is a multiple of 8, and of an eighth of the next power of two. So
  there are few long lengths, and each is less than a quarter too long.

  Args:
    length: tokens, at least 1.

  Returns:
    The rounded length.
  """
  # For example 65 to 128 tokens: multiples of 16.
  step = max(8, (1 << (length - 1).bit_length()) // 8)
  return -(-length // step) * step


def pad(
  prompts: Sequence[np.ndarray], vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pads prompts on the left, to one of a few lengths.

  Args:
    prompts: int ids of each prompt.
    vocab_size: number of ids that the model has.

  Returns:
    (int32 tokens_BL, int32 start_B: first column of each prompt).

  Raises:
    ValueError: a prompt is empty, or has ids that the model does not have.
  """
  lengths_B = np.array([len(prompt) for prompt in prompts])
  if not lengths_B.all():
    row = int(lengths_B.argmin())
    raise ValueError(f'prompt {row} is empty: give at least one token')
  # So that other prompts reuse the compiled program.
  L = bucket(int(lengths_B.max()))
  tokens_BL = np.zeros((len(prompts), L), np.int32)
  for row, prompt in enumerate(prompts):
    least, most = np.min(prompt), np.max(prompt)
    if least < 0 or most >= vocab_size:
      raise ValueError(
        f'prompt {row} has ids from {least} to {most}, but the model has ids 0 '
        f'to {vocab_size - 1}; use the tokenizer of this model'
      )
    tokens_BL[row, L - len(prompt) :] = prompt
  return tokens_BL, (L - lengths_B).astype(np.int32)


def shared_columns(prompts: Sequence[np.ndarray]) -> int:
  """Returns how many first columns have only padding and shared tokens.

  In these columns each row has a part of one text, which one row can read for
  all. For example, with S for shared tokens and a bucket of 4 for the rest:

    . S S S S S a b c d      the first 6 columns are shared: the short prompt
    . . . S S S S S e f      has tokens of the text in the next two as well

  Args:
    prompts: int ids of each prompt, as `pad` takes them.

  Returns:
    The number of columns, which leaves one of a few lengths. 0: too few tokens
    are shared, or there is one prompt.
  """
  lengths = [len(prompt) for prompt in prompts]
  longest = max(lengths)
  # The last token of each prompt is read in its own row.
  most = min(lengths) - 1
  firsts_BL = np.stack([prompt[:most] for prompt in prompts])
  differs_L = (firsts_BL != firsts_BL[0]).any(axis=0)
  shared = int(differs_L.argmax()) if differs_L.any() else most
  # The longest prompt has most to read after the shared text.
  rest = bucket(longest - shared)
  if len(prompts) == 1 or longest - rest < FEWEST_SHARED:
    return 0
  return bucket(longest) - rest
