"""Linear maps of a layer: kernels of floats or int8, with or without adapters.

A kernel x W with an adapter of rank r computes

  y = x W + scale (x A) B,    A [in, r], B [r, out]

and with an int8 kernel Q and a scale s for each output channel

  y = (x Q) s + scale (x A) B

so neither W + scale A B nor a dequantised kernel ever exists in training.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax.config import LoraConfig, ModelConfig
from isft_jax.models import remat

# Kernels of a layer: (name in peft, input axes, output axes). The letters are
# those of `axes`.
KERNELS = {
  'q': ('q_proj', 'D', 'HA'),
  'k': ('k_proj', 'D', 'NA'),
  'v': ('v_proj', 'D', 'NA'),
  'o': ('o_proj', 'HA', 'D'),
  'gate': ('gate_proj', 'D', 'F'),
  'up': ('up_proj', 'D', 'F'),
  'down': ('down_proj', 'F', 'D'),
}
# Ends of the names of parameters that belong to a kernel.
SCALE, LORA_A, LORA_B = '_scale', '_lora_a', '_lora_b'


class Projections(nnx.Module):
  """A module with some of the kernels of `KERNELS`, by their names.

  `self.NAME` is a kernel [in, out]. Beside it are `NAME_scale` [out] if the
  kernel is int8, and `NAME_lora_a` [in, rank] and `NAME_lora_b` [rank, out] if
  it has an adapter.
  """

  def __init__(self, config: ModelConfig, lora: LoraConfig) -> None:
    self.config = config
    self.lora = lora

  def add(self, rngs: nnx.Rngs, name: str, scale: float) -> None:
    """Adds a kernel of random numbers.

    Args:
      rngs: random keys.
      name: key of `KERNELS`.
      scale: standard deviation of the kernel.
    """
    target, into, out = KERNELS[name]
    sizes = axes(self.config)
    inputs, outputs = (tuple(sizes[axis] for axis in ax) for ax in (into, out))
    # Drawn in its own type, so no float32 copy of a large kernel exists.
    draw = jax.nn.initializers.normal(scale)
    kernel = draw(rngs.params(), inputs + outputs, float_type(self.config))
    if self.config.param_dtype == 'int8':
      kernel, scales = quantize(kernel, len(inputs))
      setattr(self, name + SCALE, nnx.Param(scales))
    setattr(self, name, nnx.Param(kernel))
    # As in peft: A is uniform, of variance 1 / (3 in). B is 0, so that an
    # adapter begins as nothing.
    if target in self.lora.maps:
      rank, bound = self.lora.rank, math.prod(inputs) ** -0.5
      uniform = jax.random.uniform(
        rngs.params(), (*inputs, rank), jnp.float32, -bound, bound
      )
      setattr(self, name + LORA_A, nnx.Param(uniform))
      zeros = jnp.zeros((rank, *outputs), jnp.float32)
      setattr(self, name + LORA_B, nnx.Param(zeros))

  def project(self, name: str, x_BL: jax.Array) -> jax.Array:
    """Returns the product of a kernel, and of its adapter, with x.

    Args:
      name: key of `KERNELS`.
      x_BL: activations [B, L, in].

    Returns:
      [B, L, out], in the data type of x.
    """
    _, into, out = KERNELS[name]
    # T = B L, the rows one after the other. The gradient of a kernel then
    # contracts one axis instead of two, which halves its time on CPUs.
    x_T = x_BL.reshape(-1, *x_BL.shape[2:])

    # Parameters are stored in their own type, and cast to that of x.
    def param(end: str) -> jax.Array:
      return getattr(self, name + end)[...].astype(x_BL.dtype)

    y_T = jnp.einsum(f'T{into},{into}{out}->T{out}', x_T, param(''))
    if hasattr(self, name + SCALE):
      # In float32: the rounding of a scale would be that of a whole channel.
      y_T = (y_T * getattr(self, name + SCALE)[...][None]).astype(x_BL.dtype)
    if hasattr(self, name + LORA_A):
      low_Tr = jnp.einsum(f'T{into},{into}r->Tr', x_T, param(LORA_A))
      low_Tr = remat.name(low_Tr, name)
      added_T = jnp.einsum(f'Tr,r{out}->T{out}', low_Tr, param(LORA_B))
      y_T += self.lora.scale * added_T
    y_T = remat.name(y_T, name)
    return y_T.reshape(*x_BL.shape[:2], *y_T.shape[1:])


def axes(config: ModelConfig) -> dict[str, int]:
  """Returns the size of each axis of the kernels, by its letter."""
  return {
    'D': config.width,
    'H': config.heads,
    'N': config.kv_heads,
    'A': config.head_size,
    'F': config.mlp_width,
  }


def float_type(config: ModelConfig) -> jnp.dtype:
  """Returns the data type of the parameters that are never integers."""
  narrow = config.param_dtype == 'int8'
  return jnp.dtype(config.dtype if narrow else config.param_dtype)


def quantize(kernel: jax.Array, inputs: int) -> tuple[jax.Array, jax.Array]:
  """Rounds a kernel to int8, with a scale for each output channel.

    Q = round(W / s),    s = max |W| / 127 over the inputs of a channel

  Args:
    kernel: [in, out] of any float type.
    inputs: number of input axes.

  Returns:
    (Q, s): int8 [in, out] and float32 [out].
  """
  over = tuple(range(inputs))
  wide = kernel.astype(jnp.float32)
  most = jnp.max(jnp.abs(wide), axis=over, keepdims=True)
  # A channel of zeros stays 0 with any scale. So does one that is so small that
  # processors would flush its scale to 0.
  least = 127 * jnp.finfo(jnp.float32).tiny
  scale = jnp.where(most > least, most, 1) / 127
  rounded = jnp.round(wide / jnp.broadcast_to(scale, wide.shape))
  return rounded.astype(jnp.int8), jnp.squeeze(scale, over)


def count_inputs(path: str) -> int:
  """Returns the number of input axes of the kernel at a path."""
  return len(KERNELS[path.rpartition('/')[2]][1])


def plain_kernel(
  name: str,
  kernel: jax.Array,
  scale: jax.Array | None,
  lora_a: jax.Array | None,
  lora_b: jax.Array | None,
  lora: LoraConfig,
) -> jax.Array:
  """Returns the float32 kernel that does what a kernel and its adapter do.

    W' = Q s + scale A B

  Args:
    name: key of `KERNELS`.
    kernel: of one layer, [in, out].
    scale: of an int8 kernel, [out]; None for floats.
    lora_a: A of its adapter, [in, rank]; None without one.
    lora_b: B of its adapter, [rank, out]; None without one.
    lora: config of the adapters.

  Returns:
    float32 [in, out].
  """
  _, into, out = KERNELS[name]
  plain = kernel.astype(jnp.float32)
  if scale is not None:
    plain *= jnp.broadcast_to(scale, plain.shape)
  if lora_a is not None and lora_b is not None:
    # TPUs would round the factors to bfloat16.
    product = jnp.einsum(
      f'{into}r,r{out}->{into}{out}',
      lora_a.astype(jnp.float32),
      lora_b.astype(jnp.float32),
      precision=jax.lax.Precision.HIGHEST,
    )
    plain += lora.scale * product
  return plain
