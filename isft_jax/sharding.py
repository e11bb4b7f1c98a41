"""Where arrays live: the mesh, strict rules for trees, and global batches.

Axes: `data` (replicas), `fsdp` (replicas that share out the parameters) and
`tensor` (parts of a matrix product). A batch is split over data and fsdp.
"""

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from isft_jax.config import MeshConfig

AXES = ('data', 'fsdp', 'tensor')

Rules = Sequence[tuple[str, tuple[str | None, ...]]]


def make_mesh(config: MeshConfig, devices=None) -> Mesh:
  """Returns a (data, fsdp, tensor) mesh over all devices, or the first.

  One device is taken where each axis is set to 1, however many there are.

  Raises ValueError if the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [config.data, config.fsdp, config.tensor]
  if sizes == [1, 1, 1] and jax.process_count() == 1:
    devices = devices[:1]
  given = int(np.prod([size for size in sizes if size != -1]))
  if sizes.count(-1) == 1 and given > 0 and len(devices) % given == 0:
    sizes[sizes.index(-1)] = len(devices) // given
  if int(np.prod(sizes)) != len(devices) or min(sizes) < 1:
    raise ValueError(
      f'config.mesh is data={config.data}, fsdp={config.fsdp}, '
      f'tensor={config.tensor}, which does not cover {len(devices)} devices; '
      'set one axis to -1 to take what the others leave'
    )
  # Auto axes: the compiler places what the rules leave open, so that the model
  # stays free of sharding.
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )


def path_name(path) -> str:
  """Returns a tree path as text: 'blocks/attention/q'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def shardings(tree, rules: Rules, mesh: Mesh):
  """Returns a NamedSharding for every leaf of a tree, by the rules.

  A rule is (regex, axis for each dimension); the regex is searched for in the
  leaf's path, so that an optimizer's moments, whose paths end like those of
  their parameters, follow them. Scalars are replicated.

  tree: arrays or ShapeDtypeStructs.

  Raises ValueError for a leaf that no rule or more than one rule matches, and
  for a dimension that its mesh axis does not divide.
  """

  def of_leaf(path, leaf):
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
      if axis is not None and size % mesh.shape[axis]:
        raise ValueError(
          f'{name} {leaf.shape}: a dimension of {size} does not divide over '
          f'config.mesh.{axis}={mesh.shape[axis]}'
        )
    return NamedSharding(mesh, PartitionSpec(*found[0]))

  return jax.tree_util.tree_map_with_path(of_leaf, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def of_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: rows over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def to_global(batch, mesh: Mesh):
  """Makes global arrays of the rows that this host read.

  Raises ValueError if the rows do not divide over the mesh.
  """
  rows = len(jax.tree.leaves(batch)[0]) * jax.process_count()
  shards = mesh.shape['data'] * mesh.shape['fsdp']
  if rows % shards:
    raise ValueError(
      f'a batch of {rows} rows does not divide over config.mesh.data='
      f'{mesh.shape["data"]} x config.mesh.fsdp={mesh.shape["fsdp"]}'
    )
  sharding = of_batch(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )
