"""The decoder: its parameters, what a token may see, and equal ways to run."""

import dataclasses
import itertools
import math
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import LoraConfig, ModelConfig
from isft_jax.models import decoder

TINY = ModelConfig(
  vocab_size=19,
  width=8,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=6,
  mlp_width=10,
)
EVERYTHING = dataclasses.replace(TINY, tie_embeddings=False, qk_norm=True)

QWEN25_05B = ModelConfig(
  vocab_size=151_936,
  width=896,
  layers=24,
  heads=14,
  kv_heads=2,
  head_size=64,
  mlp_width=4_864,
  rope_theta=1e6,
  tie_embeddings=True,
  qkv_bias=True,
)


def make(config):
  """A model whose every parameter matters: no zeros, no ones."""
  graphdef, shapes = decoder.abstract(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: rng.normal(scale=0.4, size=leaf.shape).astype(np.float32),
    shapes,
  )
  return graphdef, jax.tree.map(jnp.asarray, params)


def by_path(params):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def alone(tokens):
  """One document in one row: tokens, positions, segment ids."""
  tokens_1L = np.asarray(tokens, np.int32)[None]
  positions_1L = np.arange(tokens_1L.shape[1], dtype=np.int32)[None]
  return tokens_1L, positions_1L, np.ones_like(tokens_1L)


@jax.jit(static_argnames='graphdef')
def hidden(graphdef, params, tokens_BL, positions_BL, segment_ids_BL):
  model = nnx.merge(graphdef, params)
  return model(tokens_BL, positions_BL, segment_ids_BL)


@jax.jit(static_argnames='graphdef')
def token_gradient(graphdef, params, tokens_1L, positions, ids, column):
  """|d hidden[column] / d embedding| of each token; tokens must differ."""

  def output(embedding_VD):
    changed = {**params, 'embedding': embedding_VD}
    out_1LD = nnx.merge(graphdef, changed)(tokens_1L, positions, ids)
    # A sum over D would be nearly constant after a norm: use a fixed mix.
    return out_1LD[0, column] @ jnp.arange(1.0, out_1LD.shape[-1] + 1)

  gradient_VD = jax.grad(output)(params['embedding'])
  return jnp.abs(gradient_VD).max(axis=-1)[tokens_1L[0]]


def test_the_shape_of_every_parameter():
  _, shapes = decoder.abstract(EVERYTHING)
  assert {path: leaf.shape for path, leaf in by_path(shapes).items()} == {
    'blocks/attention/k': (2, 8, 2, 6),
    'blocks/attention/k_bias': (2, 2, 6),
    'blocks/attention/k_norm': (2, 6),
    'blocks/attention/o': (2, 4, 6, 8),
    'blocks/attention/q': (2, 8, 4, 6),
    'blocks/attention/q_bias': (2, 4, 6),
    'blocks/attention/q_norm': (2, 6),
    'blocks/attention/v': (2, 8, 2, 6),
    'blocks/attention/v_bias': (2, 2, 6),
    'blocks/attention_norm': (2, 8),
    'blocks/mlp/down': (2, 10, 8),
    'blocks/mlp/gate': (2, 8, 10),
    'blocks/mlp/up': (2, 8, 10),
    'blocks/mlp_norm': (2, 8),
    'embedding': (19, 8),
    'head': (19, 8),
    'norm': (8,),
  }


@pytest.mark.parametrize(
  'changes, count',
  [
    # V D + layers (2 D H A + 2 D N A + 3 D F + 2 D) + D
    (dict(qkv_bias=False), 152 + 2 * (384 + 192 + 240 + 16) + 8),
    # + layers (H A + 2 N A)
    (dict(), 152 + 2 * (384 + 192 + 240 + 16 + 48) + 8),
    # + layers 2 A
    (dict(qk_norm=True), 152 + 2 * (384 + 192 + 240 + 16 + 48 + 12) + 8),
    # + V D
    (dict(tie_embeddings=False), 304 + 2 * (384 + 192 + 240 + 16 + 48) + 8),
  ],
)
def test_the_number_of_parameters(changes, count):
  _, shapes = decoder.abstract(dataclasses.replace(TINY, **changes))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_qwen25_half_billion_has_its_published_size():
  _, shapes = decoder.abstract(QWEN25_05B)
  leaves = jax.tree.leaves(shapes)
  assert sum(math.prod(leaf.shape) for leaf in leaves) == 494_032_768


def test_abstract_and_init_agree():
  graphdef, shapes = decoder.abstract(EVERYTHING)
  init = jax.jit(decoder.init, static_argnums=0)
  params = init(EVERYTHING, jax.random.key(0))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
    lambda x: (x.shape, x.dtype), shapes
  )
  again, _ = nnx.split(nnx.merge(graphdef, params))
  assert again == graphdef and hash(again) == hash(graphdef)


def test_initial_scales():
  config = ModelConfig(vocab_size=512, width=64, layers=8, tie_embeddings=False)
  init = jax.jit(decoder.init, static_argnums=0)
  params = by_path(init(config, jax.random.key(0)))
  H, A, F = config.heads, config.head_size, config.mlp_width
  expected = {
    'embedding': 0.02,
    'head': 64**-0.5,
    'blocks/attention/q': 64**-0.5,
    'blocks/attention/k': 64**-0.5,
    'blocks/attention/v': 64**-0.5,
    'blocks/attention/o': (H * A) ** -0.5 / 4,  # 4 = sqrt(2 layers)
    'blocks/mlp/gate': 64**-0.5,
    'blocks/mlp/up': 64**-0.5,
    'blocks/mlp/down': F**-0.5 / 4,
  }
  for path, scale in expected.items():
    # 32,768 draws or more: 2% is five standard errors of the deviation.
    np.testing.assert_allclose(params[path].std(), scale, rtol=0.02)
  for path in params.keys() - expected.keys():
    assert (params[path] == (0 if path.endswith('_bias') else 1)).all(), path
  q_NDHA = params['blocks/attention/q']
  assert not jnp.allclose(q_NDHA[0], q_NDHA[1]), 'layers share their draws'


def test_a_later_change_of_the_config_leaves_the_graph_alone():
  config = dataclasses.replace(TINY)
  graphdef, _ = decoder.abstract(config)
  before = hash(graphdef)
  config.width = 99
  assert hash(graphdef) == before
  assert graphdef == decoder.abstract(TINY)[0]


@pytest.mark.parametrize('column', [0, 3, 6])
def test_the_future_has_exactly_zero_gradient(column):
  graphdef, params = make(EVERYTHING)
  row = alone([3, 1, 4, 15, 9, 2, 6])
  gradient_L = token_gradient(graphdef, params, *row, column)
  assert (gradient_L[: column + 1] > 0).all()
  assert (gradient_L[column + 1 :] == 0).all()


# Two documents and padding in one row.
FIRST, SECOND = [3, 1, 4, 15], [9, 2, 6]
PACKED = (
  np.array([[3, 1, 4, 15, 9, 2, 6, 0, 0]], np.int32),
  np.array([[0, 1, 2, 3, 0, 1, 2, 0, 0]], np.int32),
  np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]], np.int32),
)


def test_packed_documents_equal_each_alone():
  graphdef, params = make(EVERYTHING)
  packed_1LD = hidden(graphdef, params, *PACKED)
  # Only the order of float32 sums differs; outputs are of order 1.
  near = dict(rtol=0, atol=2e-5)
  for document, columns in ((FIRST, slice(0, 4)), (SECOND, slice(4, 7))):
    alone_1LD = hidden(graphdef, params, *alone(document))
    np.testing.assert_allclose(packed_1LD[:, columns], alone_1LD, **near)


def test_no_gradient_crosses_documents():
  graphdef, params = make(EVERYTHING)
  # The two padding tokens get an id of their own, so that each token differs.
  tokens_1L, positions_1L, ids_1L = PACKED
  tokens_1L = tokens_1L + np.array([[0] * 7 + [7, 8]], np.int32)
  for column, seen in ((3, [0, 1, 2, 3]), (6, [4, 5, 6])):
    gradient_L = token_gradient(
      graphdef, params, tokens_1L, positions_1L, ids_1L, column
    )
    assert np.flatnonzero(gradient_L).tolist() == seen


def test_an_id_outside_the_vocabulary_does_not_pass_silently():
  graphdef, params = make(EVERYTHING)
  good, bad = alone([3, 1, 18, 4]), alone([3, 1, 19, 4])  # V = 19
  rows = [np.concatenate(pair) for pair in zip(good, bad, strict=True)]
  hidden_BLD = hidden(graphdef, params, *rows)
  assert np.isfinite(hidden_BLD[0]).all()
  assert np.isnan(hidden_BLD[1]).all()


def test_padding_is_finite_forward_and_backward():
  graphdef, params = make(EVERYTHING)
  rows = [np.concatenate([part, 0 * part]) for part in PACKED]  # one row empty

  def total(params):
    return jnp.square(hidden(graphdef, params, *rows)).sum()

  value, gradient = jax.value_and_grad(total)(params)
  assert np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


KINDS = {
  'norms before': {},
  'norms both': {'norms': 'both'},
  'windows': {'layer_kinds': ('window', 'full'), 'window': 3},
  'experts': {'experts': 4, 'experts_per_token': 2},
}


REMATS = ('full', 'dots', 'attention', 'q,k,v,attention,o,gate,up,down')


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    *itertools.product(REMATS, ('norms before', 'experts')),
    # What 'dots' and 'attention' keep does not depend on these.
    *itertools.product((REMATS[0], REMATS[-1]), ('norms both', 'windows')),
  ],
)
def test_remat_changes_neither_values_nor_gradients(name, kind):
  config = dataclasses.replace(EVERYTHING, **KINDS[kind])
  graphdef, params = make(config)
  remat, _ = decoder.abstract(dataclasses.replace(config, remat=name))

  def total(params, graphdef):
    return jnp.square(hidden(graphdef, params, *PACKED)[..., :3]).sum()

  def recomputations(graphdef):
    jaxpr = jax.make_jaxpr(jax.grad(total), static_argnums=1)(params, graphdef)
    return len(re.findall(r'\b(?:remat2?|checkpoint)\[', str(jaxpr)))

  # Without this line the comparison could not fail.
  assert recomputations(graphdef) == 0 < recomputations(remat)
  plain = jax.value_and_grad(total)(params, graphdef)
  other = jax.value_and_grad(total)(params, remat)
  # The same sums, fused differently: gradients here are of order 10.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4),
    plain,
    other,
  )


def test_each_remat_policy_keeps_less_between_the_passes():
  """Whole layers; what products with parameters gave; the layer's input."""
  sizes = []
  for name in ('none', 'dots', 'full'):
    graphdef, params = make(dataclasses.replace(EVERYTHING, remat=name))

    def hidden_sum(params, graphdef=graphdef):
      return hidden(graphdef, params, *PACKED).sum()

    _, backward = jax.eval_shape(lambda p: jax.vjp(hidden_sum, p), params)
    sizes.append(sum(leaf.size for leaf in jax.tree.leaves(backward)))
  none, dots, full = sizes
  assert none > dots > full


def test_extending_a_cache_in_pieces_equals_one_pass():
  graphdef, params = make(EVERYTHING)
  model = nnx.merge(graphdef, params)
  tokens_BL = np.array([[3, 1, 4, 15, 9], [2, 6, 5, 3, 5]], np.int32)
  positions_BL = np.tile(np.arange(5, dtype=np.int32), (2, 1))
  expected_BLD = hidden(
    graphdef, params, tokens_BL, positions_BL, np.ones_like(tokens_BL)
  )
  cache = model.empty_cache(jnp.array([0, 2]), columns=8)
  assert cache.k.shape == cache.v.shape == (2, 2, 2, 8, 6)  # layers B N S A
  # Row 1 begins two columns later: its first are padding, whatever it is.
  padded_BL = np.stack([tokens_BL[0], np.append([7, 8], tokens_BL[1, :3])])
  early_BLD, cache = model.extend(padded_BL[:, :3], cache)
  late_BLD, cache = model.extend(padded_BL[:, 3:], cache)
  assert int(cache.size) == 5
  found_BLD = np.concatenate([early_BLD, late_BLD], axis=1)
  assert np.isfinite(found_BLD).all()
  near = dict(rtol=0, atol=2e-5)  # the order of float32 sums
  np.testing.assert_allclose(found_BLD[0], expected_BLD[0], **near)
  np.testing.assert_allclose(found_BLD[1, 2:], expected_BLD[1, :3], **near)


def test_extending_by_layers_equals_the_scan():
  graphdef, params = make(EVERYTHING)
  model = nnx.merge(graphdef, params)
  tokens_BL = np.array([[3, 1, 4], [2, 6, 5]], np.int32)
  cache = model.empty_cache(jnp.array([0, 1]), columns=8)
  expected_BLD, stacked = model.extend(tokens_BL, cache)
  layers = [
    jax.tree.map(operator.itemgetter(n), params['blocks']) for n in range(2)
  ]
  cache = cache._replace(k=tuple(cache.k), v=tuple(cache.v))
  found_BLD, tuples = model.extend(tokens_BL, cache, layers)
  near = dict(rtol=0, atol=1e-6)  # other fusions
  np.testing.assert_allclose(found_BLD, expected_BLD, **near)
  np.testing.assert_allclose(np.stack(tuples.k), stacked.k, **near)
  np.testing.assert_allclose(np.stack(tuples.v), stacked.v, **near)
  assert int(tuples.size) == 3


def test_logits_of_any_leading_shape_and_always_float32():
  config = dataclasses.replace(EVERYTHING, dtype='bfloat16')
  graphdef, params = make(config)
  model = nnx.merge(graphdef, params)
  hidden_1LD = model(*PACKED)
  assert params['embedding'].dtype == jnp.float32
  assert hidden_1LD.dtype == jnp.bfloat16
  logits_1LV = model.logits(hidden_1LD)
  assert logits_1LV.shape == (1, 9, 19) and logits_1LV.dtype == jnp.float32
  one_V = model.logits(hidden_1LD[0, 4])
  assert one_V.shape == (19,)
  # One float32 sum over D, in another order.
  np.testing.assert_allclose(one_V, logits_1LV[0, 4], rtol=1e-5, atol=1e-5)


def test_bfloat16_is_near_float32():
  graphdef, params = make(EVERYTHING)
  half, _ = decoder.abstract(dataclasses.replace(EVERYTHING, dtype='bfloat16'))
  exact_1LD = hidden(graphdef, params, *PACKED)
  half_1LD = hidden(half, params, *PACKED).astype(jnp.float32)
  # 8 significant bits through 2 layers; outputs are of order 1.
  assert jnp.abs(exact_1LD - half_1LD).mean() < 0.03


def test_no_array_of_the_vocabulary_arises_unless_asked_for():
  config = dataclasses.replace(TINY, vocab_size=9_973)
  graphdef, shapes = decoder.abstract(config)
  row = alone(np.arange(32))
  text = str(jax.make_jaxpr(hidden, static_argnums=0)(graphdef, shapes, *row))
  assert '9973,8]' in text  # the embedding
  assert '32,9973]' not in text


ADAPTED = dataclasses.replace(EVERYTHING, param_dtype='int8')
NORMED = dataclasses.replace(TINY, norms='both', qk_norm_all_heads=True)
EXPERTS = dataclasses.replace(
  TINY, experts=4, experts_per_token=2, param_dtype='int8'
)


@pytest.mark.parametrize(
  ('config', 'lora'),
  [
    (TINY, LoraConfig()),
    (EVERYTHING, LoraConfig()),
    (EVERYTHING, LoraConfig(rank=2)),
    (ADAPTED, LoraConfig(rank=2)),
    (NORMED, LoraConfig()),
    (EXPERTS, LoraConfig(rank=2)),
  ],
)
def test_every_parameter_matches_exactly_one_partition_rule(config, lora):
  _, shapes = decoder.abstract(config, lora)
  for path, leaf in by_path(shapes).items():
    for prefix in ('', '0/mu/'):  # as a parameter, as a moment of Adam
      axes = [
        axes
        for regex, axes, *_ in decoder.PARTITION_RULES
        if re.search(regex, prefix + path)
      ]
      assert len(axes) == 1, (prefix + path, axes)
      assert len(axes[0]) == leaf.ndim, (path, axes)
      assert set(axes[0]) <= {
        *('tensor', 'expert', None),
        *(('fsdp', 'context'), ('tensor', 'fsdp', 'context')),
      }


def test_every_partition_rule_is_used():
  paths = {
    path
    for config in (ADAPTED, NORMED, EXPERTS)
    for path in by_path(decoder.abstract(config, LoraConfig(rank=2))[1])
  }
  for regex, *_ in decoder.PARTITION_RULES:
    assert any(re.search(regex, path) for path in paths), regex


def test_the_program_does_not_grow_with_depth():
  """Not with layers of three kinds, nor with experts."""
  config = dataclasses.replace(
    TINY,
    layer_kinds=('window', 'full', 'nope'),
    window=3,
    window_theta=7.0,
    experts=4,
    experts_per_token=2,
  )

  def equations(layers):
    model = dataclasses.replace(config, layers=layers)
    graphdef, shapes = decoder.abstract(model)
    row = alone(np.arange(9))
    jaxpr = jax.make_jaxpr(hidden, static_argnums=0)(graphdef, shapes, *row)
    return str(jaxpr).count(' = ')

  assert equations(3) == equations(24) > 100


def test_the_scale_of_embeddings_is_rounded_to_the_type_of_the_parameters():
  """Gemma 3 1B has sqrt(1,152) = 33.94, which is 34 in bfloat16."""

  def states(param_dtype, scale):
    model = dataclasses.replace(
      TINY, param_dtype=param_dtype, embedding_scale=scale
    )
    graphdef, _ = decoder.abstract(model)
    params = decoder.init(model, jax.random.key(0))
    return np.asarray(hidden(graphdef, params, *alone(np.arange(9))))

  for param_dtype, is_equal in (('bfloat16', True), ('float32', False)):
    exact, rounded = (states(param_dtype, s) for s in (1152**0.5, 34.0))
    assert np.array_equal(exact, rounded) == is_equal
