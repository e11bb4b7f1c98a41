"""TPU chips and slices, described: what they hold, and how fast they are."""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import jax
from jax.experimental import topologies

GIB = 2**30

# For libtpu: no metadata server is asked about a TPU, and several processes may
# compile at once.
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  # It otherwise complains of a missing TPU, in several lines.
  'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}


class Chip(NamedTuple):
  """A chip: bytes it holds, and what it does in a second at best.

  hbm: bytes that a program may use: the limit that libtpu 0.0.42 names when it
    refuses a larger one. Some 0.25 GiB less than the chip has.
  flops: operations in bfloat16.
  hbm_speed: bytes from and to its memory.
  ici_speed: bytes that it sends to its neighbours, over all of its links.
  dcn_speed: bytes that it sends to other slices: its share of the network.
  devices: as how many devices jax counts it.
  """

  hbm: float
  flops: float
  hbm_speed: float
  ici_speed: float
  dcn_speed: float
  devices: int = 1


# By jax's device_kind. Peaks, memory and links: Google Cloud's pages 'TPU v2'
# to 'TPU7x' (their bidirectional ICI figures halved, Gbps divided by 8). DCN:
# 25 Gbps a chip for v5e (6.4 Tbps a pod of 256), its generation's share of a
# host's cards elsewhere; v2 and v3 are taken to be as v5e. v4 is not here:
# libtpu describes its chips as two cores each, of which jax makes no mesh.
CHIPS = {
  'TPU v2': Chip(2 * 7.48 * GIB, 46e12, 700e9, 248e9, 3.1e9, devices=2),
  'TPU v3': Chip(2 * 15.48 * GIB, 123e12, 900e9, 328e9, 3.1e9, devices=2),
  'TPU v5 lite': Chip(15.75 * GIB, 197e12, 819e9, 200e9, 3.1e9),
  'TPU v5': Chip(95.74 * GIB, 459e12, 2765e9, 600e9, 6.2e9),
  'TPU v6 lite': Chip(31.25 * GIB, 918e12, 1640e9, 400e9, 12.5e9),
  'TPU7x': Chip(2 * 94.75 * GIB, 2307e12, 7380e9, 600e9, 12.5e9, devices=2),
}


# Operations a second in bfloat16, dense, of chips that nothing is compiled for:
# Google Cloud's page 'TPU v4', and NVIDIA's data sheets.
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
  """Returns what devices do together, operations a second; 0 if unknown."""
  known = _OTHERS | {
    kind: chip.flops / chip.devices for kind, chip in CHIPS.items()
  }
  each = [known.get(device.device_kind, 0.0) for device in devices]
  return sum(each) if all(each) else 0.0


def describe(topology: str, slices: int = 1) -> list[jax.Device]:
  """Returns the devices of a slice that need not be there.

  topology: as 'v5e:4x4' or 'v5p:4x4x8': a generation, and chips along each
    axis. 'v5e:1x1' is one chip.

  Raises ValueError if there is no such slice, or no libtpu to describe it.
  """
  os.environ.update(_ENVIRONMENT)
  if not re.fullmatch(r'\w+:\d+(x\d+){1,2}', topology) or slices < 1:
    raise ValueError(
      f'--topology={topology} --num_slices={slices} is no slice: give a '
      'generation and its chips along each axis, as in v5e:4x4 or v5p:4x4x4'
    )
  options: dict[str, int | list[int]] = {}
  if slices > 1:
    options['num_slices'] = slices
  if set(topology.partition(':')[2]) <= set('1x'):
    options['chips_per_host_bounds'] = [1, 1, 1]
  try:
    found = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **options
    )
  except (RuntimeError, NotImplementedError) as error:
    raise ValueError(
      f'--topology={topology}: {str(error).splitlines()[0]}; where libtpu is '
      "missing, pip install 'isft_jax[tpu-compile]'"
    ) from None
  devices: list[jax.Device] = found.devices
  kind = devices[0].device_kind
  if kind not in CHIPS:
    raise ValueError(f'{kind} is not known; known are {", ".join(CHIPS)}')
  return devices
