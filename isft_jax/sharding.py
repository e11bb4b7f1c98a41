"""Where arrays live: the mesh, strict rules for trees, and global batches.

Axes: `data` (replicas), `fsdp` (replicas that share out the parameters) and
`tensor` (parts of a matrix product). A batch is split over data and fsdp. Where
TPUs are several slices, data alone runs across them: the network between them
is slow, and carries one sum of gradients a step.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from isft_jax.axes import AXES, DATA, FSDP, ROWS
from isft_jax.config import MeshConfig
from isft_jax.types import Batch, PyTree

# Over what a dimension is split: nothing, an axis, or several, outermost first.
Axis = str | tuple[str, ...] | None
Rules = Sequence[tuple[str, tuple[Axis, ...]]]


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a (data, fsdp, tensor) mesh over all devices, or the first.

  One device is taken where each axis is set to 1, however many there are. Of
  two axes at -1, fsdp takes the largest divisor of a slice's devices up to
  fsdp_at_most, and data the rest.

  Raises ValueError if the axes do not multiply to the number of devices, or if
  data does not divide over the slices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp, config.tensor]
  if sizes == [1, 1, 1] and jax.process_count() == 1:
    devices = devices[:1]
  if sizes[:2] == [-1, -1] and config.fsdp_at_most > 0:
    share = len(devices) // len(by_slice(devices)) // max(1, sizes[2])
    at_most = min(config.fsdp_at_most, max(1, share))
    sizes[1] = next(n for n in range(at_most, 0, -1) if share % n == 0)
  given = int(np.prod([size for size in sizes if size != -1]))
  if sizes.count(-1) == 1 and given > 0 and len(devices) % given == 0:
    sizes[sizes.index(-1)] = len(devices) // given
  if int(np.prod(sizes)) != len(devices) or min(sizes) < 1:
    raise ValueError(
      f'config.mesh is data={config.data}, fsdp={config.fsdp}, '
      f'tensor={config.tensor}, which does not cover {len(devices)} devices; '
      'set one axis to -1 to take what the others leave'
    )
  slices = by_slice(devices)
  if sizes[0] % len(slices):
    raise ValueError(
      f'config.mesh.data={sizes[0]} does not divide over {len(slices)} slices, '
      'and no other axis runs across them; set it to a multiple of them'
    )
  within = sizes[0] // len(slices), *sizes[1:]
  # Auto axes: the compiler places what the rules leave open, so that the model
  # stays free of sharding.
  auto = (AxisType.Auto,) * len(AXES)
  grids = [
    jax.make_mesh(within, AXES, axis_types=auto, devices=each).devices
    for each in slices
  ]
  return Mesh(np.concatenate(grids), AXES, axis_types=auto)


def by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
  """Returns the devices of each TPU slice; those of other kinds are of one."""
  found: dict[int | None, list[jax.Device]] = {}
  for device in devices:
    is_tpu = device.platform == 'tpu'
    number = getattr(device, 'slice_index', None) if is_tpu else None
    found.setdefault(number, []).append(device)
  return list(found.values())


def path_name(path: tuple[Any, ...]) -> str:
  """Returns a tree path as text: 'blocks/attention/q'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def shardings(tree: PyTree, rules: Rules, mesh: Mesh) -> PyTree:
  """Returns a NamedSharding for every leaf of a tree, by the rules.

  A rule is (regex, axis for each dimension); the regex is searched for in the
  leaf's path, so that an optimizer's moments, whose paths end like those of
  their parameters, follow them. Scalars are replicated.

  tree: arrays or ShapeDtypeStructs.

  Raises ValueError for a leaf that no rule or more than one rule matches, and
  for a dimension that its mesh axis does not divide.
  """

  def of_leaf(
    path: tuple[Any, ...], leaf: jax.Array | jax.ShapeDtypeStruct
  ) -> NamedSharding:
    if leaf.ndim == 0:
      return NamedSharding(mesh, PartitionSpec())
    name = path_name(path)
    found = [spec for rule, spec in rules if re.search(rule, name)]
    if len(found) != 1 or len(found[0]) != leaf.ndim:
      raise ValueError(
        f'{name} {leaf.shape}: {len(found)} sharding rules match ({found}); '
        'exactly one must, with an entry for each dimension'
      )
    for size, axis in zip(leaf.shape, found[0], strict=True):
      axes = (axis,) if isinstance(axis, str) else axis or ()
      if size % math.prod(mesh.shape[each] for each in axes):
        over = ' x '.join(f'config.mesh.{a}={mesh.shape[a]}' for a in axes)
        raise ValueError(
          f'{name} {leaf.shape}: a dimension of {size} does not divide over '
          f'{over}'
        )
    return NamedSharding(mesh, PartitionSpec(*found[0]))

  return jax.tree_util.tree_map_with_path(of_leaf, tree)


def constrain(tree: PyTree, rules: Rules, mesh: Mesh) -> PyTree:
  """Returns a tree, its leaves moved to where rules want them; under jit.

  Leaves that no rule matches stay wherever the compiler has them.
  """

  def of_leaf(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    specs = (spec for rule, spec in rules if re.search(rule, path_name(path)))
    spec = next(specs, None)
    if spec is None:
      return leaf
    where = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.lax.with_sharding_constraint(leaf, where)

  return jax.tree_util.tree_map_with_path(of_leaf, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def of_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: rows over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(ROWS))


def check_rows(rows: int, mesh: Mesh, parts: int = 1) -> None:
  """Raises ValueError if a batch does not divide over the mesh.

  parts: micro-batches of a step; each is split over the mesh.
  """
  shards = mesh.shape[DATA] * mesh.shape[FSDP]
  if rows % (shards * parts):
    steps = f' in {parts} micro-batches (optim.accumulate)' if parts > 1 else ''
    raise ValueError(
      f'a batch of {rows} rows{steps} does not divide over config.mesh.data='
      f'{mesh.shape[DATA]} x config.mesh.fsdp={mesh.shape[FSDP]}'
    )


@functools.cache
def part_of_host(mesh: Mesh, host: int | None = None) -> tuple[int, int]:
  """Returns (part, parts): which equal part of a batch's rows a host reads.

  Hosts whose devices hold the same rows, as where `tensor` runs across hosts,
  read the same part.

  host: None for this one.

  Raises ValueError if the rows of two hosts overlap in part.
  """
  host = jax.process_index() if host is None else host
  held: dict[int, set[int]] = {}
  rows_of = of_batch(mesh).devices_indices_map((mesh.size,))
  device: jax.Device
  for device, (rows,) in rows_of.items():
    held.setdefault(device.process_index, set()).add(rows.start or 0)
  parts = sorted(map(sorted, {frozenset(rows) for rows in held.values()}))
  if len(set().union(*parts)) != sum(map(len, parts)):
    raise ValueError(
      'config.mesh gives some hosts a part of the same rows; let tensor divide '
      'the devices of a host, or be a multiple of them'
    )
  return parts.index(sorted(held[host])), len(parts)


def to_global(batch: Batch[np.ndarray], mesh: Mesh) -> Batch[jax.Array]:
  """Makes global arrays of the rows that each host read, its `part_of_host`.

  Raises ValueError if the rows do not divide over the mesh.
  """
  _, parts = part_of_host(mesh)
  check_rows(len(jax.tree.leaves(batch)[0]) * parts, mesh)
  sharding = of_batch(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def fetch(array: jax.Array) -> np.ndarray:
  """Returns all of an array, of which other hosts may hold parts."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)
