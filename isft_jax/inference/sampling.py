"""How the next token is chosen: the most likely one, or at random.

No sorting: the vocabulary is cut at a logit, which is found bit by bit. Top-k
and top-p are the same search, for how many tokens or for how much probability.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sampling(NamedTuple):
  """What to draw from; numbers that may change without a new compilation.

  temperature: divides the logits; 0 takes the most likely token.
  top_k: only so many of the most likely tokens; 0: all.
  top_p: then only the fewest that together have this probability; 1: all.
  """

  temperature: float | np.float32 = 0.0
  top_k: int | np.int32 = 0
  top_p: float | np.float32 = 1.0

  def check(self) -> None:
    """Raises ValueError, naming the field, if nothing could be drawn."""
    if not 0 <= self.temperature < float('inf'):
      raise ValueError(f'temperature={self.temperature} must be at least 0')
    if self.top_k < 0:
      raise ValueError(f'top_k={self.top_k} must be at least 0, which is all')
    if not 0 < self.top_p <= 1:
      raise ValueError(f'top_p={self.top_p} must be above 0, and at most 1')


GREEDY = Sampling()


def filtered(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Returns the logits to draw from: divided, and -inf where it is cut off.

  The order is transformers': temperature, top-k, top-p of what is left. The
  most likely token stays in any case, and so does one that ties with the last
  that stays.

  logits_BV: float32; sampling: its temperature is above 0.
  """
  top_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
  logits_BV = top_BV / sampling.temperature  # at most 0: no overflow

  def top_k(logits_BV: jax.Array) -> jax.Array:
    return _cut(logits_BV, jnp.ones_like(logits_BV), sampling.top_k)

  def top_p(logits_BV: jax.Array) -> jax.Array:
    return _cut(logits_BV, jax.nn.softmax(logits_BV), sampling.top_p)

  V = logits_BV.shape[-1]
  is_cut = (sampling.top_k > 0) & (sampling.top_k < V)
  logits_BV = jax.lax.cond(is_cut, top_k, lambda x: x, logits_BV)
  return jax.lax.cond(sampling.top_p < 1, top_p, lambda x: x, logits_BV)


class Chooser(NamedTuple):
  """Chooses the next token of each row: sampling is None for the likeliest."""

  sampling: Sampling | None
  keys_B: jax.Array | None

  @classmethod
  def of(
    cls, sampling: Sampling, seed: int, rows_B: Sequence[int]
  ) -> 'Chooser':
    """Returns that of rows with these numbers, each with a key of its own.

    Raises ValueError if nothing could be drawn.
    """
    sampling.check()
    if not sampling.temperature:
      return cls(None, None)
    numbers = Sampling(  # of the same types, whatever types they came in
      np.float32(sampling.temperature),
      np.int32(sampling.top_k),
      np.float32(sampling.top_p),
    )
    keys_B = _keys_of(jax.random.key(seed), np.asarray(rows_B, np.uint32))
    return cls(numbers, keys_B)

  def __call__(self, logits_BV: jax.Array, index: int | jax.Array) -> jax.Array:
    """Returns the tokens, int32 [B], that come at an index of the replies."""
    if self.sampling is None or self.keys_B is None:
      return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(self.keys_B, index)
    logits_BV = filtered(logits_BV, self.sampling)
    draw = jax.vmap(jax.random.categorical)
    return draw(keys_B, logits_BV).astype(jnp.int32)


_keys_of = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))


def _cut(
  logits_BV: jax.Array, masses_BV: jax.Array, goal: jax.typing.ArrayLike
) -> jax.Array:
  """Returns the logits, -inf below the highest one t for which

  sum of the masses of {v : logit_v >= t} >= goal
  """
  # As unsigned integers, the bits of floats have the order of the floats if
  # the sign bit of the positive and all bits of the negative are flipped.
  bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.uint32)
  sign = jnp.uint32(1 << 31)
  order_BV = jnp.where(bits_BV < sign, bits_BV | sign, ~bits_BV)

  def refine(i: jax.Array, least_B1: jax.Array) -> jax.Array:
    tried_B1 = least_B1 | (sign >> i)
    above_BV = jnp.where(order_BV >= tried_B1, masses_BV, 0)
    enough_B1 = above_BV.sum(axis=-1, keepdims=True) >= goal
    return jnp.where(enough_B1, tried_B1, least_B1)

  none_B1 = jnp.zeros((len(logits_BV), 1), jnp.uint32)
  least_B1 = jax.lax.fori_loop(jnp.uint32(0), jnp.uint32(32), refine, none_B1)
  return jnp.where(order_BV >= least_B1, logits_BV, -jnp.inf)
