"""Samples earlier records, so that an increment repeats some of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from isft_jax.data.records import dataset
from isft_jax.data.records.dataset import Records
from isft_jax.types import Example


def write(
  folder: str, pool: Sequence[str], tokens: int, seed: Sequence[int]
) -> bool:
  """Writes a random sample of earlier records, without replacement.

  Args:
    folder: folder to write; a complete one is kept.
    pool: folders of earlier records.
    tokens: number of tokens to reach. Fewer are written if there are fewer.
    seed: seed of the sample.

  Returns:
    Whether there is a sample: the pool may be empty.
  """
  opened = [Records(each) for each in pool]
  if not opened:
    return False
  start_S = np.cumsum([0, *map(len, opened)])

  def examples() -> Iterator[Example]:
    left = tokens
    for number in np.random.default_rng(seed).permutation(start_S[-1]):
      if left <= 0:
        return
      which = int(np.searchsorted(start_S, number, side='right')) - 1
      example = opened[which][int(number - start_S[which])]
      left -= len(example.tokens_T)
      yield example

  dataset.write(folder, examples, opened[0].metadata)
  return True
