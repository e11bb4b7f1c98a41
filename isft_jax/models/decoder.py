"""Transformer decoder, as a Flax NNX module.

The rest of the package uses it as a pure function of its parameters, a nested
dict of arrays:

  graphdef, shapes = abstract(config)
  params = init(config, key)
  hidden_BLD = nnx.merge(graphdef, params)(tokens_BL, positions_BL, ids_BL)

The layers are one scanned block. Its parameters have a leading axis of layers,
so compile time does not grow with depth. Families of models differ by fields of
the config only; see isft_jax/hf/families.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from isft_jax.axes import CONTEXT, ROWS, TENSOR, WEIGHTS, Rules
from isft_jax.config import LoraConfig, ModelConfig
from isft_jax.models import (
  attention,
  experts,
  layer_kinds,
  remat,
  sharded_embedding,
)
from isft_jax.models.layers import Block, Stored, norm_scale, rms_norm
from isft_jax.models.projections import float_type
from isft_jax.types import PyTree

# Shardings of stored parameters: (regex, mesh axes of each dimension). The
# regex is searched for in the '/'-joined path; see `sharding.shardings`. The
# path of each parameter matches exactly one rule, and so does the path of each
# optimizer moment, which has a prefix.
PARTITION_RULES: Rules = (
  # V D, by width if the vocabulary does not divide.
  (
    r'(^|/)(embedding|head)$',
    ((TENSOR, *WEIGHTS), None),
    (None, (TENSOR, *WEIGHTS)),
  ),
  (r'(^|/)norm$', (None,)),  # D
  (r'blocks/(attention|mlp)(_post)?_norm$', (None, None)),  # layers D
  (r'blocks/attention/[qkv]$', (None, WEIGHTS, TENSOR, None)),  # layers D H A
  (r'blocks/attention/[qkv]_bias$', (None, TENSOR, None)),  # layers H A
  (r'blocks/attention/[qk]_norm$', (None, None)),  # layers A
  (r'blocks/attention/[qk]_heads_norm$', (None, TENSOR, None)),  # layers H A
  (r'blocks/attention/o$', (None, TENSOR, None, WEIGHTS)),  # layers H A D
  (r'blocks/mlp/(gate|up)$', (None, WEIGHTS, TENSOR)),  # layers D F
  (r'blocks/mlp/down$', (None, TENSOR, WEIGHTS)),  # layers F D
  # Scales of int8 kernels.
  (r'blocks/attention/[qkv]_scale$', (None, TENSOR, None)),  # layers H A
  (r'blocks/attention/o_scale$', (None, WEIGHTS)),  # layers D
  (r'blocks/mlp/(gate|up)_scale$', (None, TENSOR)),  # layers F
  (r'blocks/mlp/down_scale$', (None, WEIGHTS)),  # layers D
  # Adapters are split as their kernels are. The rank r is never split.
  (r'blocks/attention/[qkv]_lora_a$', (None, WEIGHTS, None)),  # layers D r
  (r'blocks/attention/[qkv]_lora_b$', (None, None, TENSOR, None)),  # . r H A
  (r'blocks/attention/o_lora_a$', (None, TENSOR, None, None)),  # layers H A r
  (r'blocks/attention/o_lora_b$', (None, None, WEIGHTS)),  # layers r D
  (r'blocks/mlp/(gate|up)_lora_a$', (None, WEIGHTS, None)),  # layers D r
  (r'blocks/mlp/(gate|up)_lora_b$', (None, None, TENSOR)),  # layers r F
  (r'blocks/mlp/down_lora_a$', (None, TENSOR, None)),  # layers F r
  (r'blocks/mlp/down_lora_b$', (None, None, WEIGHTS)),  # layers r D
  *experts.PARTITION_RULES,
)
NO_LORA = LoraConfig()
# Shardings inside a step, if they differ from those of stored parameters. The
# tables of the vocabulary are stored sharded by rows, which are whole lanes of
# a TPU's memory, and used sharded by width. A token's row is looked up in
# shards, which the devices then exchange. Each chunk of the head is gathered
# from all devices. No device ever gathers a whole table.
TABLES = ('embedding', 'head')
IN_USE_RULES: Rules = (
  (
    r'(^|/)(embedding|head)$',
    (sharded_embedding.IDS, sharded_embedding.WIDTH),
  ),  # V D
)


# (layer, stored, q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored).
AttendInLayer = Callable[
  [jax.Array | int, Stored, jax.Array, jax.Array, jax.Array],
  tuple[jax.Array, Stored],
]


# Keys or values of all layers: [layers, B, N, S, A], or [B, N, S, A] of each.
Stack = jax.Array | tuple[jax.Array, ...]


class Cache(NamedTuple):
  """Keys and values of every layer for the columns seen so far.

  Attributes:
    k: keys, already rotated.
    v: values.
    start_B: int32, first column of each row. Earlier ones are padding.
    size: int32, number of filled columns, the same in all rows.
  """

  k: Stack
  v: Stack
  start_B: jax.Array
  size: jax.Array


def compute_logits(hidden: jax.Array, head_VD: jax.Array) -> jax.Array:
  """Computes logits from hidden states.

  Args:
    hidden: hidden states [..., D].
    head_VD: output head, cast to the data type of `hidden`.

  Returns:
    Logits [..., V], in float32 or the type of `hidden` if that is wider.
  """
  # A product in bfloat16 is summed in float32. The result is not rounded back.
  return jnp.einsum(
    '...D,VD->...V',
    hidden,
    head_VD.astype(hidden.dtype),
    preferred_element_type=jnp.promote_types(hidden.dtype, jnp.float32),
  )


class Decoder(nnx.Module):
  """Decoder from tokens to hidden states, and from hidden states to logits."""

  def __init__(
    self, config: ModelConfig, rngs: nnx.Rngs, lora: LoraConfig = NO_LORA
  ) -> None:
    # Copies, because the configs are a static, hashed part of the graph, and
    # the caller may change its own.
    self.config = config = dataclasses.replace(
      config,
      init_from='',
      rope_scaling=tuple(config.rope_scaling),
      layer_kinds=tuple(config.layer_kinds),
    )
    lora = dataclasses.replace(lora, init_from='', targets=tuple(lora.targets))
    V, D = config.vocab_size, config.width
    # A standard deviation of 0.02, as in GPT-2.
    self.embedding = _normal(rngs, config, (V, D), 0.02)
    # vmap gives each layer its own random numbers, and all parameters a leading
    # axis of layers.
    stack = nnx.vmap(functools.partial(Block, config, lora))
    self.blocks = nnx.split_rngs(splits=config.layers)(stack)(rngs)
    self.norm = norm_scale(config, (D,))
    # Tied models use the embedding as the head, and have no second table.
    if not config.tie_embeddings:
      self.head = _normal(rngs, config, (V, D), D**-0.5)

  def __call__(
    self,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    segment_ids_BL: jax.Array,
  ) -> jax.Array:
    """Computes the hidden states of packed rows, after the final norm.

    Args:
      tokens_BL: int32, token ids.
      positions_BL: int32, counted from 0 in each document.
      segment_ids_BL: int32. A token sees only earlier tokens of its own
        segment. 0 is padding, whose outputs are finite and meaningless.

    Returns:
      hidden_BLD.
    """

    def attend(
      layer: jax.Array | int,
      stored: None,
      q_BLHA: jax.Array,
      k_BLNA: jax.Array,
      v_BLNA: jax.Array,
    ) -> tuple[jax.Array, None]:
      del stored  # training stores nothing
      mixed_BLHA = attention.packed_attention(
        *(q_BLHA, k_BLNA, v_BLNA, segment_ids_BL),
        self.config.attention,
        self._score_scale,
        *layer_kinds.select(layer_kinds.windows(self.config), layer),
      )
      return mixed_BLHA, None

    hidden_BLD, _ = self._scan(tokens_BL, positions_BL, attend, None)
    return hidden_BLD

  @property
  def _score_scale(self) -> float:
    """Factor of the attention scores."""
    return self.config.query_scale or self.config.head_size**-0.5

  @property
  def head_VD(self) -> jax.Array:
    """Output head: its product with a hidden state gives the logits."""
    # Tied models have no parameter `head`, so the tables of `TABLES` may be
    # one.
    head = self.embedding if self.config.tie_embeddings else self.head
    return head[...]

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Computes the logits of a few positions.

    The loss does not use this: it computes logits from head_VD, one chunk of
    the vocabulary at a time.

    Args:
      hidden: hidden states [..., D].

    Returns:
      Logits [..., V], float32.
    """
    return compute_logits(hidden, self.head_VD)

  def empty_cache(self, start_B: jax.Array, columns: int) -> Cache:
    """Returns an empty cache.

    Args:
      start_B: int32, first column of each row.
      columns: size of the cache, S.

    Returns:
      A cache of zeros, in the data type of the computation.
    """
    config = self.config
    B, N, A = len(start_B), config.kv_heads, config.head_size
    # Keys and values start as zeros. Columns that are not filled are masked.
    empty = jnp.zeros((config.layers, B, N, columns, A), config.dtype)
    return Cache(empty, empty, start_B, jnp.int32(0))

  def extend(
    self,
    tokens_BL: jax.Array,
    cache: Cache,
    layers: Sequence[PyTree] | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Reads tokens into the next columns of a cache.

    All rows are written at the same columns, so that one slice of the cache
    changes, in place. Prompts of different lengths are therefore padded on the
    left. A token sees the columns from its row's start_B to its own, and its
    position counts from start_B.

    Args:
      tokens_BL: int32, token ids.
      cache: cache with room for L more columns. Columns past its end would
        overwrite its last ones.
      layers: parameters of each layer, for a cache of tuples. Nothing is then
        sliced, and compile time grows with depth. None: scan over the stacked
        parameters.

    Returns:
      (hidden_BLD, cache). Hidden states of padding are finite and meaningless.
    """
    # Column of each new token, the same in all rows. Padding gets negative
    # positions.
    columns_L = cache.size + jnp.arange(tokens_BL.shape[1])
    positions_BL = columns_L[None] - cache.start_B[:, None]

    def attend(
      layer: jax.Array | int,
      stored: tuple[Stack, Stack],
      q_BLHA: jax.Array,
      k_BLNA: jax.Array,
      v_BLNA: jax.Array,
    ) -> tuple[jax.Array, tuple[Stack, Stack]]:
      # Write the new columns of this layer, then read all of its columns.
      k, v = (
        _write(old, layer, new_BLNA.swapaxes(1, 2), cache.size)
        for old, new_BLNA in zip(stored, (k_BLNA, v_BLNA), strict=True)
      )
      k_BNSA, v_BNSA = _read(k, layer), _read(v, layer)
      mixed_BLHA = attention.cached_attention(
        *(q_BLHA, k_BNSA, v_BNSA, columns_L, cache.start_B),
        self._score_scale,
        *layer_kinds.select(layer_kinds.windows(self.config), layer),
      )
      return mixed_BLHA, (k, v)

    # The scan over the layers carries the cache.
    stored = cache.k, cache.v
    hidden_BLD, stored = self._scan(
      tokens_BL, positions_BL, attend, stored, layers
    )
    # All rows grow by the same number of columns.
    size = cache.size + tokens_BL.shape[1]
    return hidden_BLD, Cache(*stored, start_B=cache.start_B, size=size)

  def _scan(
    self,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    attend: AttendInLayer[Stored],
    stored: Stored,
    layers: Sequence[PyTree] | None = None,
  ) -> tuple[jax.Array, Stored]:
    """Embeds tokens, runs every layer, and applies the final norm.

    attend(layer, stored, q, k, v) -> (mixed, stored). The scan carries `stored`
    from layer to layer, so it is changed in place. As an output of the scan it
    would be copied. With `layers`, there is no scan; see `extend`.
    """
    config = self.config
    # One graph for all layers, and their stacked parameters, which the scan
    # slices.
    graphdef, stacked = nnx.split(self.blocks)

    def run(
      carry: tuple[jax.Array, Stored], slices: tuple[jax.Array | int, PyTree]
    ) -> tuple[tuple[jax.Array, Stored], None]:
      (x_BLD, stored), (layer, params) = carry, slices
      block = nnx.merge(graphdef, params)
      # The layer's number and the cache are bound here; the block passes q, k
      # and v.
      keep = functools.partial(attend, layer, stored)
      ropes, which = layer_kinds.select(layer_kinds.ropes(config), layer)
      rotate = functools.partial(
        attention.rotate, positions_BL=positions_BL, ropes=ropes, which=which
      )
      return block(_by_rows(x_BLD), rotate, keep), None

    # Embeddings enter in the data type of the computation.
    x_BLD = sharded_embedding.look_up(
      self.embedding[...], tokens_BL, config.dtype
    )
    if config.embedding_scale != 1:
      # Rounded to the type of the parameters, as in transformers.
      scale = jnp.array(config.embedding_scale, self.embedding.dtype)
      x_BLD *= scale.astype(x_BLD.dtype)
    if layers is None:
      if config.remat != 'none':
        # prevent_cse is not needed: a scan already keeps XLA from merging the
        # recomputation with the forward pass.
        policy = remat.policy(config.remat)
        run = jax.checkpoint(run, prevent_cse=False, policy=policy)
      # The scan slices the layers' parameters; the stored cache is carried
      # whole.
      each = jnp.arange(config.layers), stacked
      (x_BLD, stored), _ = jax.lax.scan(run, (x_BLD, stored), each)
    else:
      for layer, params in enumerate(layers):
        (x_BLD, stored), _ = run((x_BLD, stored), (layer, params))
    hidden_BLD = rms_norm(x_BLD, self.norm[...], config)
    # Logits are linear in the hidden states, so these can be divided.
    return hidden_BLD / config.logits_divisor, stored


def _write(
  old: Stack, layer: jax.Array | int, new_BNLA: jax.Array, column: jax.Array
) -> Stack:
  """Writes columns of a layer into keys or values of a cache."""
  update = jax.lax.dynamic_update_slice
  if not isinstance(old, tuple):
    return update(old, new_BNLA[None], (layer, 0, 0, column, 0))
  written_BNSA = update(old[layer], new_BNLA, (0, 0, column, 0))
  return (*old[:layer], written_BNSA, *old[layer + 1 :])


def _read(stored: Stack, layer: jax.Array | int) -> jax.Array:
  """Returns keys or values of a layer in all columns of a cache."""
  if isinstance(stored, tuple):
    return stored[layer]
  return jax.lax.dynamic_index_in_dim(stored, layer, keepdims=False)


# Structure of a decoder without its parameters.
GraphDef = nnx.GraphDef[Decoder]


def _by_rows(x_BLD: jax.Array) -> jax.Array:
  """Constrains rows to be split over the mesh in context, if there is one.

  The columns of a row are split over `context`. The compiler would otherwise
  follow the sharding of the embedding, and compute all rows on every device.
  """
  # Without a mesh in context, there is nothing to constrain to.
  if jax.sharding.get_abstract_mesh().empty:
    return x_BLD
  return jax.lax.with_sharding_constraint(x_BLD, PartitionSpec(ROWS, CONTEXT))


def abstract(
  config: ModelConfig, lora: LoraConfig = NO_LORA
) -> tuple[GraphDef, dict]:
  """Returns a decoder's structure and parameter shapes. Allocates nothing.

  Args:
    config: config of the model.
    lora: its adapters.

  Returns:
    (graphdef, nested dict of ShapeDtypeStructs).
  """
  # eval_shape runs the constructor on shapes only.
  model = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), lora))
  graphdef, params = nnx.split(model)
  return graphdef, nnx.to_pure_dict(params)


def init(
  config: ModelConfig, key: jax.Array, lora: LoraConfig = NO_LORA
) -> dict:
  """Returns random parameters.

  Under jit with out_shardings, each device computes only its own shards.

  Args:
    config: config of the model.
    key: random key.
    lora: its adapters.

  Returns:
    A nested dict of arrays in config.param_dtype; adapters are in float32.
  """
  _, params = nnx.split(Decoder(config, nnx.Rngs(key), lora))
  return nnx.to_pure_dict(params)


def _normal(
  rngs: nnx.Rngs, config: ModelConfig, shape: tuple[int, ...], scale: float
) -> nnx.Param[jax.Array]:
  # Drawn in the type of the parameters, so no float32 copy of a large model
  # exists.
  draw = jax.nn.initializers.normal(scale)
  return nnx.Param(draw(rngs.params(), shape, float_type(config)))
