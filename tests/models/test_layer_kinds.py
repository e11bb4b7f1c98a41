"""Kinds of layers: cycles, windows, and which number each layer has."""

import jax
import jax.numpy as jnp
import pytest

from isft_jax.config import ModelConfig
from isft_jax.models import layer_kinds
from isft_jax.models.layer_kinds import Rope

GEMMA = ModelConfig(
  layers=5,
  rope_theta=1e6,
  rope_type='linear',
  rope_scaling=(8.0,),
  layer_kinds=('window', 'window', 'full'),
  window=7,
  window_theta=1e4,
)


def test_a_cycle_is_repeated_over_the_layers():
  full, local = Rope(1e6, 'linear', (8.0,)), Rope(1e4)
  expected = ['window', 'window', 'full', 'window', 'window']
  assert layer_kinds.kinds(GEMMA) == expected
  assert layer_kinds.windows(GEMMA) == [7, 7, 0, 7, 7]
  assert layer_kinds.ropes(GEMMA) == [local, local, full, local, local]


def test_without_a_theta_of_their_own_windows_have_the_positions_of_all():
  config = ModelConfig(
    layers=3,
    rope_type='linear',
    rope_scaling=(8.0,),
    layer_kinds=('full', 'window', 'nope'),
    window=7,
  )
  full = Rope(10_000.0, 'linear', (8.0,))
  assert layer_kinds.ropes(config) == [full, full, Rope(0.0)]


@pytest.mark.parametrize(
  ('each', 'cycle'),
  [
    ('aaaa', 'a'),
    ('abab', 'ab'),
    ('ababa', 'ab'),
    ('aab', 'aab'),
    ('aabaabaa', 'aab'),
    ('abbb', 'abbb'),
  ],
)
def test_the_shortest_cycle(each, cycle):
  assert ''.join(layer_kinds.shortest_cycle(list(each))) == cycle


def test_a_layer_finds_its_value_by_number():
  values = layer_kinds.windows(GEMMA)
  different, indices = (
    jax.vmap(lambda layer: layer_kinds.select(values, layer)[1])(jnp.arange(5)),
    [0, 0, 1, 0, 0],
  )
  assert different.tolist() == indices
  assert layer_kinds.select(values, jnp.int32(0))[0] == [7, 0]
