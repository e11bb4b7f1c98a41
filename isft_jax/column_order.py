"""Order of a row's columns on the devices that split it (mesh axis `context`).

Under causal attention, the last columns of a row see the most. So that every
device has the same work, a row is cut into twice as many parts as there are
devices, and each device has one part from the front and one from the back:

    parts of the row      0 1 2 3 4 5 6 7
    places, 4 devices     0 7 | 1 6 | 2 5 | 3 4

Batches are in the natural order until `sharding.to_global`. On devices, the
arrays of a batch along L are in the order of the places, and its columns_BK
are numbers of places.

Source: the zigzag order of Brandon et al. 2023, Striped Attention, section 3,
and Llama 3 (2024), section 3.3.2.
"""

import numpy as np


def parts(devices: int) -> np.ndarray:
  """Returns the parts of a row in the order of their places.

  Args:
    devices: number of devices that split the row, C.

  Returns:
    int32 [2 C], a permutation; [0] for one device, which has the whole row.
  """
  if devices == 1:
    return np.zeros(1, np.int32)
  front = np.arange(devices, dtype=np.int32)
  return np.stack([front, 2 * devices - 1 - front], axis=1).reshape(-1)


def columns(length: int, devices: int) -> np.ndarray:
  """Returns the column at each place of a row.

  Args:
    length: columns of the row, L; a multiple of the number of parts.
    devices: number of devices that split the row.

  Returns:
    int32 [L], a permutation.
  """
  in_parts = np.arange(length, dtype=np.int32).reshape(len(parts(devices)), -1)
  return in_parts[parts(devices)].reshape(-1)
