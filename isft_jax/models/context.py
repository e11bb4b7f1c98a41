"""Rows whose columns are split over the mesh axis `context`.

These functions read the mesh in context (jax.sharding.use_abstract_mesh).
Without one, or if the axis has one device, a row is whole.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from isft_jax import column_order
from isft_jax.axes import CONTEXT, ROWS


def devices() -> int:
  """Returns the number of devices that split a row."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else mesh.shape[CONTEXT]


def gather(x_BL: jax.Array) -> jax.Array:
  """Gathers the columns of whole rows, inside jax.shard_map.

  The gradient of each column is summed where the column came from.

  Args:
    x_BL: the columns that this device has: [B, L / C, ...].

  Returns:
    All columns, in their natural order: [B, L, ...].
  """
  count = jax.lax.axis_size(CONTEXT)
  if count == 1:
    return x_BL
  order = column_order.parts(count)
  x_BL = jax.lax.all_gather(x_BL, CONTEXT, axis=1, tiled=True)
  in_parts = x_BL.reshape(len(x_BL), len(order), -1, *x_BL.shape[2:])
  return in_parts[:, np.argsort(order)].reshape(x_BL.shape)


def take_columns(x_BLD: jax.Array, places_BK: jax.Array) -> jax.Array:
  """Returns K columns of each row.

  If the columns of a row are split over devices, so are the K results. Each
  device fills in the columns that it has, and a sum brings each to its place:
  all other terms are zero, so the sum is exact. No device has a whole row.

  Args:
    x_BLD: rows, their columns in the order of `column_order`.
    places_BK: int32, places of the columns.

  Returns:
    [B, K, D], in the data type of x.
  """
  if devices() == 1:
    return jnp.take_along_axis(x_BLD, places_BK[..., None], axis=1)
  return jax.shard_map(
    _take_columns,
    in_specs=(PartitionSpec(ROWS, CONTEXT, None), PartitionSpec(ROWS, CONTEXT)),
    out_specs=PartitionSpec(ROWS, CONTEXT, None),
  )(x_BLD, places_BK)


def _take_columns(x_BLD: jax.Array, places_BK: jax.Array) -> jax.Array:
  """Takes columns on one device, which has some columns and some results."""
  length = x_BLD.shape[1]
  places_BK = jax.lax.all_gather(places_BK, CONTEXT, axis=1, tiled=True)
  places_BK -= length * jax.lax.axis_index(CONTEXT)
  mine_BK1 = ((places_BK >= 0) & (places_BK < length))[..., None]
  x_BKD = jnp.take_along_axis(
    x_BLD, jnp.clip(places_BK, 0, length - 1)[..., None], axis=1
  )
  x_BKD = jnp.where(mine_BK1, x_BKD, 0)
  return jax.lax.psum_scatter(x_BKD, CONTEXT, scatter_dimension=1, tiled=True)
