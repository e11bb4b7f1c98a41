"""Names of the mesh axes: data, fsdp and tensor.

`data` has replicas of the model, `fsdp` has replicas that shard the parameters
among them, and `tensor` has the shards of a matrix product. `sharding` builds
the mesh. Models only name its axes.
"""

DATA, FSDP, TENSOR = AXES = 'data', 'fsdp', 'tensor'
# The rows of a batch are split over both of these axes.
ROWS = DATA, FSDP
