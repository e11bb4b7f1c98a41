"""Negative log-likelihood of a batch's targets, without logits for all tokens.

nll_BK = target_nll(graphdef, params, batch)
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax import losses
from isft_jax.models import context
from isft_jax.models.decoder import GraphDef, compute_logits
from isft_jax.types import Batch


def target_nll(
  graphdef: GraphDef, params: dict, batch: Batch[jax.Array]
) -> jax.Array:
  """Returns -log p(target) in nats.

  Hidden states are gathered at the K scored columns of a row before the head,
  and a large vocabulary is computed in chunks. So neither logits [B, L, V] nor
  logits [B, K, V] ever exist.

  Args:
    graphdef: structure of the model.
    params: parameters of the model.
    batch: packed rows with K targets each.

  Returns:
    float32 [B, K].
  """
  model = nnx.merge(graphdef, params)
  hidden_BLD = model(batch.tokens_BL, batch.positions_BL, batch.segment_ids_BL)
  # Only K columns of a row have a target, so only their logits are computed.
  hidden_BKD = context.take_columns(hidden_BLD, batch.columns_BK)
  chunks = count_chunks(model.config.vocab_size, model.config.head_chunk)
  # A small vocabulary needs no chunks.
  if chunks == 1:
    return losses.cross_entropy(model.logits(hidden_BKD), batch.targets_BK)
  return chunked_nll(hidden_BKD, model.head_VD, batch.targets_BK, chunks)


def count_chunks(vocab_size: int, chunk: int) -> int:
  """Returns the number of chunks for a vocabulary.

  It is the smallest number that divides the vocabulary, if it is less than
  twice the necessary number. Otherwise the head must be padded, which copies
  it, and the necessary number is returned.

  Args:
    vocab_size: V.
    chunk: maximum ids per chunk; 0: the whole vocabulary.

  Returns:
    The number of chunks.
  """
  # Rounded up, so that no chunk is larger than asked.
  least = -(-vocab_size // chunk) if chunk else 1
  # A divisor avoids padding. Twice the least number would halve the chunks.
  divisors = (n for n in range(least, 2 * least) if vocab_size % n == 0)
  return next(divisors, least)


def chunked_nll(
  hidden_BKD: jax.Array, head_VD: jax.Array, targets_BK: jax.Array, chunks: int
) -> jax.Array:
  """Returns -log p(target) in nats, computed in chunks V_n of the vocabulary.

    -log p(z) = logsumexp_n logsumexp_{v in V_n} logit_v - logit_z

  Only one chunk's logits [B, K, V / chunks] exist at a time. The backward pass
  computes them again.

  The vocabulary is split, not the targets, because each chunk of the head is
  then needed once per pass, and gets its whole gradient there. If the head is
  sharded over devices, each chunk is gathered once, its gradient is summed
  once, and no device ever holds the whole head.

  Args:
    hidden_BKD: hidden states of any float type. Products are computed in this
      type, and summed in float32.
    head_VD: output head.
    targets_BK: int32, ids. The loss of an id outside the vocabulary is nan.
    chunks: their number.

  Returns:
    float32 [B, K].
  """
  # Shapes below: n is the chunk, v the position in a chunk.
  V, D = head_VD.shape
  dtype = hidden_BKD.dtype
  # Chunk n has the ids n, n + chunks, ..., so a head whose ids are sharded over
  # devices does not move. Padding ids come last.
  head_vnD = jnp.pad(head_VD, ((0, -V % chunks), (0, 0))).reshape(-1, chunks, D)
  first_ids_v = jnp.arange(len(head_vnD)) * chunks

  # prevent_cse is not needed: a scan already keeps XLA from merging the
  # recomputation with the forward pass.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def chunk_terms(
    hidden_BKD: jax.Array, head_vD: jax.Array, n: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    logits_BKv = compute_logits(hidden_BKD.astype(dtype), head_vD)
    ids_11v = first_ids_v[None, None] + n
    # Ids that only pad the head must not get any probability.
    logits_BKv = jnp.where(ids_11v < V, logits_BKv, -jnp.inf)
    hit_BKv = targets_BK[..., None] == ids_11v
    # Exactly one chunk has the target. The other chunks add 0.
    target_BK = jnp.sum(jnp.where(hit_BKv, logits_BKv, 0), axis=-1)
    return jax.nn.logsumexp(logits_BKv, axis=-1), target_BK

  # Cast to float32 outside the scan, so that the gradient is summed over the
  # chunks in float32.
  wide_BKD = hidden_BKD.astype(jnp.promote_types(dtype, jnp.float32))
  _, (total_nBK, target_nBK) = jax.lax.scan(
    lambda _, slices: (None, chunk_terms(wide_BKD, *slices)),
    None,
    (head_vnD.swapaxes(0, 1), jnp.arange(chunks)),
  )
  # The log of the sum over the vocabulary, minus the logit of the target.
  nll_BK = jax.nn.logsumexp(total_nBK, axis=0) - jnp.sum(target_nBK, axis=0)
  # No chunk has an id outside the vocabulary: its logit would be read as 0.
  return jnp.where((targets_BK >= 0) & (targets_BK < V), nll_BK, jnp.nan)
