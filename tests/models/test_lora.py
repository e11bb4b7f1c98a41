"""Parameters with adapters: split, joined, merged."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from isft_jax.config import LORA_TARGETS, LoraConfig, ModelConfig
from isft_jax.hf.pretrained import Model
from isft_jax.models import decoder, lora
from isft_jax.models.projections import KERNELS

MODEL = ModelConfig(
  vocab_size=32,
  width=10,
  layers=2,
  heads=6,
  kv_heads=3,
  head_size=4,
  mlp_width=14,
)


# Tracing the decoder takes most of the time, and its shapes repeat.
abstract = functools.lru_cache(decoder.abstract)


def random_params(config, settings, seed=0, scale=1.0):
  """Returns parameters that are random throughout, B too."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    if leaf.dtype == jnp.int8:
      return jnp.asarray(rng.integers(-127, 128, leaf.shape), jnp.int8)
    # Steps of an int8 kernel are as small as its weights / 127.
    size = scale / 127 if path[-1].key.endswith('_scale') else scale
    return jnp.asarray(size * rng.normal(size=leaf.shape), leaf.dtype)

  _, shapes = abstract(config, settings)
  return jax.tree_util.tree_map_with_path(draw, shapes)


def paths(tree):
  return sorted(flatten_dict(tree, sep='/'))


# --------------------------------------------------------------- split and join


def test_adapters_and_base_are_these():
  attention = {'q': 1, 'q_lora_a': 2, 'q_lora_b': 3, 'q_scale': 4, 'q_bias': 5}
  params = {
    'embedding': 6,
    'blocks': {'attention': attention, 'mlp': {'up': 7}, 'mlp_norm': 8},
  }
  adapters = {'blocks': {'attention': {'q_lora_a': 2, 'q_lora_b': 3}}}
  base = {
    'embedding': 6,
    'blocks': {
      'attention': {'q': 1, 'q_scale': 4, 'q_bias': 5},
      'mlp': {'up': 7},
      'mlp_norm': 8,
    },
  }
  assert lora.split(params) == (adapters, base)
  assert lora.join(base, adapters) == params
  # Neither changes what it is given.
  assert len(attention) == 5
  assert 'q_lora_a' not in base['blocks']['attention']


def test_without_adapters_all_is_base():
  params = {'embedding': 1, 'blocks': {'mlp': {'up': 2}}}
  assert lora.split(params) == ({}, params)
  assert lora.join(params, {}) == params
  # No base: all parameters learn.
  assert lora.join((), params) == params


@pytest.mark.parametrize('targets', [LORA_TARGETS, ('v_proj', 'down_proj')])
@pytest.mark.parametrize('param_dtype', ['float32', 'int8'])
def test_joining_undoes_splitting(targets, param_dtype):
  config = ModelConfig(**{**vars(MODEL), 'param_dtype': param_dtype})
  settings = LoraConfig(rank=2, targets=targets)
  _, shapes = abstract(config, settings)
  adapters, base = lora.split(shapes)
  assert lora.join(base, adapters) == shapes
  rooms = {name: 'attention' for name in 'qkvo'}
  assert paths(adapters) == sorted(
    f'blocks/{rooms.get(name, "mlp")}/{name}_lora_{end}'
    for name, (target, _, _) in KERNELS.items()
    if target in targets
    for end in 'ab'
  )
  # The base is the model without adapters.
  assert base == abstract(config, LoraConfig())[1]


# ------------------------------------------------------------------------ merge

LORAS = [
  LoraConfig(rank=3, alpha=4.5),
  LoraConfig(rank=2, targets=('q_proj', 'o_proj', 'up_proj'), rslora=True),
]


def merged_by_numpy(params, settings):
  """Returns W' = Q s + scale A B of each kernel, in float64."""
  leaves = {
    path: np.asarray(x, np.float64)
    for path, x in flatten_dict(params, sep='/').items()
  }
  plain = {}
  for path, x in leaves.items():
    if path.endswith(('_scale', '_lora_a', '_lora_b')):
      continue
    if path + '_scale' in leaves:
      s = leaves[path + '_scale']
      # Between the layers and the outputs are axes of inputs.
      inputs = (1,) * (x.ndim - s.ndim)
      x = x * s.reshape(s.shape[:1] + inputs + s.shape[1:])
    if path + '_lora_a' in leaves:
      layers, r = len(x), settings.rank
      a = leaves[path + '_lora_a'].reshape(layers, -1, r)
      b = leaves[path + '_lora_b'].reshape(layers, r, -1)
      x = x + settings.scale * (a @ b).reshape(x.shape)
    plain[path] = x
  return plain


@pytest.mark.parametrize('settings', LORAS, ids=['all', 'some'])
@pytest.mark.parametrize('param_dtype', ['float32', 'bfloat16', 'int8'])
def test_merged_kernels_are_those_of_float64(settings, param_dtype):
  config = ModelConfig(**{**vars(MODEL), 'param_dtype': param_dtype})
  params = random_params(config, settings)
  merged = flatten_dict(lora.merge(params, settings, 'float32'), sep='/')
  plain = ModelConfig(**{**vars(MODEL), 'param_dtype': 'float32'})
  shapes = flatten_dict(abstract(plain, LoraConfig())[1], sep='/')
  expected = merged_by_numpy(params, settings)
  assert sorted(merged) == sorted(shapes) == sorted(expected)
  for path, x in merged.items():
    assert (x.shape, x.dtype) == (shapes[path].shape, jnp.float32)
    # At most r + 3 roundings of 6e-8.
    atol = 4e-7 * np.abs(expected[path]).max()
    np.testing.assert_allclose(
      x, expected[path], rtol=0, atol=atol, err_msg=path
    )


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_narrow_result_is_rounded_once(dtype):
  """The sum is in float32: a small A B is not lost in a bfloat16 kernel."""
  config = ModelConfig(**{**vars(MODEL), 'param_dtype': dtype})
  params = random_params(config, LORAS[0])
  wide = lora.merge(params, LORAS[0], 'float32')
  narrow = lora.merge(params, LORAS[0], dtype)
  # At most half a step of the type, and what two float32 sums may differ by.
  half = float(jnp.finfo(dtype).eps) / 2 + 1e-6
  for x, y in zip(jax.tree.leaves(wide), jax.tree.leaves(narrow), strict=True):
    assert y.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(y.astype(jnp.float32), x, rtol=half, atol=0)


def test_an_int8_base_computes_what_its_dequantised_one_does():
  config = ModelConfig(**{**vars(MODEL), 'param_dtype': 'int8'})
  params = random_params(config, LoraConfig())
  merged = lora.merge(params, LoraConfig(), 'float32')
  tokens_BL = np.random.default_rng(0).integers(0, 32, (2, 9))
  y = np.asarray(Model(abstract(config, LoraConfig())[0], params)(tokens_BL))
  plain = Model(abstract(MODEL, LoraConfig())[0], merged)
  np.testing.assert_allclose(
    plain(tokens_BL), y, rtol=0, atol=1e-5 * np.abs(y).max()
  )


@pytest.mark.parametrize('param_dtype', ['float32', 'bfloat16', 'int8'])
def test_without_adapters_a_merge_dequantises_only(param_dtype):
  config = ModelConfig(**{**vars(MODEL), 'param_dtype': param_dtype})
  params = random_params(config, LoraConfig())
  merged = flatten_dict(lora.merge(params, LoraConfig(), 'float32'), sep='/')
  leaves = flatten_dict(params, sep='/')
  for path, x in merged.items():
    plain = np.asarray(leaves[path], np.float32)
    if path + '_scale' in leaves:
      s = np.asarray(leaves[path + '_scale'])
      inputs = (1,) * (plain.ndim - s.ndim)
      plain = plain * s.reshape(s.shape[:1] + inputs + s.shape[1:])
    np.testing.assert_array_equal(x, plain, err_msg=path)


def test_a_new_adapter_merges_to_its_base():
  """If B is 0, merging changes no bit."""
  settings = LoraConfig(rank=4)
  params = random_params(MODEL, settings)
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: x * (not path[-1].key.endswith('_lora_b')), params
  )
  merged = lora.merge(params, settings, 'float32')
  _, base = lora.split(params)
  jax.tree.map(np.testing.assert_array_equal, merged, base)


@pytest.mark.parametrize('settings', LORAS, ids=['all', 'some'])
@pytest.mark.parametrize('param_dtype', ['float32', 'int8'])
def test_a_merged_model_computes_the_same(settings, param_dtype):
  """So an int8 base, with or without adapters, is its dequantised base."""
  config = ModelConfig(**{**vars(MODEL), 'param_dtype': param_dtype})
  params = random_params(config, settings, scale=0.3)
  tokens_BL = np.random.default_rng(0).integers(0, 32, (2, 9))
  with_adapters = Model(abstract(config, settings)[0], params)
  merged = lora.merge(params, settings, 'float32')
  plain = Model(abstract(MODEL, LoraConfig())[0], merged)
  y = np.asarray(with_adapters(tokens_BL))
  np.testing.assert_allclose(
    plain(tokens_BL), y, rtol=0, atol=1e-5 * np.abs(y).max()
  )
  base = Model(abstract(config, LoraConfig())[0], lora.split(params)[1])
  assert np.abs(base(tokens_BL) - y).max() > 0.01 * np.abs(y).max()


# --------------------------------------------------------------------- experts

EXPERTS = dataclasses.replace(
  MODEL, experts=3, experts_per_token=2, param_dtype='int8'
)


def test_experts_have_no_adapters_as_in_peft():
  settings = LoraConfig(rank=2)
  attention = ('q_proj', 'k_proj', 'v_proj', 'o_proj')
  assert lora.map_names(settings, EXPERTS) == attention
  assert lora.map_names(settings, MODEL) == LORA_TARGETS
  adapters, _ = lora.split(abstract(EXPERTS, settings)[1])
  assert paths(adapters) == sorted(
    f'blocks/attention/{name[0]}_lora_{part}'
    for name in attention
    for part in 'ab'
  )
  with pytest.raises(ValueError, match='targets has up_proj, but the MLP of'):
    decoder.abstract(EXPERTS, LoraConfig(rank=2, targets=('q_proj,up_proj',)))


def test_experts_of_int8_are_merged_each_with_its_scales():
  params = random_params(EXPERTS, LoraConfig(rank=2))
  stored = params['blocks']['experts']
  plain = lora.merge(params, LoraConfig(rank=2), 'float32')['blocks']['experts']
  assert plain.keys() == {'router', 'gate', 'up', 'down'}
  for name in ('gate', 'up', 'down'):
    kernels = np.asarray(stored[name], np.float32)
    scales = np.asarray(stored[name + '_scale'])[:, :, None]
    np.testing.assert_array_equal(plain[name], kernels * scales)
