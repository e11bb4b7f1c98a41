"""The loss: a weighted sum divided by the sum of weights, not a mean of means.

  sum   = sum_i w_i (-log p(z_i | z_<i, c))
  count = sum_i w_i
  loss  = sum / count

Sums and counts are added over rows, microbatches, devices and hosts, and
divided once, at the end. The loss therefore does not depend on how a batch is
split.
"""

import jax
import jax.numpy as jnp

from isft_jax.types import Provenance, PyTree


def cross_entropy(logits_BKV: jax.Array, targets_BK: jax.Array) -> jax.Array:
  """Returns -log p(target) in nats.

  Args:
    logits_BKV: logits of any float type.
    targets_BK: int32, ids in [0, V).

  Returns:
    [B, K], float32 or the type of the logits if that is wider.
  """
  # In bfloat16, a sum of exponentials over a vocabulary has 2 to 3 digits.
  logits_BKV = logits_BKV.astype(
    jnp.promote_types(logits_BKV.dtype, jnp.float32)
  )
  target_BK1 = jnp.take_along_axis(logits_BKV, targets_BK[..., None], axis=-1)
  return jax.nn.logsumexp(logits_BKV, axis=-1) - target_BK1[..., 0]


def weighted_sum(
  nll_BK: jax.Array, weights_BK: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the weighted sum of a loss, and the sum of the weights.

    sum = sum_i w_i nll_i,  count = sum_i w_i

  Args:
    nll_BK: loss of each target, in nats.
    weights_BK: weight of each target, 0 if it is not scored.

  Returns:
    (sum, count), two scalars.
  """
  # A weight of 0 masks the value itself: an infinite loss of an unscored target
  # would otherwise give 0 * inf = nan.
  scored_BK = weights_BK != 0
  total = jnp.sum(jnp.where(scored_BK, nll_BK, 0.0) * weights_BK)
  return total, jnp.sum(weights_BK)


def by_author(
  nll_BK: jax.Array, authors_BK: jax.Array, components: int = 1
) -> tuple[jax.Array, jax.Array]:
  """Returns the unweighted sum and count of the loss by author.

  The objective's weights are not used, so authors that it does not score are
  measured too. Slots without a target count as PAD.

  Args:
    nll_BK: loss of each target, in nats.
    authors_BK: int32, author of each target; see `Batch`.
    components: number of mixture components in the batch.

  Returns:
    (sum, count), each [components * len(Provenance)].
  """
  authors_P = jnp.arange(components * len(Provenance))
  # One-hot over authors, so that the sum needs no scatter.
  wrote_BKP = authors_BK[..., None] == authors_P[None, None]
  total_P = jnp.sum(jnp.where(wrote_BKP, nll_BK[..., None], 0.0), axis=(0, 1))
  return total_P, jnp.sum(wrote_BKP, axis=(0, 1), dtype=nll_BK.dtype)


def normalize(total: PyTree, count: jax.Array) -> PyTree:
  """Divides a sum, or a tree of gradients of a sum, by the count.

  If the count is 0 there is no target: the loss is defined as 0, and so is its
  gradient.

  Args:
    total: array, or tree of arrays, that broadcasts with the count.
    count: sum of the weights.

  Returns:
    The quotients, in the structure of `total`.
  """
  safe = jnp.where(count > 0, count, 1.0)
  return jax.tree.map(lambda x: x / safe, total)
