"""What differs from layer to layer: the window and the rotary positions.

All layers are one scanned block, so their differences are data: each layer has
a number, which selects one of the few windows and one of the few rotations that
the model has. Compile time grows with these, and not with depth.

  config.layer_kinds=('window', 'window', 'full')   # repeated over the layers
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from isft_jax.config import ModelConfig

T = TypeVar('T')


class Rope(NamedTuple):
  """Rotary positions of a layer.

  Attributes:
    theta: base of the speeds; 0 for a layer without positions.
    kind: kind of the scaling: 'llama3', 'linear' or 'yarn'.
    scaling: numbers of the scaling, or () for none; see `ModelConfig`.
  """

  theta: float
  kind: str = 'llama3'
  scaling: tuple[float, ...] = ()


def kinds(config: ModelConfig) -> list[str]:
  """Returns the kind of each layer: 'full', 'window' or 'nope'."""
  cycle = config.layer_kinds
  return [cycle[layer % len(cycle)] for layer in range(config.layers)]


def shortest_cycle(each: Sequence[T]) -> tuple[T, ...]:
  """Returns the shortest beginning that, repeated, gives the whole.

  Args:
    each: values, at least one.
  """
  for size in range(1, len(each)):
    if all(value == each[i % size] for i, value in enumerate(each)):
      return tuple(each[:size])
  return tuple(each)


def windows(config: ModelConfig) -> list[int]:
  """Returns how many tokens each layer sees, its own included; 0: all."""
  return [config.window if k == 'window' else 0 for k in kinds(config)]


def ropes(config: ModelConfig) -> list[Rope]:
  """Returns the rotary positions of each layer."""
  full = Rope(config.rope_theta, config.rope_type, tuple(config.rope_scaling))
  by_kind = {
    'full': full,
    'window': Rope(config.window_theta) if config.window_theta else full,
    'nope': Rope(0.0),
  }
  return [by_kind[kind] for kind in kinds(config)]


def select(
  each: Sequence[T], layer: jax.Array | int
) -> tuple[list[T], jax.Array]:
  """Returns the different values of layers, and which of them a layer has.

  Args:
    each: value of each layer.
    layer: int32, number of a layer. It may be traced.

  Returns:
    (different values, in the order of the layers; int32 index into them).
  """
  different = list(dict.fromkeys(each))
  index = jnp.array([different.index(value) for value in each], jnp.int32)
  return different, index[layer]
