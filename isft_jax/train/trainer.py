"""What is made once for a run: state, shardings, the compiled step."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig
from isft_jax.models import attention, decoder
from isft_jax.train import optim
from isft_jax.train.step import (
  Evaluate,
  TrainState,
  make_evaluate,
  make_step,
)
from isft_jax.types import PyTree

P = ParamSpec('P')
R = TypeVar('R')


@dataclasses.dataclass(frozen=True)
class Trainer:
  """The compiled parts of a run. Runs of one shape share them.

  graphdef: of the model outside the step, where attention knows no mesh.
  abstract: the state as ShapeDtypeStructs that carry their sharding.
  init: seed -> TrainState, sharded from its birth.
  start: params -> TrainState at step 0 from given parameters, donated.
  step: (TrainState, Batch) -> (TrainState, metrics); the state is donated.
  evaluate: (params, Batch) -> (sum, count) of the loss by author.
  """

  mesh: Mesh
  graphdef: decoder.GraphDef
  abstract: TrainState
  init: Callable[[int], TrainState]
  start: Callable[[PyTree], TrainState]
  step: jax.stages.Wrapped
  evaluate: Evaluate


def make_trainer(
  model: ModelConfig,
  optimizer: OptimConfig,
  mesh: MeshConfig,
  steps: int,
  devices: Sequence[jax.Device] | None = None,
  sources: int = 1,
) -> Trainer:
  """Returns the trainer of these settings; the same one when asked again.

  So the arms of an experiment, which differ in their data alone, compile once.

  devices: what the mesh is made of. They may be described ones (of
    jax.experimental.topologies): the parts can then be lowered and compiled,
    but not called. None: all that are here.
  sources: how many a batch mixes, for metrics.

  Raises ValueError if the devices that are here cannot hold the state, or if
  the attention that is asked for does not run on them.
  """
  return _make_trainer(
    dataclasses.replace(model),
    dataclasses.replace(optimizer),
    dataclasses.replace(mesh),
    steps,
    None if devices is None else tuple(devices),
    sources,
  )


@functools.lru_cache(maxsize=4)
def _make_trainer(
  model_config: ModelConfig,
  optim_config: OptimConfig,
  mesh_config: MeshConfig,
  steps: int,
  devices: tuple[jax.Device, ...] | None,
  sources: int,
) -> Trainer:
  mesh = sharding.make_mesh(mesh_config, devices)
  kind = attention.resolve(model_config.attention, mesh.devices.flat[0])
  inside, outside = (
    dataclasses.replace(model_config, attention=each) for each in (kind, 'auto')
  )
  graphdef, abstract_params = decoder.abstract(inside)
  optimizer = optim.make_optimizer(
    optim_config, steps, model_config.param_dtype
  )

  def start(params: PyTree) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

  def init(seed: jax.Array) -> TrainState:
    return start(decoder.init(model_config, jax.random.key(seed)))

  abstract = jax.eval_shape(start, abstract_params)
  placed = sharding.shardings(abstract, decoder.PARTITION_RULES, mesh)
  if devices is None:
    _check_memory(abstract, placed, mesh)

  def in_use(params: PyTree) -> PyTree:
    return sharding.constrain(params, decoder.IN_USE_RULES, mesh)

  def at_rest(gradient: PyTree) -> PyTree:
    gradient = sharding.constrain(gradient, decoder.PARTITION_RULES, mesh)
    return gradient | {
      name: _in_rows(gradient[name], placed.params[name])
      for name in decoder.TABLES
      if name in gradient
    }

  def on_mesh(function: Callable[P, R]) -> Callable[P, R]:
    # While it is traced: where attention is a kernel, which the compiler cannot
    # split, it has to know over what to split itself.
    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return function(*args, **kwargs)

    return traced

  step = make_step(
    graphdef, optimizer, optim_config.accumulate, in_use, at_rest, sources
  )
  return Trainer(
    mesh=mesh,
    graphdef=decoder.abstract(outside)[0],
    abstract=jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=where
      ),
      abstract,
      placed,
    ),
    init=jax.jit(init, out_shardings=placed),
    start=jax.jit(
      start,
      in_shardings=(placed.params,),
      out_shardings=placed,
      donate_argnums=0,
    ),
    step=jax.jit(
      on_mesh(says_when_again(step)),
      in_shardings=(placed, sharding.of_batch(mesh)),
      out_shardings=(placed, sharding.replicated(mesh)),
      donate_argnums=0,
    ),
    evaluate=jax.jit(
      on_mesh(make_evaluate(graphdef, in_use)),
      in_shardings=(placed.params, sharding.of_batch(mesh)),
      out_shardings=sharding.replicated(mesh),
    ),
  )


def _in_rows(table_VD: jax.Array, where: NamedSharding) -> jax.Array:
  """Returns it with the rows of each device's share next to each other.

  Gradients of the tables come by columns, and parameters rest by rows. For TPUs
  the compiler would turn parameters and moments around to match the gradient,
  and back again: three copies of each.
  """

  def local(table_VD: jax.Array) -> jax.Array:
    # The constraint would gather a table that is split.
    return with_layout_constraint(table_VD, Layout((0, 1)))

  return jax.shard_map(
    local, mesh=where.mesh, in_specs=where.spec, out_specs=where.spec
  )(table_VD)


def says_when_again(step: Callable[P, R]) -> Callable[P, R]:
  """Returns a step that warns when it is traced, and so compiled, once more.

  It then names the arguments whose shape or type is new: a run whose batches
  differ in shape would wait for the compiler again and again.
  """
  before: dict[str, str] = {}

  @functools.wraps(step)
  def traced(*args: P.args, **kwargs: P.kwargs) -> R:
    now = {
      sharding.path_name(path): f'{leaf.dtype}{list(leaf.shape)}'
      for path, leaf in jax.tree_util.tree_leaves_with_path(args)
    }
    if before:
      changed = [
        f'{name} was {before.get(name)} and is {now[name]}'
        for name in now
        if now[name] != before.get(name)
      ]
      what = '; '.join(changed) or 'of the same shapes'
      print(f'warning: the step is compiled again: {what}', flush=True)
    before.update(now)
    return step(*args, **kwargs)

  return traced


def _check_memory(abstract: TrainState, placed: TrainState, mesh: Mesh) -> None:
  """Raises ValueError if the state alone is more than a device can hold.

  XLA says so itself where it counts memory; on CPUs it waits for ever, or the
  kernel ends the process.
  """
  need = sum(
    math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf, where in zip(
      jax.tree.leaves(abstract), jax.tree.leaves(placed), strict=True
    )
  )
  has = _memory(mesh.local_devices[0])
  if need > has:
    raise ValueError(
      f'out of memory: parameters and optimizer state take {need / 1e9:,.1f} '
      f'GB a device, which has {has / 1e9:,.1f} GB; make config.model smaller, '
      'or share them out over more devices with config.mesh.fsdp'
    )


def _memory(device: jax.Device) -> int:
  """Returns the bytes of a device; CPU devices share those of the machine."""
  stats = device.memory_stats()
  if stats:
    return stats['bytes_limit']
  machine = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return machine // jax.local_device_count()
