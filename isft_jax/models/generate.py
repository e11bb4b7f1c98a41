"""Greedy replies to a batch of prompts, with a key-value cache."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# Prompts are padded to a multiple of this, so that compiled shapes repeat.
BUCKET = 32


def greedy(
  graphdef: nnx.GraphDef,
  params: dict,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  stop_ids: Sequence[int] = (),
) -> list[np.ndarray]:
  """The most likely next token, again and again: one int32 reply a prompt.

  A reply ends before its first stop id, or after max_new_tokens. Prompts may
  differ in length; each row's reply is what it would be alone. Compiles once
  for each (number of prompts, bucket of the longest, max_new_tokens).

  Raises ValueError on an empty prompt, or if no token may be generated.
  """
  if max_new_tokens < 1:
    raise ValueError(f'max_new_tokens={max_new_tokens} must be at least 1')
  lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
  if not lengths_B.size:
    return []
  if not lengths_B.all():
    row = int(lengths_B.argmin())
    raise ValueError(f'prompt {row} is empty: give at least one token')
  padded = -(-int(lengths_B.max()) // BUCKET) * BUCKET
  tokens_BL = np.zeros((len(prompts), padded), np.int32)
  for row_L, prompt in zip(tokens_BL, prompts, strict=True):
    row_L[: len(prompt)] = prompt
  stops = np.array(stop_ids, np.int32).reshape(-1)
  replies_BM, sizes_B = jax.device_get(
    _decode(graphdef, params, tokens_BL, lengths_B, stops, max_new_tokens)
  )
  return [reply[:size] for reply, size in zip(replies_BM, sizes_B, strict=True)]


@functools.partial(jax.jit, static_argnames=('graphdef', 'max_new'))
def _decode(graphdef, params, tokens_BL, lengths_B, stops, max_new):
  model = nnx.merge(graphdef, params)
  B, L = tokens_BL.shape

  def next_token(hidden_BD):
    return jnp.argmax(model.logits(hidden_BD), axis=-1).astype(jnp.int32)

  def running(state):
    step, _, alive_B, *_ = state
    return (step < max_new) & alive_B.any()

  def write(state):
    step, token_B, alive_B, replies_BM, sizes_B, cache = state
    alive_B &= ~jnp.isin(token_B, stops)
    replies_BM = replies_BM.at[:, step].set(token_B)
    sizes_B += alive_B
    # Each step overwrites one column of a row's padding; the columns after
    # it are not yet visible.
    hidden_B1D, cache = model.extend(token_B[:, None], lengths_B + step, cache)
    token_B = next_token(hidden_B1D[:, 0])
    return step + 1, token_B, alive_B, replies_BM, sizes_B, cache

  cache = model.empty_cache(B, L + max_new)
  first_B = jnp.zeros(B, jnp.int32)
  hidden_BLD, cache = model.extend(tokens_BL, first_B, cache)
  last_BD = hidden_BLD[jnp.arange(B), lengths_B - 1]
  state = (
    jnp.int32(0),
    next_token(last_BD),
    jnp.ones(B, bool),
    jnp.zeros((B, max_new), jnp.int32),
    jnp.zeros(B, jnp.int32),
    cache,
  )
  _, _, _, replies_BM, sizes_B, _ = jax.lax.while_loop(running, write, state)
  return replies_BM, sizes_B
