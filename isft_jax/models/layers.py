"""One layer of the decoder: norms, grouped-query attention, and a gated MLP."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax.config import LORA_MLP, LoraConfig, ModelConfig
from isft_jax.models.experts import Experts
from isft_jax.models.projections import Projections, float_type

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'silu': jax.nn.silu,
  'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
}

# State that the layers pass on: keys and values of a cache; None in training.
Stored = TypeVar('Stored')
# Rotates queries or keys, [B, L, heads, A], by their positions.
Rotate = Callable[[jax.Array], jax.Array]
# (q_BLHA, k_BLNA, v_BLNA) -> (mixed_BLHA, stored).
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Stored]]


def rms_norm(x: jax.Array, scale: jax.Array, config: ModelConfig) -> jax.Array:
  """Normalises by the root mean square: x / sqrt(mean(x^2) + eps) * scale.

  Args:
    x: array of any float type. It is normalised over the axes of `scale`, which
      are its last ones.
    scale: one factor per element; with config.norm_plus_one, the factor less 1.
    config: config of the model.

  Returns:
    An array like x. It is computed in float32.

  Source: Zhang and Sennrich 2019, section 3.
  """
  # The mean of squares in bfloat16 would have 2 to 3 digits.
  wide = x.astype(jnp.float32)
  axes = tuple(range(x.ndim - scale.ndim, x.ndim))
  power = jnp.mean(jnp.square(wide), axis=axes, keepdims=True)
  scale = scale.astype(jnp.float32) + config.norm_plus_one
  scale = jnp.broadcast_to(scale, x.shape)
  return (wide * jax.lax.rsqrt(power + config.norm_eps) * scale).astype(x.dtype)


class Attention(Projections):
  """Grouped-query attention: projections, rotary positions, output."""

  def __init__(
    self, config: ModelConfig, rngs: nnx.Rngs, lora: LoraConfig
  ) -> None:
    super().__init__(config, lora)
    D, A = config.width, config.head_size
    H, N = config.heads, config.kv_heads
    for name in ('q', 'k', 'v'):
      self.add(rngs, name, D**-0.5)
    # The variance of each product equals that of its input; o is scaled down,
    # because it adds to the residual stream.
    self.add(rngs, 'o', (H * A) ** -0.5 * _depth_scale(config))
    if config.qkv_bias:
      # Hugging Face has no bias on the output projection of these families.
      self.q_bias = _constant(config, (H, A), 0.0)
      self.k_bias = _constant(config, (N, A), 0.0)
      self.v_bias = _constant(config, (N, A), 0.0)
    # The norm of a head is that of all heads. Heads may also share one norm,
    # with a factor for each element of each.
    if config.qk_norm_all_heads:
      self.q_heads_norm = norm_scale(config, (H, A))
      self.k_heads_norm = norm_scale(config, (N, A))
    elif config.qk_norm:
      self.q_norm = norm_scale(config, (A,))
      self.k_norm = norm_scale(config, (A,))

  def __call__(
    self, x_BLD: jax.Array, rotate: Rotate, attend: Attend[Stored]
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
    if config.qk_norm_all_heads:
      q_BLHA = rms_norm(q_BLHA, self.q_heads_norm[...], config)
      k_BLNA = rms_norm(k_BLNA, self.k_heads_norm[...], config)
    elif config.qk_norm:
      q_BLHA = rms_norm(q_BLHA, self.q_norm[...], config)
      k_BLNA = rms_norm(k_BLNA, self.k_norm[...], config)
    # Rotated here, so that a cache holds rotated keys.
    mixed_BLHA, stored = attend(rotate(q_BLHA), rotate(k_BLNA), v_BLNA)
    return self.project('o', mixed_BLHA), stored


class MLP(Projections):
  """Gated MLP: down(activation(gate x) * up x).

  Source: Shazeer 2020, section 2.
  """

  def __init__(
    self, config: ModelConfig, rngs: nnx.Rngs, lora: LoraConfig
  ) -> None:
    super().__init__(config, lora)
    for name in ('gate', 'up'):
      self.add(rngs, name, config.width**-0.5)
    self.add(rngs, 'down', config.mlp_width**-0.5 * _depth_scale(config))

  def __call__(self, x_BLD: jax.Array) -> jax.Array:
    gate_BLF = self.project('gate', x_BLD)
    up_BLF = self.project('up', x_BLD)
    activation = _ACTIVATIONS[self.config.activation]
    return self.project('down', activation(gate_BLF) * up_BLF)


class Block(nnx.Module):
  """One layer: attention and MLP, each added to the residual stream.

    x <- x + residual_scale * norm(attention(norm(x)))
    x <- x + residual_scale * norm(mlp(norm(x)))

  where config.norms says which norms there are. The caller passes rotation and
  attention as functions, so that training and decoding share this class.
  """

  def __init__(
    self, config: ModelConfig, lora: LoraConfig, rngs: nnx.Rngs
  ) -> None:
    self.config = config
    self.attention = Attention(config, rngs, lora)
    if config.experts:
      if unknown := [name for name in LORA_MLP if name in lora.named]:
        raise ValueError(
          f'config.lora.targets has {unknown[0]}, but the MLP of this model is '
          'experts, which have no adapters; leave it out'
        )
      self.experts = Experts(config, rngs)
    else:
      self.mlp = MLP(config, rngs, lora)
    if config.norms != 'after':
      self.attention_norm = norm_scale(config, (config.width,))
      self.mlp_norm = norm_scale(config, (config.width,))
    if config.norms != 'before':
      self.attention_post_norm = norm_scale(config, (config.width,))
      self.mlp_post_norm = norm_scale(config, (config.width,))

  def __call__(
    self, x_BLD: jax.Array, rotate: Rotate, attend: Attend[Stored]
  ) -> tuple[jax.Array, Stored]:
    # The residual stream itself is never normalised inside a layer.
    normed_BLD = self._norm('attention_norm', x_BLD)
    mixed_BLD, stored = self.attention(normed_BLD, rotate, attend)
    x_BLD += self._added('attention_post_norm', mixed_BLD)
    normed_BLD = self._norm('mlp_norm', x_BLD)
    if self.config.experts:
      activation = _ACTIVATIONS[self.config.activation]
      changed_BLD = self.experts(normed_BLD, activation)
    else:
      changed_BLD = self.mlp(normed_BLD)
    return x_BLD + self._added('mlp_post_norm', changed_BLD), stored

  def _norm(self, name: str, x_BLD: jax.Array) -> jax.Array:
    """Applies a norm, if the layer has it."""
    if not hasattr(self, name):
      return x_BLD
    return rms_norm(x_BLD, getattr(self, name)[...], self.config)

  def _added(self, norm: str, x_BLD: jax.Array) -> jax.Array:
    return self.config.residual_scale * self._norm(norm, x_BLD)


def _constant(
  config: ModelConfig, shape: tuple[int, ...], value: float
) -> nnx.Param[jax.Array]:
  return nnx.Param(jnp.full(shape, value, float_type(config)))


def norm_scale(
  config: ModelConfig, shape: tuple[int, ...]
) -> nnx.Param[jax.Array]:
  """Returns the parameter of a norm whose factors are all 1."""
  return _constant(config, shape, 0.0 if config.norm_plus_one else 1.0)


def _depth_scale(config: ModelConfig) -> float:
  # 2 * layers projections are added to the residual stream. With this scale,
  # their variances sum to that of one (Radford et al. 2019, section 2.3).
  return (2 * config.layers) ** -0.5
