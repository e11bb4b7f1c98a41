"""Activations of a layer that are kept for the backward pass.

Layers name their activations with `jax.ad_checkpoint.checkpoint_name`. A policy
of config.model.remat keeps some names, and recomputes the rest:

  policy   keeps                                recomputes
  none     all                                  nothing
  NAMES    these names, separated by commas     the rest
  dots     the products with parameters         attention, norms, activations
  full     nothing but the layer's input        the layer

Operations that no matrix unit runs (norms, rotations and activations) have no
name: they are cheap, and their results are as large as those of products.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from isft_jax.config import REMAT_NAMES, ModelConfig, split_remat

# Name of the mixed values, and of what the backward pass of a kernel needs
# beside them.
ATTENTION = 'attention'


def name(x: jax.Array, kept_as: str) -> jax.Array:
  """Names an activation, for policies that keep it.

  Args:
    x: activation.
    kept_as: one of `config.REMAT_NAMES`.

  Returns:
    The same array.
  """
  assert kept_as in REMAT_NAMES, kept_as
  return checkpoint_name(x, kept_as)


def kept(remat: str) -> frozenset[str]:
  """Returns the names that config.model.remat keeps; all of them for 'none'."""
  if remat == 'none':
    return frozenset(REMAT_NAMES)
  if remat == 'dots':
    return frozenset(REMAT_NAMES) - {ATTENTION}
  return frozenset(() if remat == 'full' else split_remat(remat))


def policy(remat: str) -> Callable[..., Any]:
  """Returns the policy of `jax.checkpoint` for a config.model.remat.

  'none' has no policy: layers are then not wrapped in jax.checkpoint.
  """
  return jax.checkpoint_policies.save_only_these_names(*sorted(kept(remat)))


def widths(config: ModelConfig) -> dict[str, int]:
  """Returns the numbers per token and layer that each name keeps.

  Kernels keep the float32 sum of each softmax, and the splash kernel has heads
  as wide as a TPU's 128 lanes. An activation of experts has a row for each
  expert of a token. The last product is the input of nothing, unless a norm
  follows.

  Args:
    config: config of the model. Its `attention` must be resolved.

  Returns:
    Numbers in config.dtype, by name.
  """
  D, A = config.width, config.head_size
  H, N = config.heads, config.kv_heads
  copies = config.experts_per_token or 1
  mixed = H * A
  if config.attention == 'splash':
    size = jax.numpy.dtype(config.dtype).itemsize
    mixed = H * (-(-A // 128) * 128 + 4 // size)
  elif config.attention == 'triton':
    size = jax.numpy.dtype(config.dtype).itemsize
    mixed = H * (A + 4 // size)
  return {
    'q': H * A,
    'k': N * A,
    'v': N * A,
    ATTENTION: mixed,
    'o': D,
    'gate': copies * config.mlp_width,
    'up': copies * config.mlp_width,
    'down': 0 if config.norms == 'before' or config.experts else D,
  }
