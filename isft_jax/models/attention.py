"""Rotary position embeddings, and attention over packed rows or over a cache.

Both attentions are grouped-query: query head h reads key-value head
h // (H / N). Both compute the softmax in float32, and scale scores by
1 / sqrt(A).
"""

import jax
import jax.numpy as jnp

from isft_jax.models.splash_attention import splash_attention

# Device kinds for which the splash kernel does not compile.
_TOO_OLD = ('TPU v2', 'TPU v3')


def rope_speeds(
  half: int, theta: float, scaling: tuple[float, ...] = ()
) -> jax.Array:
  """Returns the angle per position of each rotary pair.

    speed_i = theta^(-i / half)

  Args:
    half: number of pairs, half the head size.
    theta: base of the speeds.
    scaling: Llama 3's (factor, low, high, original length O), or (). A pair
      that turns fewer than `low` times in O positions is slowed down by
      `factor`. A pair that turns more than `high` times keeps its speed. In
      between, the two speeds are interpolated.

  Returns:
    float32 [half], radians per position.
  """
  # Radians per position of each pair.
  speeds = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if not scaling:
    return speeds
  # `kept` is the share of a pair's own speed: 0 up to low, 1 from high on.
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
  """Rotates each pair (i, i + A/2) of a head by position * theta^(-2i/A).

  Pairs join the two halves of a head, as in Hugging Face weights, not adjacent
  elements as in the paper. Imported weights therefore need no permutation.

  Args:
    x_BLHA: queries or keys.
    positions_BL: int32, counted from 0 in each document.
    theta: base of the speeds.
    scaling: see `rope_speeds`.

  Returns:
    The rotated array, in the data type of x.

  Source: Su et al. 2021, RoFormer, section 3.2.
  """
  half = x_BLHA.shape[-1] // 2
  speeds = rope_speeds(half, theta, scaling)
  # Angles are float32: at position 4,096, bfloat16 is wrong by up to 16
  # radians.
  angles = positions_BL[..., None, None] * speeds[None, None, None, :]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  # A rotation of the plane (first, second), computed in float32.
  first, second = jnp.split(x_BLHA.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x_BLHA.dtype)


def resolve(kind: str, device: jax.Device) -> str:
  """Resolves the attention 'auto' for a device.

  Args:
    kind: 'auto', 'splash' or 'xla'.
    device: device that runs the attention.

  Returns:
    'splash' for 'auto' on TPUs from v4 on, 'xla' for 'auto' on other devices,
    and any other kind unchanged.

  Raises:
    ValueError: the kind is 'splash', and the device cannot run it.
  """
  runs = device.platform == 'tpu' and device.device_kind not in _TOO_OLD
  if kind == 'splash' and not runs:
    raise ValueError(
      f"config.model.attention='splash' does not run on {device.device_kind}, "
      "only on TPUs from v4 on; set it to 'auto'"
    )
  return ('splash' if runs else 'xla') if kind == 'auto' else kind


def packed_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  kind: str = 'xla',
) -> jax.Array:
  """Causal attention within each document of packed rows.

  Padding is a segment like any other (its id is 0). Every query therefore sees
  at least itself, so no softmax is empty, and outputs of padding are finite.

  Args:
    q_BLHA: queries, already rotated.
    k_BLNA: keys, already rotated.
    v_BLNA: values.
    segment_ids_BL: int32, number of the document of each token.
    kind: 'splash' runs the TPU kernel. Any other value runs matrix products
      with scores [B, H, L, L], on any device. This includes 'auto': the kernel
      needs a mesh in context, and products do not.

  Returns:
    Mixed values [B, L, H, A].
  """
  if kind == 'splash':
    return splash_attention(q_BLHA, k_BLNA, v_BLNA, segment_ids_BL)
  # On GPUs, jax.nn.dot_product_attention could also call cuDNN. It accepts only
  # float16 and bfloat16, and packed documents only as a mask, which it turns
  # into an added [B, 1, L, L] array: memory would still grow with L^2. cuDNN's
  # offsets of packed documents are not available there. It is not tested here,
  # and so not used.
  columns_L = jnp.arange(q_BLHA.shape[1])
  # A query sees earlier columns of its own segment, and itself.
  causal_LL = columns_L[:, None] >= columns_L[None, :]
  same_BLL = segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]
  # [B, 1, L, L]: all heads share one mask.
  mask_B1LL = (causal_LL[None] & same_BLL)[:, None]
  return jax.nn.dot_product_attention(q_BLHA, k_BLNA, v_BLNA, mask=mask_B1LL)


def cached_attention(
  q_BLHA: jax.Array,
  k_BNSA: jax.Array,
  v_BNSA: jax.Array,
  columns_L: jax.Array,
  start_B: jax.Array,
) -> jax.Array:
  """Attention of new queries to the cached columns of their rows.

  A query at column c of row b sees columns start_B[b] to c.

  Args:
    q_BLHA: queries, already rotated.
    k_BNSA: cached keys, already rotated.
    v_BNSA: cached values.
    columns_L: int32, column of each query, the same in all rows.
    start_B: int32, first column of each row. Earlier ones are padding.

  Returns:
    Mixed values [B, L, H, A]; finite and meaningless for padding.
  """
  B, L, H, A = q_BLHA.shape
  N, S = k_BNSA.shape[1:3]
  # G query heads share a key-value head, so no key or value is repeated.
  q_BLNGA = q_BLHA.reshape(B, L, N, H // N, A)
  scores_BNGLS = jnp.einsum(
    'BLNGA,BNSA->BNGLS', q_BLNGA, k_BNSA, preferred_element_type=jnp.float32
  )
  # Visible columns: from the row's first one to the query's own.
  columns_S = jnp.arange(S)
  mask_LS = columns_S[None] <= columns_L[:, None]
  mask_BLS = mask_LS[None] & (columns_S[None] >= start_B[:, None])[:, None]
  # The lowest float and not -inf: the softmax of a padding query, which sees
  # no column, is then uniform instead of nan.
  lowest = jnp.finfo(scores_BNGLS.dtype).min
  scores_BNGLS = jnp.where(
    mask_BLS[:, None, None], scores_BNGLS * A**-0.5, lowest
  )
  # The softmax is float32. Its weights are rounded to the type of the values.
  weights_BNGLS = jax.nn.softmax(scores_BNGLS).astype(v_BNSA.dtype)
  mixed_BLNGA = jnp.einsum('BNGLS,BNSA->BLNGA', weights_BNGLS, v_BNSA)
  return mixed_BLNGA.reshape(B, L, H, A)
