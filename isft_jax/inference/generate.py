"""Replies to a batch of prompts, as tokens, with a key-value cache.

Prompts are padded on the left to a common length, read into the cache a piece
at a time, and continued on the device a block of steps at a time; between two
blocks the host looks at the new tokens. What is compiled depends on the number
of rows, the buckets of the longest prompt and of the cache, and on greedy or
not. Temperature, top-k, top-p, stops, seed and the number of new tokens are
data.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from isft_jax.inference.sampling import GREEDY, Chooser, Sampling
from isft_jax.models.decoder import Cache, GraphDef
from isft_jax.types import PyTree

BLOCK = 16
# Tokens of a prompt that are read at once: attention's scores exist for so many
# queries, however long the prompt is.
PIECE = 512


class State(NamedTuple):
  """What the next step needs.

  token_B: what was drawn last, and is not in the cache yet.
  drawn: how many tokens of a row were drawn so far.
  """

  token_B: jax.Array
  drawn: jax.Array
  cache: Cache


class Draw(TypedDict, total=False):
  """Arguments of `generate`: how tokens are drawn."""

  sampling: Sampling
  seed: int


class DrawRows(Draw, total=False):
  """Arguments of `generate`: how tokens are drawn, and of which rows."""

  rows: Sequence[int] | None
  block: int


class DrawUntil(DrawRows, total=False):
  """Arguments of `generate`: also what ends a reply."""

  stop_ids: Sequence[int]


def greedy(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  stop_ids: Sequence[int] = (),
) -> list[np.ndarray]:
  """Returns the replies of the most likely tokens; see `generate`."""
  return generate(graphdef, params, prompts, max_new_tokens, stop_ids=stop_ids)


def generate(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  *,
  sampling: Sampling = GREEDY,
  seed: int = 0,
  rows: Sequence[int] | None = None,
  stop_ids: Sequence[int] = (),
  watch: Callable[[int, np.ndarray], bool] | None = None,
  block: int = BLOCK,
) -> list[np.ndarray]:
  """Returns an int32 reply to each prompt.

  A reply ends before its first stop id, or after max_new_tokens. Prompts may
  differ in length; each reply is what it would be alone: its token t is drawn
  with a key of its own, made of the seed, the row's number and t.

  rows: numbers of the rows; by default 0, 1, .... Prompts that go through in
    several batches so get the replies that one batch would give them.
  watch: (index of a prompt, its reply so far) -> whether to end it there; asked
    after each block for each reply that goes on.
  block: steps between two looks at the replies, of at most BLOCK.

  Raises ValueError for a prompt that is empty or has ids that the model does
  not know, and if no token may be generated.
  """
  if max_new_tokens < 1:
    raise ValueError(f'max_new_tokens={max_new_tokens} must be at least 1')
  rows = range(len(prompts)) if rows is None else rows
  chooser = Chooser.of(sampling, seed, rows)
  if not len(prompts):
    return []
  V = len(params['embedding'])
  tokens_BL, start_B = _padded(prompts, V)
  B, L = tokens_BL.shape
  is_stop_V = np.zeros(V, bool)
  # A tokenizer may have more ids than the model, which never draws those.
  is_stop_V[[id for id in stop_ids if id < V]] = True

  columns = bucket(L + max_new_tokens)
  cache = _empty(graphdef, params, start_B, columns)
  # The first piece is the odd one.
  for piece_BL in np.split(tokens_BL, range(L % PIECE or PIECE, L, PIECE), 1):
    state = _read(graphdef, params, piece_BL, chooser, cache)
    cache = state.cache
  new_BM, drawn = np.asarray(state.token_B)[:, None], 1
  replies = [np.zeros(0, np.int32)] * B
  running_B = np.ones(B, bool)
  while True:
    for b in np.flatnonzero(running_B).tolist():
      stops = np.flatnonzero(is_stop_V[new_BM[b]])
      new = new_BM[b, : stops[0]] if stops.size else new_BM[b]
      replies[b] = np.concatenate([replies[b], new])
      running_B[b] = not stops.size and not (watch and watch(b, replies[b]))
    if drawn == max_new_tokens or not running_B.any():
      return replies
    stop = np.int32(min(drawn + min(block, BLOCK), max_new_tokens))
    new_BM, state = _go_on(
      graphdef, params, chooser, is_stop_V, running_B, stop, state
    )
    before, drawn = drawn, int(state.drawn)
    new_BM = np.asarray(new_BM)[:, : drawn - before]


def lower(
  graphdef: GraphDef, params: PyTree, rows: int, length: int, new: int
) -> jax.stages.Lowered:
  """Returns the loop of steps that generate runs, lowered, to be compiled.

  params: arrays, or ShapeDtypeStructs that carry their sharding.
  rows, length, new: prompts, tokens of the longest, tokens of a reply.
  """
  V = len(params['embedding'])
  start_B = jax.ShapeDtypeStruct((rows,), jnp.int32)
  cache = jax.eval_shape(
    functools.partial(_empty, graphdef, columns=bucket(bucket(length) + new)),
    params,
    start_B,
  )
  one = jax.ShapeDtypeStruct((), jnp.int32)
  is_V, is_B = (jax.ShapeDtypeStruct((n,), bool) for n in (V, rows))
  state = jax.eval_shape(State, start_B, one, cache)
  chooser = Chooser.of(GREEDY, 0, range(rows))
  return _go_on.lower(graphdef, params, chooser, is_V, is_B, one, state)


def bucket(length: int) -> int:
  """Returns the next length that something is compiled for.

  A multiple of 8, and of an eighth of the next power of two: long ones are few,
  and less than a quarter longer than need be.
  """
  step = max(8, (1 << (length - 1).bit_length()) // 8)
  return -(-length // step) * step


def _padded(
  prompts: Sequence[np.ndarray], vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns prompts as rows of one length, and where each of them begins."""
  lengths_B = np.array([len(prompt) for prompt in prompts])
  if not lengths_B.all():
    row = int(lengths_B.argmin())
    raise ValueError(f'prompt {row} is empty: give at least one token')
  L = bucket(int(lengths_B.max()))
  tokens_BL = np.zeros((len(prompts), L), np.int32)
  for row, prompt in enumerate(prompts):
    least, most = np.min(prompt), np.max(prompt)
    if least < 0 or most >= vocab_size:
      raise ValueError(
        f'prompt {row} has ids from {least} to {most}, and the model knows 0 '
        f'to {vocab_size - 1}: is the tokenizer its own?'
      )
    tokens_BL[row, L - len(prompt) :] = prompt
  return tokens_BL, (L - lengths_B).astype(np.int32)


@functools.partial(jax.jit, static_argnames=('graphdef', 'columns'))
def _empty(
  graphdef: GraphDef, params: PyTree, start_B: jax.Array, columns: int
) -> Cache:
  return nnx.merge(graphdef, params).empty_cache(start_B, columns)


@functools.partial(jax.jit, static_argnames='graphdef', donate_argnames='cache')
def _read(
  graphdef: GraphDef,
  params: PyTree,
  tokens_BL: jax.Array,
  chooser: Chooser,
  cache: Cache,
) -> State:
  """Reads tokens into the cache, and chooses what follows the last."""
  model = nnx.merge(graphdef, params)
  hidden_BLD, cache = model.extend(tokens_BL, cache)
  token_B = chooser(model.logits(hidden_BLD[:, -1]), 0)
  return State(token_B, jnp.int32(1), cache)


@functools.partial(jax.jit, static_argnames='graphdef', donate_argnames='state')
def _go_on(
  graphdef: GraphDef,
  params: PyTree,
  chooser: Chooser,
  is_stop_V: jax.Array,
  running_B: jax.Array,
  stop: jax.Array,
  state: State,
) -> tuple[jax.Array, State]:
  """Draws until there are `stop` tokens, or until no row goes on.

  Returns (the tokens in columns 0, 1, ... of [B, BLOCK], the state after).
  """
  model = nnx.merge(graphdef, params)
  first = state.drawn

  def goes_on(carry: tuple[jax.Array, jax.Array, State]) -> jax.Array:
    _, running_B, state = carry
    return (state.drawn < stop) & running_B.any()

  def step(
    carry: tuple[jax.Array, jax.Array, State],
  ) -> tuple[jax.Array, jax.Array, State]:
    new_BM, running_B, (token_B, drawn, cache) = carry
    hidden_B1D, cache = model.extend(token_B[:, None], cache)
    token_B = chooser(model.logits(hidden_B1D[:, 0]), drawn)
    new_BM = new_BM.at[:, drawn - first].set(token_B)
    running_B &= ~is_stop_V[token_B]
    return new_BM, running_B, State(token_B, drawn + 1, cache)

  new_BM = jnp.zeros((len(running_B), BLOCK), jnp.int32)
  carry = new_BM, running_B, state
  new_BM, _, state = jax.lax.while_loop(goes_on, step, carry)
  return new_BM, state
