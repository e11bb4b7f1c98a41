"""Parameters of a model with adapters: split, joined, merged.

  adapters, base = split(params)     # what learns, and what stays as it is
  params = join(base, adapters)
  plain = merge(params, lora, 'float32')    # W + scale A B

All of these are nested dicts of arrays, as everywhere in the package.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from isft_jax.config import LORA_MLP, LoraConfig, ModelConfig
from isft_jax.models import projections
from isft_jax.models.projections import LORA_A, LORA_B, SCALE
from isft_jax.types import PyTree


def split(params: Mapping[str, Any]) -> tuple[dict, dict]:
  """Returns (adapters, base) of the parameters of a model."""
  leaves = traverse_util.flatten_dict(dict(params), sep='/')
  parts: tuple[dict, dict] = {}, {}
  for path, leaf in leaves.items():
    parts[not path.endswith((LORA_A, LORA_B))][path] = leaf
  adapters, base = (traverse_util.unflatten_dict(p, sep='/') for p in parts)
  return adapters, base


def join(base: PyTree, adapters: PyTree) -> PyTree:
  """Returns the parameters of a base with adapters.

  Args:
    base: nested dict, or () for nothing.
    adapters: nested dict.

  Returns:
    A nested dict with the leaves of both.
  """
  if not base:
    return adapters
  together = dict(base)
  for name, value in adapters.items():
    is_both = isinstance(value, Mapping) and name in together
    together[name] = join(together[name], value) if is_both else value
  return together


def merge(params: PyTree, lora: LoraConfig, dtype: str) -> dict:
  """Returns the parameters of the same model without adapters or int8.

    W' = W + scale A B

  The sum is computed in float32, and rounded once.

  Args:
    params: parameters of a base with adapters, or of one without.
    lora: the adapters' config.
    dtype: data type of the result.

  Returns:
    The parameters of a plain model.
  """
  leaves = traverse_util.flatten_dict(params, sep='/')
  plain = {}
  for path, leaf in leaves.items():
    room, _, name = path.rpartition('/')
    if path.endswith((LORA_A, LORA_B, SCALE)):
      continue
    if room.startswith('blocks') and name in projections.KERNELS:
      leaf = _plain_stack(
        name,
        room.endswith('experts'),
        leaf,
        leaves.get(path + SCALE),
        leaves.get(path + LORA_A),
        leaves.get(path + LORA_B),
        lora,
        dtype,
      )
    plain[path] = leaf.astype(dtype)
  return traverse_util.unflatten_dict(plain, sep='/')


def map_names(lora: LoraConfig, model: ModelConfig) -> tuple[str, ...]:
  """Returns the names of the maps of a model that have an adapter.

  Experts have none, as in peft: they are stacks of kernels, and no linear maps.
  """
  if not model.experts:
    return lora.maps
  return tuple(name for name in lora.maps if name not in LORA_MLP)


@functools.partial(jax.jit, static_argnums=(0, 1, 6, 7))
def _plain_stack(
  name: str,
  are_experts: bool,
  kernels: jax.Array,
  scales: jax.Array | None,
  lora_as: jax.Array | None,
  lora_bs: jax.Array | None,
  lora: LoraConfig,
  dtype: str,
) -> jax.Array:
  def plain(layer: tuple[Any, Any, Any, Any]) -> jax.Array:
    make = functools.partial(projections.plain_kernel, name, lora=lora)
    if are_experts:
      make = jax.vmap(make)
    return make(*layer).astype(dtype)

  # One layer at a time, so that no float32 copy of all layers exists. None is
  # a tree without leaves.
  return jax.lax.map(plain, (kernels, scales, lora_as, lora_bs))
