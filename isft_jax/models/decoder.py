"""Transformer decoder for Qwen2, Qwen3 and Llama models, as a Flax NNX module.

The rest of the package uses it as a pure function of its parameters, a nested
dict of arrays:

  graphdef, shapes = abstract(config)
  params = init(config, key)
  hidden_BLD = nnx.merge(graphdef, params)(tokens_BL, positions_BL, ids_BL)

The layers are one scanned block. Its parameters have a leading axis of layers,
so compile time does not grow with depth.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from isft_jax.axes import FSDP, ROWS, TENSOR
from isft_jax.config import LoraConfig, ModelConfig
from isft_jax.models import attention, sharded_embedding
from isft_jax.models.projections import Projections, float_type

# Shardings of stored parameters: (regex, mesh axes of each dimension). The
# regex is searched for in the '/'-joined path; see `sharding.shardings`. The
# path of each parameter matches exactly one rule, and so does the path of each
# optimizer moment, which has a prefix.
PARTITION_RULES = (
  (r'(^|/)(embedding|head)$', ((TENSOR, FSDP), None)),  # V D
  (r'(^|/)norm$', (None,)),  # D
  (r'blocks/attention_norm$', (None, None)),  # layers D
  (r'blocks/mlp_norm$', (None, None)),  # layers D
  (r'blocks/attention/[qkv]$', (None, FSDP, TENSOR, None)),  # layers D H A
  (r'blocks/attention/[qkv]_bias$', (None, TENSOR, None)),  # layers H A
  (r'blocks/attention/[qk]_norm$', (None, None)),  # layers A
  (r'blocks/attention/o$', (None, TENSOR, None, FSDP)),  # layers H A D
  (r'blocks/mlp/(gate|up)$', (None, FSDP, TENSOR)),  # layers D F
  (r'blocks/mlp/down$', (None, TENSOR, FSDP)),  # layers F D
  # Scales of int8 kernels.
  (r'blocks/attention/[qkv]_scale$', (None, TENSOR, None)),  # layers H A
  (r'blocks/attention/o_scale$', (None, FSDP)),  # layers D
  (r'blocks/mlp/(gate|up)_scale$', (None, TENSOR)),  # layers F
  (r'blocks/mlp/down_scale$', (None, FSDP)),  # layers D
  # Adapters are split as their kernels are. The rank r is never split.
  (r'blocks/attention/[qkv]_lora_a$', (None, FSDP, None)),  # layers D r
  (r'blocks/attention/[qkv]_lora_b$', (None, None, TENSOR, None)),  # . r H A
  (r'blocks/attention/o_lora_a$', (None, TENSOR, None, None)),  # layers H A r
  (r'blocks/attention/o_lora_b$', (None, None, FSDP)),  # layers r D
  (r'blocks/mlp/(gate|up)_lora_a$', (None, FSDP, None)),  # layers D r
  (r'blocks/mlp/(gate|up)_lora_b$', (None, None, TENSOR)),  # layers r F
  (r'blocks/mlp/down_lora_a$', (None, TENSOR, None)),  # layers F r
  (r'blocks/mlp/down_lora_b$', (None, None, FSDP)),  # layers r D
)
NO_LORA = LoraConfig()
# Shardings inside a step, if they differ from those of stored parameters. The
# tables of the vocabulary are stored sharded by rows, which are whole lanes of
# a TPU's memory, and used sharded by width. A token's row is looked up in
# shards, which the devices then exchange. Each chunk of the head is gathered
# from all devices. No device ever gathers a whole table.
TABLES = ('embedding', 'head')
IN_USE_RULES = (
  (
    r'(^|/)(embedding|head)$',
    (sharded_embedding.IDS, sharded_embedding.WIDTH),
  ),  # V D
)

# Activations of a layer that are saved for the backward pass, by config.remat.
# 'dots' saves the products without a batch dimension: those with parameters,
# but not those of attention.
_REMAT = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


# State that the layers pass on: keys and values of a cache; None in training.
Stored = TypeVar('Stored')
# (q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored).
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Stored]]
# (layer, stored, q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored).
AttendInLayer = Callable[
  [jax.Array, Stored, jax.Array, jax.Array, jax.Array],
  tuple[jax.Array, Stored],
]


class Cache(NamedTuple):
  """Keys and values of every layer for the columns seen so far.

  Attributes:
    k: keys, already rotated: [layers, B, N, S, A].
    v: values: [layers, B, N, S, A].
    start_B: int32, first column of each row. Earlier ones are padding.
    size: int32, number of filled columns, the same in all rows.
  """

  k: jax.Array
  v: jax.Array
  start_B: jax.Array
  size: jax.Array


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """Normalises by the root mean square: x / sqrt(mean(x^2) + eps) * scale.

  Args:
    x: array of any float type. It is normalised over the last axis.
    scale: vector of the last axis's size.
    eps: added to the mean square.

  Returns:
    An array like x. It is computed in float32.

  Source: Zhang and Sennrich 2019, section 3.
  """
  # The mean of squares in bfloat16 would have 2 to 3 digits.
  wide = x.astype(jnp.float32)
  power = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
  scale = jnp.broadcast_to(scale.astype(jnp.float32), x.shape)
  return (wide * jax.lax.rsqrt(power + eps) * scale).astype(x.dtype)


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


class Attention(Projections):
  """Grouped-query attention: projections, rotary positions, output."""

  def __init__(
    self, config: ModelConfig, rngs: nnx.Rngs, lora: LoraConfig
  ) -> None:
    super().__init__(config, lora)
    D, A = config.width, config.head_size
    H, N = config.heads, config.kv_heads
    constant = functools.partial(_constant, config)
    for name in ('q', 'k', 'v'):
      self.add(rngs, name, D**-0.5)
    # The variance of each product equals that of its input; o is scaled down,
    # because it adds to the residual stream.
    self.add(rngs, 'o', (H * A) ** -0.5 * _residual_scale(config))
    if config.qkv_bias:
      # Hugging Face has no bias on the output projection of these families.
      self.q_bias = constant((H, A), 0.0)
      self.k_bias = constant((N, A), 0.0)
      self.v_bias = constant((N, A), 0.0)
    if config.qk_norm:
      self.q_norm = constant((A,), 1.0)
      self.k_norm = constant((A,), 1.0)

  def __call__(
    self, x_BLD: jax.Array, positions_BL: jax.Array, attend: Attend[Stored]
  ) -> tuple[jax.Array, Stored]:
    config, dtype = self.config, x_BLD.dtype
    q_BLHA = self.project('q', x_BLD)
    k_BLNA = self.project('k', x_BLD)
    v_BLNA = self.project('v', x_BLD)
    # Biases (Qwen2) and norms per head (Qwen3) come before the rotation.
    if config.qkv_bias:
      q_BLHA += self.q_bias[...].astype(dtype)[None, None]
      k_BLNA += self.k_bias[...].astype(dtype)[None, None]
      v_BLNA += self.v_bias[...].astype(dtype)[None, None]
    if config.qk_norm:
      q_BLHA = rms_norm(q_BLHA, self.q_norm[...], config.norm_eps)
      k_BLNA = rms_norm(k_BLNA, self.k_norm[...], config.norm_eps)
    # Rotated here, so that a cache holds rotated keys.
    rope = config.rope_theta, config.rope_scaling
    q_BLHA = attention.rotate(q_BLHA, positions_BL, *rope)
    k_BLNA = attention.rotate(k_BLNA, positions_BL, *rope)
    mixed_BLHA, stored = attend(q_BLHA, k_BLNA, v_BLNA)
    return self.project('o', mixed_BLHA), stored


class MLP(Projections):
  """SwiGLU MLP: down(silu(gate x) * up x). Source: Shazeer 2020, equation 6."""

  def __init__(
    self, config: ModelConfig, rngs: nnx.Rngs, lora: LoraConfig
  ) -> None:
    super().__init__(config, lora)
    for name in ('gate', 'up'):
      self.add(rngs, name, config.width**-0.5)
    self.add(rngs, 'down', config.mlp_width**-0.5 * _residual_scale(config))

  def __call__(self, x_BLD: jax.Array) -> jax.Array:
    gate_BLF = self.project('gate', x_BLD)
    up_BLF = self.project('up', x_BLD)
    return self.project('down', jax.nn.silu(gate_BLF) * up_BLF)


class Block(nnx.Module):
  """One layer: pre-norm attention and MLP, each added to the residual stream.

  The caller passes the attention as a function, attend(q_BLHA, k_BLNA, v_BLNA)
  -> (mixed_BLHA, stored), so that training and decoding share this class.
  """

  def __init__(
    self, config: ModelConfig, lora: LoraConfig, rngs: nnx.Rngs
  ) -> None:
    self.config = config
    self.attention = Attention(config, rngs, lora)
    self.attention_norm = _constant(config, (config.width,), 1.0)
    self.mlp = MLP(config, rngs, lora)
    self.mlp_norm = _constant(config, (config.width,), 1.0)

  def __call__(
    self, x_BLD: jax.Array, positions_BL: jax.Array, attend: Attend[Stored]
  ) -> tuple[jax.Array, Stored]:
    eps = self.config.norm_eps
    # Pre-norm: the residual stream itself is never normalised inside a layer.
    normed_BLD = rms_norm(x_BLD, self.attention_norm[...], eps)
    mixed_BLD, stored = self.attention(normed_BLD, positions_BL, attend)
    x_BLD += mixed_BLD
    x_BLD += self.mlp(rms_norm(x_BLD, self.mlp_norm[...], eps))
    return x_BLD, stored


class Decoder(nnx.Module):
  """Decoder from tokens to hidden states, and from hidden states to logits."""

  def __init__(
    self, config: ModelConfig, rngs: nnx.Rngs, lora: LoraConfig = NO_LORA
  ) -> None:
    # Copies, because the configs are a static, hashed part of the graph, and
    # the caller may change its own.
    self.config = config = dataclasses.replace(
      config, init_from='', rope_scaling=tuple(config.rope_scaling)
    )
    lora = dataclasses.replace(lora, init_from='', targets=tuple(lora.targets))
    V, D = config.vocab_size, config.width
    # A standard deviation of 0.02, as in GPT-2.
    self.embedding = _normal(rngs, config, (V, D), 0.02)
    # vmap gives each layer its own random numbers, and all parameters a leading
    # axis of layers.
    stack = nnx.vmap(functools.partial(Block, config, lora))
    self.blocks = nnx.split_rngs(splits=config.layers)(stack)(rngs)
    self.norm = _constant(config, (D,), 1.0)
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
      layer: jax.Array,
      stored: None,
      q_BLHA: jax.Array,
      k_BLNA: jax.Array,
      v_BLNA: jax.Array,
    ) -> tuple[jax.Array, None]:
      # Training stores nothing, and all layers attend alike.
      del layer, stored
      mixed_BLHA = attention.packed_attention(
        q_BLHA, k_BLNA, v_BLNA, segment_ids_BL, self.config.attention
      )
      return mixed_BLHA, None

    hidden_BLD, _ = self._scan(tokens_BL, positions_BL, attend, None)
    return hidden_BLD

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
    self, tokens_BL: jax.Array, cache: Cache
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

    Returns:
      (hidden_BLD, cache). Hidden states of padding are finite and meaningless.
    """
    # Column of each new token, the same in all rows. Padding gets negative
    # positions.
    columns_L = cache.size + jnp.arange(tokens_BL.shape[1])
    positions_BL = columns_L[None] - cache.start_B[:, None]

    def attend(
      layer: jax.Array,
      stored: tuple[jax.Array, jax.Array],
      q_BLHA: jax.Array,
      k_BLNA: jax.Array,
      v_BLNA: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
      # Write the new columns of this layer, then read all of its columns.
      at = (layer, 0, 0, cache.size, 0)
      k, v = (
        # [B, L, N, A] becomes [1, B, N, L, A], a slice of the cache.
        jax.lax.dynamic_update_slice(old, new_BLNA.swapaxes(1, 2)[None], at)
        for old, new_BLNA in zip(stored, (k_BLNA, v_BLNA), strict=True)
      )
      # Keys and values of this layer in all columns of the cache.
      k_BNSA, v_BNSA = (
        jax.lax.dynamic_index_in_dim(each, layer, keepdims=False)
        for each in (k, v)
      )
      mixed_BLHA = attention.cached_attention(
        q_BLHA, k_BNSA, v_BNSA, columns_L, cache.start_B
      )
      return mixed_BLHA, (k, v)

    # The scan over the layers carries the cache.
    stored = cache.k, cache.v
    hidden_BLD, stored = self._scan(tokens_BL, positions_BL, attend, stored)
    # All rows grow by the same number of columns.
    size = cache.size + tokens_BL.shape[1]
    return hidden_BLD, Cache(*stored, start_B=cache.start_B, size=size)

  def _scan(
    self,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    attend: AttendInLayer[Stored],
    stored: Stored,
  ) -> tuple[jax.Array, Stored]:
    """Embeds tokens, runs every layer, and applies the final norm.

    attend(layer, stored, q, k, v) -> (mixed, stored). The scan carries `stored`
    from layer to layer, so it is changed in place. As an output of the scan it
    would be copied.
    """
    config = self.config
    # One graph for all layers, and their stacked parameters, which the scan
    # slices.
    graphdef, stacked = nnx.split(self.blocks)

    def run(
      carry: tuple[jax.Array, Stored], slices: tuple[jax.Array, nnx.State]
    ) -> tuple[tuple[jax.Array, Stored], None]:
      (x_BLD, stored), (layer, params) = carry, slices
      block = nnx.merge(graphdef, params)
      # The layer's number and the cache are bound here; the block passes q, k
      # and v.
      keep = functools.partial(attend, layer, stored)
      return block(_by_rows(x_BLD), positions_BL, keep), None

    if config.remat != 'none':
      # prevent_cse is not needed: a scan already keeps XLA from merging the
      # recomputation with the forward pass.
      policy = _REMAT[config.remat]
      run = jax.checkpoint(run, prevent_cse=False, policy=policy)
    # Embeddings enter in the data type of the computation.
    x_BLD = sharded_embedding.look_up(
      self.embedding[...], tokens_BL, config.dtype
    )
    # The scan slices the layers' parameters; the stored cache is carried whole.
    layers = jnp.arange(config.layers), stacked
    (x_BLD, stored), _ = jax.lax.scan(run, (x_BLD, stored), layers)
    return rms_norm(x_BLD, self.norm[...], config.norm_eps), stored


# Structure of a decoder without its parameters.
GraphDef = nnx.GraphDef[Decoder]


def _by_rows(x_BLD: jax.Array) -> jax.Array:
  """Constrains rows to be split over the mesh in context, if there is one.

  The compiler would otherwise follow the sharding of the embedding, and compute
  all rows on every device.
  """
  # Without a mesh in context, there is nothing to constrain to.
  if jax.sharding.get_abstract_mesh().empty:
    return x_BLD
  return jax.lax.with_sharding_constraint(x_BLD, PartitionSpec(ROWS))


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


def _constant(
  config: ModelConfig, shape: tuple[int, ...], value: float
) -> nnx.Param[jax.Array]:
  return nnx.Param(jnp.full(shape, value, float_type(config)))


def _residual_scale(config: ModelConfig) -> float:
  # 2 * layers projections are added to the residual stream. With this scale,
  # their variances sum to that of one (Radford et al. 2019, section 2.3).
  return (2 * config.layers) ** -0.5
