"""Rotary positions and the two attentions: over packed rows, over a cache.

Both attentions are grouped-query: query head h reads key-value head
h // (H / N). Both take the softmax in float32 and scale by 1 / sqrt(A).
"""

import jax
import jax.numpy as jnp

from isft_jax.models.splash_attention import splash_attention

_TOO_OLD = ('TPU v2', 'TPU v3')


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
) -> jax.Array:
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


def resolve(kind: str, device: jax.Device) -> str:
  """Returns what 'auto' stands for on a device: 'splash' or 'xla'.

  Splash on TPUs, from v4 on: for older ones the kernel does not compile.

  Raises ValueError if splash is asked for where it does not run.
  """
  runs = device.platform == 'tpu' and device.device_kind not in _TOO_OLD
  if kind == 'splash' and not runs:
    raise ValueError(
      f"config.model.attention='splash' does not run on {device.device_kind}, "
      "only on TPUs from v4 on; set 'auto'"
    )
  return ('splash' if runs else 'xla') if kind == 'auto' else kind


def packed_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  kind: str = 'xla',
) -> jax.Array:
  """Causal attention that never leaves a packed document: mixed_BLHA.

  Padding is a segment like any other (its id is 0). Every query thus sees at
  least itself, no softmax is empty, and padding is finite without a special
  case.

  kind: 'splash' is the TPU's kernel. Any other is plain matrix products, with
    float scores [B, H, L, L], on CPUs, GPUs and TPUs. So is an 'auto' that
    nobody resolved: the kernel must be told of a mesh, products need not.

  On GPUs, jax.nn.dot_product_attention could also call cuDNN. It takes float16
  and bfloat16 alone, and packed documents only as a mask, which it turns into
  an added [B, 1, L, L] array: the memory still grows by L x L. Its offsets of
  packed documents are out of reach from there. Not used, because not tested.
  """
  if kind == 'splash':
    return splash_attention(q_BLHA, k_BLNA, v_BLNA, segment_ids_BL)
  columns_L = jnp.arange(q_BLHA.shape[1])
  causal_LL = columns_L[:, None] >= columns_L[None, :]
  same_BLL = segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]
  mask_B1LL = (causal_LL[None] & same_BLL)[:, None]
  return jax.nn.dot_product_attention(q_BLHA, k_BLNA, v_BLNA, mask=mask_B1LL)


def cached_attention(
  q_BLHA: jax.Array,
  k_BNSA: jax.Array,
  v_BNSA: jax.Array,
  columns_L: jax.Array,
  start_B: jax.Array,
) -> jax.Array:
  """Attention of queries at columns_L to columns start_B .. their own.

  Keys and values lie as the products want them, and no head is repeated. A
  query before start_B is padding: it sees all columns alike, which is finite.
  """
  B, L, H, A = q_BLHA.shape
  N, S = k_BNSA.shape[1:3]
  q_BLNGA = q_BLHA.reshape(B, L, N, H // N, A)
  scores_BNGLS = jnp.einsum(
    'BLNGA,BNSA->BNGLS', q_BLNGA, k_BNSA, preferred_element_type=jnp.float32
  )
  columns_S = jnp.arange(S)
  mask_LS = columns_S[None] <= columns_L[:, None]
  mask_BLS = mask_LS[None] & (columns_S[None] >= start_B[:, None])[:, None]
  lowest = jnp.finfo(scores_BNGLS.dtype).min
  scores_BNGLS = jnp.where(
    mask_BLS[:, None, None], scores_BNGLS * A**-0.5, lowest
  )
  weights_BNGLS = jax.nn.softmax(scores_BNGLS).astype(v_BNSA.dtype)
  mixed_BLNGA = jnp.einsum('BNGLS,BNSA->BLNGA', weights_BNGLS, v_BNSA)
  return mixed_BLNGA.reshape(B, L, H, A)
