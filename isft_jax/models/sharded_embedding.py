"""Embedding lookup in a table that is sharded over devices."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from isft_jax.axes import CONTEXT, ROWS, TENSOR, WEIGHTS

# Mesh axes that split the table's ids, and its width.
IDS, WIDTH = TENSOR, WEIGHTS


def look_up(table_VD: jax.Array, tokens_BL: jax.Array, dtype: str) -> jax.Array:
  """Looks up tokens in an embedding table.

  Under a mesh in context (jax.sharding.use_abstract_mesh), each device looks up
  its own columns of the table for all tokens of its group, the devices along
  fsdp and context. These then exchange columns for tokens. If this were left to
  the compiler, every device would sum the gradient of the whole table as soon
  as there is more than one group.

  Args:
    table_VD: table, ids sharded over tensor, and width over fsdp and context.
    tokens_BL: int32, rows sharded over data, fsdp and expert, columns over
      context.
    dtype: data type of the result.

  Returns:
    Embeddings [B, L, D]; NaN for an id outside the table.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    # Plain indexing would silently return the last row for an unknown id.
    return jnp.take(table_VD, tokens_BL, axis=0, mode='fill').astype(dtype)
  return jax.shard_map(
    functools.partial(_look_up, dtype=dtype),
    in_specs=(PartitionSpec(IDS, WIDTH), PartitionSpec(ROWS, CONTEXT)),
    out_specs=PartitionSpec(ROWS, CONTEXT, None),
  )(table_VD, tokens_BL)


def _look_up(
  table_VD: jax.Array, tokens_BL: jax.Array, dtype: str
) -> jax.Array:
  """Looks up tokens on one device, which has some ids and some columns."""
  ids, shards = len(table_VD), jax.lax.axis_size(IDS)
  known_BL1 = ((tokens_BL >= 0) & (tokens_BL < ids * shards))[..., None]
  # The tokens of the whole group, as G rows, and which of their ids are here.
  tokens_GL = jax.lax.all_gather(tokens_BL, WIDTH, tiled=True)
  local_GL = tokens_GL - ids * jax.lax.axis_index(IDS)
  # Ids that other devices hold get an index past the end, which reads as zeros.
  mine_GL = (local_GL >= 0) & (local_GL < ids)
  x_GLD = jnp.take(
    table_VD, jnp.where(mine_GL, local_GL, ids), axis=0, fill_value=0
  ).astype(dtype)
  # One device has the row of a token, and the others add zeros.
  x_GLD = jax.lax.psum(x_GLD, IDS)
  # Exchange: own columns for all tokens become all columns for own tokens.
  x_BLD = jax.lax.all_to_all(x_GLD, WIDTH, 0, 2, tiled=True)
  return jnp.where(known_BL1, x_BLD, jnp.nan)
