"""Rotary position embeddings, and attention over packed rows or over a cache.

Both attentions are grouped-query: query head h reads key-value head
h // (H / N). Both compute the softmax in float32. With a window w, a query sees
the w last columns of what it would see without, its own included.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from isft_jax import column_order
from isft_jax.axes import ROWS
from isft_jax.models import context, remat
from isft_jax.models.layer_kinds import Rope
from isft_jax.models.splash_attention import splash_attention
from isft_jax.models.triton_attention import has_triton, triton_attention

# Device kinds for which the splash kernel does not compile.
_TOO_OLD = ('TPU v2', 'TPU v3')
# Kernels, and the devices that run them.
_KERNELS = {
  'splash': 'TPUs from v4 on',
  'triton': (
    'NVIDIA GPUs from A100 on, with a version of jax that has '
    'jax.experimental.pallas.triton'
  ),
}


def rope_speeds(half: int, rope: Rope) -> tuple[jax.Array, float]:
  """Returns the angle per position of each rotary pair.

    speed_i = theta^(-i / half)

  A scaling slows pairs down, for positions beyond those of pre-training:

    linear  (factor): all pairs, by `factor`.
    llama3  (factor, low, high, length O): by `factor` what turns fewer than
            `low` times in O positions, and not what turns more than `high`
            times; in between, the two speeds are interpolated.
    yarn    (factor, fast, slow, O, attention factor, truncate): by `factor`
            what turns fewer than `slow` times in O positions, and not what
            turns more than `fast` times; in between, interpolated by the number
            i of the pair. With truncate=1 both bounds are whole numbers.

  Args:
    half: number of pairs, half the head size.
    rope: rotary positions of the layer.

  Returns:
    (float32 [half], radians per position; factor of the rotated queries and
    keys, which is 1 but for yarn).

  Source: Llama 3 in transformers; Peng et al. 2023, YaRN, section 3.2 and 3.4.
  """
  if not rope.theta:  # no positions
    return jnp.zeros(half), 1.0
  # Radians per position of each pair.
  speeds = rope.theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if not rope.scaling:
    return speeds, 1.0
  if rope.kind == 'linear':
    (factor,) = rope.scaling
    return speeds / factor, 1.0
  # `kept` is the share of a pair's own speed.
  if rope.kind == 'llama3':
    factor, low, high, length = rope.scaling
    turns = length * speeds / (2 * jnp.pi)
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return speeds * (kept + (1 - kept) / factor), 1.0
  factor, fast, slow, length, mixed, truncate = rope.scaling

  # Number of the pair that makes `turns` turns in O positions.
  def pair(turns: float) -> float:
    return (
      half * math.log(length / (turns * 2 * math.pi)) / math.log(rope.theta)
    )

  first, last = pair(fast), pair(slow)
  if truncate:
    first, last = math.floor(first), math.ceil(last)
  # As in transformers, the last bound is one of the size of the head.
  first, last = max(first, 0), min(last, 2 * half - 1)
  width = last - first or 0.001
  kept = 1 - jnp.clip((jnp.arange(half) - first) / width, 0, 1)
  return speeds / factor * (1 - kept) + speeds * kept, mixed


def rotate(
  x_BLHA: jax.Array,
  positions_BL: jax.Array,
  ropes: Sequence[Rope],
  which: jax.Array | int = 0,
) -> jax.Array:
  """Rotates each pair (i, i + A/2) of a head by position * speed_i.

  Pairs join the two halves of a head, as in Hugging Face weights, not adjacent
  elements as in the paper. Imported weights therefore need no permutation.

  Args:
    x_BLHA: queries or keys.
    positions_BL: int32, counted from 0 in each document.
    ropes: rotary positions of the different layers of a model.
    which: int32, index of this layer's. It may be traced.

  Returns:
    The rotated array, in the data type of x.

  Source: Su et al. 2021, RoFormer, section 3.2.
  """
  half = x_BLHA.shape[-1] // 2
  speeds, factors = zip(*(rope_speeds(half, r) for r in ropes), strict=True)
  # One kind of layer keeps its speeds as constants.
  speed = speeds[0] if len(ropes) == 1 else jnp.stack(speeds)[which]
  factor = factors[0] if len(ropes) == 1 else jnp.array(factors)[which]
  # Angles are float32: at position 4,096, bfloat16 is wrong by up to 16
  # radians.
  angles = positions_BL[..., None, None] * speed[None, None, None, :]
  cos, sin = jnp.cos(angles) * factor, jnp.sin(angles) * factor
  # A rotation of the plane (first, second), computed in float32.
  first, second = jnp.split(x_BLHA.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x_BLHA.dtype)


def resolve(kind: str, device: jax.Device) -> str:
  """Resolves the attention 'auto' for a device.

  Args:
    kind: 'auto', 'splash', 'triton' or 'xla'.
    device: device that runs the attention.

  Returns:
    For 'auto', 'splash' on TPUs from v4 on, 'triton' on NVIDIA GPUs from A100
    on, and 'xla' on other devices. Any other kind is unchanged.

  Raises:
    ValueError: the kind is a kernel that the device cannot run.
  """
  runs = 'xla'
  if device.platform == 'tpu' and device.device_kind not in _TOO_OLD:
    runs = 'splash'
  elif has_triton(device):
    runs = 'triton'
  if kind in _KERNELS and kind != runs:
    raise ValueError(
      f"config.model.attention='{kind}' does not run on {device.device_kind}, "
      f"only on {_KERNELS[kind]}; set it to 'auto'"
    )
  return runs if kind == 'auto' else kind


def packed_attention(
  q_BLHA: jax.Array,
  k_BLNA: jax.Array,
  v_BLNA: jax.Array,
  segment_ids_BL: jax.Array,
  kind: str = 'xla',
  scale: float | None = None,
  windows: Sequence[int] = (0,),
  which: jax.Array | int = 0,
) -> jax.Array:
  """Causal attention within each document of packed rows.

  Padding is a segment like any other (its id is 0). Every query therefore sees
  at least itself, so no softmax is empty, and outputs of padding are finite.

  If a mesh in context splits the columns of a row, queries, keys and values are
  in the order of `column_order`.

  Args:
    q_BLHA: queries, already rotated.
    k_BLNA: keys, already rotated.
    v_BLNA: values.
    segment_ids_BL: int32, number of the document of each token.
    kind: 'splash' runs the TPU kernel, 'triton' the GPU kernels. Any other
      value runs matrix products with scores [B, H, L, L], on any device. This
      includes 'auto': a kernel needs a mesh in context, and products do not.
    scale: factor of the scores; None: 1 / sqrt(A).
    windows: windows of the different layers of a model; 0 for none.
    which: int32, index of this layer's window. It may be traced.

  Returns:
    Mixed values [B, L, H, A].
  """
  if kind in _KERNELS:
    # A kernel has its window compiled in, so there is one for each window. Only
    # the kernel of this layer runs.
    kernel = splash_attention if kind == 'splash' else triton_attention
    branches = [
      functools.partial(kernel, scale=scale, window=window)
      for window in windows
    ]
    arrays = q_BLHA, k_BLNA, v_BLNA, segment_ids_BL
    return jax.lax.switch(which, branches, *arrays)
  shards = context.devices()
  columns_L = jnp.asarray(column_order.columns(q_BLHA.shape[1], shards))
  if shards > 1:
    # Queries stay split. Every device gathers all keys and values of its rows.
    k_BLNA, v_BLNA = (_whole_rows(x_BLNA) for x_BLNA in (k_BLNA, v_BLNA))
  # A query sees earlier columns of its own segment, and itself.
  causal_LL = columns_L[:, None] >= columns_L[None, :]
  if any(windows):
    window = _column_window(windows, which, len(columns_L))
    causal_LL &= columns_L[:, None] < columns_L[None, :] + window
  same_BLL = segment_ids_BL[:, :, None] == segment_ids_BL[:, None, :]
  mask_BLL = causal_LL[None] & same_BLL
  k_BNLA, v_BNLA = k_BLNA.swapaxes(1, 2), v_BLNA.swapaxes(1, 2)
  mixed_BLHA = _mix(q_BLHA, k_BNLA, v_BNLA, mask_BLL, scale)
  return remat.name(mixed_BLHA, remat.ATTENTION)


def cached_attention(
  q_BLHA: jax.Array,
  k_BNSA: jax.Array,
  v_BNSA: jax.Array,
  columns_L: jax.Array,
  start_B: jax.Array,
  scale: float | None = None,
  windows: Sequence[int] = (0,),
  which: jax.Array | int = 0,
) -> jax.Array:
  """Attention of new queries to the cached columns of their rows.

  A query at column c of row b sees columns start_B[b] to c.

  Args:
    q_BLHA: queries, already rotated.
    k_BNSA: cached keys, already rotated.
    v_BNSA: cached values.
    columns_L: int32, column of each query, the same in all rows.
    start_B: int32, first column of each row. Earlier ones are padding.
    scale: factor of the scores; None: 1 / sqrt(A).
    windows: windows of the different layers of a model; 0 for none.
    which: int32, index of this layer's window. It may be traced.

  Returns:
    Mixed values [B, L, H, A]; finite and meaningless for padding.
  """
  S = k_BNSA.shape[2]
  # Visible columns: from the row's first one to the query's own.
  columns_S = jnp.arange(S)
  mask_LS = columns_S[None] <= columns_L[:, None]
  if any(windows):
    window = _column_window(windows, which, S)
    mask_LS &= columns_S[None] + window > columns_L[:, None]
  mask_BLS = mask_LS[None] & (columns_S[None] >= start_B[:, None])[:, None]
  return _mix(q_BLHA, k_BNSA, v_BNSA, mask_BLS, scale)


def _mix(
  q_BLHA: jax.Array,
  k_BNSA: jax.Array,
  v_BNSA: jax.Array,
  mask_BLS: jax.Array,
  scale: float | None,
) -> jax.Array:
  """Mixes values by the softmax of the scores of queries and keys.

  Args:
    q_BLHA: queries.
    k_BNSA: keys.
    v_BNSA: values.
    mask_BLS: whether a query sees a key, the same for all heads.
    scale: factor of the scores; None: 1 / sqrt(A).

  Returns:
    Mixed values [B, L, H, A].
  """
  B, L, H, A = q_BLHA.shape
  N = k_BNSA.shape[1]
  G = H // N
  # The G heads that share a key-value head are Q = L G queries of it, so that
  # both products are of matrices. For products with more axes XLA transposes
  # all values on a CPU, which took four times as long with a long cache.
  # Columns come before heads, so that devices can split them.
  q_BNLGA = q_BLHA.reshape(B, L, N, G, A).swapaxes(1, 2)
  scores_BNQS = jnp.einsum(
    'BNQA,BNSA->BNQS',
    q_BNLGA.reshape(B, N, L * G, A),
    k_BNSA,
    preferred_element_type=jnp.float32,
  )
  scores_BNQS *= A**-0.5 if scale is None else scale
  # The lowest float and not -inf: the softmax of a padding query, which sees
  # no column, is then uniform instead of nan.
  lowest = jnp.finfo(scores_BNQS.dtype).min
  mask_BQS = jnp.repeat(mask_BLS, G, axis=1)
  scores_BNQS = jnp.where(mask_BQS[:, None], scores_BNQS, lowest)
  # The softmax is float32. Its weights are rounded to the type of the values.
  weights_BNQS = jax.nn.softmax(scores_BNQS).astype(v_BNSA.dtype)
  mixed_BNQA = jnp.einsum('BNQS,BNSA->BNQA', weights_BNQS, v_BNSA)
  return mixed_BNQA.reshape(B, N, L, G, A).swapaxes(1, 2).reshape(B, L, H, A)


def _whole_rows(x_BLNA: jax.Array) -> jax.Array:
  """Constrains the columns of each row to be on every device."""
  free = PartitionSpec.UNCONSTRAINED  # the compiler's choice
  spec = PartitionSpec(ROWS, None, free, free)
  return jax.lax.with_sharding_constraint(x_BLNA, spec)


def _column_window(
  windows: Sequence[int], which: jax.Array | int, columns: int
) -> jax.Array:
  """Returns the number of columns that a layer sees at most."""
  # A window of all columns is no window.
  return jnp.array([min(w or columns, columns) for w in windows])[which]
