"""Compiles a run's step for a mesh, and initialises its state on its shards."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding

from isft_jax import sharding
from isft_jax.config import LoraConfig, MeshConfig, ModelConfig, OptimConfig
from isft_jax.models import attention, decoder, lora
from isft_jax.models.likelihood import target_nll
from isft_jax.train import optim
from isft_jax.train.step import (
  Anchor,
  Evaluate,
  TrainState,
  is_finite,
  make_evaluate,
  make_step,
)
from isft_jax.types import Batch, PyTree

# Weight of the past in the average of `averaged(w)`: it forgets in 100 steps.
AVERAGE_DECAY = 0.99

P = ParamSpec('P')
R = TypeVar('R')


@dataclasses.dataclass(frozen=True)
class Trainer:
  """Compiled functions of a run. Runs with the same shapes share them.

  Attributes:
    mesh: device mesh.
    graphdef: model for use outside the step, with attention that needs no mesh.
    abstract: the state as ShapeDtypeStructs with shardings.
    init: seed -> TrainState without frozen parameters, initialised on its
      shards.
    start: params -> TrainState at step 0, without frozen parameters. The
      parameters are donated.
    step: (TrainState, Batch) -> (TrainState, metrics). The state is donated,
      but for its frozen parameters.
    evaluate: (all parameters, Batch) -> (sum, count) of the loss by author, and
      of the scored loss; see `make_evaluate`.
    nll: (all parameters, Batch) -> float32 [B, K], -log p of each target in
      nats.
    is_finite: TrainState -> whether all of its numbers are finite. All hosts
      call it together, and all get the answer.
    bytes_per_device: bytes of the state on each device.
  """

  mesh: Mesh
  graphdef: decoder.GraphDef
  abstract: TrainState
  init: Callable[[int], TrainState]
  start: Callable[[PyTree], TrainState]
  step: 'CompiledStep'
  evaluate: Evaluate
  nll: Callable[[PyTree, Batch[jax.Array]], jax.Array]
  is_finite: Callable[[TrainState], jax.Array]
  bytes_per_device: int


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """A jitted step that leaves the frozen parameters where they are.

  Several runs can then share them. As a part of a donated state, they would be
  gone after the first step.

  Attributes:
    program: (state without frozen parameters, batch, frozen parameters) ->
      (state without frozen parameters, metrics).
  """

  program: jax.stages.Wrapped

  def __call__(
    self, state: TrainState, batch: Batch[jax.Array]
  ) -> tuple[TrainState, dict[str, PyTree]]:
    learning, frozen = state._replace(frozen=()), state.frozen
    learning, metrics = self.program(learning, batch, frozen)
    return learning._replace(frozen=frozen), metrics

  def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
    """Lowers the step for shapes; see `jax.stages.Wrapped.lower`."""
    return self.program.lower(state._replace(frozen=()), batch, state.frozen)


def make_trainer(
  model: ModelConfig,
  optimizer: OptimConfig,
  mesh: MeshConfig,
  steps: int,
  devices: Sequence[jax.Device] | None = None,
  components: int = 1,
  lora: LoraConfig = decoder.NO_LORA,
  anchors: tuple[str, ...] = (),
) -> Trainer:
  """Returns the trainer of these settings. Equal settings share one trainer.

  The arms of an experiment, which differ only in their data, therefore compile
  once.

  Args:
    model: config of the model.
    optimizer: config of the optimizer.
    mesh: sizes of the mesh axes.
    steps: steps of the run, for the learning rate schedule.
    devices: devices of the mesh; None: all attached devices. Devices that are
      only described (jax.experimental.topologies) can be compiled for, but the
      functions cannot be called.
    components: number of mixture components in a batch, for metrics.
    lora: adapters that learn, while the other parameters are frozen.
    anchors: of each mixture component, how it is anchored to a base; see
      `objectives.anchor`. If one is, the state has a frozen base.

  Returns:
    The trainer.

  Raises:
    ValueError: the attached devices cannot hold the state, the chosen
      attention does not run on them, or components are anchored in two ways.
  """
  if len({*anchors} - {''}) > 1:
    raise ValueError(
      'the components of a mixture are anchored in two ways; use either '
      'anchored(w) or reverse_anchored(w) for all of them'
    )
  # Copies are the keys of the cache: configs are mutable, and hash by value.
  return _make_trainer(
    dataclasses.replace(model),
    dataclasses.replace(optimizer),
    dataclasses.replace(mesh),
    steps,
    None if devices is None else tuple(devices),
    components,
    dataclasses.replace(lora, init_from='', targets=tuple(lora.targets)),
    anchors if any(anchors) else (),
  )


# An experiment has few shapes, such as those of pretraining and fine-tuning.
# Older entries are dropped, because each holds compiled programs.
@functools.lru_cache(maxsize=4)
def _make_trainer(
  model_config: ModelConfig,
  optim_config: OptimConfig,
  mesh_config: MeshConfig,
  steps: int,
  devices: tuple[jax.Device, ...] | None,
  components: int,
  lora_config: LoraConfig,
  anchors: tuple[str, ...],
) -> Trainer:
  # Model and optimizer. Inside the step, attention may be a kernel that needs
  # the mesh in context. Outside it, 'auto' means plain matrix products.
  mesh = sharding.make_mesh(mesh_config, devices)
  kind = attention.resolve(model_config.attention, mesh.devices.flat[0])
  inside, outside = (
    dataclasses.replace(model_config, attention=each) for each in (kind, 'auto')
  )
  graphdef, abstract_params = decoder.abstract(inside, lora_config)
  abstract_frozen: PyTree = ()
  learning_dtype = model_config.param_dtype
  if lora_config.rank:
    abstract_params, abstract_frozen = lora.split(abstract_params)
    learning_dtype = 'float32'
  elif {*anchors} - {'', 'average'}:
    abstract_frozen = abstract_params
  optimizer = optim.make_optimizer(optim_config, steps, learning_dtype)
  if 'average' in anchors:
    optimizer = optax.chain(optimizer, optim.average_params(AVERAGE_DECAY))

  # The two ways to begin: from given parameters, or from a seed.
  def start(params: PyTree) -> TrainState:
    # The step is int32, like the step counters of optax.
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

  def init(seed: jax.Array) -> TrainState:
    # The seed is an argument of the compiled function: another seed compiles
    # nothing.
    params = decoder.init(model_config, jax.random.key(seed), lora_config)
    return start(lora.split(params)[0] if lora_config.rank else params)

  # Shardings of the state. Nothing is allocated before its memory is checked.
  abstract = jax.eval_shape(start, abstract_params)
  abstract = abstract._replace(frozen=abstract_frozen)
  placed = sharding.shardings(abstract, decoder.PARTITION_RULES, mesh)
  bytes_per_device = _bytes_per_device(abstract, placed)
  if devices is None:
    _check_memory(bytes_per_device, mesh)

  # Shardings inside the step.
  def in_use(params: PyTree) -> PyTree:
    return sharding.constrain(params, decoder.IN_USE_RULES, mesh)

  # Gradients take the sharding of the moments (reduce-scatter), and the two
  # large tables also their memory layout.
  def at_rest(gradient: PyTree) -> PyTree:
    gradient = sharding.constrain(gradient, decoder.PARTITION_RULES, mesh)
    # Tied models have no head, so the tables are those that the gradient has.
    return gradient | {
      name: _in_rows(gradient[name], placed.params[name])
      for name in decoder.TABLES
      if name in gradient
    }

  def on_mesh(function: Callable[P, R]) -> Callable[P, R]:
    # The compiler cannot split an attention kernel, so the kernel splits itself
    # over the mesh that is in context while the function is traced.
    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return function(*args, **kwargs)

    return traced

  # The compiled functions. The frozen parameters come from elsewhere.
  without_frozen = placed._replace(frozen=())
  # The base of adapters is the model without them, but an average has them.
  base_lora = lora_config if 'average' in anchors else decoder.NO_LORA
  anchor = Anchor(decoder.abstract(inside, base_lora)[0], anchors)
  step = make_step(
    *(graphdef, optimizer, optim_config.accumulate, in_use, at_rest),
    *(components, anchor if anchors else None),
  )

  def program(
    state: TrainState, batch: Batch[jax.Array], frozen: PyTree
  ) -> tuple[TrainState, dict[str, PyTree]]:
    state, metrics = step(state._replace(frozen=frozen), batch)
    return state._replace(frozen=()), metrics

  def nll(params: PyTree, batch: Batch[jax.Array]) -> jax.Array:
    return target_nll(graphdef, in_use(params), batch)

  # `step` and `start` donate their input: the new state reuses the memory of
  # the old one.
  return Trainer(
    mesh=mesh,
    graphdef=decoder.abstract(outside, lora_config)[0],
    # The abstract state tells a checkpoint reader shapes, types and shardings.
    abstract=jax.tree.map(
      lambda leaf, placement: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=placement
      ),
      abstract,
      placed,
    ),
    # With out_shardings, each device computes and keeps only its own shards.
    init=jax.jit(init, out_shardings=without_frozen),
    start=jax.jit(
      start,
      in_shardings=(placed.params,),
      out_shardings=without_frozen,
      donate_argnums=0,
    ),
    # The batch is split by rows. Metrics are small, and every device has them.
    step=CompiledStep(
      jax.jit(
        on_mesh(warn_when_retraced(program)),
        in_shardings=(
          without_frozen,
          sharding.batch_sharding(mesh),
          placed.frozen,
        ),
        out_shardings=(without_frozen, sharding.replicated(mesh)),
        donate_argnums=0,
      )
    ),
    # Evaluation donates nothing: the parameters are needed for the next step.
    evaluate=jax.jit(
      on_mesh(make_evaluate(graphdef, in_use)),
      in_shardings=(placed.model_params, sharding.batch_sharding(mesh)),
      out_shardings=sharding.replicated(mesh),
    ),
    nll=jax.jit(
      on_mesh(nll),
      in_shardings=(placed.model_params, sharding.batch_sharding(mesh)),
      out_shardings=sharding.replicated(mesh),
    ),
    is_finite=jax.jit(
      is_finite,
      in_shardings=(placed,),
      out_shardings=sharding.replicated(mesh),
    ),
    bytes_per_device=bytes_per_device,
  )


def _in_rows(table_VD: jax.Array, placement: NamedSharding) -> jax.Array:
  """Constrains each device's shard of a table to row-major layout.

  The gradients of the tables are computed in column-major layout, and the
  parameters are stored in row-major layout. The TPU compiler would otherwise
  transpose parameters and moments to match the gradient, and back again: three
  copies of each.
  """

  def local(table_VD: jax.Array) -> jax.Array:
    # Outside shard_map, the constraint would gather a sharded table.
    return with_layout_constraint(table_VD, Layout((0, 1)))

  return jax.shard_map(
    local,
    mesh=placement.mesh,
    in_specs=placement.spec,
    out_specs=placement.spec,
  )(table_VD)


def warn_when_retraced(step: Callable[P, R]) -> Callable[P, R]:
  """Wraps a step so that it warns when it is traced (and compiled) again.

  The warning names the arguments with a new shape or data type. A run whose
  batches differ in shape would wait for the compiler at every new shape.

  Args:
    step: function to be jitted.

  Returns:
    The same function with the warning.
  """
  # The body runs only while jax traces it. Calls of the compiled step skip it.
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
      change = '; '.join(changed) or 'the shapes are the same'
      print(f'warning: the step is compiled again: {change}', flush=True)
    before.update(now)
    return step(*args, **kwargs)

  return traced


def _bytes_per_device(abstract: TrainState, placed: TrainState) -> int:
  """Returns the bytes of one shard of each array; all devices hold as much."""
  return sum(
    math.prod(placement.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf, placement in zip(
      jax.tree.leaves(abstract), jax.tree.leaves(placed), strict=True
    )
  )


def _check_memory(needed: int, mesh: Mesh) -> None:
  """Raises ValueError if a device cannot hold its shards of the state.

  XLA reports this itself on devices that count their memory. On CPUs it waits
  forever, or the operating system kills the process.

  Args:
    needed: bytes of the state on each device.
    mesh: device mesh.
  """
  capacity = _memory(mesh.local_devices[0])
  if needed > capacity:
    raise ValueError(
      f'out of memory: parameters and optimizer state take {needed / 1e9:,.1f} '
      f'GB per device, which has {capacity / 1e9:,.1f} GB; make config.model '
      'smaller, or shard it over more devices with config.mesh.fsdp'
    )


def _memory(device: jax.Device) -> int:
  """Returns the bytes of a device. CPU devices share the machine's memory."""
  # GPUs and TPUs report their limit. CPUs report nothing.
  stats = device.memory_stats()
  if stats:
    return stats['bytes_limit']
  machine = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return machine // jax.local_device_count()
