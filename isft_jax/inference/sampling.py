"""Chooses next tokens: greedy, or sampled with temperature, top-k and top-p.

Nothing is sorted. The vocabulary is cut at a threshold logit, which is searched
for bit by bit. Top-k and top-p are the same search, for a number of tokens or
for a probability.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sampling(NamedTuple):
  """Sampling settings. They may change without a new compilation.

  Attributes:
    temperature: divisor of the logits; 0: take the most likely token.
    top_k: number of most likely tokens to sample from; 0: all.
    top_p: of these, sample from the fewest whose probabilities sum to at least
      this; 1: all.
  """

  temperature: float | np.float32 = 0.0
  top_k: int | np.int32 = 0
  top_p: float | np.float32 = 1.0

  def check(self) -> None:
    """Raises ValueError, naming the field, if a value is out of range."""
    if not 0 <= self.temperature < float('inf'):
      raise ValueError(
        f'temperature={self.temperature} must be finite, and at least 0'
      )
    if self.top_k < 0:
      raise ValueError(f'top_k={self.top_k} must be at least 0 (0: all tokens)')
    if not 0 < self.top_p <= 1:
      raise ValueError(f'top_p={self.top_p} must be above 0, and at most 1')


GREEDY = Sampling()


def filtered(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Applies temperature, top-k and top-p to logits.

  The order is that of transformers: temperature, top-k, then top-p of the
  remaining tokens. The most likely token always remains. Tokens that tie with
  the last remaining one remain too.

  Args:
    logits_BV: float32.
    sampling: settings with a temperature above 0.

  Returns:
    float32 [B, V], -inf for removed tokens.
  """
  top_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
  logits_BV = top_BV / sampling.temperature  # at most 0: no overflow

  def top_k(logits_BV: jax.Array) -> jax.Array:
    return _cut(logits_BV, jnp.ones_like(logits_BV), sampling.top_k)

  def top_p(logits_BV: jax.Array) -> jax.Array:
    return _cut(logits_BV, jax.nn.softmax(logits_BV), sampling.top_p)

  # The search costs 32 passes over the vocabulary: skip it if nothing is cut.
  V = logits_BV.shape[-1]
  is_cut = (sampling.top_k > 0) & (sampling.top_k < V)
  logits_BV = jax.lax.cond(is_cut, top_k, lambda x: x, logits_BV)
  return jax.lax.cond(sampling.top_p < 1, top_p, lambda x: x, logits_BV)


class Chooser(NamedTuple):
  """Chooses the next token of each row.

  Attributes:
    sampling: settings; None: greedy.
    keys_B: random key of each row; None: greedy.
  """

  sampling: Sampling | None
  keys_B: jax.Array | None

  @classmethod
  def from_seed(
    cls, sampling: Sampling, seed: int, rows_B: Sequence[int]
  ) -> 'Chooser':
    """Returns a chooser with one random key per row.

    Args:
      sampling: settings.
      seed: sampling seed.
      rows_B: number of each row. Its key depends on the seed and this number.

    Raises:
      ValueError: a setting is out of range.
    """
    sampling.check()
    if not sampling.temperature:
      return cls(None, None)
    # Fixed types, because a Python int or float would compile another program.
    numbers = Sampling(
      np.float32(sampling.temperature),
      np.int32(sampling.top_k),
      np.float32(sampling.top_p),
    )
    # One key per row, from the seed and the number of the row.
    keys_B = _row_keys(jax.random.key(seed), np.asarray(rows_B, np.uint32))
    return cls(numbers, keys_B)

  def __call__(self, logits_BV: jax.Array, index: int | jax.Array) -> jax.Array:
    """Chooses tokens.

    Args:
      logits_BV: float32.
      index: position of the tokens in their replies. Each has its own key.

    Returns:
      int32 [B].
    """
    if self.sampling is None or self.keys_B is None:
      return _most_likely(logits_BV)
    # Keys depend on the row and the position only, so batches do not matter.
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(self.keys_B, index)
    logits_BV = filtered(logits_BV, self.sampling)
    draw = jax.vmap(jax.random.categorical)
    return draw(keys_B, logits_BV).astype(jnp.int32)


def _most_likely(logits_BV: jax.Array) -> jax.Array:
  """Returns the lowest id of the largest logit: int32 [B].

  On CPUs, this is 9 times as fast as argmax, which compares pairs of a number
  and its index.
  """
  V = logits_BV.shape[-1]
  is_most_BV = logits_BV == logits_BV.max(axis=-1, keepdims=True)
  ids_BV = jnp.arange(V, dtype=jnp.int32)[None]
  return jnp.where(is_most_BV, ids_BV, V - 1).min(axis=-1)


# (key, row numbers) -> key of each row
_row_keys = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))


def _cut(
  logits_BV: jax.Array, masses_BV: jax.Array, goal: jax.typing.ArrayLike
) -> jax.Array:
  """Sets logits below a threshold t to -inf.

  t = max {t : sum of the masses of {v : logit_v >= t} >= goal}
  """
  # Read as unsigned integers, floats keep their order if the sign bit of the
  # positive ones and all bits of the negative ones are flipped.
  bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.uint32)
  sign = jnp.uint32(1 << 31)
  order_BV = jnp.where(bits_BV < sign, bits_BV | sign, ~bits_BV)

  # Binary search for the threshold, from the highest bit to the lowest: keep a
  # bit if the tokens at or above the threshold still reach the goal.
  def refine(i: jax.Array, least_B1: jax.Array) -> jax.Array:
    tried_B1 = least_B1 | (sign >> i)
    above_BV = jnp.where(order_BV >= tried_B1, masses_BV, 0)
    enough_B1 = above_BV.sum(axis=-1, keepdims=True) >= goal
    return jnp.where(enough_B1, tried_B1, least_B1)

  # A float32 has 32 bits, so 32 rounds find the exact threshold.
  none_B1 = jnp.zeros((len(logits_BV), 1), jnp.uint32)
  least_B1 = jax.lax.fori_loop(jnp.uint32(0), jnp.uint32(32), refine, none_B1)
  return jnp.where(order_BV >= least_B1, logits_BV, -jnp.inf)
