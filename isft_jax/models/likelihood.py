"""What a model says of a batch's targets, without logits for other tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from isft_jax import losses
from isft_jax.types import Batch


def target_nll(graphdef, params, batch: Batch) -> jax.Array:
  """Returns -log p(target), float32 [B, K], in nats.

  Hidden states are gathered at the K scored columns of a row before the head,
  so that the product with the vocabulary runs on [B, K, D], not on [B, L, D].
  """
  model = nnx.merge(graphdef, params)
  hidden_BLD = model(batch.tokens_BL, batch.positions_BL, batch.segment_ids_BL)
  hidden_BKD = jnp.take_along_axis(
    hidden_BLD, batch.columns_BK[..., None], axis=1
  )
  return losses.cross_entropy(model.logits(hidden_BKD), batch.targets_BK)
