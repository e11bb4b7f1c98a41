"""The embedding's look-up, where devices hold the table in parts."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from isft_jax.axes import FSDP, ROWS, TENSOR

# What splits the table by ids, and by width.
IDS, WIDTH = TENSOR, FSDP


def look_up(table_VD: jax.Array, tokens_BL: jax.Array, dtype: str) -> jax.Array:
  """Returns the rows of a table, [B, L, D] in dtype; NaN of an unknown id.

  Under a mesh in context (jax.sharding.use_abstract_mesh) it is split here. A
  device looks up its columns of the table for all rows of its fsdp group, and
  the group then changes places: rows for columns. Left to the compiler, the
  gradient is added up in a whole table on every device as soon as there is more
  than one group.

  table_VD: ids split over tensor, width over fsdp.
  tokens_BL: int32, rows split over data and fsdp.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    # Indexing would silently take the last row instead.
    return jnp.take(table_VD, tokens_BL, axis=0, mode='fill').astype(dtype)
  return jax.shard_map(
    functools.partial(_look_up, dtype=dtype),
    in_specs=(PartitionSpec(IDS, WIDTH), PartitionSpec(ROWS, None)),
    out_specs=PartitionSpec(ROWS, None, None),
  )(table_VD, tokens_BL)


def _look_up(
  table_VD: jax.Array, tokens_BL: jax.Array, dtype: str
) -> jax.Array:
  """What one device does: its part of the ids, its part of the columns."""
  ids, parts = len(table_VD), jax.lax.axis_size(IDS)
  known_BL1 = ((tokens_BL >= 0) & (tokens_BL < ids * parts))[..., None]
  tokens_GL = jax.lax.all_gather(tokens_BL, WIDTH, tiled=True)
  local_GL = tokens_GL - ids * jax.lax.axis_index(IDS)
  mine_GL = (local_GL >= 0) & (local_GL < ids)
  x_GLD = jnp.take(
    table_VD, jnp.where(mine_GL, local_GL, ids), axis=0, fill_value=0
  ).astype(dtype)
  x_GLD = jax.lax.psum(x_GLD, IDS)  # of one device's row and others' zeros
  x_BLD = jax.lax.all_to_all(x_GLD, WIDTH, 0, 2, tiled=True)
  return jnp.where(known_BL1, x_BLD, jnp.nan)
