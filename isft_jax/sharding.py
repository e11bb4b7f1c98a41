"""Device mesh, strict sharding rules for trees of arrays, and global batches.

The mesh axes are `data` (replicas), `fsdp` (replicas that shard the parameters
among them), `expert` (replicas that divide experts among them), `context`
(devices that divide the columns of a row among them, and the parameters) and
`tensor` (shards of a matrix product). The rows of a batch are split over data,
fsdp and expert. If TPUs form several slices, only data crosses them: the
network between slices is slow, and then carries one sum of gradients per step.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from isft_jax import column_order
from isft_jax.axes import AXES, CONTEXT, ROWS, Rules, Spec, describe
from isft_jax.config import MeshConfig
from isft_jax.types import Batch, PyTree


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a (data, fsdp, expert, context, tensor) mesh.

  Args:
    config: size of each axis. One axis may be -1: it takes the devices that
      the others leave. If both data and fsdp are -1, fsdp takes the largest
      divisor of the devices per slice that is at most fsdp_at_most, and data
      takes the rest. If all axes are 1, the mesh is the first device.
    devices: devices of the mesh; None: all devices.

  Returns:
    A mesh with the axes `AXES`, all of them Auto.

  Raises:
    ValueError: the product of the axes is not the number of devices, data does
      not divide over the slices, or an axis would take a share of an axis of a
      slice whose links do not allow it.
  """
  devices = jax.devices() if devices is None else devices
  # The product of the sizes, in the order of `AXES`, is the number of devices.
  sizes = [getattr(config, axis) for axis in AXES]

  # Resolve axes of -1, and the mesh of one device.
  if sizes == [1] * len(AXES) and jax.process_count() == 1:
    devices = devices[:1]
  if sizes[:2] == [-1, -1] and config.fsdp_at_most > 0:
    # Devices per slice that the other axes leave to data and fsdp.
    share = len(devices) // len(by_slice(devices))
    share //= math.prod(max(1, size) for size in sizes[2:])
    at_most = min(config.fsdp_at_most, max(1, share))
    sizes[1] = next(n for n in range(at_most, 0, -1) if share % n == 0)
  # One axis of -1 takes the rest.
  given = int(np.prod([size for size in sizes if size != -1]))
  if sizes.count(-1) == 1 and given > 0 and len(devices) % given == 0:
    sizes[sizes.index(-1)] = len(devices) // given
  # Every device must be used.
  wanted = describe(AXES, dataclasses.asdict(config))
  if int(np.prod(sizes)) != len(devices) or min(sizes) < 1:
    raise ValueError(
      f'{wanted} does not cover {len(devices)} devices; set one axis to -1 to '
      'take all devices that the others leave'
    )

  # Split data over the slices; each slice has the same other axes.
  slices = by_slice(devices)
  if sizes[0] % len(slices):
    raise ValueError(
      f'config.mesh.data={sizes[0]} does not divide over {len(slices)} slices, '
      'and no other axis runs across them; set it to a multiple of '
      f'{len(slices)}'
    )
  # Size of the data axis within one slice.
  within = sizes[0] // len(slices), *sizes[1:]

  # With Auto axes the compiler chooses every sharding that the rules leave
  # open, so the model needs no sharding of its own. jax.make_mesh orders the
  # devices of a slice by their physical links.
  auto = (AxisType.Auto,) * len(AXES)
  try:
    grids = [
      jax.make_mesh(within, AXES, axis_types=auto, devices=each).devices
      for each in slices
    ]
  except NotImplementedError:
    raise ValueError(
      f'{wanted}: on {devices[0].device_kind} each axis must take whole axes '
      'of the slice; choose products of its sizes, such as 4 or 16 on 4x4x4'
    ) from None
  # Slices follow each other along the first axis, data.
  return Mesh(np.concatenate(grids), AXES, axis_types=auto)


def by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
  """Groups devices by TPU slice. All other devices form one group."""
  # Only TPUs of several slices have a slice_index that differs.
  groups: dict[int | None, list[jax.Device]] = {}
  for device in devices:
    is_tpu = device.platform == 'tpu'
    number = getattr(device, 'slice_index', None) if is_tpu else None
    groups.setdefault(number, []).append(device)
  return list(groups.values())


def path_name(path: tuple[Any, ...]) -> str:
  """Returns a tree path as text, as in 'blocks/attention/q'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def shardings(tree: PyTree, rules: Rules, mesh: Mesh) -> PyTree:
  """Returns a NamedSharding for every leaf of a tree, by the rules.

  A rule is a regex, and choices of mesh axes for each dimension: the first that
  divides the dimensions is taken. The regex is searched for in the leaf's path.
  The paths of an optimizer's moments end like those of their parameters, so
  moments match the rules of their parameters. Scalars are replicated.

  Args:
    tree: arrays or ShapeDtypeStructs.
    rules: exactly one must match each leaf that is not a scalar.
    mesh: mesh of the shardings.

  Returns:
    NamedShardings, in the structure of `tree`.

  Raises:
    ValueError: no rule or several rules match a leaf, or a mesh axis does not
      divide a dimension.
  """

  def leaf_sharding(
    path: tuple[Any, ...], leaf: jax.Array | jax.ShapeDtypeStruct
  ) -> NamedSharding:
    # Step counters of the optimizer.
    if leaf.ndim == 0:
      return NamedSharding(mesh, PartitionSpec())
    # Exactly one rule must match, so a new parameter without a rule is an error
    # and not silently replicated.
    name = path_name(path)
    found = [specs for rule, *specs in rules if re.search(rule, name)]
    if len(found) != 1 or len(found[0][0]) != leaf.ndim:
      raise ValueError(
        f'{name} {leaf.shape}: {len(found)} sharding rules match ({found}); '
        'exactly one must match, with an entry for each dimension'
      )
    spec = _first_fitting(found[0], leaf.shape, mesh)
    for size, axes in _not_dividing(spec, leaf.shape, mesh):
      raise ValueError(
        f'{name} {leaf.shape}: a dimension of {size} does not divide over '
        f'{describe(axes, mesh.shape)}'
      )
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def _not_dividing(
  spec: Spec, shape: Sequence[int], mesh: Mesh
) -> Iterator[tuple[int, Sequence[str]]]:
  """Yields dimensions that are no multiple of their devices, and their axes."""
  for size, axis in zip(shape, spec, strict=True):
    axes = (axis,) if isinstance(axis, str) else axis or ()
    if size % math.prod(mesh.shape[each] for each in axes):
      yield size, axes


def _first_fitting(
  specs: Sequence[Spec], shape: Sequence[int], mesh: Mesh
) -> Spec:
  """Returns the first choice that divides a shape; the first if none does."""
  fitting = (s for s in specs if not any(_not_dividing(s, shape, mesh)))
  return next(fitting, specs[0])


def constrain(tree: PyTree, rules: Rules, mesh: Mesh) -> PyTree:
  """Constrains the shardings of a tree's leaves to the rules, under jit.

  Args:
    tree: arrays.
    rules: the first that matches a leaf applies. If none does, the compiler
      chooses the leaf's sharding.
    mesh: mesh of the shardings.

  Returns:
    The same arrays.
  """

  def constrain_leaf(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    # Leaves without a rule keep the sharding that the compiler chooses.
    found = (
      specs for rule, *specs in rules if re.search(rule, path_name(path))
    )
    specs = next(found, None)
    if specs is None:
      return leaf
    spec = _first_fitting(specs, leaf.shape, mesh)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.lax.with_sharding_constraint(leaf, sharding)

  return jax.tree_util.tree_map_with_path(constrain_leaf, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch.

  Rows are split over data, fsdp and expert, and both the columns and the
  targets of a row over context.
  """
  # The same for all arrays of a batch, whose axes are rows and L or K.
  return NamedSharding(mesh, PartitionSpec(ROWS, CONTEXT))


def check_batch_size(
  batch_size: int, mesh: Mesh, microbatches: int = 1
) -> None:
  """Raises ValueError if a batch does not divide over the mesh.

  Args:
    batch_size: rows of the global batch.
    mesh: mesh whose data, fsdp and expert axes split them.
    microbatches: their number per step. Each is split over the mesh.
  """
  shards = math.prod(mesh.shape[axis] for axis in ROWS)
  # Each microbatch must divide too, not only the whole batch.
  if batch_size % (shards * microbatches):
    split = ''
    if microbatches > 1:
      split = f' in {microbatches} microbatches (optim.accumulate)'
    raise ValueError(
      f'a batch of {batch_size} rows{split} does not divide over '
      f'{describe(ROWS, mesh.shape)}'
    )


def check_row(seq_len: int, targets_per_row: int, mesh: Mesh) -> None:
  """Raises ValueError if a row does not divide over the mesh.

  Args:
    seq_len: tokens per row, L.
    targets_per_row: scored targets per row, K.
    mesh: mesh whose context axis splits them.
  """
  devices = mesh.shape[CONTEXT]
  # Two parts of a row per device; see `column_order`.
  wanted = {'seq_len': 2 * devices, 'targets_per_row': devices}
  for name, size in (
    ('seq_len', seq_len),
    ('targets_per_row', targets_per_row),
  ):
    if devices > 1 and size % wanted[name]:
      raise ValueError(
        f'rows of {name}={size} do not divide over config.mesh.context='
        f'{devices}; set {name} to a multiple of {wanted[name]}, such as '
        f'{-(-size // wanted[name]) * wanted[name]}'
      )


# The mesh of a run never changes, and each batch asks for it.
@functools.cache
def host_share(mesh: Mesh, host: int | None = None) -> tuple[int, int]:
  """Returns the equal part of a batch's rows that a host reads.

  If the devices of several hosts hold the same rows (because `context` or
  `tensor` crosses hosts), these hosts read the same rows.

  Args:
    mesh: mesh whose data, fsdp and expert axes split the rows.
    host: index of the process; None: this one.

  Returns:
    (share, shares): index of the host's share, and number of shares.

  Raises:
    ValueError: two hosts have some of their rows in common, but not all.
  """
  host = jax.process_index() if host is None else host
  # First rows of the shards of each host, in a batch with a row per device.
  rows_by_host: dict[int, set[int]] = {}
  by_rows = NamedSharding(mesh, PartitionSpec(ROWS))
  shard_rows = by_rows.devices_indices_map((mesh.size,))
  device: jax.Device
  for device, (rows,) in shard_rows.items():
    # An unsplit axis has the slice(None), whose start is None.
    rows_by_host.setdefault(device.process_index, set()).add(rows.start or 0)
  # The distinct sets of rows are the shares. They must not overlap.
  shares = sorted(map(sorted, {frozenset(r) for r in rows_by_host.values()}))
  if len(set().union(*shares)) != sum(map(len, shares)):
    raise ValueError(
      'config.mesh gives two hosts some rows in common, but not all; let '
      'config.mesh.context x config.mesh.tensor divide the devices of a host, '
      'or be a multiple of them'
    )
  return shares.index(sorted(rows_by_host[host])), len(shares)


def to_global(batch: Batch[np.ndarray], mesh: Mesh) -> Batch[jax.Array]:
  """Assembles global arrays from the rows that each host read.

  Args:
    batch: this host's share of the rows; see `host_share`. Columns are in
      their natural order.
    mesh: mesh whose data, fsdp and expert axes split the rows.

  Returns:
    The whole batch, sharded over the devices of all hosts. Columns are in the
    order of `column_order`.

  Raises:
    ValueError: the rows do not divide over the mesh.
  """
  # A host has 1 / shares of the rows.
  _, shares = host_share(mesh)
  rows, columns = batch.tokens_BL.shape
  check_batch_size(rows * shares, mesh)
  check_row(columns, batch.columns_BK.shape[1], mesh)
  batch = _in_places(batch, mesh.shape[CONTEXT])
  sharding = batch_sharding(mesh)
  # No data moves between hosts: each host passes its own rows to its own
  # devices. It has all columns of them.
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      sharding, x, (rows * shares, x.shape[1])
    ),
    batch,
  )


def _in_places(batch: Batch[np.ndarray], devices: int) -> Batch[np.ndarray]:
  """Returns a batch with its columns in the order of `column_order`."""
  if devices == 1:
    return batch
  columns_L = column_order.columns(batch.tokens_BL.shape[1], devices)
  place_of_column_L = np.argsort(columns_L).astype(np.int32)
  return batch._replace(
    tokens_BL=batch.tokens_BL[:, columns_L],
    positions_BL=batch.positions_BL[:, columns_L],
    segment_ids_BL=batch.segment_ids_BL[:, columns_L],
    columns_BK=place_of_column_L[batch.columns_BK],
  )


def fetch(array: jax.Array) -> np.ndarray:
  """Returns a whole array, even if other hosts hold shards of it."""
  # Only arrays whose shards are on other hosts need communication.
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)
