"""Names of the mesh's axes.

The mesh is (data, fsdp, tensor): replicas; replicas that share out the
parameters; shards of a matrix product. `sharding` builds it, and models name
its axes.
"""

DATA, FSDP, TENSOR = AXES = 'data', 'fsdp', 'tensor'
# The axes that split the rows of a batch.
ROWS = DATA, FSDP
