"""Roofline: the least time of a step, and the chip resource that bounds it."""

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp

from isft_jax.chips import Chip
from isft_jax.config import ModelConfig
from isft_jax.models import remat
from isft_jax.tpu.collectives import Collective


class Roofline(NamedTuple):
  """Seconds that a step keeps each resource of a chip busy, at peak rates.

  This is an estimate of the least time, not a measurement. It ignores how far
  resources overlap, and how near a kernel comes to the peak.

  Attributes:
    compute: operations of the matrix units.
    hbm: traffic from and to memory.
    ici: traffic between the chips of a slice.
    dcn: traffic between slices.
  """

  compute: float
  hbm: float
  ici: float
  dcn: float

  @property
  def seconds(self) -> float:
    """Seconds of the busiest resource, as if all resources overlapped fully."""
    return max(self)

  @property
  def cautious_seconds(self) -> float:
    """Seconds if only half of the traffic between chips overlaps the rest."""
    exposed = (self.ici + self.dcn) / 2
    return max(self.seconds, max(self.compute, self.hbm) + exposed)

  @property
  def bound_by(self) -> str:
    """Name of the busiest resource."""
    return max(self._fields, key=lambda name: getattr(self, name))


def roofline(
  chip: Chip, flops: float, traffic: float, parsed: Iterable[Collective]
) -> Roofline:
  """Returns the seconds of a step by resource.

  Args:
    chip: peak rates of a chip.
    flops: operations per chip, including recomputation.
    traffic: bytes per chip from and to its memory; see `estimate_traffic`.
    parsed: collectives of the program, in bytes per device.

  Returns:
    The seconds. Collectives within a slice are assumed to use all links of a
    chip at once.
  """
  # Collectives count bytes per device; a chip may be two devices.
  within, across = (
    chip.devices * sum(c.size * c.times for c in parsed if c.across == leaves)
    for leaves in (False, True)
  )
  return Roofline(
    # Each resource at its peak rate.
    compute=flops / chip.flops,
    hbm=traffic / chip.hbm_speed,
    ici=within / chip.ici_speed,
    dcn=across / chip.dcn_speed,
  )


def estimate_traffic(
  config: ModelConfig,
  batch_size: int,
  seq_len: int,
  targets_per_row: int,
  state: float,
  frozen: float = 0.0,
  microbatches: int = 1,
) -> float:
  """Estimates the bytes that a step moves from and to memory, over all chips.

  The compiler's own count is not used, because it counts a scanned layer once.

  Args:
    config: config of the model.
    batch_size: rows per batch, B.
    seq_len: tokens per row, L.
    targets_per_row: scored targets per row, K.
    state: bytes of parameters and both moments, which have the same data type.
    frozen: bytes of parameters that do not learn.
    microbatches: their number per step.

  Returns:
    The bytes.
  """
  # Each pass through a layer writes and reads 4 arrays of its width, and 3 of
  # its MLP width. Experts have these 3 and their input and output, for each
  # expert of a token. There are 3 passes (the backward pass is two), or 4 with
  # remat. The last one does not write what is kept.
  size = jnp.dtype(config.dtype).itemsize
  passes = 3 + (config.remat != 'none')
  mlp = 3 * config.mlp_width
  if config.experts:
    mlp = config.experts_per_token * (mlp + 2 * config.width)
  wide = 2 * (4 * config.width + mlp)
  unwritten = 0
  if config.remat != 'none':
    widths = remat.widths(config)
    unwritten = sum(widths[name] for name in remat.kept(config.remat))
  layers = config.layers * batch_size * seq_len * size
  layers *= passes * wide - unwritten
  # The logits of the targets are written and read, forward and backward, in
  # float32.
  head = 4 * batch_size * targets_per_row * config.vocab_size * 4
  # Parameters and moments are read and written. So are gradients, which are a
  # third as large. Frozen parameters are read in each pass.
  moved = 2 * state + 2 * state / 3 + passes * frozen
  # Each further microbatch reads all parameters again, and adds its gradients
  # to the sum.
  again = passes * (state / 3 + frozen) + 2 * state / 3
  return moved + (microbatches - 1) * again + layers + head
