"""The loss from a part of the vocabulary at a time is the loss from all of it.

Against the plain formula in float64, with its gradient; then where the logits
are not, and what is not gathered.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isft_jax import losses, sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.models import decoder
from isft_jax.models.likelihood import (
  chunked_nll,
  chunked_nll_and_kl,
  count_chunks,
)
from isft_jax.train.step import make_step
from isft_jax.train.trainer import TrainState
from isft_jax.types import Batch
from tests.fixtures import fast_jit

B, K, D, V = 2, 5, 6, 77
# 7 divides 77. In 4 parts of 20, 3 ids are none; 77 parts have one id each.
PARTS = [1, 4, 7, 77]


@pytest.fixture
def case():
  """(hidden, head, targets, weights); two targets of row 1 weigh nothing."""
  rng = np.random.default_rng(0)
  weights_BK = rng.choice([0.25, 1, 3], (B, K))
  weights_BK[1, [0, 3]] = 0
  return (
    rng.normal(size=(B, K, D)),
    rng.normal(size=(V, D)),
    rng.integers(0, V, (B, K)).astype(np.int32),
    weights_BK,
  )


def plain(hidden_BKD, head_VD, targets_BK, weights_BK):
  """(nll, gradients of its weighted sum) as the formulas say, in NumPy."""
  nll_BK, error_BKV = plain_error(hidden_BKD, head_VD, targets_BK, weights_BK)
  head_gradient_VD = np.einsum('bkv,bkd->vd', error_BKV, hidden_BKD)
  return nll_BK, error_BKV @ head_VD, head_gradient_VD


def plain_error(hidden_BKD, head_VD, targets_BK, weights_BK):
  """(nll, the gradient of its weighted sum with respect to the logits)."""
  logits_BKV = hidden_BKD @ head_VD.T
  top_BK1 = logits_BKV.max(-1, keepdims=True)
  total_BK1 = np.exp(logits_BKV - top_BK1).sum(-1, keepdims=True)
  log_p_BKV = logits_BKV - top_BK1 - np.log(total_BK1)
  hit_BKV = np.eye(len(head_VD))[targets_BK]
  error_BKV = (np.exp(log_p_BKV) - hit_BKV) * weights_BK[..., None]
  return -(log_p_BKV * hit_BKV).sum(-1), error_BKV


def in_parts(hidden_BKD, head_VD, targets_BK, weights_BK, parts):
  def loss(hidden_BKD, head_VD):
    nll_BK = chunked_nll(hidden_BKD, head_VD, targets_BK, parts)
    return losses.weighted_sum(nll_BK, weights_BK)[0], nll_BK

  gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
  (hidden, head), nll_BK = gradient(hidden_BKD, head_VD)
  return nll_BK, hidden, head


chunked = fast_jit(in_parts, static_argnames='parts')


def in_float32(case):
  hidden_BKD, head_VD, targets_BK, weights_BK = case
  return (
    hidden_BKD.astype(np.float32),
    head_VD.astype(np.float32),
    targets_BK.copy(),
    weights_BK.astype(np.float32),
  )


def bytes_of(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


# ------------------------------------------------------------ in float64, exact


@pytest.mark.parametrize('parts', PARTS)
def test_loss_and_gradients_are_those_of_the_plain_formula(case, parts):
  with jax.enable_x64(True):
    for got, expected in zip(
      chunked(*case, parts=parts), plain(*case), strict=True
    ):
      assert got.dtype == np.float64
      np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('parts', [4, 7])
def test_a_tied_head_gets_the_gradient_of_both_its_uses(case, parts):
  """Its rows are hidden states too; their gradient goes to those rows."""
  _, embedding_VD, targets_BK, weights_BK = case
  tokens_BK = np.random.default_rng(1).integers(0, V, (B, K))

  def loss(embedding_VD):
    hidden_BKD = embedding_VD[tokens_BK]
    nll_BK = chunked_nll(hidden_BKD, embedding_VD, targets_BK, parts)
    return losses.weighted_sum(nll_BK, weights_BK)[0]

  hidden_BKD = embedding_VD[tokens_BK]
  _, hidden, expected_VD = plain(
    hidden_BKD, embedding_VD, targets_BK, weights_BK
  )
  np.add.at(expected_VD, tokens_BK, hidden)
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      fast_jit(jax.grad(loss))(embedding_VD), expected_VD, rtol=0, atol=1e-12
    )


# --------------------------------------------------------- in float32, bfloat16


@pytest.mark.parametrize('parts', PARTS)
def test_in_float32_the_number_of_parts_is_a_matter_of_rounding(case, parts):
  case32 = in_float32(case)
  exact = plain(*(np.float64(x) for x in case32[:2]), *case32[2:])
  for got, expected in zip(chunked(*case32, parts=parts), exact, strict=True):
    assert got.dtype == np.float32
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def test_in_bfloat16_the_parts_are_summed_in_float32(case):
  """A product is rounded once, and its 77 parts no worse than its terms.

  The head is a float32 parameter, rounded for the product; so is its gradient.
  """
  hidden_BKD, head_VD, targets_BK, weights_BK = in_float32(case)
  hidden_BKD = jnp.asarray(hidden_BKD, jnp.bfloat16)
  hidden64_BKD, head64_VD = (
    np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    for x in (hidden_BKD, head_VD)
  )
  nll_BK, hidden, head = chunked(
    hidden_BKD, head_VD, targets_BK, weights_BK, parts=77
  )
  assert (nll_BK.dtype, head.dtype) == (np.float32, np.float32)
  assert hidden.dtype == jnp.bfloat16
  exact = plain(hidden64_BKD, head64_VD, targets_BK, weights_BK)
  np.testing.assert_allclose(nll_BK, exact[0], rtol=1e-5)
  half_ulp = 2.0**-8  # bfloat16 has 8 bits, the first of them implicit
  noise = 1e-5  # of float32
  np.testing.assert_allclose(head, exact[2], rtol=half_ulp, atol=noise)
  _, error_BKV = plain_error(hidden64_BKD, head64_VD, targets_BK, weights_BK)
  terms_BKD = np.abs(error_BKV) @ np.abs(head64_VD)
  off_BKD = np.abs(np.asarray(hidden, np.float64) - exact[1])
  assert (off_BKD <= half_ulp * (terms_BKD + np.abs(exact[1])) + noise).all()


# ------------------------------------------------------------- what is unscored


@pytest.mark.parametrize('parts', [4, 7])
def test_hidden_states_at_unscored_targets_get_no_gradient(case, parts):
  case32 = in_float32(case)
  _, hidden, _ = chunked(*case32, parts=parts)
  np.testing.assert_array_equal(np.asarray(hidden).any(axis=-1), case32[3] != 0)


@pytest.mark.parametrize('parts', [4, 7])
def test_an_impossible_target_leaks_nothing_where_it_weighs_nothing(
  case, parts
):
  """Its logit overflows to minus infinity, so that its loss is infinite."""
  hidden_BKD, head_VD, targets_BK, weights_BK = in_float32(case)
  hidden_BKD[1, 3], targets_BK[1, 3] = 2, 40
  head_VD[40] = [-3e38, *[0] * (D - 1)]
  hidden_BKD[..., 0] = np.abs(hidden_BKD[..., 0]) + 1
  nll_BK, *gradients = chunked(
    hidden_BKD, head_VD, targets_BK, weights_BK, parts=parts
  )
  assert nll_BK[1, 3] == np.inf and weights_BK[1, 3] == 0
  without_BK = targets_BK.copy()
  without_BK[1, 3] = 0
  _, *expected = chunked(
    hidden_BKD, head_VD, without_BK, weights_BK, parts=parts
  )
  assert all(np.isfinite(x).all() for x in gradients)
  assert bytes_of(gradients) == bytes_of(expected)
  assert not gradients[0][1, 3].any()


@pytest.mark.parametrize('target', [-1, V, V + 1, 10_000])
def test_a_target_outside_the_vocabulary_is_nan(case, target):
  """Of 80 ids in 4 parts, 77 to 79 only fill up."""
  hidden_BKD, head_VD, targets_BK, weights_BK = in_float32(case)
  targets_BK[0, 2] = target
  nll_BK, *_ = chunked(hidden_BKD, head_VD, targets_BK, weights_BK, parts=4)
  outside_BK = np.zeros((B, K), bool)
  outside_BK[0, 2] = True
  np.testing.assert_array_equal(np.isnan(nll_BK), outside_BK)


# ------------------------------------------------------------- how many parts


@pytest.mark.parametrize(
  ('vocab_size', 'chunk', 'parts'),
  [
    (1024, 16_384, 1),
    (16_384, 16_384, 1),
    (16_385, 16_384, 2),  # 5 x 29 x 113: filled up by one id
    (32_000, 16_384, 2),
    (50_257, 16_384, 4),  # 29 x 1733: 4 parts of 12,565, three ids too many
    (128_256, 16_384, 8),
    (151_936, 16_384, 16),  # at least 10; 2^7 x 1187
    (152_064, 16_384, 11),
    (151_936, 0, 1),
  ],
)
def test_parts_are_small_enough_and_divide_where_they_can(
  vocab_size, chunk, parts
):
  assert count_chunks(vocab_size, chunk) == parts


# ------------------------------------------------- in a step: where logits are


ROWS, TARGETS, WIDTH, VOCABULARY, CHUNK = 2, 24, 16, 1001, 143


def model(head_chunk=CHUNK, **changes):
  return ModelConfig(
    vocab_size=VOCABULARY,
    width=WIDTH,
    layers=2,
    heads=2,
    kv_heads=1,
    head_size=8,
    mlp_width=32,
    head_chunk=head_chunk,
    **changes,
  )


def batch_of(rows, vocab_size=VOCABULARY):
  rng = np.random.default_rng(0)

  def ids(high):
    return rng.integers(0, high, (rows, TARGETS)).astype(np.int32)

  return Batch(
    tokens_BL=ids(vocab_size),
    positions_BL=np.tile(np.arange(TARGETS, dtype=np.int32), (rows, 1)),
    segment_ids_BL=np.ones((rows, TARGETS), np.int32),
    columns_BK=np.tile(np.arange(TARGETS, dtype=np.int32), (rows, 1)),
    targets_BK=ids(vocab_size),
    weights_BK=(rng.random((rows, TARGETS)) < 0.5).astype(np.float32),
    authors_BK=ids(7) + 1,
  )


def shapes_in(jaxpr):
  """The shapes of all that a program computes, at whatever depth."""
  found = set()
  for equation in jaxpr.eqns:
    found |= {tuple(out.aval.shape) for out in equation.outvars}
    for value in equation.params.values():
      for inner in value if isinstance(value, (tuple, list)) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          found |= shapes_in(inner)
  return found


def step_shapes(config, parts=1):
  """The shapes in one training step, its optimizer included."""
  graphdef, params = decoder.abstract(config)
  optimizer = optax.adamw(1e-3)

  def start(params):
    return TrainState(jnp.int32(0), params, optimizer.init(params))

  step = jax.jit(make_step(graphdef, optimizer, parts))
  state = jax.eval_shape(start, params)
  return shapes_in(jax.make_jaxpr(step)(state, batch_of(ROWS)).jaxpr)


@pytest.mark.parametrize('parts', [1, 2])
@pytest.mark.parametrize('tied', [True, False])
def test_in_a_step_the_vocabulary_is_an_axis_of_the_parameters_alone(
  tied, parts
):
  """Forward, backward, optimizer; with micro-batches or without.

  A part's logits are there, so that the walk is known to reach them.
  """
  shapes = step_shapes(model(tie_embeddings=tied), parts)
  assert {s for s in shapes if VOCABULARY in s} == {(VOCABULARY, WIDTH)}
  assert (ROWS // parts, TARGETS, CHUNK) in shapes
  # No reshape hides them either.
  all_logits = ROWS // parts * TARGETS * VOCABULARY
  assert all_logits > VOCABULARY * WIDTH
  assert max(math.prod(shape) for shape in shapes) < all_logits


def test_without_chunks_the_same_walk_finds_all_logits():
  assert (ROWS, TARGETS, VOCABULARY) in step_shapes(model(head_chunk=0))


def test_a_step_by_parts_of_vocabulary_and_rows_is_the_step_of_all():
  """In every parameter, and in the loss by author: float32 sums in another
  order, as two layers carry them on. 1e-5 of the largest is 80 roundings."""
  whole, parts = (model(chunk) for chunk in (0, CHUNK))
  params = fast_jit(decoder.init, static_argnums=0)(whole, jax.random.key(0))
  optimizer = optax.sgd(1.0)
  state = TrainState(np.int32(0), params, optimizer.init(params))

  def stepped(config, micro_batches):
    graphdef, _ = decoder.abstract(config)
    step = make_step(graphdef, optimizer, micro_batches)
    state_, metrics = fast_jit(step)(state, batch_of(ROWS))
    moved = jax.tree.map(jnp.subtract, state_.params, params)
    return jax.device_get((moved, metrics))

  got, expected = stepped(parts, 2), stepped(whole, 1)
  for (path, leaf), plain_leaf in zip(
    jax.tree_util.tree_leaves_with_path(got),
    jax.tree.leaves(expected),
    strict=True,
  ):
    assert np.any(plain_leaf)
    atol = 1e-5 * np.abs(plain_leaf).max()
    name = sharding.path_name(path)
    np.testing.assert_allclose(
      leaf, plain_leaf, rtol=0, atol=atol, err_msg=name
    )


# ------------------------------------------------------------- on many devices


@pytest.mark.parametrize(
  'mesh', [MeshConfig(1, 8, 1), MeshConfig(2, 2, 2)], ids=['fsdp', 'all']
)
def test_no_device_holds_the_head_or_its_gradient_whole(mesh):
  """No array of it is larger than its share of them, or than a part."""
  mesh = sharding.make_mesh(mesh)
  vocab_size, width, parts = 2002, 16, 7
  rng = np.random.default_rng(0)
  hidden_BKD = rng.normal(size=(8, K, width)).astype(np.float32)
  head_VD = rng.normal(size=(vocab_size, width)).astype(np.float32)
  targets_BK = rng.integers(0, vocab_size, (8, K)).astype(np.int32)
  weights_BK = np.ones((8, K), np.float32)
  # As a step has it while it computes.
  placed = sharding.shardings({'head': head_VD}, decoder.IN_USE_RULES, mesh)[
    'head'
  ]
  rows = sharding.batch_sharding(mesh)
  gradient = jax.jit(
    functools.partial(in_parts, parts=parts),
    in_shardings=(rows, placed, rows, rows),
    out_shardings=(rows, rows, placed),
  )
  case = hidden_BKD, head_VD, targets_BK, weights_BK
  compiled = gradient.lower(*case).compile()
  sizes = [
    math.prod(int(n) for n in shape.split(','))
    for shape in re.findall(r'= f32\[([\d,]+)\]', compiled.as_text())
  ]
  shards = mesh.shape['fsdp'] * mesh.shape['tensor']
  assert max(sizes) <= vocab_size * width // min(shards, parts)
  for got, expected in zip(compiled(*case), plain(*case), strict=True):
    atol = 1e-5 * np.abs(expected).max()  # sums in another order, 8 devices
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


# ----------------------------------------------------- the distance from a base


@functools.partial(fast_jit, static_argnames=('parts', 'reverse'))
def apart(
  hidden_BKD,
  head_VD,
  base_BKD,
  base_VD,
  targets_BK,
  weights_BK,
  parts,
  reverse=False,
):
  """(nll, kl, gradients of the weighted sum of kl by all that is a float)."""

  def loss(*arrays):
    nll_BK, kl_BK = chunked_nll_and_kl(*arrays, targets_BK, parts, reverse)
    return losses.weighted_sum(kl_BK, weights_BK)[0], (nll_BK, kl_BK)

  gradient = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)
  gradients, found = gradient(hidden_BKD, head_VD, base_BKD, base_VD)
  return *found, *gradients


def log_softmax(logits_BKV):
  top_BK1 = logits_BKV.max(-1, keepdims=True)
  total_BK1 = np.exp(logits_BKV - top_BK1).sum(-1, keepdims=True)
  return logits_BKV - top_BK1 - np.log(total_BK1)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('parts', PARTS)
def test_the_distance_is_that_of_the_formula_in_float64(case, parts, reverse):
  hidden_BKD, head_VD, targets_BK, weights_BK = case
  rng = np.random.default_rng(1)
  base_BKD, base_VD = rng.normal(size=(B, K, D)), rng.normal(size=(V, D))
  log_p_BKV = log_softmax(hidden_BKD @ head_VD.T)
  log_base_BKV = log_softmax(base_BKD @ base_VD.T)
  p_BKV, base_BKV = np.exp(log_p_BKV), np.exp(log_base_BKV)
  # The gradient by the logits, whatever the target.
  if reverse:
    kl_BK = (p_BKV * (log_p_BKV - log_base_BKV)).sum(-1)
    error_BKV = p_BKV * (log_p_BKV - log_base_BKV - kl_BK[..., None])
  else:
    kl_BK = (base_BKV * (log_base_BKV - log_p_BKV)).sum(-1)
    error_BKV = p_BKV - base_BKV
  error_BKV = error_BKV * weights_BK[..., None]
  nll_BK, *_ = plain(*case)

  narrow = (
    np.float32(each) for each in (hidden_BKD, head_VD, base_BKD, base_VD)
  )
  found = apart(
    *(*narrow, targets_BK, np.float32(weights_BK)), parts=parts, reverse=reverse
  )
  expected = (
    *(nll_BK, kl_BK, error_BKV @ head_VD),
    np.einsum('bkv,bkd->vd', error_BKV, hidden_BKD),
  )
  for actual, wanted in zip(found, expected, strict=False):
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=2e-5)
  # The base has no gradient, and a target of weight 0 gives none.
  assert not np.any(found[4]) and not np.any(found[5])
  np.testing.assert_array_equal(found[2][1, [0, 3]], 0)


@pytest.mark.parametrize('reverse', [False, True])
def test_the_distance_from_itself_is_zero_and_so_is_its_gradient(case, reverse):
  hidden_BKD, head_VD, targets_BK, weights_BK = in_float32(case)
  _, kl_BK, hidden, head, *_ = apart(
    *(hidden_BKD, head_VD, hidden_BKD, head_VD, targets_BK, weights_BK),
    parts=4,
    reverse=reverse,
  )
  # Differences of float32 sums of about 5
  np.testing.assert_allclose(kl_BK, 0, atol=2e-6)
  np.testing.assert_allclose(hidden, 0, atol=2e-6)
  np.testing.assert_allclose(head, 0, atol=2e-6)
