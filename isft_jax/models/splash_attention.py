"""Packed attention with JAX's splash kernel for TPUs.

The kernel never stores scores [L, L].

Source: jax.experimental.pallas.ops.tpu.splash_attention.
"""

import dataclasses
import functools
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as kernels
from jax.sharding import NamedSharding, PartitionSpec

from isft_jax import column_order
from isft_jax.axes import CONTEXT, ROWS, TENSOR, describe
from isft_jax.models import context, remat

# Lanes of a TPU's vector register. Block sizes are multiples of it.
_LANES = 128
# Maximum columns per block. A block of keys and values is read once for as many
# queries, so each of its bytes is used for 512 operations in bfloat16. Below
# about 240 (v5e), reading memory would be the bottleneck. Half of each block on
# the diagonal is wasted, which is a share 1 / (L / block + 1) of the work.
# Larger blocks would waste more.
_BLOCK = 512
_NOBODY = -1  # segment id of the columns that pad the last block

Kernel = kernels.splash_attention_kernel.SplashAttentionKernel
Ids = TypeVar('Ids', np.ndarray, jax.Array)  # columns, or which are visible


def splash_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  scale: float | None = None,
  window: int = 0,
  interpret: bool = False,
) -> jax.Array:
  """Computes `attention.packed_attention` with the splash kernel.

  The compiler cannot split a kernel over devices. Under a mesh in context
  (jax.sharding.use_abstract_mesh) it is split here: rows over data, fsdp and
  expert, heads over tensor, and queries over context. A device gathers the keys
  and values of its rows if context splits them; nothing else is communicated.
  Without a mesh, the arrays must not be sharded.

  Args:
    q_BLHA: queries, already rotated.
    k_BLNA: keys, already rotated.
    v_BLNA: values.
    segment_ids_BL: int32, at least 0.
    scale: factor of the scores; None: 1 / sqrt(A).
    window: number of columns that a query sees at most, its own included; 0:
      all earlier ones. Blocks outside of the window are not computed.
    interpret: emulate the kernel on any device, slowly.

  Returns:
    Mixed values [B, L, H, A].

  Raises:
    ValueError: the rows, the columns or the key-value heads do not divide over
      the mesh.
  """
  scale = q_BLHA.shape[-1] ** -0.5 if scale is None else scale
  arrays = q_BLHA, k_BLNA, v_BLNA, segment_ids_BL
  B, L, H = q_BLHA.shape[:3]
  mesh = jax.sharding.get_abstract_mesh()
  # Without a mesh in context, the kernel runs on one device.
  if mesh.empty:
    kernel = _kernel(L, H, window, 1, interpret)
    ids = kernels.SegmentIds(segment_ids_BL, segment_ids_BL)
    return _attend(kernel, q_BLHA, k_BLNA, v_BLNA, ids, scale)
  # Rows are split over data, fsdp and expert, heads over tensor.
  shards = math.prod(mesh.shape[axis] for axis in ROWS)
  kv_heads, parts = k_BLNA.shape[2], mesh.shape[CONTEXT]
  if B % shards or kv_heads % mesh.shape[TENSOR]:
    raise ValueError(
      f'splash attention of {B} rows and {kv_heads} key-value heads does not '
      f'divide over {describe(ROWS, mesh.shape)} and config.mesh.tensor='
      f"{mesh.shape[TENSOR]}; set config.model.attention='xla', or change them"
    )
  # A block of queries is a part of a row, or less; see `column_order`.
  if parts > 1 and L % (2 * parts * _LANES):
    raise ValueError(
      f'rows of seq_len={L} do not divide over config.mesh.context={parts} for '
      f'splash attention; set seq_len to a multiple of {2 * parts * _LANES}, '
      f'such as {-(-L // (2 * parts * _LANES)) * 2 * parts * _LANES}'
    )
  # Attention mixes neither rows nor heads, so each device works on its own.
  heads = PartitionSpec(ROWS, CONTEXT, TENSOR, None)
  columns = PartitionSpec(ROWS, CONTEXT)
  kernel = _kernel(L, H // mesh.shape[TENSOR], window, parts, interpret)
  # The kernel is a tree of arrays: the blocks that each device computes.
  blocks_of_device = kernel.manual_sharding_spec(
    NamedSharding(mesh, PartitionSpec(None, CONTEXT))
  )
  return jax.shard_map(
    functools.partial(_attend_shards, scale=scale),
    in_specs=(blocks_of_device, heads, heads, heads, columns),
    out_specs=heads,
    check_vma=False,  # the kernel does not declare the axes it varies over
  )(kernel, *arrays)


def blocks(length: int) -> tuple[int, int]:
  """Returns the blocks that hold a row with the least padding.

  Blocks have at most 512 columns, a multiple of 128. Examples: 192 -> (1, 256),
  640 -> (2, 384).

  Args:
    length: tokens per row.

  Returns:
    (number of blocks, columns per block).
  """
  # The smallest number of blocks, then the smallest multiple of 128 that fits.
  count = -(-length // _BLOCK)
  return count, -(-length // (count * _LANES)) * _LANES


def count_pairs(length: int, window: int = 0) -> int:
  """Returns the number of (query, key) in the blocks that the kernel computes.

  Args:
    length: tokens per row.
    window: number of columns that a query sees at most; 0: all earlier ones.
  """
  count, block = blocks(length)
  # The first query of a block sees window - 1 columns to its left. They lie in
  # `left` blocks.
  left = -(-(window - 1) // block) if window else count
  return sum(min(i, left) + 1 for i in range(count)) * block**2


def _attend_shards(
  kernel: Kernel,
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  scale: float,
) -> jax.Array:
  """Attends on one device, which has some columns of its rows, or all."""
  # Keys are gathered before their heads are padded, and in natural order.
  return _attend(
    kernel,
    q_BLHA,
    context.gather(k_BLNA),
    context.gather(v_BLNA),
    kernels.SegmentIds(segment_ids_BL, context.gather(segment_ids_BL)),
    scale,
  )


def _attend(
  kernel: Kernel,
  q_BLHA: jax.Array,
  k_BSNA: jax.Array,
  v_BSNA: jax.Array,
  ids: kernels.SegmentIds,
  scale: float,
) -> jax.Array:
  """Runs a kernel on L queries and S keys of each row."""
  L, _, A = q_BLHA.shape[1:]
  # The kernel does not scale scores, so scale the queries. In float32, because
  # a rounded 1 / sqrt(A) would be another temperature.
  q_BLHA = (q_BLHA.astype(jnp.float32) * scale).astype(q_BLHA.dtype)

  # `fill` columns pad a whole row to whole blocks. A part of a row has whole
  # blocks.
  S = k_BSNA.shape[1]
  fill = math.prod(blocks(S)) - S if L == S else 0

  # Pad heads with zeros to a multiple of 128, the sizes that jax tests the
  # kernel with. Zeros add nothing to a product, and cost nothing: the kernel's
  # tiles have that width in any case.
  def pad(x_BLHA: jax.Array) -> jax.Array:
    padding = ((0, 0), (0, fill), (0, 0), (0, -A % _LANES))
    return jnp.pad(x_BLHA, padding).swapaxes(1, 2)

  # Padding columns form a segment of their own, which no query of a document
  # sees.
  ids = jax.tree.map(
    lambda ids_BL: jnp.pad(
      ids_BL, ((0, 0), (0, fill)), constant_values=_NOBODY
    ),
    ids,
  )
  mixed_BHLA = jax.vmap(kernel)(pad(q_BLHA), pad(k_BSNA), pad(v_BSNA), ids)
  assert isinstance(mixed_BHLA, jax.Array)  # without residuals
  # Drop the padding of columns and heads.
  return mixed_BHLA.swapaxes(1, 2)[:, :L, :, :A]


@dataclasses.dataclass(frozen=True)
class _Mask(kernels.Mask):
  """Which keys a query sees, as the kernel's library reads it.

  The library asks for every block twice, and whether any or all of it is true.
  Its own masks compare all pairs of each block, which takes minutes for a row
  of 131,072 columns.

  Attributes:
    length: columns of the row.
    window: columns that a query sees at most.
    devices: devices that split the queries.
  """

  length: int
  window: int
  devices: int

  @property
  def shape(self) -> tuple[int, ...]:
    return self.length, self.length

  @functools.cached_property
  def q_sequence(self) -> np.ndarray:
    """The column of each query. Devices have equal shares, in this order."""
    return column_order.columns(self.length, self.devices)

  # The kernel calls it too, for blocks of which a query sees a part.
  def mask_function(self, q_ids: Ids, kv_ids: Ids) -> Ids:
    visible = q_ids >= kv_ids
    if self.window < self.length:
      visible &= q_ids < kv_ids + self.window
    return visible

  def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
    queries, keys = block
    columns = self.q_sequence[queries]  # one after the other, in any block
    first, last = columns[0], columns[-1]
    is_all = keys.stop <= first + 1 and keys.start > last - self.window
    is_none = keys.start > last or keys.stop <= first + 1 - self.window
    if is_all or is_none:
      return np.full((1, 1), is_all)
    columns_of_keys = np.arange(keys.start, keys.stop)
    return self.mask_function(columns[:, None], columns_of_keys[None])


def _kernel(
  length: int, heads: int, window: int, devices: int, interpret: bool
) -> Kernel:
  """Returns the kernel of one row: q [H, L, A], k and v [N, L, A] -> [H, L, A].

  Query heads of a group share the keys they read.

  Args:
    length: columns of the row.
    heads: query heads, H.
    window: columns that a query sees at most; 0: all earlier ones.
    devices: devices that split the queries of the row.
    interpret: emulate the kernel.
  """
  if devices == 1:
    count, block = blocks(length)
    length = count * block
  else:
    # The largest block that divides a part of the row.
    part = length // (2 * devices)
    sizes = range(_BLOCK, 0, -_LANES)
    block = next(size for size in sizes if part % size == 0)
  mask = _Mask(length, window or length, devices)
  # The backward pass has two kernels. A fused one would write one dq per block
  # of keys, [L / block, H, L, A], and sum them in the data type of q.
  return kernels.make_splash_mha(
    kernels.MultiHeadMask([mask] * heads),
    # One size for all blocks of the forward and backward kernels.
    block_sizes=kernels.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_q_dq=block,
      block_kv_dq=block,
    ),
    head_shards=1,
    q_seq_shards=devices,
    # If its result and the sums of its softmax are kept, the backward pass need
    # not run the forward kernel again.
    residual_checkpoint_name=remat.ATTENTION,
    interpret=interpret,
  )
