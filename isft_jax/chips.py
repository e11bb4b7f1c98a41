"""Memory and peak rates of TPU and GPU chips, and descriptions of TPU slices.

devices = describe('v5e:4x4')  # no TPU is needed
chip = CHIPS[devices[0].device_kind]
chip.flops  # 197e12 operations per second
"""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import jax
from jax.experimental import topologies

GIB = 2**30

# Settings of libtpu, which compiles without a TPU.
_ENVIRONMENT = {
  # Do not ask a metadata server about an attached TPU.
  'TPU_SKIP_MDS_QUERY': '1',
  # Several processes may compile at the same time.
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  # Without these two, libtpu logs several lines about a missing TPU.
  'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}


class Chip(NamedTuple):
  """Memory and peak rates of one chip.

  Attributes:
    hbm: bytes of memory that a program may use. This is the limit that libtpu
      0.0.42 names when it refuses a larger program, about 0.25 GiB below the
      chip's memory.
    flops: operations per second in bfloat16.
    hbm_speed: bytes per second to and from memory.
    ici_speed: bytes per second that the chip sends to its neighbours, over all
      of its links.
    dcn_speed: bytes per second that the chip sends to other slices: its share
      of the host's network.
    devices: number of jax devices per chip.
  """

  hbm: float
  flops: float
  hbm_speed: float
  ici_speed: float
  dcn_speed: float
  devices: int = 1


# Keys are jax's device_kind.
# Peaks, memory and links: Google Cloud's pages 'TPU v2' to 'TPU7x' (their
# bidirectional ICI figures halved, Gbps divided by 8).
# DCN: 25 Gbps per chip for v5e (6.4 Tbps per pod of 256), and the chip's share
# of its host's network cards for other generations. v2 and v3 are assumed to
# equal v5e.
# v4 is missing because libtpu describes its chips as two cores each, and jax
# cannot make a mesh of them.
CHIPS = {
  'TPU v2': Chip(2 * 7.48 * GIB, 46e12, 700e9, 248e9, 3.1e9, devices=2),
  'TPU v3': Chip(2 * 15.48 * GIB, 123e12, 900e9, 328e9, 3.1e9, devices=2),
  'TPU v5 lite': Chip(15.75 * GIB, 197e12, 819e9, 200e9, 3.1e9),
  'TPU v5': Chip(95.74 * GIB, 459e12, 2765e9, 600e9, 6.2e9),
  'TPU v6 lite': Chip(31.25 * GIB, 918e12, 1640e9, 400e9, 12.5e9),
  'TPU7x': Chip(2 * 94.75 * GIB, 2307e12, 7380e9, 600e9, 12.5e9, devices=2),
}


# Dense bfloat16 operations per second of chips that are only trained on, not
# compiled for ahead of time. Sources: Google Cloud's page 'TPU v4', and
# NVIDIA's data sheets.
_OTHERS = {
  'TPU v4': 275e12,
  'NVIDIA A100-SXM4-40GB': 312e12,
  'NVIDIA A100-SXM4-80GB': 312e12,
  'NVIDIA A100 80GB PCIe': 312e12,
  'NVIDIA H100 PCIe': 756e12,
  'NVIDIA H100 80GB HBM3': 989e12,
  'NVIDIA H200': 989e12,
}


def peak(devices: Iterable) -> float:
  """Returns the peak bfloat16 rate of devices together.

  Args:
    devices: jax devices.

  Returns:
    Operations per second, or 0 if the kind of one device is unknown.
  """
  # Rates per device, because some chips have two devices.
  rates = _OTHERS | {
    kind: chip.flops / chip.devices for kind, chip in CHIPS.items()
  }
  # One unknown device makes the sum meaningless.
  each = [rates.get(device.device_kind, 0.0) for device in devices]
  return sum(each) if all(each) else 0.0


def describe(topology: str, slices: int = 1) -> list[jax.Device]:
  """Returns descriptions of a TPU slice's devices, for ahead-of-time compiling.

  Programs can be compiled for these devices, but not run. No TPU is needed.

  Args:
    topology: generation, and chips along each axis, as in 'v5e:4x4' or
      'v5p:4x4x8'. 'v5e:1x1' is one chip.
    slices: number of slices of this topology.

  Returns:
    The devices of all slices.

  Raises:
    ValueError: the slice does not exist, its generation is not in `CHIPS`, or
      libtpu is not installed.
  """
  # libtpu reads these variables when it is loaded.
  os.environ.update(_ENVIRONMENT)
  # A generation, and the chips along two or three axes.
  if not re.fullmatch(r'\w+:\d+(x\d+){1,2}', topology) or slices < 1:
    raise ValueError(
      f'--topology={topology} --num_slices={slices} is not a slice; give a '
      'generation and its chips along each axis, as in v5e:4x4 or v5p:4x4x4'
    )
  options: dict[str, int | list[int]] = {}
  if slices > 1:
    options['num_slices'] = slices
  # A single chip: by default, libtpu assumes several chips per host.
  if {*topology.partition(':')[2].split('x')} == {'1'}:
    options['chips_per_host_bounds'] = [1, 1, 1]
  # libtpu describes the slice; no TPU is needed.
  try:
    description = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **options
    )
  except (RuntimeError, NotImplementedError) as error:
    raise ValueError(
      f'--topology={topology}: {str(error).splitlines()[0]}; if libtpu is '
      "missing, run pip install -e '.[tpu-compile]'"
    ) from None
  devices: list[jax.Device] = description.devices
  # A report needs the rates of the chip.
  kind = devices[0].device_kind
  if kind not in CHIPS:
    raise ValueError(
      f'--topology={topology}: the kind of chip must be one of '
      f'{", ".join(CHIPS)} (got {kind!r})'
    )
  return devices
