"""What a query sees, and how far a head turns."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax.models import attention, triton_attention
from isft_jax.models.layer_kinds import Rope

ROPES = [Rope(10_000.0)]


def draw(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def seen(attend, q_BLHA, v_BSNA, others=(1, 3, 4)):
  """Which columns s change the output of which query t: True at [t, s]."""
  jacobian = jax.jacobian(lambda v: attend(q_BLHA, v).sum((0, 2, 3)))
  jacobian = jax.jit(jacobian)(v_BSNA)
  return np.asarray(jnp.abs(jacobian).sum(others) > 0)


@pytest.mark.parametrize(
  ('kind', 'platform', 'device_kind', 'capability', 'expected'),
  [
    ('auto', 'tpu', 'TPU v5 lite', '', 'splash'),
    ('auto', 'tpu', 'TPU v4', '', 'splash'),
    ('auto', 'tpu', 'TPU v3', '', 'xla'),
    ('auto', 'cpu', 'cpu', '', 'xla'),
    ('auto', 'gpu', 'NVIDIA H100', '9.0', 'triton'),
    ('auto', 'gpu', 'NVIDIA B200', '10.0', 'triton'),
    ('auto', 'gpu', 'Tesla T4', '7.5', 'xla'),
    ('auto', 'gpu', 'AMD Instinct MI300X', 'gfx942', 'xla'),
    ('splash', 'tpu', 'TPU7x', '', 'splash'),
    ('splash', 'tpu', 'TPU v2', '', None),
    ('splash', 'cpu', 'cpu', '', None),
    ('splash', 'gpu', 'NVIDIA H100', '9.0', None),
    ('triton', 'gpu', 'NVIDIA A100', '8.0', 'triton'),
    ('triton', 'gpu', 'Tesla T4', '7.5', None),
    ('triton', 'tpu', 'TPU v5 lite', '', None),
    ('triton', 'cpu', 'cpu', '', None),
    ('xla', 'tpu', 'TPU v5 lite', '', 'xla'),
    ('xla', 'gpu', 'NVIDIA H100', '9.0', 'xla'),
  ],
)
def test_what_attends_on_which_device(
  kind, platform, device_kind, capability, expected
):
  device = types.SimpleNamespace(
    platform=platform, device_kind=device_kind, compute_capability=capability
  )
  if expected:
    assert attention.resolve(kind, device) == expected
  else:
    with pytest.raises(ValueError, match=f'does not run on {device_kind}'):
      attention.resolve(kind, device)


def test_a_jax_without_kernels_for_gpus_computes_products(monkeypatch):
  monkeypatch.setattr(triton_attention, '_COMPILER', 'isft_jax.no_such_module')
  device = types.SimpleNamespace(
    platform='gpu', device_kind='NVIDIA H100', compute_capability='9.0'
  )
  assert attention.resolve('auto', device) == 'xla'
  with pytest.raises(ValueError, match='a version of jax that has'):
    attention.resolve('triton', device)


def test_a_packed_query_sees_the_past_of_its_own_document():
  ids_1L = jnp.array([[1, 1, 1, 2, 2, 0, 0]])
  q, k, v = draw(0, 1, 7, 4, 6), draw(1, 1, 7, 2, 6), draw(2, 1, 7, 2, 6)
  mask_LL = seen(lambda q, v: attention.packed_attention(q, k, v, ids_1L), q, v)
  np.testing.assert_array_equal(
    mask_LL.astype(int),
    [
      # 1  1  1  2  2  0  0
      [1, 0, 0, 0, 0, 0, 0],
      [1, 1, 0, 0, 0, 0, 0],
      [1, 1, 1, 0, 0, 0, 0],
      [0, 0, 0, 1, 0, 0, 0],
      [0, 0, 0, 1, 1, 0, 0],
      [0, 0, 0, 0, 0, 1, 0],
      [0, 0, 0, 0, 0, 1, 1],
    ],
  )


def test_a_cached_query_sees_its_rows_columns_up_to_its_own():
  columns_L, start_B = jnp.array([2, 3]), jnp.array([1])
  q, k, v = draw(0, 1, 2, 4, 6), draw(1, 1, 2, 5, 6), draw(2, 1, 2, 5, 6)
  mask_LS = seen(
    lambda q, v: attention.cached_attention(q, k, v, columns_L, start_B),
    q,
    v,
    others=(1, 2, 4),  # of L B N S A
  )
  np.testing.assert_array_equal(
    mask_LS.astype(int), [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
  )


def test_a_window_ends_with_the_querys_own_column():
  ids_1L = jnp.array([[1, 1, 1, 1, 2, 2, 2]])
  q, k, v = draw(0, 1, 7, 4, 6), draw(1, 1, 7, 2, 6), draw(2, 1, 7, 2, 6)
  expected = [
    [1, 0, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0, 0],
    [0, 1, 1, 0, 0, 0, 0],
    [0, 0, 1, 1, 0, 0, 0],
    [0, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 1, 1, 0],
    [0, 0, 0, 0, 0, 1, 1],
  ]
  mask_LL = seen(
    lambda q, v: attention.packed_attention(
      q, k, v, ids_1L, windows=(0, 2), which=1
    ),
    *(q, v),
  )
  np.testing.assert_array_equal(mask_LL.astype(int), expected)


def test_a_cached_query_sees_its_window():
  columns_L, start_B = jnp.array([2, 3]), jnp.array([1])
  q, k, v = draw(0, 1, 2, 4, 6), draw(1, 1, 2, 5, 6), draw(2, 1, 2, 5, 6)
  mask_LS = seen(
    lambda q, v: attention.cached_attention(
      q, k, v, columns_L, start_B, windows=(2, 0), which=0
    ),
    *(q, v),
    others=(1, 2, 4),  # of L B N S A
  )
  np.testing.assert_array_equal(
    mask_LS.astype(int), [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]
  )


def test_cached_attention_is_packed_attention_of_one_document():
  q, k, v = draw(0, 2, 7, 6, 8), draw(1, 2, 7, 3, 8), draw(2, 2, 7, 3, 8)
  packed_BLHA = attention.packed_attention(q, k, v, jnp.ones((2, 7), int))
  cached_BLHA = attention.cached_attention(
    q,
    k.swapaxes(1, 2),
    v.swapaxes(1, 2),
    jnp.arange(7),
    jnp.zeros(2, int),
  )
  # The order of float32 sums.
  np.testing.assert_allclose(cached_BLHA, packed_BLHA, atol=1e-6)


def test_a_group_of_query_heads_reads_its_own_kv_head():
  ids_1L = jnp.ones((1, 3), int)
  q, k = draw(0, 1, 3, 4, 6), draw(1, 1, 3, 2, 6)
  v = jnp.stack([jnp.zeros((1, 3, 6)), jnp.ones((1, 3, 6))], axis=2)
  mixed_1LHA = attention.packed_attention(q, k, v, ids_1L)
  # Weights sum to 1 within float32.
  np.testing.assert_allclose(
    mixed_1LHA[0, :, :, 0], [[0, 0, 1, 1]] * 3, atol=1e-6
  )


def test_bfloat16_scores_are_summed_in_float32():
  # 512 equal keys: in bfloat16 the sum of their exponentials would stop
  # growing at 256, and the mean of ones would be 2.
  q = draw(0, 1, 1, 1, 4).astype(jnp.bfloat16)
  k = jnp.zeros((1, 1, 512, 4), jnp.bfloat16)
  v = jnp.ones_like(k)
  mixed = attention.cached_attention(
    q, k, v, jnp.array([511]), jnp.zeros(1, int)
  )
  assert mixed.dtype == jnp.bfloat16
  assert (mixed == 1).all()


def test_rotation_by_hand():
  # A = 4, theta = 100: pairs (0, 2) and (1, 3) turn by 1 and 1/10 a position.
  x_1LHA = jnp.array([1.0, 2.0, 3.0, 4.0])[None, None, None]
  c, s = np.cos([3, 0.3]), np.sin([3, 0.3])
  np.testing.assert_allclose(
    attention.rotate(x_1LHA, jnp.array([[3]]), [Rope(100.0)])[0, 0, 0],
    [
      1 * c[0] - 3 * s[0],
      2 * c[1] - 4 * s[1],
      3 * c[0] + 1 * s[0],
      4 * c[1] + 2 * s[1],
    ],
    rtol=1e-6,  # float32
  )


@pytest.mark.parametrize('shift', [1, 1000])
def test_scores_depend_on_the_distance_only(shift):
  q, k = draw(0, 1, 1, 1, 8), draw(1, 1, 1, 1, 8)

  def score(query_position, key_position):
    turned_q = attention.rotate(q, jnp.array([[query_position]]), ROPES)
    turned_k = attention.rotate(k, jnp.array([[key_position]]), ROPES)
    return jnp.vdot(turned_q, turned_k)

  # An angle of 1,000 radians is known to 1000 * 6e-8 in float32.
  np.testing.assert_allclose(
    score(7 + shift, 3 + shift), score(7, 3), rtol=0, atol=5e-4
  )
  assert abs(score(7, 3) - score(7, 4)) > 1e-2
