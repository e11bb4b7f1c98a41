"""The masked loss against float64, and what an unscored target may not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax import losses
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Verdict
from tests.fixtures import fast_jit

B, K, V = 3, 7, 11


# As one program each: op by op, a few numbers take 0.5 s.
cross_entropy = fast_jit(losses.cross_entropy)
weighted_sum = fast_jit(losses.weighted_sum)
normalize = fast_jit(losses.normalize)
by_author = fast_jit(losses.by_author)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def random_case(rng, scale=3.0):
  logits_BKV = rng.normal(0, scale, (B, K, V)).astype(np.float32)
  targets_BK = rng.integers(0, V, (B, K)).astype(np.int32)
  return logits_BKV, targets_BK


def float64_nll(logits_BKV, targets_BK):
  logits_BKV = np.asarray(logits_BKV, np.float64)
  top_BK1 = logits_BKV.max(axis=-1, keepdims=True)
  total_BK1 = np.exp(logits_BKV - top_BK1).sum(axis=-1, keepdims=True)
  log_p_BKV = logits_BKV - top_BK1 - np.log(total_BK1)
  return -np.take_along_axis(log_p_BKV, targets_BK[..., None], -1)[..., 0]


# ------------------------------------------------------------- cross_entropy


@pytest.mark.parametrize('scale', [1.0, 100.0, 10_000.0])
def test_cross_entropy_is_minus_log_p_of_float64(rng, scale):
  """Two float32 numbers of the logits' size are subtracted, each rounded."""
  logits_BKV, targets_BK = random_case(rng, scale)
  nll_BK = cross_entropy(logits_BKV, targets_BK)
  assert nll_BK.dtype == jnp.float32
  np.testing.assert_allclose(
    nll_BK,
    float64_nll(logits_BKV, targets_BK),
    rtol=0,
    atol=4 * np.finfo(np.float32).eps * np.abs(logits_BKV).max(),
  )


def test_cross_entropy_of_bfloat16_logits_is_taken_in_float32(rng):
  logits_BKV, targets_BK = random_case(rng)
  logits_BKV = jnp.asarray(logits_BKV, jnp.bfloat16)
  nll_BK = cross_entropy(logits_BKV, targets_BK)
  assert nll_BK.dtype == jnp.float32
  # The logits are rounded to bfloat16 on both sides; what comes after is not,
  # or it would be wrong by 1e-2.
  np.testing.assert_allclose(
    nll_BK, float64_nll(logits_BKV, targets_BK), rtol=0, atol=1e-5
  )


def test_cross_entropy_of_float64_logits_stays_in_float64(rng):
  logits_BKV, targets_BK = random_case(rng)
  logits_BKV = np.asarray(logits_BKV, np.float64)
  with jax.enable_x64(True):
    nll_BK = cross_entropy(logits_BKV, targets_BK)
  assert nll_BK.dtype == jnp.float64
  np.testing.assert_allclose(
    nll_BK, float64_nll(logits_BKV, targets_BK), rtol=0, atol=1e-12
  )


def test_equal_logits_cost_log_v_nats():
  nll_BK = cross_entropy(
    np.full((1, 1, 8), 5.0, np.float32), np.zeros((1, 1), np.int32)
  )
  np.testing.assert_allclose(nll_BK, [[np.log(8)]], rtol=1e-6)


# -------------------------------------------------------------- weighted_sum


def test_the_sum_and_the_count_are_those_of_float64(rng):
  nll_BK = rng.gamma(2, 2, (B, K)).astype(np.float32)
  weights_BK = rng.choice([0, 0.25, 1, 3], (B, K)).astype(np.float32)
  total, count = weighted_sum(nll_BK, weights_BK)
  # 21 terms, all positive: each addition rounds by half an ulp at most.
  np.testing.assert_allclose(
    total, (nll_BK.astype(np.float64) * weights_BK).sum(), rtol=1e-6
  )
  assert count == weights_BK.sum(dtype=np.float64)


def test_the_loss_with_weights_is_the_loss_of_what_they_select(rng):
  """loss(x, weights=mask) == loss(x[mask])."""
  nll_BK = rng.gamma(2, 2, (B, K)).astype(np.float32)
  mask_BK = rng.random((B, K)) < 0.5
  total, count = weighted_sum(nll_BK, mask_BK.astype(np.float32))
  selected_1K = nll_BK[mask_BK][None]
  same, same_count = weighted_sum(selected_1K, np.ones_like(selected_1K))
  np.testing.assert_allclose(total, same, rtol=1e-6)  # another order of terms
  assert count == same_count == mask_BK.sum()


@pytest.mark.parametrize('unscored', [np.inf, -np.inf, np.nan])
def test_an_unscored_value_leaks_neither_into_the_sum_nor_into_a_gradient(
  unscored,
):
  nll_BK = np.float32([[1.0, unscored, 2.0]])
  weights_BK = np.float32([[1.0, 0.0, 0.5]])
  (total, count), gradient_BK = fast_jit(
    jax.value_and_grad(losses.weighted_sum, has_aux=True)
  )(nll_BK, weights_BK)
  assert (total, count) == (2.0, 1.5)
  np.testing.assert_array_equal(gradient_BK, weights_BK)


def test_an_impossible_target_without_weight_leaves_the_gradient_finite():
  """A logit of minus infinity at the target is a loss of infinity there."""
  logits_BKV = np.float32([[[0.0, 1.0, 2.0], [0.0, -np.inf, 2.0]]])
  targets_BK = np.int32([[0, 1]])
  assert cross_entropy(logits_BKV, targets_BK)[0, 1] == np.inf

  def loss(logits_BKV):
    nll_BK = losses.cross_entropy(logits_BKV, targets_BK)
    return losses.weighted_sum(nll_BK, np.float32([[1.0, 0.0]]))[0]

  total, gradient_BKV = fast_jit(jax.value_and_grad(loss))(logits_BKV)
  alone = cross_entropy(logits_BKV[:, :1], targets_BK[:, :1])
  assert total == alone[0, 0]
  np.testing.assert_array_equal(gradient_BKV[0, 1], [0, 0, 0])
  assert np.isfinite(gradient_BKV).all() and gradient_BKV[0, 0].all()


def test_a_scored_infinity_is_not_hidden():
  total, _ = weighted_sum(np.float32([[np.inf]]), np.float32([[1.0]]))
  assert total == np.inf


# ----------------------------------------------------------------- normalize


def test_sums_over_counts_are_not_the_mean_of_means():
  """Of 1 target and of 3: the loss is 16 / 4, and no mean of 10 and 2."""
  parts = [
    weighted_sum(np.float32([nll]), np.ones((1, len(nll)), np.float32))
    for nll in ([10.0], [1.0, 2.0, 3.0])
  ]
  totals, counts = zip(*parts, strict=True)
  assert normalize(sum(totals), sum(counts)) == 4.0
  means = [normalize(*part) for part in parts]
  assert sum(means) / 2 == 6.0


def test_normalize_divides_every_leaf_of_a_tree():
  tree = {'a': np.float32([2.0, 4.0]), 'b': (np.float32(6.0),)}
  divided = normalize(tree, np.float32(2.0))
  np.testing.assert_array_equal(divided['a'], [1.0, 2.0])
  assert divided['b'][0] == 3.0


def test_a_count_below_one_divides_all_the_same():
  """Weights such as 0.25 and the trajectory's 1/n: the count is no integer."""
  assert normalize(np.float32(1.0), np.float32(0.25)) == 4.0


def test_without_a_target_the_loss_is_zero_and_its_gradient_is_zero(rng):
  logits_BKV, targets_BK = random_case(rng)

  def loss(logits_BKV):
    nll_BK = losses.cross_entropy(logits_BKV, targets_BK)
    return losses.normalize(*losses.weighted_sum(nll_BK, np.zeros((B, K))))

  value, gradient_BKV = fast_jit(jax.value_and_grad(loss))(logits_BKV)
  assert value == 0.0
  np.testing.assert_array_equal(gradient_BKV, np.zeros((B, K, V)))


# ------------------------------------------------------------------ by_author


def test_the_loss_by_author_counts_all_that_an_author_wrote():
  """Also what has no weight; slots without a target are those of PAD."""
  T, U, A = Provenance.TEMPLATE, Provenance.USER, Provenance.AGENT
  total_P, count_P = by_author(
    np.float32([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]),
    np.int32([[U, A, U], [T, U, Provenance.PAD]]),
  )
  assert {
    author.name: (float(total_P[author]), float(count_P[author]))
    for author in Provenance
    if count_P[author]
  } == {
    'PAD': (32.0, 1.0),
    'TEMPLATE': (8.0, 1.0),
    'USER': (21.0, 3.0),
    'AGENT': (2.0, 1.0),
  }
  assert normalize(total_P, count_P).tolist() == [32, 8, 0, 7, 0, 2, 0, 0]


def test_an_infinite_loss_stays_with_its_author():
  total_P, _ = by_author(
    np.float32([[np.inf, 2.0]]),
    np.int32([[Provenance.AGENT, Provenance.USER]]),
  )
  assert total_P[Provenance.AGENT] == np.inf
  assert total_P[Provenance.USER] == 2.0
  assert total_P[Provenance.TOOL] == 0.0


# ---------------------------------------------- the gradient at each author's


AUTHORS_1K = np.array([[*Provenance]], np.int32)
SCORED = {
  # author           observational  interventional  agent_only
  'PAD': (0, 0, 0),
  'TEMPLATE': (1, 1, 0),
  'CONTEXT': (0, 0, 0),
  'USER': (1, 1, 0),
  'TOOL': (1, 1, 0),
  'AGENT': (1, 0, 1),
  'DEMONSTRATION': (1, 1, 0),
  'HARNESS': (1, 1, 0),
}


@pytest.mark.parametrize(
  ('column', 'objective'),
  [(0, 'observational'), (1, 'interventional'), (2, 'agent_only')],
)
def test_only_logits_at_scored_targets_get_a_gradient(rng, column, objective):
  """Exactly zero at the others: under L_do, at every target of the agent."""
  logits_1KV = rng.normal(size=(1, len(Provenance), V)).astype(np.float32)
  targets_1K = rng.integers(0, V, (1, len(Provenance)))
  weights_1K = weight_table(objective)[AUTHORS_1K, Verdict.WRONG]

  def loss(logits_1KV):
    nll_1K = losses.cross_entropy(logits_1KV, targets_1K)
    return losses.normalize(*losses.weighted_sum(nll_1K, weights_1K))

  gradient_KV = fast_jit(jax.grad(loss))(logits_1KV)[0]
  assert {
    author.name: int(gradient_KV[i].any())
    for i, author in enumerate(Provenance)
  } == {author: row[column] for author, row in SCORED.items()}


def test_the_gradient_is_weight_times_p_minus_one_hot_of_float64(rng):
  logits_BKV, targets_BK = random_case(rng)
  weights_BK = rng.choice([0, 0.25, 1, 3], (B, K)).astype(np.float32)

  def loss(logits_BKV):
    nll_BK = losses.cross_entropy(logits_BKV, targets_BK)
    return losses.weighted_sum(nll_BK, weights_BK)[0]

  exact = logits_BKV.astype(np.float64)
  p_BKV = np.exp(exact - exact.max(-1, keepdims=True))
  p_BKV /= p_BKV.sum(-1, keepdims=True)
  expected_BKV = weights_BK[..., None] * (p_BKV - np.eye(V)[targets_BK])
  np.testing.assert_allclose(
    fast_jit(jax.grad(loss))(logits_BKV), expected_BKV, rtol=0, atol=1e-6
  )  # values up to 3, eps 1.2e-7, a few operations


def test_the_authors_of_each_source_are_summed_apart():
  """Source s has its authors at s * len(Provenance), as batches count them."""
  P, U, A = len(Provenance), Provenance.USER, Provenance.AGENT
  authors_BK = np.int32([[U, A], [P + U, P + U], [2 * P + A, 0]])
  total, count = fast_jit(
    lambda *arrays: losses.by_author(*arrays, components=3)
  )(np.float32([[1, 2], [4, 8], [16, 32]]), authors_BK)
  assert total.dtype == count.dtype == jnp.float32
  assert {
    divmod(int(i), P): (float(total[i]), float(count[i]))
    for i in np.flatnonzero(count)
  } == {
    (0, Provenance.PAD): (32, 1),
    (0, U): (1, 1),
    (0, A): (2, 1),
    (1, U): (12, 2),
    (2, A): (16, 1),
  }
  assert total.shape == count.shape == (3 * P,)
