"""A decoder of the Qwen2, Qwen3 and Llama kind, as a Flax NNX module.

It knows neither data, nor training, nor a mesh. Everywhere else it is used as
a pure function of its parameters, a nested dict of arrays:

  graphdef, shapes = abstract(config)
  params = init(config, key)
  hidden_BLD = nnx.merge(graphdef, params)(tokens_BL, positions_BL, ids_BL)

The layers are one block whose parameters have a leading axis of layers, and
which is scanned: compile time does not grow with depth.
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
from isft_jax.config import ModelConfig
from isft_jax.models import attention, sharded_embedding

# (regex, mesh axis of each dimension): which axis may split what. Data only;
# the sharding room applies it, by re.search. '/'-joined paths of parameters,
# and of optimizer moments with a prefix, each match exactly one rule.
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
)
# Where a step has them while it computes, if not where they rest. The tables of
# the vocabulary rest by rows, which are whole lanes of a TPU's memory, and are
# used by width: a token's row is looked up in parts, which then change places,
# and each part of the head is gathered from all devices alike. Neither table is
# ever gathered whole.
TABLES = ('embedding', 'head')
IN_USE_RULES = (
  (
    r'(^|/)(embedding|head)$',
    (sharded_embedding.IDS, sharded_embedding.WIDTH),
  ),  # V D
)

# What is kept of a layer, by config.remat. 'dots': products without an axis of
# rows in common, which are those with parameters, and not attention's.
_REMAT = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


# What goes from layer to layer: a cache's keys and values; None in training.
Stored = TypeVar('Stored')
# (q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored).
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Stored]]
# (layer, stored, q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored).
AttendInLayer = Callable[
  [jax.Array, Stored, jax.Array, jax.Array, jax.Array],
  tuple[jax.Array, Stored],
]


class Cache(NamedTuple):
  """Keys (already rotated) and values of every layer: [layers, B, N, S, A].

  start_B: the first column of each row; those before it are padding.
  size: how many columns are filled, the same in all rows.
  """

  k: jax.Array
  v: jax.Array
  start_B: jax.Array
  size: jax.Array


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32.

  Source: Zhang and Sennrich 2019, section 3.
  """
  wide = x.astype(jnp.float32)
  power = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
  scale = jnp.broadcast_to(scale.astype(jnp.float32), x.shape)
  return (wide * jax.lax.rsqrt(power + eps) * scale).astype(x.dtype)


def _project(equation: str, x_BL: jax.Array, kernel: jax.Array) -> jax.Array:
  """An einsum over the last axes of x, with rows and columns as one axis T.

  One contracted axis instead of two halves the time of the kernel's gradient
  on CPU, and changes nothing elsewhere.
  """
  x_T = x_BL.reshape(-1, *x_BL.shape[2:])
  y_T = jnp.einsum(equation, x_T, kernel)
  return y_T.reshape(*x_BL.shape[:2], *y_T.shape[1:])


def logits_of(hidden: jax.Array, head_VD: jax.Array) -> jax.Array:
  """Logits [..., V] of hidden states [..., D]; in float32 at least."""
  return jnp.einsum(
    '...D,VD->...V',
    hidden,
    head_VD.astype(hidden.dtype),
    preferred_element_type=jnp.promote_types(hidden.dtype, jnp.float32),
  )


class Attention(nnx.Module):
  """Projections, rotation and output of grouped-query attention."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
    D, A = config.width, config.head_size
    H, N = config.heads, config.kv_heads
    normal = functools.partial(_normal, rngs, config)
    constant = functools.partial(_constant, config)
    self.config = config
    self.q = normal((D, H, A), D**-0.5)
    self.k = normal((D, N, A), D**-0.5)
    self.v = normal((D, N, A), D**-0.5)
    self.o = normal((H, A, D), (H * A) ** -0.5 * _residual_scale(config))
    if config.qkv_bias:
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
    q_BLHA = _project('TD,DHA->THA', x_BLD, self.q[...].astype(dtype))
    k_BLNA = _project('TD,DNA->TNA', x_BLD, self.k[...].astype(dtype))
    v_BLNA = _project('TD,DNA->TNA', x_BLD, self.v[...].astype(dtype))
    if config.qkv_bias:
      q_BLHA += self.q_bias[...].astype(dtype)[None, None]
      k_BLNA += self.k_bias[...].astype(dtype)[None, None]
      v_BLNA += self.v_bias[...].astype(dtype)[None, None]
    if config.qk_norm:
      q_BLHA = rms_norm(q_BLHA, self.q_norm[...], config.norm_eps)
      k_BLNA = rms_norm(k_BLNA, self.k_norm[...], config.norm_eps)
    rope = config.rope_theta, config.rope_scaling
    q_BLHA = attention.rotate(q_BLHA, positions_BL, *rope)
    k_BLNA = attention.rotate(k_BLNA, positions_BL, *rope)
    mixed_BLHA, stored = attend(q_BLHA, k_BLNA, v_BLNA)
    o_HAD = self.o[...].astype(dtype)
    return _project('THA,HAD->TD', mixed_BLHA, o_HAD), stored


class MLP(nnx.Module):
  """SwiGLU: down(silu(gate x) * up x). Source: Shazeer 2020, equation 6."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
    D, F = config.width, config.hidden
    normal = functools.partial(_normal, rngs, config)
    self.gate = normal((D, F), D**-0.5)
    self.up = normal((D, F), D**-0.5)
    self.down = normal((F, D), F**-0.5 * _residual_scale(config))

  def __call__(self, x_BLD: jax.Array) -> jax.Array:
    dtype = x_BLD.dtype
    gate_BLF = _project('TD,DF->TF', x_BLD, self.gate[...].astype(dtype))
    up_BLF = _project('TD,DF->TF', x_BLD, self.up[...].astype(dtype))
    down_FD = self.down[...].astype(dtype)
    return _project('TF,FD->TD', jax.nn.silu(gate_BLF) * up_BLF, down_FD)


class Block(nnx.Module):
  """One layer. `attend` decides what a query may see, and what is stored.

  attend(q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored), so that training and
  decoding share every line of this class.
  """

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
    self.config = config
    self.attention = Attention(config, rngs)
    self.attention_norm = _constant(config, (config.width,), 1.0)
    self.mlp = MLP(config, rngs)
    self.mlp_norm = _constant(config, (config.width,), 1.0)

  def __call__(
    self, x_BLD: jax.Array, positions_BL: jax.Array, attend: Attend[Stored]
  ) -> tuple[jax.Array, Stored]:
    eps = self.config.norm_eps
    normed_BLD = rms_norm(x_BLD, self.attention_norm[...], eps)
    mixed_BLD, stored = self.attention(normed_BLD, positions_BL, attend)
    x_BLD += mixed_BLD
    x_BLD += self.mlp(rms_norm(x_BLD, self.mlp_norm[...], eps))
    return x_BLD, stored


class Decoder(nnx.Module):
  """Tokens to hidden states; hidden states, where wanted, to logits."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
    # A copy: the config is a static, hashed part of the graph, and the
    # caller's dataclass is mutable.
    self.config = config = dataclasses.replace(
      config, init_from='', rope_scaling=tuple(config.rope_scaling)
    )
    V, D = config.vocab_size, config.width
    self.embedding = _normal(rngs, config, (V, D), 0.02)
    stack = nnx.vmap(functools.partial(Block, config))
    self.blocks = nnx.split_rngs(splits=config.layers)(stack)(rngs)
    self.norm = _constant(config, (D,), 1.0)
    if not config.tie_embeddings:
      self.head = _normal(rngs, config, (V, D), D**-0.5)

  def __call__(
    self,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    segment_ids_BL: jax.Array,
  ) -> jax.Array:
    """Hidden states after the final norm, hidden_BLD, of packed rows.

    tokens_BL: int32 ids.
    positions_BL: int32, counted from 0 in each document.
    segment_ids_BL: int32; a token sees earlier tokens of its own segment
      only. 0 is padding: its outputs are finite and mean nothing.
    """

    def attend(
      layer: jax.Array,
      stored: None,
      q_BLHA: jax.Array,
      k_BLNA: jax.Array,
      v_BLNA: jax.Array,
    ) -> tuple[jax.Array, None]:
      del layer, stored
      mixed_BLHA = attention.packed_attention(
        q_BLHA, k_BLNA, v_BLNA, segment_ids_BL, self.config.attention
      )
      return mixed_BLHA, None

    hidden_BLD, _ = self._scan(tokens_BL, positions_BL, attend, None)
    return hidden_BLD

  @property
  def head_VD(self) -> jax.Array:
    """The parameter whose product with a hidden state is its logits."""
    head = self.embedding if self.config.tie_embeddings else self.head
    return head[...]

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of hidden states [..., D].

    For a few positions: the loss takes them from head_VD, a part of the
    vocabulary at a time. Nothing else here makes an array of its size.
    """
    return logits_of(hidden, self.head_VD)

  def empty_cache(self, start_B: jax.Array, columns: int) -> Cache:
    """A cache of `columns` columns for rows that begin at start_B."""
    config = self.config
    B, N, A = len(start_B), config.kv_heads, config.head_size
    empty = jnp.zeros((config.layers, B, N, columns, A), config.dtype)
    return Cache(empty, empty, start_B, jnp.int32(0))

  def extend(
    self, tokens_BL: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """Reads tokens into the next columns of a cache: (hidden_BLD, cache).

    All rows are written at the same columns, so that one slice of the cache
    changes, in place; prompts of several lengths are therefore padded on the
    left. A token sees the columns from its row's start_B to its own, and its
    position counts from there. Outputs of padding are finite and mean nothing.

    The cache must have room: columns past its end would replace its last.
    """
    columns_L = cache.size + jnp.arange(tokens_BL.shape[1])
    positions_BL = columns_L[None] - cache.start_B[:, None]

    def attend(
      layer: jax.Array,
      stored: tuple[jax.Array, jax.Array],
      q_BLHA: jax.Array,
      k_BLNA: jax.Array,
      v_BLNA: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
      at = (layer, 0, 0, cache.size, 0)
      k, v = (
        jax.lax.dynamic_update_slice(old, new_BLNA.swapaxes(1, 2)[None], at)
        for old, new_BLNA in zip(stored, (k_BLNA, v_BLNA), strict=True)
      )
      k_BNSA, v_BNSA = (
        jax.lax.dynamic_index_in_dim(each, layer, keepdims=False)
        for each in (k, v)
      )
      mixed_BLHA = attention.cached_attention(
        q_BLHA, k_BNSA, v_BNSA, columns_L, cache.start_B
      )
      return mixed_BLHA, (k, v)

    stored = cache.k, cache.v
    hidden_BLD, stored = self._scan(tokens_BL, positions_BL, attend, stored)
    size = cache.size + tokens_BL.shape[1]
    return hidden_BLD, Cache(*stored, start_B=cache.start_B, size=size)

  def _scan(
    self,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    attend: AttendInLayer[Stored],
    stored: Stored,
  ) -> tuple[jax.Array, Stored]:
    """Embeds, runs every layer, norms: (hidden_BLD, stored).

    attend(layer, stored, q, k, v) -> (mixed, stored): what is stored goes from
    layer to layer, and so is changed in place, where a scan's outputs would be
    a copy of it.
    """
    config = self.config
    graphdef, stacked = nnx.split(self.blocks)

    def run(
      carry: tuple[jax.Array, Stored], slices: tuple[jax.Array, nnx.State]
    ) -> tuple[tuple[jax.Array, Stored], None]:
      (x_BLD, stored), (layer, params) = carry, slices
      block = nnx.merge(graphdef, params)
      keep = functools.partial(attend, layer, stored)
      return block(_by_rows(x_BLD), positions_BL, keep), None

    if config.remat != 'none':
      # The scan itself keeps XLA from merging the recomputation away.
      policy = _REMAT[config.remat]
      run = jax.checkpoint(run, prevent_cse=False, policy=policy)
    x_BLD = sharded_embedding.look_up(
      self.embedding[...], tokens_BL, config.dtype
    )
    layers = jnp.arange(config.layers), stacked
    (x_BLD, stored), _ = jax.lax.scan(run, (x_BLD, stored), layers)
    return rms_norm(x_BLD, self.norm[...], config.norm_eps), stored


# What `nnx.split` leaves of a decoder beside its parameters.
GraphDef = nnx.GraphDef[Decoder]


def _by_rows(x_BLD: jax.Array) -> jax.Array:
  """Returns it with its rows split over the mesh in context, if there is one.

  The compiler cannot know: the embedding's own split would make it compute all
  rows everywhere, for the sake of not moving them.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x_BLD
  return jax.lax.with_sharding_constraint(x_BLD, PartitionSpec(ROWS))


def abstract(config: ModelConfig) -> tuple[GraphDef, dict]:
  """(graphdef, ShapeDtypeStructs of the parameters). Allocates nothing."""
  model = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0)))
  graphdef, params = nnx.split(model)
  return graphdef, nnx.to_pure_dict(params)


def init(config: ModelConfig, key: jax.Array) -> dict:
  """Random parameters, a nested dict of arrays.

  Pure: under jit with out_shardings, each device makes only its own part.
  """
  _, params = nnx.split(Decoder(config, nnx.Rngs(key)))
  return nnx.to_pure_dict(params)


def _normal(
  rngs: nnx.Rngs, config: ModelConfig, shape: tuple[int, ...], scale: float
) -> nnx.Param[jax.Array]:
  draw = jax.nn.initializers.normal(scale)
  return nnx.Param(draw(rngs.params(), shape, jnp.dtype(config.param_dtype)))


def _constant(
  config: ModelConfig, shape: tuple[int, ...], value: float
) -> nnx.Param[jax.Array]:
  return nnx.Param(jnp.full(shape, value, config.param_dtype))


def _residual_scale(config: ModelConfig) -> float:
  # 2 * layers projections add into the residual stream: at the start, their
  # variances sum to that of one (Radford et al. 2019, section 2.3).
  return (2 * config.layers) ** -0.5
