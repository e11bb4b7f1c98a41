"""Mixture-of-experts MLP of Qwen3-MoE, split over the mesh axis `expert`.

  p = softmax(x router)                   over all experts
  mixed = sum of p_e down_e(f(gate_e x) * up_e x)   over a token's k likeliest e

No expert has a capacity, and no token is dropped. Pairs of a token and one of
its experts are sorted by expert, so that each kernel is one product of groups
of rows (jax.lax.ragged_dot). The TPU compiler makes it a kernel that visits
only the tiles of rows that a group has. CPUs multiply all rows with all
experts.

There is no loss that balances the experts.

Letters: E experts, e experts on this device, k experts per token, P = T k pairs
of a token and an expert, R pairs that this device may compute.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from isft_jax.axes import (
  CONTEXT,
  EXPERT,
  ROWS,
  TENSOR,
  WEIGHTS,
  Axis,
  Rules,
)
from isft_jax.config import ModelConfig
from isft_jax.models import remat
from isft_jax.models.projections import SCALE, float_type, quantize

Activation = Callable[[jax.Array], jax.Array]


class Params(NamedTuple):
  """Parameters of `mix`. Kernels are floats, or int8 with scales.

  Attributes:
    router: [D, E].
    gate: [E, D, F].
    up: [E, D, F].
    down: [E, F, D].
    gate_scale: float32 [E, F], scale of each output channel; None for floats.
    up_scale: float32 [E, F].
    down_scale: float32 [E, D].
  """

  router: jax.Array
  gate: jax.Array
  up: jax.Array
  down: jax.Array
  gate_scale: jax.Array | None = None
  up_scale: jax.Array | None = None
  down_scale: jax.Array | None = None


# Mesh axes of each dimension of a layer's parameters. `WEIGHTS` never splits
# the last dimension, whose shards would be thinner than a TPU's 128 lanes:
# their gradients would then be all-reduced instead of reduce-scattered.
_AXES = {
  'router': (WEIGHTS, None),
  'gate': (EXPERT, WEIGHTS, TENSOR),
  'up': (EXPERT, WEIGHTS, TENSOR),
  'down': (EXPERT, (TENSOR, *WEIGHTS), None),
  'gate_scale': (EXPERT, TENSOR),
  'up_scale': (EXPERT, TENSOR),
  'down_scale': (EXPERT, None),
}
# Shardings of stored parameters, which have a leading axis of layers; see
# `decoder.PARTITION_RULES`.
PARTITION_RULES: Rules = tuple(
  (f'blocks/experts/{name}$', (None, *axes)) for name, axes in _AXES.items()
)


class Experts(nnx.Module):
  """Mixture-of-experts MLP of a layer: the parameters of `mix`."""

  def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
    self.config = config
    D, F, E = config.width, config.mlp_width, config.experts
    # The variance of each product equals that of its input; `down` is scaled
    # down, because it adds to the residual stream.
    self._add(rngs, 'router', (D, E), D**-0.5)
    self._add(rngs, 'gate', (E, D, F), D**-0.5)
    self._add(rngs, 'up', (E, D, F), D**-0.5)
    self._add(rngs, 'down', (E, F, D), (2 * config.layers * F) ** -0.5)

  def _add(
    self, rngs: nnx.Rngs, name: str, shape: tuple[int, ...], scale: float
  ) -> None:
    # Drawn in its own type, so no float32 copy of the kernels exists.
    draw = jax.nn.initializers.normal(scale)
    kernel = draw(rngs.params(), shape, float_type(self.config))
    # The router is small, and its rounding would change the choice of experts.
    if self.config.param_dtype == 'int8' and name != 'router':
      kernel, scales = quantize_experts(kernel)
      setattr(self, name + SCALE, nnx.Param(scales))
    setattr(self, name, nnx.Param(kernel))

  def __call__(self, x_BLD: jax.Array, activation: Activation) -> jax.Array:
    arrays = {
      name: getattr(self, name)[...]
      for name in Params._fields
      if hasattr(self, name)
    }
    config = self.config
    return mix(
      *(x_BLD, Params(**arrays), config.experts_per_token),
      *(config.normalize_experts, activation),
    )


def quantize_experts(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Rounds kernels to int8, with a scale for each expert and output channel.

  Args:
    kernel: [E, in, out] of any float type.

  Returns:
    int8 [E, in, out] and float32 [E, out]; see `projections.quantize`.
  """
  return jax.vmap(lambda each: quantize(each, 1))(kernel)


def choose(
  x_TD: jax.Array, router_DE: jax.Array, top_k: int, normalize: bool
) -> tuple[jax.Array, jax.Array]:
  """Chooses the likeliest experts of each token.

  Logits are computed in the data type of x, and the softmax in float32, as in
  transformers.

  Args:
    x_TD: inputs.
    router_DE: router, cast to the data type of x.
    top_k: experts per token, k. Among equal probabilities, the first win.
    normalize: divide the k probabilities by their sum.

  Returns:
    (int32 numbers of the experts, their probabilities in the data type of x),
    both [T, k], likeliest first.
  """
  logits_TE = jnp.einsum('TD,DE->TE', x_TD, router_DE.astype(x_TD.dtype))
  wide = jnp.promote_types(x_TD.dtype, jnp.float32)
  p_TE = jax.nn.softmax(logits_TE.astype(wide))
  chosen_Tk = jax.lax.top_k(p_TE, top_k)[1]
  # A masked sum reads the probabilities, because the gradient of top_k is a
  # scatter.
  is_chosen_TkE = chosen_Tk[..., None] == jnp.arange(p_TE.shape[1])[None, None]
  p_Tk = jnp.sum(jnp.where(is_chosen_TkE, p_TE[:, None], 0), axis=-1)
  if normalize:
    p_Tk /= jnp.sum(p_Tk, axis=-1, keepdims=True)
  return chosen_Tk, p_Tk.astype(x_TD.dtype)


def mix(
  x_BLD: jax.Array,
  params: Params,
  top_k: int,
  normalize: bool,
  activation: Activation = jax.nn.silu,
) -> jax.Array:
  """Sums the outputs of each token's experts, weighted by their probabilities.

  Under a mesh in context (jax.sharding.use_abstract_mesh), each device gathers
  the tokens of its expert group and the whole kernels of its own experts. It
  adds up the outputs of its experts, and the group sums these where the tokens
  came from. If every token chose the same expert, one device would compute all
  of them, so its arrays have a row for every token of the group and each of its
  k experts.

  Args:
    x_BLD: inputs; rows sharded over data, fsdp and expert, columns over
      context.
    params: parameters of a layer, sharded as they are stored. Kernels are cast
      to the data type of x.
    top_k: experts per token, k.
    normalize: divide the probabilities of a token's experts by their sum.
    activation: f of the gate.

  Returns:
    The mixed outputs [B, L, D], in the data type of x.

  Source: Shazeer et al. 2017, section 2; Qwen3 technical report, section 2.
  """

  def cast(kernel: jax.Array) -> jax.Array:
    # Before they are gathered; integers have fewer bytes as they are.
    is_int8 = kernel.dtype == jnp.int8
    return kernel if is_int8 else kernel.astype(x_BLD.dtype)

  params = params._replace(
    **{name: cast(getattr(params, name)) for name in ('gate', 'up', 'down')}
  )
  if jax.sharding.get_abstract_mesh().empty:
    x_TD = x_BLD.reshape(-1, x_BLD.shape[-1])
    chosen_Tk, p_Tk = choose(x_TD, params.router, top_k, normalize)
    mixed_TD = _mix_local(x_TD, chosen_Tk, p_Tk, params, activation)
    return mixed_TD.reshape(x_BLD.shape)
  # Floats have no scales.
  specs = [
    PartitionSpec(*_AXES[name])
    for name, array in params._asdict().items()
    if array is not None
  ]
  by_rows = PartitionSpec(ROWS, CONTEXT, None)
  return jax.shard_map(
    functools.partial(
      _mix_shards, top_k=top_k, normalize=normalize, activation=activation
    ),
    in_specs=(by_rows, jax.tree.unflatten(jax.tree.structure(params), specs)),
    out_specs=by_rows,
  )(x_BLD, params)


def _mix_shards(
  x_BLD: jax.Array,
  params: Params,
  top_k: int,
  normalize: bool,
  activation: Activation,
) -> jax.Array:
  """Mixes the rows of one device, which has shards of some experts."""

  def gather(
    name: str, array: jax.Array, over: Axis, axis: int = 0
  ) -> jax.Array:
    # The name tells collectives apart, in profiles and in `tpu.collectives`.
    with jax.named_scope(name):
      return jax.lax.all_gather(array, over, axis=axis, tiled=True)

  params = params._replace(
    router=gather('router', params.router, WEIGHTS),
    gate=gather('gate', params.gate, WEIGHTS, axis=1),
    up=gather('up', params.up, WEIGHTS, axis=1),
    down=gather('down', params.down, WEIGHTS, axis=1),
  )
  x_TD = x_BLD.reshape(-1, x_BLD.shape[-1])
  chosen_Tk, p_Tk = choose(x_TD, params.router, top_k, normalize)
  # Gradients are summed over tensor here, where the arrays are smallest.
  x_TD, p_Tk = jax.lax.pcast((x_TD, p_Tk), TENSOR, to='varying')
  # All tokens of the expert group; numbers count from this device's experts.
  x_TD = gather('tokens', x_TD, EXPERT)
  p_Tk = gather('probabilities', p_Tk, EXPERT)
  chosen_Tk = gather('chosen', chosen_Tk, EXPERT)
  chosen_Tk -= len(params.gate) * jax.lax.axis_index(EXPERT)
  mixed_TD = _mix_local(x_TD, chosen_Tk, p_Tk, params, activation)
  # Other devices have the other experts, and other columns of these.
  mixed_TD = jax.lax.psum_scatter(mixed_TD, EXPERT, tiled=True)
  return jax.lax.psum(mixed_TD, TENSOR).reshape(x_BLD.shape)


def _mix_local(
  x_TD: jax.Array,
  chosen_Tk: jax.Array,
  p_Tk: jax.Array,
  params: Params,
  activation: Activation,
) -> jax.Array:
  """Sums the outputs of experts 0 to e - 1; other numbers add nothing."""
  experts, top_k = len(params.gate), chosen_Tk.shape[1]
  # Sort pairs by expert. Pairs with experts of other devices come last.
  chosen_P = chosen_Tk.reshape(-1)
  is_here_P = (chosen_P >= 0) & (chosen_P < experts)
  expert_P = jnp.where(is_here_P, chosen_P, experts)
  order_P = jnp.argsort(expert_P)
  # A token's experts are distinct, so at most e of its pairs are computed here.
  rows = len(x_TD) * min(top_k, experts)
  order_R = order_P[:rows]
  # The row of each pair; past the end for pairs of other devices.
  row_P = jnp.where(is_here_P, jnp.argsort(order_P), rows)
  sizes_e = jnp.sum(
    expert_P[:, None] == jnp.arange(experts)[None], axis=0, dtype=jnp.int32
  )
  is_row_R1 = (jnp.arange(rows) < jnp.sum(sizes_e))[:, None]

  def product(
    x_R: jax.Array, kernel: jax.Array, scale: jax.Array | None
  ) -> jax.Array:
    y_R = jax.lax.ragged_dot(x_R, kernel.astype(x_R.dtype), sizes_e)
    if scale is None:
      return y_R
    # In float32: the rounding of a scale would be that of a whole channel.
    scale_R = scale.at[expert_P[order_R]].get(mode='clip')
    return (y_R * scale_R).astype(x_R.dtype)

  x_RD = _spread(x_TD, order_R, row_P, top_k)
  gate_RF = product(x_RD, params.gate, params.gate_scale)
  up_RF = product(x_RD, params.up, params.up_scale)
  gate_RF, up_RF = remat.name(gate_RF, 'gate'), remat.name(up_RF, 'up')
  # The TPU kernel does not write rows after the last group. Zeros keep these
  # rows out of the gradients of the kernels.
  gate_RF, up_RF = (jnp.where(is_row_R1, y_RF, 0) for y_RF in (gate_RF, up_RF))
  # Here p scales the narrowest array, and the backward pass does not need the
  # product with `down`.
  p_R1 = _spread(p_Tk.reshape(-1, 1), order_R, row_P, 1)
  hidden_RF = activation(gate_RF) * up_RF * p_R1
  y_RD = product(hidden_RF, params.down, params.down_scale)
  return _collect(y_RD, order_R, row_P, top_k)


# Gathers in both directions: jax would transpose a gather to a scatter, which
# is slow on TPUs, and sums in no fixed order on GPUs.


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _spread(
  x_TD: jax.Array, order_R: jax.Array, row_P: jax.Array, top_k: int
) -> jax.Array:
  """Returns the token of each row, [R, D]."""
  return x_TD[order_R // top_k]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _collect(
  y_RD: jax.Array, order_R: jax.Array, row_P: jax.Array, top_k: int
) -> jax.Array:
  """Returns the sum of the rows of each token, [T, D], summed in float32."""
  y_PD = y_RD.at[row_P].get(mode='fill', fill_value=0)
  wide = jnp.promote_types(y_RD.dtype, jnp.float32)
  y_TkD = y_PD.reshape(-1, top_k, y_RD.shape[-1])
  return jnp.sum(y_TkD, axis=1, dtype=wide).astype(y_RD.dtype)


# Each is the transpose of the other.
_spread.defvjp(
  lambda x_TD, *rows: (_spread(x_TD, *rows), rows[:2]),
  lambda top_k, rows, d_RD: (_collect(d_RD, *rows, top_k), None, None),
)
_collect.defvjp(
  lambda y_RD, *rows: (_collect(y_RD, *rows), rows[:2]),
  lambda top_k, rows, d_TD: (_spread(d_TD, *rows, top_k), None, None),
)
