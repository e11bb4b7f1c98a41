"""Negative log-likelihood of a batch's targets, without logits for all tokens.

nll_BK = target_nll(graphdef, params, batch)
nll_BK, kl_BK = target_nll_and_kl(graphdef, params, base_graphdef, base, batch)
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax import losses
from isft_jax.models import context
from isft_jax.models.decoder import Decoder, GraphDef, compute_logits
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
  hidden_BKD = _scored_hidden(model, batch)
  chunks = count_chunks(model.config.vocab_size, model.config.head_chunk)
  # A small vocabulary needs no chunks.
  if chunks == 1:
    return losses.cross_entropy(model.logits(hidden_BKD), batch.targets_BK)
  return chunked_nll(hidden_BKD, model.head_VD, batch.targets_BK, chunks)


def target_nll_and_kl(
  graphdef: GraphDef,
  params: dict,
  base_graphdef: GraphDef,
  base: dict,
  batch: Batch[jax.Array],
  reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns -log p(target), and the distance from a base, both in nats.

    kl = sum_v base(v | .) (log base(v | .) - log p(v | .))
    reverse: kl = sum_v p(v | .) (log p(v | .) - log base(v | .))

  The base has no gradient.

  Args:
    graphdef: structure of the model.
    params: parameters of the model.
    base_graphdef: structure of the base.
    base: parameters of the base.
    batch: packed rows with K targets each.
    reverse: whether the expectation is over the model, and not over the base.

  Returns:
    (nll_BK, kl_BK), float32. The distance is that of all tokens at the position
    of a target, whatever the target is.
  """
  model = nnx.merge(graphdef, params)
  base_model = nnx.merge(base_graphdef, jax.lax.stop_gradient(base))
  return chunked_nll_and_kl(
    _scored_hidden(model, batch),
    model.head_VD,
    jax.lax.stop_gradient(_scored_hidden(base_model, batch)),
    base_model.head_VD,
    batch.targets_BK,
    count_chunks(model.config.vocab_size, model.config.head_chunk),
    reverse,
  )


def target_kl_and_entropy(
  graphdef: GraphDef, params: dict, base: dict, batch: Batch[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Returns the distance from a base, and the entropy of the model, in nats.

    kl = sum_v base(v | .) (log base(v | .) - log p(v | .))
    entropy = - sum_v p(v | .) log p(v | .)

  Args:
    graphdef: structure of the model and of the base.
    params: parameters of the model.
    base: parameters of the base.
    batch: packed rows with K targets each.

  Returns:
    (kl_BK, entropy_BK), float32, at the position of each target.
  """
  model, base_model = (nnx.merge(graphdef, each) for each in (params, base))
  hidden_BKD = _scored_hidden(model, batch)
  mine = hidden_BKD, model.head_VD
  theirs = _scored_hidden(base_model, batch), base_model.head_VD
  config = model.config
  chunks = count_chunks(config.vocab_size, config.head_chunk)
  _, kl_BK = chunked_nll_and_kl(*mine, *theirs, batch.targets_BK, chunks)
  # Logits of 0 are the uniform distribution u: KL(p || u) = log V - entropy.
  uniform = jnp.zeros_like(hidden_BKD), jnp.zeros_like(model.head_VD)
  _, from_uniform_BK = chunked_nll_and_kl(
    *mine, *uniform, batch.targets_BK, chunks, reverse=True
  )
  return kl_BK, math.log(config.vocab_size) - from_uniform_BK


def _scored_hidden(model: Decoder, batch: Batch[jax.Array]) -> jax.Array:
  """Returns hidden states [B, K, D] at the columns that have a target."""
  hidden_BLD = model(batch.tokens_BL, batch.positions_BL, batch.segment_ids_BL)
  # Only K columns of a row have a target, so only their logits are computed.
  return context.take_columns(hidden_BLD, batch.columns_BK)


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
  V = len(head_VD)
  dtype = hidden_BKD.dtype
  heads_nvD = _head_chunks(head_VD, chunks)
  first_ids_v = jnp.arange(heads_nvD.shape[1]) * chunks

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
    (heads_nvD, jnp.arange(chunks)),
  )
  # The log of the sum over the vocabulary, minus the logit of the target.
  nll_BK = jax.nn.logsumexp(total_nBK, axis=0) - jnp.sum(target_nBK, axis=0)
  # No chunk has an id outside the vocabulary: its logit would be read as 0.
  return jnp.where((targets_BK >= 0) & (targets_BK < V), nll_BK, jnp.nan)


def chunked_nll_and_kl(
  hidden_BKD: jax.Array,
  head_VD: jax.Array,
  base_hidden_BKD: jax.Array,
  base_head_VD: jax.Array,
  targets_BK: jax.Array,
  chunks: int,
  reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns `chunked_nll`, and the distance of the model from a base.

  With logits l of the model and b of the base, and chunks V_n:

    kl = sum_n base(V_n) m_n - logsumexp b + logsumexp l
    m_n = sum_{v in V_n} base(v | V_n) (b_v - l_v)

  The reverse distance has the model and the base in each other's place.

  Args:
    hidden_BKD: hidden states of the model.
    head_VD: its output head.
    base_hidden_BKD: hidden states of the base, which has the same vocabulary.
    base_head_VD: its output head.
    targets_BK: int32, ids. The loss of an id outside the vocabulary is nan.
    chunks: their number.
    reverse: whether the expectation is over the model, and not over the base.

  Returns:
    (nll_BK, kl_BK), float32, in nats.
  """
  V = len(head_VD)
  heads_nvD, base_heads_nvD = (
    _head_chunks(each, chunks) for each in (head_VD, base_head_VD)
  )
  first_ids_v = jnp.arange(heads_nvD.shape[1]) * chunks
  dtype = hidden_BKD.dtype

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def chunk_terms(
    hidden_BKD: jax.Array,
    head_vD: jax.Array,
    base_head_vD: jax.Array,
    n: jax.Array,
  ) -> tuple[jax.Array, ...]:
    ids_11v = first_ids_v[None, None] + n
    logits_BKv = compute_logits(hidden_BKD.astype(dtype), head_vD)
    base_BKv = compute_logits(base_hidden_BKD, base_head_vD)
    base_BKv = jax.lax.stop_gradient(base_BKv)
    apart_BKv = logits_BKv - base_BKv if reverse else base_BKv - logits_BKv
    logits_BKv, base_BKv = (
      jnp.where(ids_11v < V, each_BKv, -jnp.inf)
      for each_BKv in (logits_BKv, base_BKv)
    )
    mean_BKv = jax.nn.softmax(logits_BKv if reverse else base_BKv)
    hit_BKv = targets_BK[..., None] == ids_11v
    return (
      jax.nn.logsumexp(logits_BKv, axis=-1),
      jnp.sum(jnp.where(hit_BKv, logits_BKv, 0), axis=-1),
      jax.nn.logsumexp(base_BKv, axis=-1),
      jnp.sum(mean_BKv * apart_BKv, axis=-1),
    )

  wide_BKD = hidden_BKD.astype(jnp.promote_types(dtype, jnp.float32))
  _, (total_nBK, target_nBK, base_nBK, apart_nBK) = jax.lax.scan(
    lambda _, slices: (None, chunk_terms(wide_BKD, *slices)),
    None,
    (heads_nvD, base_heads_nvD, jnp.arange(chunks)),
  )
  total_BK = jax.nn.logsumexp(total_nBK, axis=0)
  mean_nBK = jax.nn.softmax(total_nBK if reverse else base_nBK, axis=0)
  # log Z of the distribution that the expectation is over, and of the other.
  between_BK = total_BK - jax.nn.logsumexp(base_nBK, axis=0)
  kl_BK = jnp.sum(mean_nBK * apart_nBK, axis=0) + (
    -between_BK if reverse else between_BK
  )
  nll_BK = total_BK - jnp.sum(target_nBK, axis=0)
  is_known_BK = (targets_BK >= 0) & (targets_BK < V)
  return jnp.where(is_known_BK, nll_BK, jnp.nan), kl_BK


def _head_chunks(head_VD: jax.Array, chunks: int) -> jax.Array:
  """Returns a head in chunks of its vocabulary, [n, v, D]."""
  # Chunk n has the ids n, n + chunks, ..., so a head whose ids are sharded over
  # devices does not move. Padding ids come last.
  V, D = head_VD.shape
  head_vnD = jnp.pad(head_VD, ((0, -V % chunks), (0, 0))).reshape(-1, chunks, D)
  return head_vnD.swapaxes(0, 1)
