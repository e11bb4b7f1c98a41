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

from isft_jax.config import REMAT_NAMES, split_remat

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
