"""Where the columns of a row are, if devices split it."""

import numpy as np
import pytest

from isft_jax import column_order


def test_a_device_has_a_part_from_the_front_and_one_from_the_back():
  assert column_order.parts(4).tolist() == [0, 7, 1, 6, 2, 5, 3, 4]
  assert column_order.columns(8, 2).tolist() == [0, 1, 6, 7, 2, 3, 4, 5]


def test_one_device_has_the_row_as_it_is():
  assert column_order.columns(5, 1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('devices', [2, 3, 4, 8, 16])
def test_every_device_has_the_same_number_of_pairs(devices):
  length = 6 * devices
  columns = column_order.columns(length, devices)
  assert sorted(columns) == list(range(length))
  # The query at column c sees the c + 1 keys at columns 0 to c.
  pairs = (columns + 1).reshape(devices, -1).sum(axis=1)
  assert set(pairs) == {length * (length + 1) // 2 // devices}
  assert columns.dtype == np.int32
