"""Packed attention on NVIDIA GPUs, as Pallas kernels for Triton.

Scores [L, L] are never stored. A block of queries visits only blocks of keys
that it can see: no later ones, none outside of the window, and none that hold
other documents only.

jax's own kernel for Triton visits all earlier blocks, has no window, and needs
a copy of the keys for each query head. tokamax 0.0.17 and cuDNN, as called by
jax.nn.dot_product_attention, accept documents only as a mask [L, L].

Source: Dao 2023, FlashAttention-2, algorithms 1 and 2.
"""

import functools
import importlib.util
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from isft_jax.axes import CONTEXT, ROWS, TENSOR, describe
from isft_jax.models import remat

# Score of a key that its query does not see. Not -inf, because the difference
# of two such scores must not be nan.
_UNSEEN = -1e30
_COMPILER = 'jax.experimental.pallas.triton'
# The kernels compute 2^x, which is one instruction, instead of e^x.
_LOG2_E = math.log2(math.e)


class _Settings(NamedTuple):
  """Constants of the kernels; see `triton_attention`."""

  scale: float
  window: int
  interpret: bool


# Queries, keys, values, segment ids, mixed values, and the logarithm of the
# softmax's denominator: what the backward pass needs.
_Saved = tuple[jax.Array, ...]


def has_triton(device: jax.Device) -> bool:
  """Returns whether a device can run the kernels.

  It must have the compute capability 8.0, that of the A100. jax 0.12 has
  kernels for Triton, and announces that a later version will not.

  Args:
    device: device of any platform.
  """
  # AMD's GPUs name an architecture here, such as gfx942.
  capability = str(getattr(device, 'compute_capability', ''))
  return (
    device.platform == 'gpu'
    and re.fullmatch(r'\d+\.\d+', capability) is not None
    and float(capability) >= 8
    and importlib.util.find_spec(_COMPILER) is not None
  )


def triton_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  scale: float | None = None,
  window: int = 0,
  interpret: bool = False,
) -> jax.Array:
  """Computes `attention.packed_attention` with the kernels.

  Products of float32 have the precision of jax_default_matmul_precision. On
  GPUs, the default is TF32.

  The compiler cannot split a kernel over devices. Under a mesh in context
  (jax.sharding.use_abstract_mesh) it is split here: rows over data, fsdp
  and expert, heads over tensor. No communication is needed. Without a mesh, the
  arrays must not be sharded.

  Args:
    q_BLHA: queries, already rotated.
    k_BLNA: keys, already rotated.
    v_BLNA: values.
    segment_ids_BL: int32, at least 0.
    scale: factor of the scores; None: 1 / sqrt(A).
    window: number of columns that a query sees at most, its own included; 0:
      all earlier ones.
    interpret: emulate the kernels on any device, slowly.

  Returns:
    Mixed values [B, L, H, A].

  Raises:
    ValueError: the rows or the key-value heads do not divide over the mesh, or
      it splits the columns of a row.
  """
  scale = q_BLHA.shape[-1] ** -0.5 if scale is None else scale
  settings = _Settings(scale, window, interpret)
  attend = functools.partial(_attend, settings=settings)
  arrays = q_BLHA, k_BLNA, v_BLNA, segment_ids_BL
  mesh = jax.sharding.get_abstract_mesh()
  # Without a mesh in context, the kernels run on one device.
  if mesh.empty:
    return attend(*arrays)
  # Rows are split over data, fsdp and expert, heads over tensor.
  shards = math.prod(mesh.shape[axis] for axis in ROWS)
  B, kv_heads = len(q_BLHA), k_BLNA.shape[2]
  if B % shards or kv_heads % mesh.shape[TENSOR]:
    raise ValueError(
      f'triton attention of {B} rows and {kv_heads} key-value heads does not '
      f'divide over {describe(ROWS, mesh.shape)} and config.mesh.tensor='
      f"{mesh.shape[TENSOR]}; set config.model.attention='xla', or change them"
    )
  if mesh.shape[CONTEXT] > 1:
    raise ValueError(
      f'triton attention cannot split the columns of a row over config.mesh.'
      f"context={mesh.shape[CONTEXT]}; set config.model.attention='xla', or "
      'config.mesh.context to 1'
    )
  # Attention mixes neither rows nor heads, so each device works on its own.
  heads = PartitionSpec(ROWS, None, TENSOR, None)
  return jax.shard_map(
    attend,
    in_specs=(heads, heads, heads, PartitionSpec(ROWS, None)),
    out_specs=heads,
    check_vma=False,  # the kernels do not declare the axes they vary over
  )(*arrays)


def count_pairs(
  length: int, head_size: int, dtype: str, window: int = 0
) -> int:
  """Returns the number of (query, key) in the blocks that a kernel computes.

  Args:
    length: tokens of a row that is one document.
    head_size: A.
    dtype: data type of the computation.
    window: number of columns that a query sees at most; 0: all earlier ones.
  """
  size = _size(head_size, dtype)
  count = -(-length // size)
  left = _left(count, size, window)
  return sum(min(i, left) + 1 for i in range(count)) * size**2


def _attend(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  ids_BL: jax.Array,
  settings: _Settings,
) -> jax.Array:
  """Pads rows to whole blocks, and heads to a power of 2, as Triton needs."""
  L, _, A = q_BLHA.shape[1:]
  columns = -L % _size(A, q_BLHA.dtype)
  # The least size in a product is 16. Zeros add nothing to it.
  zeros = max(16, pl.next_power_of_2(A)) - A
  padding = ((0, 0), (0, columns), (0, 0), (0, zeros))
  padded = (jnp.pad(x_BLHA, padding) for x_BLHA in (q_BLHA, k_BLNA, v_BLNA))
  # Id 0 is padding, and no earlier query sees these columns.
  ids_BL = jnp.pad(ids_BL, ((0, 0), (0, columns)))
  return _mix(*padded, ids_BL, settings)[:, :L, :, :A]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  ids_BL: jax.Array,
  settings: _Settings,
) -> jax.Array:
  """Returns the mixed values of padded arrays."""
  return _forward(q_BLHA, k_BLNA, v_BLNA, ids_BL, settings)[0]


def _forward(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  ids_BL: jax.Array,
  settings: _Settings,
) -> tuple[jax.Array, _Saved]:
  """Returns the mixed values, and what `_backward` needs."""
  B, L, H, A = q_BLHA.shape
  size = _size(A, q_BLHA.dtype)
  first_BI, _ = _visited(ids_BL, size, settings.window)
  numbers_BHL = jax.ShapeDtypeStruct((B, H, L), jnp.float32)
  arrays = q_BLHA, k_BLNA, v_BLNA, ids_BL, first_BI
  mixed_BLHA, total_BHL = _call(
    *(_forward_kernel, size, settings, (L // size, B, H)),
    *([_like(q_BLHA), numbers_BHL], arrays),
  )
  # Named, so that a policy of config.model.remat can keep both.
  mixed_BLHA, total_BHL = (
    remat.name(each, remat.ATTENTION) for each in (mixed_BLHA, total_BHL)
  )
  return mixed_BLHA, (q_BLHA, k_BLNA, v_BLNA, ids_BL, mixed_BLHA, total_BHL)


def _backward(
  settings: _Settings, saved: _Saved, d_BLHA: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
  """Returns the gradients of queries, keys and values."""
  q_BLHA, k_BLNA, v_BLNA, ids_BL, mixed_BLHA, total_BHL = saved
  B, L, H, A = q_BLHA.shape
  # Mean gradient of the softmax weights of a query, weighted by them.
  mean_BHL = jnp.sum(
    d_BLHA.astype(jnp.float32) * mixed_BLHA.astype(jnp.float32), axis=-1
  ).swapaxes(1, 2)
  arrays = q_BLHA, k_BLNA, v_BLNA, d_BLHA, total_BHL, mean_BHL, ids_BL
  size = _size(A, q_BLHA.dtype)
  first_BI, end_BJ = _visited(ids_BL, size, settings.window)
  (dq_BLHA,) = _call(
    *(_dq_kernel, size, settings, (L // size, B, H)),
    *([_like(q_BLHA)], (*arrays, first_BI)),
  )
  # A block of keys sums over the query heads that share it.
  dk_BLNA, dv_BLNA = _call(
    *(_dkv_kernel, size, settings, (L // size, B, k_BLNA.shape[2])),
    *([_like(k_BLNA), _like(v_BLNA)], (*arrays, end_BJ)),
  )
  return dq_BLHA, dk_BLNA, dv_BLNA, None


_mix.defvjp(_forward, _backward)


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _size(head_size: int, dtype: jax.typing.DTypeLike) -> int:
  """Returns the queries per block, which are also its keys.

  The kernels then keep their blocks in the registers and in the shared memory
  of an A100 and an H100. They were compiled for both, but never timed.
  """
  itemsize = jnp.dtype(dtype).itemsize
  if itemsize == 2 and head_size <= 128:
    return 64
  return 32 if head_size * itemsize <= 512 else 16


def _visited(
  ids_BL: jax.Array, size: int, window: int
) -> tuple[jax.Array, jax.Array]:
  """Returns which blocks meet: a query of one may see a key of the other.

  Args:
    ids_BL: int32, segment ids of padded rows.
    size: columns per block.
    window: number of columns that a query sees at most; 0: all earlier ones.

  Returns:
    int32 [B, L / size]: the first block of keys that each block of queries
    meets, and the end of the blocks of queries that each block of keys meets.
  """
  # Padding comes after the last document, so its id should be the largest.
  ids_BL = jnp.where(ids_BL == 0, jnp.iinfo(jnp.int32).max, ids_BL)
  ids_BIS = ids_BL.reshape(len(ids_BL), -1, size)
  least_BI, most_BI = ids_BIS.min(2), ids_BIS.max(2)
  # Ranges of ids that do not overlap have no document in common.
  meet_BIJ = least_BI[:, :, None] <= most_BI[:, None]
  meet_BIJ &= least_BI[:, None] <= most_BI[:, :, None]
  count = ids_BIS.shape[1]
  blocks_I = jnp.arange(count)
  behind_IJ = blocks_I[:, None] - blocks_I[None]
  seen_IJ = (behind_IJ >= 0) & (behind_IJ <= _left(count, size, window))
  meet_BIJ &= seen_IJ[None]
  # argmax is the first True. Each block meets itself.
  end_BJ = count - jnp.argmax(meet_BIJ[:, ::-1], axis=1)
  return jnp.argmax(meet_BIJ, 2).astype(jnp.int32), end_BJ.astype(jnp.int32)


def _left(count: int, size: int, window: int) -> int:
  """Returns how many blocks to its left a block sees at most."""
  # The first query of a block sees window - 1 columns to its left.
  return -(-(window - 1) // size) if window else count


def _call(
  kernel: Callable[..., None],
  size: int,
  settings: _Settings,
  grid: tuple[int, int, int],
  shapes: list[jax.ShapeDtypeStruct],
  arrays: tuple[jax.Array, ...],
) -> list[jax.Array]:
  """Runs a kernel for each (block, row, head). It addresses whole arrays."""
  # Imported here, because a later version of jax will not have it.
  from jax.experimental.pallas import triton

  # Larger heads need the registers of 8 warps of 32 threads.
  head_bytes = arrays[0].shape[-1] * arrays[0].dtype.itemsize
  warps = 4 if head_bytes <= 128 else 8
  call = pl.pallas_call(
    functools.partial(kernel, size=size, settings=settings),
    out_shape=shapes,
    grid=grid,
    interpret=settings.interpret,
    # While one block is computed, the next one is loaded.
    compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2),
    name=kernel.__name__.strip('_'),
  )
  return call(*arrays)


def _product(
  x_MK: jax.Array, y_KN: jax.Array, contract: tuple[int, int]
) -> jax.Array:
  """Returns a product, summed in float32 over one axis of each factor."""
  axes = ((contract[0],), (contract[1],)), ((), ())
  return lax.dot_general(x_MK, y_KN, axes, preferred_element_type=jnp.float32)


def _scores(
  q_QA: jax.Array,
  k_KA: jax.Array,
  ids: tuple[jax.Array, jax.Array],
  columns: tuple[jax.Array, jax.Array],
  settings: _Settings,
) -> jax.Array:
  """Returns log2(e) times the scores of a block, `_UNSEEN` where masked."""
  (ids_Q, ids_K), (columns_Q, columns_K) = ids, columns
  scores_QK = _product(q_QA, k_KA, (1, 1)) * (settings.scale * _LOG2_E)
  visible_QK = ids_Q[:, None] == ids_K[None, :]
  visible_QK &= columns_Q[:, None] >= columns_K[None, :]
  if settings.window:
    visible_QK &= columns_Q[:, None] < columns_K[None, :] + settings.window
  return jnp.where(visible_QK, scores_QK, _UNSEEN)


def _forward_kernel(
  q_ref: Any,
  k_ref: Any,
  v_ref: Any,
  ids_ref: Any,
  first_ref: Any,
  mixed_ref: Any,
  total_ref: Any,
  size: int,
  settings: _Settings,
) -> None:
  """Writes a block of mixed values, and of log2 of softmax denominators."""
  i, b, h = (pl.program_id(axis) for axis in range(3))
  n = h // (q_ref.shape[2] // k_ref.shape[2])
  queries, columns_Q = _block(i, size)
  q_QA, ids_Q = q_ref[b, queries, h, :], ids_ref[b, queries]

  def visit(j: jax.Array, carry: tuple) -> tuple:
    most_Q, sum_Q, mixed_QA = carry
    keys, columns_K = _block(j, size)
    k_KA = k_ref[b, keys, n, :]
    scores_QK = _scores(
      *(q_QA, k_KA, (ids_Q, ids_ref[b, keys]), (columns_Q, columns_K)),
      settings,
    )
    # Earlier terms were relative to an earlier maximum.
    next_Q = jnp.maximum(most_Q, scores_QK.max(1))
    shrink_Q = jnp.exp2(most_Q - next_Q)
    weights_QK = jnp.exp2(scores_QK - next_Q[:, None])
    v_KA = v_ref[b, keys, n, :]
    added_QA = _product(weights_QK.astype(v_KA.dtype), v_KA, (1, 0))
    return (
      next_Q,
      sum_Q * shrink_Q + weights_QK.sum(1),
      mixed_QA * shrink_Q[:, None] + added_QA,
    )

  # In the first blocks, a query may see nothing. Its weights are then 1, until
  # a score that it sees makes `shrink` 0. It sees at least itself.
  start = (
    jnp.full(size, _UNSEEN, jnp.float32),
    jnp.zeros(size, jnp.float32),
    jnp.zeros(q_QA.shape, jnp.float32),
  )
  most_Q, sum_Q, mixed_QA = lax.fori_loop(first_ref[b, i], i + 1, visit, start)
  mixed_QA /= sum_Q[:, None]
  mixed_ref[b, queries, h, :] = mixed_QA.astype(mixed_ref.dtype)
  total_ref[b, h, queries] = most_Q + jnp.log2(sum_Q)


def _dq_kernel(
  q_ref: Any,
  k_ref: Any,
  v_ref: Any,
  d_ref: Any,
  total_ref: Any,
  mean_ref: Any,
  ids_ref: Any,
  first_ref: Any,
  dq_ref: Any,
  size: int,
  settings: _Settings,
) -> None:
  """Writes the gradient of a block of queries."""
  i, b, h = (pl.program_id(axis) for axis in range(3))
  n = h // (q_ref.shape[2] // k_ref.shape[2])
  queries, columns_Q = _block(i, size)
  q_QA, d_QA = q_ref[b, queries, h, :], d_ref[b, queries, h, :]
  total_Q, mean_Q = total_ref[b, h, queries], mean_ref[b, h, queries]
  ids_Q = ids_ref[b, queries]

  def visit(j: jax.Array, dq_QA: jax.Array) -> jax.Array:
    keys, columns_K = _block(j, size)
    k_KA = k_ref[b, keys, n, :]
    scores_QK = _scores(
      *(q_QA, k_KA, (ids_Q, ids_ref[b, keys]), (columns_Q, columns_K)),
      settings,
    )
    weights_QK = jnp.exp2(scores_QK - total_Q[:, None])
    d_weights_QK = _product(d_QA, v_ref[b, keys, n, :], (1, 1))
    d_scores_QK = weights_QK * (d_weights_QK - mean_Q[:, None])
    return dq_QA + _product(d_scores_QK.astype(k_KA.dtype), k_KA, (1, 0))

  zeros_QA = jnp.zeros(q_QA.shape, jnp.float32)
  dq_QA = lax.fori_loop(first_ref[b, i], i + 1, visit, zeros_QA)
  dq_ref[b, queries, h, :] = (dq_QA * settings.scale).astype(dq_ref.dtype)


def _dkv_kernel(
  q_ref: Any,
  k_ref: Any,
  v_ref: Any,
  d_ref: Any,
  total_ref: Any,
  mean_ref: Any,
  ids_ref: Any,
  end_ref: Any,
  dk_ref: Any,
  dv_ref: Any,
  size: int,
  settings: _Settings,
) -> None:
  """Writes the gradients of a block of keys and of values."""
  j, b, n = (pl.program_id(axis) for axis in range(3))
  group = q_ref.shape[2] // k_ref.shape[2]
  keys, columns_K = _block(j, size)
  k_KA, v_KA = k_ref[b, keys, n, :], v_ref[b, keys, n, :]
  ids_K = ids_ref[b, keys]
  count = end_ref[b, j] - j

  # One loop over the blocks of all query heads of the group.
  def visit(step: jax.Array, carry: tuple) -> tuple:
    dk_KA, dv_KA = carry
    h = n * group + lax.div(step, count)
    queries, columns_Q = _block(j + lax.rem(step, count), size)
    q_QA, d_QA = q_ref[b, queries, h, :], d_ref[b, queries, h, :]
    scores_QK = _scores(
      *(q_QA, k_KA, (ids_ref[b, queries], ids_K), (columns_Q, columns_K)),
      settings,
    )
    weights_QK = jnp.exp2(scores_QK - total_ref[b, h, queries][:, None])
    dv_KA += _product(weights_QK.astype(d_QA.dtype), d_QA, (0, 0))
    d_weights_QK = _product(d_QA, v_KA, (1, 1))
    d_scores_QK = weights_QK * (d_weights_QK - mean_ref[b, h, queries][:, None])
    dk_KA += _product(d_scores_QK.astype(q_QA.dtype), q_QA, (0, 0))
    return dk_KA, dv_KA

  zeros_KA = jnp.zeros(k_KA.shape, jnp.float32)
  dk_KA, dv_KA = lax.fori_loop(0, group * count, visit, (zeros_KA, zeros_KA))
  dk_ref[b, keys, n, :] = (dk_KA * settings.scale).astype(dk_ref.dtype)
  dv_ref[b, keys, n, :] = dv_KA.astype(dv_ref.dtype)


def _block(index: jax.Array, size: int) -> tuple[Any, jax.Array]:
  """Returns the slice of a block, and its columns."""
  return pl.ds(index * size, size), index * size + jnp.arange(size)
