"""Which resource of a chip bounds a step, and the time that it then takes."""

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp

from isft_jax.chips import Chip
from isft_jax.config import ModelConfig
from isft_jax.tpu.collectives import Collective


class Roofline(NamedTuple):
  """Seconds that a step keeps each resource of a chip busy, at its peak.

  An estimate of the least time and never a measurement: what runs beside what,
  and how near a kernel comes to the peak, is not in it.
  """

  compute: float
  hbm: float
  ici: float
  dcn: float

  @property
  def seconds(self) -> float:
    """The longest of them: as if all ran beside each other."""
    return max(self)

  @property
  def bound_by(self) -> str:
    return max(self._fields, key=lambda name: getattr(self, name))


def roofline(
  chip: Chip, flops: float, traffic: float, found: Iterable[Collective]
) -> Roofline:
  """Returns the seconds of a step by resource.

  flops: operations of a chip, recomputation included.
  traffic: bytes of a chip from and to its memory; see `traffic_of`.
  found: the program's collectives, whose bytes are a device's. Those within a
    slice are taken to use all links of a chip at once.
  """
  within, across = (
    chip.devices * sum(c.size * c.times for c in found if c.across == leaves)
    for leaves in (False, True)
  )
  return Roofline(
    compute=flops / chip.flops,
    hbm=traffic / chip.hbm_speed,
    ici=within / chip.ici_speed,
    dcn=across / chip.dcn_speed,
  )


def traffic_of(
  config: ModelConfig, rows: int, length: int, targets: int, state: float
) -> float:
  """Returns an estimate of the bytes that a step moves from and to memory.

  The compiler's own count has each scanned layer once. Instead, of all chips:
  parameters and both moments are read and written, gradients written and read;
  a pass through a layer writes and reads 4 arrays of its width and 3 of its
  hidden width, of which there are 4 passes (backward is two, remat one); the
  logits of the targets are written and read, forward and backward, in float32.

  rows, length, targets: B, L and K of a batch.
  state: bytes of parameters and moments, of one type.
  """
  size = jnp.dtype(config.dtype).itemsize
  passes = 3 + (config.remat != 'none')
  wide = 2 * (4 * config.width + 3 * config.hidden)
  layers = passes * config.layers * rows * length * wide * size
  head = 4 * rows * targets * config.vocab_size * 4
  return 2 * state + 2 * state / 3 + layers + head
