"""Rotary positions and the two attentions: over packed rows, over a cache.

Both attentions are grouped-query: query head h reads key-value head
h // (H / N). Both take the softmax in float32 and scale by 1 / sqrt(A).
"""

import jax
import jax.numpy as jnp


def rope_speeds(
  half: int, theta: float, scaling: tuple[float, ...] = ()
) -> jax.Array:
  """Returns the angle by which a position turns each pair: theta^(-i/half).

  scaling: Llama 3's (factor, low, high, original length O). A pair that turns
    fewer than `low` times in O positions is slowed down by `factor`, one that
    turns more than `high` times is left alone, and between them it is mixed.
  """
  speeds = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if not scaling:
    return speeds
  factor, low, high, length = scaling
  turns = length * speeds / (2 * jnp.pi)
  kept = jnp.clip((turns - low) / (high - low), 0, 1)
  return speeds * (kept + (1 - kept) / factor)


def rotate(
  x_BLHA: jax.Array,
  positions_BL: jax.Array,
  theta: float,
  scaling: tuple[float, ...] = (),
):
  """Turns each pair (i, i + A/2) of a head by position * theta^(-2i/A).

  Pairs are the two halves of a head, as in Hugging Face weights, and not the
  interleaved neighbours of the paper: imported weights need no permutation.
  Source: Su et al. 2021, RoFormer, section 3.2.

  Angles are float32 whatever the dtype of x: at position 4,096, bfloat16 would
  be wrong by 16 radians.
  """
  half = x_BLHA.shape[-1] // 2
  speeds = rope_speeds(half, theta, scaling)
  angles = positions_BL[..., None, None] * speeds[None, None, None, :]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  first, second = jnp.split(x_BLHA.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x_BLHA.dtype)


def packed_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
) -> jax.Array:
  """Causal attention that never leaves a packed document: mixed_BLHA.

  Padding is a segment like any other (its id is 0). Every query thus sees at
  least itself, no softmax is empty, and padding is finite without a special
  case. A fused kernel for an accelerator belongs here, behind this signature.
  """
  columns_L = jnp.arange(q_BLHA.shape[1])
  causal_LL = columns_L[:, None] >= columns_L[None, :]
  same_BLL = segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]
  mask_B1LL = (causal_LL[None] & same_BLL)[:, None]
  return jax.nn.dot_product_attention(q_BLHA, k_BLNA, v_BLNA, mask=mask_B1LL)


def cached_attention(
  q_BLHA: jax.Array,
  k_BSNA: jax.Array,
  v_BSNA: jax.Array,
  columns_BL: jax.Array,
) -> jax.Array:
  """Attention of queries at columns_BL to cached columns <= their own."""
  columns_S = jnp.arange(k_BSNA.shape[1])
  mask_BLS = columns_S[None, None, :] <= columns_BL[:, :, None]
  mask_B1LS = mask_BLS[:, None]
  return jax.nn.dot_product_attention(q_BLHA, k_BSNA, v_BSNA, mask=mask_B1LS)
