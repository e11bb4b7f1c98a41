"""The loss: a weighted sum over a weighted count, and never a mean of means.

  sum   = sum_i w_i (-log p(z_i | z_<i, c))
  count = sum_i w_i
  loss  = sum / count

The sum and the count are added up over rows, micro-batches, devices and hosts;
they are divided once, at the end. This file is the only place that says so.
"""

import jax
import jax.numpy as jnp

from isft_jax.types import Provenance, PyTree


def cross_entropy(logits_BKV: jax.Array, targets_BK: jax.Array) -> jax.Array:
  """Returns -log p(target), [B, K], in nats; in float32 at least."""
  logits_BKV = logits_BKV.astype(
    jnp.promote_types(logits_BKV.dtype, jnp.float32)
  )
  target_BK1 = jnp.take_along_axis(logits_BKV, targets_BK[..., None], axis=-1)
  return jax.nn.logsumexp(logits_BKV, axis=-1) - target_BK1[..., 0]


def weighted_sum(
  nll_BK: jax.Array, weights_BK: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns (sum, count) of a masked loss; an unscored target adds nothing.

  A weight of zero masks the value itself, so that not even an infinite loss at
  an unscored target leaks through as 0 * inf = nan.
  """
  scored_BK = weights_BK != 0
  total = jnp.sum(jnp.where(scored_BK, nll_BK, 0.0) * weights_BK)
  return total, jnp.sum(weights_BK)


def by_author(
  nll_BK: jax.Array, authors_BK: jax.Array, sources: int = 1
) -> tuple[jax.Array, jax.Array]:
  """Returns (sum, count) of the loss by author, float32 [provenance].

  Unweighted: what an author wrote is measured also where it is not learned.
  Slots without a target are those of PAD.

  sources: of a batch that mixes several: [sources x provenance], as its authors
    are counted.
  """
  authors_P = jnp.arange(sources * len(Provenance))
  wrote_BKP = authors_BK[..., None] == authors_P[None, None]
  total_P = jnp.sum(jnp.where(wrote_BKP, nll_BK[..., None], 0.0), axis=(0, 1))
  return total_P, jnp.sum(wrote_BKP, axis=(0, 1), dtype=nll_BK.dtype)


def normalize(total: PyTree, count: jax.Array) -> PyTree:
  """Divides a sum, or a tree of gradients of it, by the count.

  Where there is no target the loss is defined as 0, and so is its gradient.
  """
  safe = jnp.where(count > 0, count, 1.0)
  return jax.tree.map(lambda x: x / safe, total)
