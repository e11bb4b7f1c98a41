"""Generates replies to a batch of prompts, as tokens, with a key-value cache.

  replies = generate(graphdef, params, prompts, max_new_tokens=48)

Prompts are padded on the left to a common length, and read into the cache one
piece at a time. A text that all of them begin with is read once. The device
then generates blocks of steps, and the host checks the new tokens after each
block.

The compiled programs depend on the number of rows, the buckets of what is read
and of the cache, and on greedy or not. Temperature, top-k, top-p, stop ids,
seed and number of new tokens are inputs, and need no new compilation.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from isft_jax import sharding
from isft_jax.inference.prompts import bucket, pad, shared_columns
from isft_jax.inference.sampling import GREEDY, Chooser, Sampling
from isft_jax.models.decoder import Cache, GraphDef
from isft_jax.types import PyTree

# Maximum steps between two checks by the host.
BLOCK = 16
# Tokens of a prompt that are read at once. Attention scores exist only for so
# many queries at a time, however long the prompt is.
PIECE = 512
# A smaller batch is another program to compile. It is used if it has so many
# rows at least, and so many steps are left.
FEWEST_ROWS = 8
FEWEST_STEPS = 64


class State(NamedTuple):
  """Input of the next step.

  Attributes:
    token_B: int32, last token of each row. It is not in the cache yet.
    drawn: int32, number of tokens drawn per row.
    cache: keys and values of all earlier tokens.
  """

  token_B: jax.Array
  drawn: jax.Array
  cache: Cache


class Draw(TypedDict, total=False):
  """Arguments of `generate` that select the sampling of tokens."""

  sampling: Sampling
  seed: int


class DrawRows(Draw, total=False):
  """Arguments of `generate` that select the sampling, rows and block size."""

  rows: Sequence[int] | None
  block: int


class DrawUntil(DrawRows, total=False):
  """Arguments of `generate` that select the sampling, rows and stop ids."""

  stop_ids: Sequence[int]


def greedy(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  stop_ids: Sequence[int] = (),
) -> list[np.ndarray]:
  """Generates replies of the most likely tokens.

  Args:
    graphdef: structure of the model.
    params: parameters of the model.
    prompts: int ids of each prompt.
    max_new_tokens: maximum tokens per reply.
    stop_ids: ids that end a reply.

  Returns:
    int32 ids of each reply; see `generate`.
  """
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
  keep_stop: bool = False,
) -> list[np.ndarray]:
  """Generates a reply to each prompt.

  A reply ends before its first stop id, or after max_new_tokens. Prompts may
  differ in length. A reply does not depend on the other prompts of its batch:
  token t is drawn with a key made from the seed, the row's number and t.

  Args:
    graphdef: structure of the model.
    params: parameters of the model.
    prompts: int ids of each prompt.
    max_new_tokens: maximum tokens per reply.
    sampling: temperature, top-k and top-p.
    seed: sampling seed.
    rows: numbers of the rows; None: 0, 1, .... With the right numbers, prompts
      in several batches get the same replies as in one batch.
    stop_ids: ids that end a reply.
    watch: (index of a prompt, its reply so far) -> whether to end the reply
      there. It is called after each block for each unfinished reply.
    block: steps between two checks, at most BLOCK.
    keep_stop: whether replies include their stop id.

  Returns:
    int32 ids of each reply, without the stop id unless `keep_stop` is set.

  Raises:
    ValueError: a prompt is empty or has ids that the model does not have, a
      sampling setting is not valid, or max_new_tokens is less than 1.
  """
  if max_new_tokens < 1:
    raise ValueError(f'max_new_tokens={max_new_tokens} must be at least 1')
  # Numbers of rows seed the sampling; by default they count the prompts.
  rows = range(len(prompts)) if rows is None else rows
  chooser = Chooser.from_seed(sampling, seed, rows)
  if not len(prompts):
    return []
  # Read the prompts, and draw the first token of each reply.
  state = _read_prompts(graphdef, params, prompts, max_new_tokens, chooser)
  layers = _layers(params)
  if layers:
    state = state._replace(cache=_in_layers(state.cache))
  # A mask, and not a list, so that the number of stop ids needs no new
  # compilation. The embedding has a row for each id that the model knows.
  is_stop_V = np.zeros(len(params['embedding']), bool)
  # A tokenizer may have more ids than the model. The model never draws those.
  is_stop_V[[id for id in stop_ids if id < len(is_stop_V)]] = True

  # Append the M new tokens of each row, find ended replies, and run a block.
  new_BM, drawn = sharding.fetch(state.token_B)[:, None], 1
  replies = [np.zeros(0, np.int32)] * len(prompts)
  running_B = np.ones(len(prompts), bool)
  # Prompt of each row.
  prompt_B = np.arange(len(prompts))
  while True:
    for b in np.flatnonzero(running_B).tolist():
      # A row may draw tokens after its stop id until the block ends. They are
      # dropped.
      stops = np.flatnonzero(is_stop_V[new_BM[b]])
      new = new_BM[b, : stops[0] + keep_stop] if stops.size else new_BM[b]
      prompt = int(prompt_B[b])
      replies[prompt] = np.concatenate([replies[prompt], new])
      has_ended = stops.size or (watch and watch(prompt, replies[prompt]))
      running_B[b] = not has_ended
    if drawn == max_new_tokens or not running_B.any():
      return replies
    # Leave half of the rows out, once that many have ended.
    is_long = max_new_tokens - drawn >= FEWEST_STEPS
    kept_B = _halved(running_B) if layers and is_long else None
    if kept_B is not None:
      chooser, state = _take(chooser, state, kept_B)
      running_B, prompt_B = running_B[kept_B], prompt_B[kept_B]
    # A Python int would have a weak type, and compile another program.
    stop = np.int32(min(drawn + min(block, BLOCK), max_new_tokens))
    new_BM, state = _draw_block(
      graphdef, params, layers, chooser, is_stop_V, running_B, stop, state
    )
    # The device stops early if every row has ended.
    previous, drawn = drawn, int(state.drawn)
    new_BM = sharding.fetch(new_BM)[:, : drawn - previous]


def lower(
  graphdef: GraphDef, params: PyTree, rows: int, length: int, new: int
) -> jax.stages.Lowered:
  """Lowers the program that `generate` runs for a block of steps.

  Args:
    graphdef: structure of the model.
    params: arrays, or ShapeDtypeStructs with shardings.
    rows: number of prompts.
    length: tokens of the longest prompt.
    new: maximum tokens per reply.

  Returns:
    The lowered program, ready to compile.
  """
  V = len(params['embedding'])
  # Shapes only: nothing is allocated.
  start_B = jax.ShapeDtypeStruct((rows,), jnp.int32)
  cache = jax.eval_shape(
    functools.partial(_empty, graphdef, columns=bucket(bucket(length) + new)),
    params,
    start_B,
  )
  one = jax.ShapeDtypeStruct((), jnp.int32)
  is_V, is_B = (jax.ShapeDtypeStruct((n,), bool) for n in (V, rows))
  state = jax.eval_shape(State, start_B, one, cache)
  # The loop of greedy decoding: sampling would be another program.
  chooser = Chooser.from_seed(GREEDY, 0, range(rows))
  return _draw_block.lower(
    graphdef, params, None, chooser, is_V, is_B, one, state
  )


def _read_prompts(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  new: int,
  chooser: Chooser,
) -> State:
  """Reads prompts, and draws the first of the new tokens of each reply."""
  V = len(params['embedding'])
  tokens_BL, start_B = pad(prompts, V)
  columns = bucket(tokens_BL.shape[1] + new)
  shared = shared_columns(prompts)
  if shared:
    # One row reads the shared text for all rows.
    text_T = tokens_BL[start_B.argmin(), start_B.min() : shared]
    text_1L, start_1 = pad([text_T], V)
    cache = _empty(graphdef, params, start_1, text_1L.shape[1])
    cache = _read(graphdef, params, text_1L, Chooser(None, None), cache).cache
    cache = _spread(cache, start_B, np.int32(shared), columns)
  else:
    cache = _empty(graphdef, params, start_B, columns)
  return _read(graphdef, params, tokens_BL[:, shared:], chooser, cache)


def _read(
  graphdef: GraphDef,
  params: PyTree,
  tokens_BL: np.ndarray,
  chooser: Chooser,
  cache: Cache,
) -> State:
  """Reads tokens into the cache, and draws the token after the last one."""
  L = tokens_BL.shape[1]
  # The first piece takes the remainder, so that all others have PIECE tokens.
  for piece_BL in np.split(tokens_BL, range(L % PIECE or PIECE, L, PIECE), 1):
    state = _read_piece(graphdef, params, piece_BL, chooser, cache)
    cache = state.cache
  return state


@functools.partial(jax.jit, static_argnames=('graphdef', 'columns'))
def _empty(
  graphdef: GraphDef, params: PyTree, start_B: jax.Array, columns: int
) -> Cache:
  return nnx.merge(graphdef, params).empty_cache(start_B, columns)


def _layers(params: PyTree) -> list[PyTree] | None:
  """Returns the parameters of each layer if the first CPU has them, else None.

  On a CPU, a scan copies the parameters of each layer for each token, which
  takes about a seventh of the time. Layers share the memory of `params`.
  """
  leaves, structure = jax.tree.flatten(params['blocks'])
  # numpy arrays go to the default device.
  device = jax.devices()[0]
  devices = {device}.union(
    *(leaf.devices() for leaf in leaves if isinstance(leaf, jax.Array))
  )
  if len(devices) > 1 or device.platform != 'cpu':
    return None

  def views(leaf: jax.Array | np.ndarray) -> list[jax.Array]:
    # A jax array keeps the numpy array that it returns. The shard is another
    # object, so nothing refers to `leaf` when the layers are gone.
    if isinstance(leaf, jax.Array):
      leaf = leaf.addressable_data(0)
    host = np.asarray(leaf)
    return [jax.device_put(each, may_alias=True) for each in host]

  by_layer = zip(*map(views, leaves), strict=True)
  return [jax.tree.unflatten(structure, slices) for slices in by_layer]


def _halved(running_B: np.ndarray) -> np.ndarray | None:
  """Returns which rows the next block draws, or None for all.

  They are all rows that have not ended, filled up with others to half of the
  rows, or a quarter, and so on, so that few programs are compiled.
  """
  rows = len(running_B)
  while max(running_B.sum(), FEWEST_ROWS) <= -(-rows // 2) < rows:
    rows = -(-rows // 2)
  if rows == len(running_B):
    return None
  return np.argsort(~running_B, kind='stable')[:rows]


@jax.jit
def _take(
  chooser: Chooser, state: State, kept_B: jax.Array
) -> tuple[Chooser, State]:
  """Returns the chooser and the state of some rows, for a cache of layers."""

  def take(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[kept_B], tree)

  cache = state.cache
  return chooser._replace(keys_B=take(chooser.keys_B)), state._replace(
    token_B=take(state.token_B),
    cache=cache._replace(
      k=take(cache.k), v=take(cache.v), start_B=take(cache.start_B)
    ),
  )


@jax.jit
def _in_layers(cache: Cache) -> Cache:
  """Returns a cache with a tuple of layers instead of stacked ones."""
  return cache._replace(k=tuple(cache.k), v=tuple(cache.v))


@functools.partial(jax.jit, static_argnames='columns')
def _spread(
  cache: Cache, start_B: jax.Array, size: jax.Array, columns: int
) -> Cache:
  """Returns a cache of many rows, each with the text of a cache of one row.

  Args:
    cache: keys and values [layers, 1, N, L, A] of the text.
    start_B: column of each row that the text begins in.
    size: number of columns that are filled. The text may go past the last one.
    columns: size of the returned cache.
  """
  # Column of the text that each column of a row takes. Columns without one
  # take any: they are padding, or will be overwritten.
  from_BS = jnp.arange(columns)[None] + (cache.start_B - start_B)[:, None]

  def spread(stack: jax.Array) -> jax.Array:
    one = functools.partial(jnp.take, stack[:, 0], axis=2, mode='clip')
    return jax.vmap(one, out_axes=1)(from_BS)

  k, v = jax.tree.map(spread, (cache.k, cache.v))
  return Cache(k, v, start_B, size)


@functools.partial(jax.jit, static_argnames='graphdef', donate_argnames='cache')
def _read_piece(
  graphdef: GraphDef,
  params: PyTree,
  tokens_BL: jax.Array,
  chooser: Chooser,
  cache: Cache,
) -> State:
  """Reads tokens into the cache, and draws the token after the last one."""
  model = nnx.merge(graphdef, params)
  # Logits are computed only for the last token.
  hidden_BLD, cache = model.extend(tokens_BL, cache)
  token_B = chooser(model.logits(hidden_BLD[:, -1]), 0)
  return State(token_B, jnp.int32(1), cache)


@functools.partial(jax.jit, static_argnames='graphdef', donate_argnames='state')
def _draw_block(
  graphdef: GraphDef,
  params: PyTree,
  layers: list[PyTree] | None,
  chooser: Chooser,
  is_stop_V: jax.Array,
  running_B: jax.Array,
  stop: jax.Array,
  state: State,
) -> tuple[jax.Array, State]:
  """Draws tokens until each row has `stop` of them, or every row has ended.

  Returns (new tokens in the first columns of [B, BLOCK], next state).
  """
  model = nnx.merge(graphdef, params)
  # Columns of the result count from the first token of this block.
  first = state.drawn

  def is_unfinished(carry: tuple[jax.Array, jax.Array, State]) -> jax.Array:
    _, running_B, state = carry
    return (state.drawn < stop) & running_B.any()

  def step(
    carry: tuple[jax.Array, jax.Array, State],
  ) -> tuple[jax.Array, jax.Array, State]:
    new_BM, running_B, (token_B, drawn, cache) = carry
    hidden_B1D, cache = model.extend(token_B[:, None], cache, layers)
    token_B = chooser(model.logits(hidden_B1D[:, 0]), drawn)
    # Column of this token within the block.
    new_BM = new_BM.at[:, drawn - first].set(token_B)
    running_B &= ~is_stop_V[token_B]
    return new_BM, running_B, State(token_B, drawn + 1, cache)

  new_BM = jnp.zeros((len(running_B), BLOCK), jnp.int32)
  # The loop runs on the device: no transfer to the host per token.
  carry = new_BM, running_B, state
  new_BM, _, state = jax.lax.while_loop(is_unfinished, step, carry)
  return new_BM, state
