"""Settings of a run that change the time of a step and not its result.

  list_candidates(config, chips.describe('v5e:2x2'), targets_per_row=2_048)

A candidate is a remat policy, the sizes of the mesh axes, the chunks of the
head and the number of microbatches, for the same global batch. Its time is
estimated from its operations and bytes, and its memory from the shapes of its
arrays. `search` then compiles the best ones, because only the compiler knows
the memory.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from isft_jax import chips as chips_lib
from isft_jax import sharding
from isft_jax.axes import AXES, CONTEXT, DATA, EXPERT, ROWS, TENSOR, WEIGHTS
from isft_jax.config import MeshConfig, ModelConfig, RunConfig
from isft_jax.models import attention, decoder, likelihood, remat
from isft_jax.models import flops as flops_lib
from isft_jax.models import lora as lora_lib
from isft_jax.tpu import roofline as roofline_lib
from isft_jax.types import PyTree

# Names that are kept together: they are small, or equal in size and in work.
_TOGETHER = (('attention',), ('q', 'k', 'v'), ('o',), ('up',), ('gate',))


class Candidate(NamedTuple):
  """Settings to try, and what they should give.

  Attributes:
    settings: dotted field of a RunConfig -> value, for all fields of the
      search.
    least: estimated seconds of a step by resource.
    memory: estimated bytes on a device.
    changes: number of fields that differ from the config.
  """

  settings: Mapping[str, Any]
  least: roofline_lib.Roofline
  memory: float
  changes: int


def list_candidates(
  config: RunConfig, devices: Sequence[jax.Device], targets_per_row: int
) -> list[Candidate]:
  """Returns the candidates of a run; the first has the config's own settings.

  Args:
    config: config of the run; see `compile.compile_run`.
    devices: devices of the slice; see `chips.describe`.
    targets_per_row: scored targets per row, K.

  Returns:
    The candidates. Their meshes suit the slice, the model and the batch. A
    policy is left out if another one needs less memory and no more time.

  Raises:
    ValueError: the config's own mesh suits none of them.
  """
  model = dataclasses.replace(
    config.model,
    init_from='',
    attention=attention.resolve(config.model.attention, devices[0]),
  )
  config = dataclasses.replace(config, model=model)
  params = decoder.abstract(model, config.lora)[1]
  own = read_settings(config, sharding.make_mesh(config.mesh, devices).shape)
  # All meshes have the same work.
  works = functools.cache(
    functools.partial(_list_works, config, params, devices, targets_per_row)
  )

  listed = []
  for mesh in _make_meshes(len(devices), model, devices):
    # A mesh must divide the rows and the parameters.
    try:
      sharding.check_row(config.seq_len, targets_per_row, mesh)
      stored = _Bytes.on(mesh, params, config)
    except ValueError:
      continue
    sizes = {f'mesh.{axis}': size for axis, size in mesh.shape.items()}
    for accumulate in _divisors(config.batch_size):
      if config.batch_size % (_count_row_shards(mesh) * accumulate):
        continue
      within, across = _estimate_sent(config, stored, accumulate, devices)
      for group in works(accumulate):
        same_chunk = []
        for work in group:
          settings = own | sizes
          settings |= {
            'model.remat': work.model.remat,
            'model.head_chunk': work.model.head_chunk,
            'optim.accumulate': accumulate,
          }
          memory = _estimate_memory(
            config, work.model, stored, accumulate, targets_per_row
          )
          least = roofline_lib.Roofline(work.compute, work.hbm, within, across)
          changes = sum(settings[name] != own[name] for name in own)
          same_chunk.append(Candidate(settings, least, memory, changes))
        listed += [
          each
          for each in same_chunk
          if not each.changes or not _is_beaten(each, same_chunk)
        ]
  listed.sort(key=lambda each: each.changes > 0)
  return listed


def apply(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
  """Returns a copy of a config with other settings.

  Args:
    config: not changed.
    settings: dotted field -> value, as in {'model.remat': 'full'}.
  """
  for name, value in settings.items():
    group, _, field = name.partition('.')
    owner = dataclasses.replace(getattr(config, group), **{field: value})
    config = dataclasses.replace(config, **{group: owner})
  return config


def read_settings(config: RunConfig, mesh: Mapping[str, int]) -> dict[str, Any]:
  """Returns a config's own values of the fields that the search changes.

  Args:
    config: config of the run.
    mesh: sizes of its mesh axes, which the config may leave open.
  """
  return {
    'model.remat': config.model.remat,
    'model.head_chunk': config.model.head_chunk,
    'optim.accumulate': config.optim.accumulate,
    **{f'mesh.{axis}': mesh[axis] for axis in AXES},
  }


def list_policies(config: ModelConfig) -> list[str]:
  """Returns the values of config.model.remat to try.

  'none', and all sets of names. 'gate' is only kept if 'up' is, because they
  have the same size and work.
  """
  groups = [*_TOGETHER]
  if remat.widths(config)['down']:
    groups.append(('down',))
  policies = ['none']
  for count in range(len(groups) + 1):
    for chosen in itertools.combinations(groups, count):
      names = set(itertools.chain.from_iterable(chosen))
      if 'gate' not in names or 'up' in names:
        ordered = [name for name in remat.REMAT_NAMES if name in names]
        policies.append(','.join(ordered) or 'full')
  return policies


def _make_meshes(
  size: int, model: ModelConfig, devices: Sequence[jax.Device]
) -> Iterator[jax.sharding.Mesh]:
  """Yields the meshes of all devices that suit the slice and the heads."""
  for sizes in itertools.product(_divisors(size), repeat=len(AXES)):
    mesh = dict(zip(AXES, sizes, strict=True))
    heads = model.kv_heads if model.attention == 'splash' else model.heads
    if (
      math.prod(sizes) != size
      or (model.experts or 1) % mesh[EXPERT]
      or heads % mesh[TENSOR]
    ):
      continue
    # The links of the slice or the rows of the hosts may not allow it.
    try:
      made = sharding.make_mesh(MeshConfig(**mesh), devices)
      for host in {device.process_index for device in devices}:
        sharding.host_share(made, host)
    except ValueError:
      continue
    yield made


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]


def _count_row_shards(mesh: jax.sharding.Mesh) -> int:
  return math.prod(mesh.shape[axis] for axis in ROWS)


# -------------------------------------------------------------------- estimates


class _Bytes(NamedTuple):
  """Bytes on a device of a mesh: of parameters that learn, and of others."""

  mesh: jax.sharding.Mesh
  learning: int
  frozen: int

  @classmethod
  def on(
    cls, mesh: jax.sharding.Mesh, params: PyTree, config: RunConfig
  ) -> '_Bytes':
    placed = sharding.shardings(params, decoder.PARTITION_RULES, mesh)
    shards = jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(
        place.shard_shape(leaf.shape), leaf.dtype
      ),
      params,
      placed,
    )
    return cls(mesh, *_count_bytes(shards, config))


def _count_bytes(params: PyTree, config: RunConfig) -> tuple[int, int]:
  """Returns the bytes of the parameters that learn, and of the others."""
  split = lora_lib.split(params) if config.lora.rank else (params, ())
  learning, frozen = (
    sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part))
    for part in split
  )
  return learning, frozen


class _Work(NamedTuple):
  """Seconds of a step at peak rates, which no mesh changes."""

  model: ModelConfig
  compute: float
  hbm: float


def _list_works(
  config: RunConfig,
  params: PyTree,
  devices: Sequence[jax.Device],
  targets_per_row: int,
  accumulate: int,
) -> list[list[_Work]]:
  """Returns the work of each policy, for each number of chunks of the head."""
  chip = chips_lib.CHIPS[devices[0].device_kind]
  chips = len(devices) // chip.devices
  B, L, K = config.batch_size, config.seq_len, targets_per_row
  learning, frozen = _count_bytes(params, config)
  own = config.model
  chunks = dict.fromkeys((own.head_chunk, 0, -(-own.head_chunk // 4)))
  policies = dict.fromkeys((own.remat, *list_policies(own)))
  works: list[list[_Work]] = []
  for chunk in chunks:
    works.append([])
    for policy in policies:
      model = dataclasses.replace(config.model, head_chunk=chunk, remat=policy)
      done = flops_lib.hardware(model, B, L, K, config.lora).total
      # Parameters and both moments.
      traffic = roofline_lib.estimate_traffic(
        model, B, L, K, 3 * learning, frozen, accumulate
      )
      compute, hbm = done / chip.flops, traffic / chip.hbm_speed
      works[-1].append(_Work(model, compute / chips, hbm / chips))
  return works


def _estimate_sent(
  config: RunConfig,
  here: _Bytes,
  accumulate: int,
  devices: Sequence[jax.Device],
) -> tuple[float, float]:
  """Returns the seconds of traffic between chips, and between slices."""
  chip = chips_lib.CHIPS[devices[0].device_kind]
  model, mesh = config.model, here.mesh.shape
  size = jnp.dtype(model.dtype).itemsize
  # Each microbatch gathers shards twice, forward and backward, and scatters
  # gradients. What learns is cast to the data type of the computation.
  wide = 4 if config.lora.rank else jnp.dtype(model.param_dtype).itemsize
  moved = 2 * here.frozen + 3 * here.learning * size / wide
  within = moved * (math.prod(mesh[axis] for axis in WEIGHTS) - 1) * accumulate
  # Replicas sum their gradients. Devices of the expert axis share the experts.
  slices = len(sharding.by_slice(devices))
  across = 2 * here.learning * (slices - 1) / slices
  replicas = mesh[DATA] // slices * (1 if model.experts else mesh[EXPERT])
  within += 2 * here.learning * (replicas - 1) / replicas
  # Attention and MLP each sum their outputs and the gradients of their inputs.
  tokens = config.batch_size * config.seq_len * mesh[TENSOR] / here.mesh.size
  summed = 4 * model.layers * tokens * model.width * size
  within += 2 * summed * (mesh[TENSOR] - 1) / mesh[TENSOR]
  # Keys and values of rows are gathered, and their gradients are scattered.
  keys = 2 * model.layers * tokens * model.kv_heads * model.head_size * size
  within += 3 * keys / mesh[TENSOR] * (mesh[CONTEXT] - 1)
  return (
    chip.devices * within / chip.ici_speed,
    chip.devices * across / chip.dcn_speed,
  )


def _estimate_memory(
  config: RunConfig,
  model: ModelConfig,
  here: _Bytes,
  accumulate: int,
  targets_per_row: int,
) -> float:
  """Returns the bytes on a device: the arrays that are certain to exist."""
  mesh = here.mesh.shape
  size = jnp.dtype(model.dtype).itemsize
  # Parameters, both moments, and the gradient.
  state = 4 * here.learning + here.frozen
  # One microbatch: each layer's input, and what it keeps.
  shards = here.mesh.size / mesh[TENSOR] * accumulate
  tokens = config.batch_size * config.seq_len / shards
  widths = remat.widths(model)
  kept = {name: widths[name] for name in remat.kept(model.remat)}
  # Outputs of o and down are whole. The rows of experts are those of a group.
  whole = sum(kept.pop(name, 0) for name in ('o', 'down'))
  for name in ('gate', 'up'):
    if model.experts and name in kept:
      kept[name] *= mesh[EXPERT]
  numbers = model.width + whole + sum(kept.values()) / mesh[TENSOR]
  if model.remat == 'none':
    # Inputs of norms, in float32, and of products: as many numbers again.
    numbers += 8 * model.width + 3 * model.mlp_width / mesh[TENSOR]
  activations = model.layers * tokens * numbers * size
  # Logits of a chunk and their gradient, in float32.
  chunks = likelihood.count_chunks(model.vocab_size, model.head_chunk)
  rows = config.batch_size / shards
  logits = 2 * rows * targets_per_row * model.vocab_size / chunks * 4
  # Inside of a layer, while its gradient is computed.
  layer = tokens * (6 * model.width + 3 * model.mlp_width / mesh[TENSOR])
  return state + activations + max(logits, layer * size)


def _is_beaten(one: Candidate, others: Sequence[Candidate]) -> bool:
  """Returns whether another candidate is as fast, with less memory."""
  cost = one.memory, max(one.least.compute, one.least.hbm)
  for other in others:
    memory, seconds = other.memory, max(other.least.compute, other.least.hbm)
    is_as_good = memory <= cost[0] and seconds <= cost[1]
    if is_as_good and (memory, seconds) != cost:
      return True
  return False
