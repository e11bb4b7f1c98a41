"""Packed attention by jax's kernel for TPUs, which never writes [L, L] scores.

Source: jax.experimental.pallas.ops.tpu.splash_attention.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as kernels
from jax.sharding import PartitionSpec

from isft_jax.axes import DATA, FSDP, ROWS, TENSOR

_LANES = 128  # of a TPU's vector registers: blocks are multiples of them
# Columns of a block. A block of keys and values is read for as many queries,
# so each byte of them serves 512 operations in bfloat16; below some 240 (v5e)
# reading is what takes the time. The diagonal's blocks are half for nothing:
# a share 1 / (L / block + 1) of the work, which larger ones would raise.
_BLOCK = 512
_NOBODY = -1  # segment of the columns that fill the last block up


def splash_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  interpret: bool = False,
) -> jax.Array:
  """Returns attention.packed_attention of the same arguments, [B, L, H, A].

  A kernel is opaque to the compiler, which could only run it on one device.
  Under a mesh in context (jax.sharding.use_abstract_mesh) it is split here:
  rows over data and fsdp, heads over tensor, nothing communicated. Without
  one, the arrays must be whole.

  segment_ids_BL: int32, at least 0.
  interpret: runs the kernel's own code where there is no TPU, slowly.

  Raises ValueError if the rows or the key-value heads do not divide over it.
  """
  attend = functools.partial(_attend, interpret=interpret)
  arrays = q_BLHA, k_BLNA, v_BLNA, segment_ids_BL
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return attend(*arrays)
  shards = mesh.shape[DATA] * mesh.shape[FSDP]
  B, kv_heads = len(q_BLHA), k_BLNA.shape[2]
  if B % shards or kv_heads % mesh.shape[TENSOR]:
    raise ValueError(
      f'splash attention of {B} rows and {kv_heads} key-value heads does not '
      f'divide over config.mesh.data={mesh.shape[DATA]} x '
      f'config.mesh.fsdp={mesh.shape[FSDP]} and config.mesh.tensor='
      f"{mesh.shape[TENSOR]}; set config.model.attention='xla', or change them"
    )
  heads = PartitionSpec(ROWS, None, TENSOR, None)
  return jax.shard_map(
    attend,
    in_specs=(heads, heads, heads, PartitionSpec(ROWS, None)),
    out_specs=heads,
    check_vma=False,  # the kernel does not say over which axes it varies
  )(*arrays)


def blocks(length: int) -> tuple[int, int]:
  """Returns (blocks, columns of each) that hold a row and fill up the least.

  At most 512 columns, a multiple of 128: 192 -> (1, 256), 640 -> (2, 384).
  """
  count = -(-length // _BLOCK)
  return count, -(-length // (count * _LANES)) * _LANES


def _attend(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  interpret: bool,
) -> jax.Array:
  L, H, A = q_BLHA.shape[1:]
  count, block = blocks(L)
  fill = count * block - L
  # The kernel does not scale. In float32, since a rounded 1 / sqrt(A) would
  # be another temperature.
  q_BLHA = (q_BLHA.astype(jnp.float32) * A**-0.5).astype(q_BLHA.dtype)

  # Heads up to a multiple of 128, the sizes that jax tests the kernel for: the
  # zeros add nothing to a product. Its tiles have that width in any case.
  def filled(x_BLHA: jax.Array) -> jax.Array:
    padding = ((0, 0), (0, fill), (0, 0), (0, -A % _LANES))
    return jnp.pad(x_BLHA, padding).swapaxes(1, 2)

  ids_BL = jnp.pad(segment_ids_BL, ((0, 0), (0, fill)), constant_values=_NOBODY)
  kernel = _kernel(count * block, H, block, interpret)
  mixed_BHLA = jax.vmap(kernel)(
    filled(q_BLHA),
    filled(k_BLNA),
    filled(v_BLNA),
    kernels.SegmentIds(ids_BL, ids_BL),
  )
  return mixed_BHLA.swapaxes(1, 2)[:, :L, :, :A]


def _kernel(
  length: int, heads: int, block: int, interpret: bool
) -> Callable[..., jax.Array]:
  """The kernel of one row: q [H, L, A], k and v [N, L, A] -> [H, L, A].

  Query heads of a group share the keys they read. The backward pass is in two
  kernels: one alone would write a dq for every block of keys, [L / block, H,
  L, A], and sum them in the dtype of q.
  """
  mask = kernels.CausalMask((length, length))
  return kernels.make_splash_mha(
    kernels.MultiHeadMask([mask] * heads),
    block_sizes=kernels.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_q_dq=block,
      block_kv_dq=block,
    ),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )
