"""What a model says of a batch's targets, without logits for all tokens."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax import losses
from isft_jax.models.decoder import GraphDef, logits_of
from isft_jax.types import Batch


def target_nll(
  graphdef: GraphDef, params: dict, batch: Batch[jax.Array]
) -> jax.Array:
  """Returns -log p(target), float32 [B, K], in nats.

  Hidden states are gathered at the K scored columns of a row before the head,
  and a large vocabulary goes through it in parts: there are logits neither for
  [B, L, V] nor for [B, K, V].
  """
  model = nnx.merge(graphdef, params)
  hidden_BLD = model(batch.tokens_BL, batch.positions_BL, batch.segment_ids_BL)
  hidden_BKD = jnp.take_along_axis(
    hidden_BLD, batch.columns_BK[..., None], axis=1
  )
  parts = vocabulary_parts(model.config.vocab_size, model.config.head_chunk)
  if parts == 1:
    return losses.cross_entropy(model.logits(hidden_BKD), batch.targets_BK)
  return chunked_nll(hidden_BKD, model.head_VD, batch.targets_BK, parts)


def vocabulary_parts(vocab_size: int, chunk: int) -> int:
  """Returns in how many parts a vocabulary goes, each of `chunk` at most.

  Up to twice as many as need be, where so many divide it: otherwise the head
  is padded, which copies it. A chunk of 0 is the whole vocabulary.
  """
  least = -(-vocab_size // chunk) if chunk else 1
  divisors = (n for n in range(least, 2 * least) if vocab_size % n == 0)
  return next(divisors, least)


def chunked_nll(
  hidden_BKD: jax.Array, head_VD: jax.Array, targets_BK: jax.Array, parts: int
) -> jax.Array:
  """Returns -log p(target) [B, K], in nats, by the vocabulary's parts V_n.

    -log p(z) = logsumexp_n logsumexp_{v in V_n} logit_v - logit_z

  One part's logits [B, K, V / parts] exist at a time: the backward pass makes
  them again. Parts of the vocabulary, not of the targets, because each part of
  the head is then needed once a pass, and has its gradient from all targets:
  where the head is shared out over devices, it is gathered, and its gradient
  summed, once and not once a part; no device ever holds it whole.

  hidden_BKD: of any float type; products are taken in it and summed in float32.
  targets_BK: ids; the loss of one outside the vocabulary is nan.
  """
  V, D = head_VD.shape
  dtype = hidden_BKD.dtype
  # Part n has the ids n, n + parts, ...: a head whose ids are shared out over
  # devices stays where it is. The ids that fill it up come last.
  head_vnD = jnp.pad(head_VD, ((0, -V % parts), (0, 0))).reshape(-1, parts, D)
  first_ids_v = jnp.arange(len(head_vnD)) * parts

  # The scan itself keeps XLA from merging the recomputation away.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def part(
    hidden_BKD: jax.Array, head_vD: jax.Array, n: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    logits_BKv = logits_of(hidden_BKD.astype(dtype), head_vD)
    ids_11v = first_ids_v[None, None] + n
    logits_BKv = jnp.where(ids_11v < V, logits_BKv, -jnp.inf)
    hit_BKv = targets_BK[..., None] == ids_11v
    target_BK = jnp.sum(jnp.where(hit_BKv, logits_BKv, 0), axis=-1)
    return jax.nn.logsumexp(logits_BKv, axis=-1), target_BK

  # Widened outside, so that its gradient is summed over the parts in float32.
  wide_BKD = hidden_BKD.astype(jnp.promote_types(dtype, jnp.float32))
  _, (total_nBK, target_nBK) = jax.lax.scan(
    lambda _, slices: (None, part(wide_BKD, *slices)),
    None,
    (head_vnD.swapaxes(0, 1), jnp.arange(parts)),
  )
  nll_BK = jax.nn.logsumexp(total_nBK, axis=0) - jnp.sum(target_nBK, axis=0)
  # No part has an id outside the vocabulary: it would be read as a logit of 0.
  return jnp.where((targets_BK >= 0) & (targets_BK < V), nll_BK, jnp.nan)
