"""Compiles a run's training step for a TPU slice, without a TPU.

  report = compile_run(config, 'v5e:4x4')
  report['fits'], report['hbm_gib_per_chip'], report['bound_by']

Nothing is allocated, and nothing runs. The report has the memory and
collectives of the compiled program, and operations computed from its shapes.
"""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp

from isft_jax import chips as chips_lib
from isft_jax import objectives, sharding
from isft_jax.config import RunConfig
from isft_jax.inference import generate
from isft_jax.models import attention
from isft_jax.models import flops as flops_lib
from isft_jax.tpu import collectives as collectives_lib
from isft_jax.tpu import memory
from isft_jax.tpu import roofline as roofline_lib
from isft_jax.train.trainer import Trainer, make_trainer
from isft_jax.types import Batch

# Shape of a probe, with one question per fact of the paper: prompts, tokens per
# prompt, tokens per reply.
PROBE = (33, 64, 48)


def compile_run(
  config: RunConfig, topology: str, slices: int = 1, has_probes: bool = True
) -> dict[str, Any]:
  """Compiles a run's step for a TPU slice, and reports on the program.

  Args:
    config: config of the run. It needs no records. If targets_per_row is 0,
      half of seq_len is assumed.
    topology: generation, and chips along each axis; see `chips.describe`.
    slices: number of slices.
    has_probes: whether to compile the generation of replies too.

  Returns:
    Entries for a report, as JSON values. If the program is too large, `fits` is
    False, 'out_of_memory' is the compiler's message, and entries that need a
    program are missing.

  Raises:
    ValueError: the slice does not exist, or the config does not divide over it.
  """
  # Shape of a batch.
  B, L = config.batch_size, config.seq_len
  K = count_targets(config)

  anchor = objectives.anchor(config.objective)
  # The run's own trainer, on described devices. The number of steps only
  # changes constants of the schedule.
  devices = chips_lib.describe(topology, slices)
  kind = devices[0].device_kind
  chip = chips_lib.CHIPS[kind]
  # Without init_from, because no weights are read.
  shape = dataclasses.replace(config.model, init_from='')
  trainer = make_trainer(
    *(shape, config.optim, config.mesh, 1_000, devices),
    lora=config.lora,
    anchors=(anchor,),
  )
  sharding.check_batch_size(B, trainer.mesh, config.optim.accumulate)
  sharding.check_row(L, K, trainer.mesh)
  # v2, v3 and 7x have two devices per chip. Figures of the report are per chip.
  chips = trainer.mesh.size // chip.devices

  # Operations, by shape. The attention must be that of the trainer, because the
  # splash kernel runs more operations than plain products.
  model = dataclasses.replace(
    shape, attention=attention.resolve(shape.attention, devices[0])
  )
  needed = flops_lib.model(model, B, L, K, config.lora)
  done = flops_lib.hardware(model, B, L, K, config.lora, bool(anchor))
  # Entries that need no compiler.
  report = {
    'config': config.name,
    'topology': topology if slices == 1 else f'{slices} x {topology}',
    'chips': chips,
    'mesh': dict(trainer.mesh.shape),
    'batch': B,
    'length': L,
    'targets': K,
    'targets_assumed': not config.targets_per_row,
    'remat': model.remat,
    'attention': model.attention,
    'hbm_capacity_gib': round(chip.hbm / chips_lib.GIB, 2),
    'model_tflops_per_step': needed.total / 1e12,
    'head_tflops_per_step': needed.head / 1e12,
    'hardware_tflops_per_step': done.total / 1e12,
  }

  # Compile the step.
  since = time.perf_counter()
  step, refusal = _compiled(lower_step(trainer, B, L, K))
  report |= {
    'fits': step is not None,
    'compile_seconds': round(time.perf_counter() - since, 1),
  }
  # The compiler's message says how much memory it would need, and for which
  # arrays.
  if step is None:
    return report | {
      'hbm_gib_per_chip': _gib(memory.needed(refusal), chip),
      'largest_buffers': memory.largest(refusal),
      'out_of_memory': refusal,
    }

  # Memory, collectives, and the time at peak rates.
  usage = _usage(step)
  text = step.as_text() or ''
  parsed = collectives_lib.collectives(text, trainer.mesh.size, slices)
  # Parameters and moments, which the optimizer reads and writes in every step,
  # and frozen parameters, which no step writes.
  frozen, state = (
    sum(
      math.prod(leaf.shape) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    )
    for tree in (
      trainer.abstract.frozen,
      trainer.abstract._replace(frozen=()),
    )
  )
  traffic = roofline_lib.estimate_traffic(
    model, B, L, K, state, frozen, config.optim.accumulate
  )
  least = roofline_lib.roofline(
    chip, done.total / chips, traffic / chips, parsed
  )

  frozen_here = sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(trainer.abstract.frozen)
  )

  # Probes generate on the same devices, so their memory must fit too.
  decode = None
  if has_probes:
    decode, _ = _compiled(
      generate.lower(trainer.graphdef, trainer.abstract.model_params, *PROBE)
    )
  decode_bytes = decode and _usage(decode).peak_memory_in_bytes
  # GiB per chip; seconds at peak rates.
  return report | {
    'hbm_gib_per_chip': _gib(usage.peak_memory_in_bytes, chip),
    'hbm_by_kind_gib': _gibs(memory.by_kind(usage, frozen_here), chip),
    'decode_hbm_gib_per_chip': decode_bytes and _gib(decode_bytes, chip),
    'collective_gib_per_chip': _gibs(collectives_lib.by_kind(parsed), chip),
    'collective_dcn_gib_per_chip': _gib(
      sum(c.size * c.times for c in parsed if c.across), chip
    ),
    'seconds_by_resource': least._asdict(),
    'estimated_step_seconds': least.seconds,
    'bound_by': least.bound_by,
  }


def count_targets(config: RunConfig) -> int:
  """Returns the scored targets per row that are assumed for a run.

  Half of the tokens, if the config leaves them open.

  Args:
    config: config of the run.

  Raises:
    ValueError: the config leaves the length of rows to the records.
  """
  if not config.seq_len:
    raise ValueError(
      'seq_len=0 takes the length from records, which are not read here; '
      'set a length, as in --config.seq_len=256 (for an experiment, '
      '--config.finetune.seq_len=256)'
    )
  return config.targets_per_row or config.seq_len // 2


def lower_step(
  trainer: Trainer, batch_size: int, seq_len: int, targets_per_row: int
) -> jax.stages.Lowered:
  """Lowers a trainer's step for a shape of batches.

  Args:
    trainer: trainer of a run.
    batch_size: rows per batch, B.
    seq_len: tokens per row, L.
    targets_per_row: scored targets per row, K.

  Returns:
    The lowered program, ready to compile.
  """
  # Rows are split as in training.
  by_rows = sharding.batch_sharding(trainer.mesh)

  def array(
    columns: int, dtype: jax.typing.DTypeLike = jnp.int32
  ) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch_size, columns), dtype, sharding=by_rows)

  # All arrays of a batch are int32, except the weights.
  in_rows = ('tokens_BL', 'positions_BL', 'segment_ids_BL')
  in_targets = ('columns_BK', 'targets_BK', 'authors_BK')
  batch = Batch(
    **dict.fromkeys(in_rows, array(seq_len)),
    **dict.fromkeys(in_targets, array(targets_per_row)),
    weights_BK=array(targets_per_row, jnp.float32),
  )
  return trainer.step.lower(trainer.abstract, batch)


def _usage(program: jax.stages.Compiled) -> memory.Usage:
  usage = program.memory_analysis()
  assert usage is not None  # only some other backends have no analysis
  return usage


def _compiled(
  lowered: jax.stages.Lowered,
) -> tuple[jax.stages.Compiled | None, str]:
  """Returns (program, ''), or (None, message) if it does not fit."""
  try:
    # Only a program that is too large is a result. Other errors are bugs.
    return lowered.compile(), ''
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return None, str(error)


def _gib(size: float, chip: chips_lib.Chip) -> float:
  """Converts bytes per device to GiB per chip."""
  return round(size * chip.devices / chips_lib.GIB, 3)


def _gibs(sizes: dict[str, int], chip: chips_lib.Chip) -> dict[str, float]:
  return {name: _gib(size, chip) for name, size in sizes.items()}
