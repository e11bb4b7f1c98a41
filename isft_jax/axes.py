"""Names of the mesh axes: data, fsdp, expert, context and tensor.

`data` has replicas of the model, `fsdp` has replicas that shard the parameters
among them, `expert` has replicas that divide the experts of a mixture among
them, `context` has devices that divide the columns of a row among them, and
`tensor` has the shards of a matrix product. `sharding` builds the mesh. Models
only name its axes.
"""

from collections.abc import Mapping, Sequence

DATA, FSDP, EXPERT, CONTEXT, TENSOR = AXES = (
  *('data', 'fsdp', 'expert'),
  *('context', 'tensor'),
)
# The rows of a batch are split over all of these axes.
ROWS = DATA, FSDP, EXPERT
# One dimension of each matrix is split over these axes. It is gathered before
# its product.
WEIGHTS = FSDP, CONTEXT

# Mesh axes that split one dimension: none, one, or several, outermost first.
Axis = str | tuple[str, ...] | None
Spec = tuple[Axis, ...]  # of each dimension
# (regex of a tree path, spec, other choices of a spec), ...
Rules = Sequence[tuple[str, *tuple[Spec, ...]]]


def describe(axes: Sequence[str], sizes: Mapping[str, int]) -> str:
  """Returns sizes of axes for a message, as flags that set them.

  Args:
    axes: names of axes.
    sizes: size of each axis of a mesh, as in mesh.shape.

  Returns:
    Text such as 'config.mesh.data=2 x config.mesh.fsdp=4'. Axes of one device
    are left out, except the first if there are no others.
  """
  split = [axis for axis in axes if sizes[axis] != 1] or axes[:1]
  return ' x '.join(f'config.mesh.{axis}={sizes[axis]}' for axis in split)
