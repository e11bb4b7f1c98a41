"""Linear maps with int8 kernels and adapters against float64 NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ALL_LINEAR, LORA_TARGETS, LoraConfig, ModelConfig
from isft_jax.models import decoder, projections
from isft_jax.models.projections import KERNELS, Projections

# All axes have sizes of their own.
MODEL = ModelConfig(width=10, heads=6, kv_heads=3, head_size=4, mlp_width=14)
LORA = LoraConfig(rank=5, alpha=7.0)
X_SHAPES = {'D': (10,), 'HA': (6, 4), 'NA': (3, 4), 'F': (14,)}


class One(Projections):
  """A module with one kernel."""

  def __init__(self, config, lora, name, scale=0.3):
    super().__init__(config, lora)
    self.add(nnx.Rngs(0), name, scale)


def random_one(name, lora=LORA, **changes):
  """Returns a module whose A and B are random, and random activations."""
  module = One(dataclasses.replace(MODEL, **changes), lora, name)
  rng = np.random.default_rng(0)
  for end in ('_lora_a', '_lora_b'):
    if hasattr(module, name + end):
      param = getattr(module, name + end)
      param[...] = jnp.asarray(rng.normal(size=param[...].shape), jnp.float32)
  x = rng.normal(size=(2, 3, *X_SHAPES[KERNELS[name][1]]))
  return module, jnp.asarray(x, module.config.dtype)


def parameters(module):
  """Returns {name: (shape, type)} of a module."""
  return {
    path[-1]: (leaf.shape, leaf.dtype.name)
    for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param))
  }


# ------------------------------------------------------------------- parameters

PARAMETERS = [
  # map     kernel       scale    A          B
  ('q', (10, 6, 4), (6, 4), (10, 5), (5, 6, 4)),
  ('k', (10, 3, 4), (3, 4), (10, 5), (5, 3, 4)),
  ('v', (10, 3, 4), (3, 4), (10, 5), (5, 3, 4)),
  ('o', (6, 4, 10), (10,), (6, 4, 5), (5, 10)),
  ('gate', (10, 14), (14,), (10, 5), (5, 14)),
  ('up', (10, 14), (14,), (10, 5), (5, 14)),
  ('down', (14, 10), (10,), (14, 5), (5, 10)),
]


def test_each_name_of_peft_is_a_kernel():
  assert tuple(target for target, *_ in KERNELS.values()) == LORA_TARGETS
  assert [name for name, *_ in PARAMETERS] == [*KERNELS]


@pytest.mark.parametrize(('name', 'kernel', 'scale', 'a', 'b'), PARAMETERS)
def test_parameters_have_these_shapes_and_types(name, kernel, scale, a, b):
  def have(lora, **types):
    return parameters(One(dataclasses.replace(MODEL, **types), lora, name))

  adapter = {f'{name}_lora_a': (a, 'float32'), f'{name}_lora_b': (b, 'float32')}
  none = LoraConfig()
  assert have(none) == {name: (kernel, 'float32')}
  assert have(LORA) == {name: (kernel, 'float32'), **adapter}
  # A and B are in float32, whatever the base is in.
  assert have(LORA, param_dtype='bfloat16') == {
    name: (kernel, 'bfloat16'),
    **adapter,
  }
  int8 = {name: (kernel, 'int8'), f'{name}_scale': (scale, 'float32')}
  assert have(none, param_dtype='int8') == int8
  assert have(LORA, param_dtype='int8') == {**int8, **adapter}


@pytest.mark.parametrize('targets', [('q_proj',), ('o_proj', 'down_proj')])
def test_only_targets_have_an_adapter(targets):
  lora = LoraConfig(rank=2, targets=targets)
  for name, (target, _, _) in KERNELS.items():
    has = set(parameters(One(MODEL, lora, name))) - {name}
    both = {f'{name}_lora_a', f'{name}_lora_b'}
    assert has == (both if target in targets else set())


def test_layers_are_stacked_and_differ():
  """Each layer draws its own A, and each has its own scales."""
  config = dataclasses.replace(MODEL, layers=4, param_dtype='int8')
  params = decoder.init(config, jax.random.key(0), LORA)
  for room, names in (('attention', 'qkvo'), ('mlp', ('gate', 'up', 'down'))):
    for name in names:
      for end in ('', '_scale', '_lora_a', '_lora_b'):
        stack = np.asarray(params['blocks'][room][name + end])
        assert len(stack) == 4
        pairs = itertools.combinations(stack, 2)
        is_one = end == '_lora_b'  # zeros
        assert {np.array_equal(*pair) for pair in pairs} == {is_one}


@pytest.mark.parametrize('name', [*KERNELS])
def test_a_new_a_is_uniform(name):
  """Between -1 / sqrt(in) and its opposite, of variance 1 / (3 in)."""
  a = np.asarray(
    getattr(One(MODEL, LoraConfig(rank=512), name), f'{name}_lora_a')[...],
    np.float64,
  )
  inputs, n = np.prod(X_SHAPES[KERNELS[name][1]]), a.size
  bound = inputs**-0.5
  assert bound * (1 - 20 / n) < np.abs(a).max() <= bound * (1 + 2**-23)
  # The standard deviation of a mean of n squares, and of n values.
  assert abs((a**2).mean() - bound**2 / 3) < 5 * bound**2 * (4 / 45 / n) ** 0.5
  assert abs(a.mean()) < 5 * bound * (3 * n) ** -0.5


@pytest.mark.parametrize('name', [*KERNELS])
def test_a_new_adapter_adds_nothing(name):
  """B is 0, so that the product is that of the kernel, bit for bit."""
  module = One(MODEL, LORA, name)
  plain = One(MODEL, LoraConfig(), name)
  setattr(plain, name, getattr(module, name))
  x = random_one(name)[1]
  np.testing.assert_array_equal(module.project(name, x), plain.project(name, x))
  assert not getattr(module, f'{name}_lora_b')[...].any()


# --------------------------------------------------------------------- products


def reference(module, name, x, lora):
  """Returns x W + scale (x A) B, or (x Q) s + ..., as float64 matrices."""

  def matrix(end, columns):
    param = getattr(module, name + end)[...]
    return np.asarray(param, np.float64).reshape(-1, columns)

  out = X_SHAPES[KERNELS[name][2]]
  columns = int(np.prod(out))
  rows = np.asarray(x, np.float64).reshape(6, -1)
  y = rows @ matrix('', columns)
  if hasattr(module, f'{name}_scale'):
    y *= matrix('_scale', columns)
  if hasattr(module, f'{name}_lora_a'):
    low = rows @ matrix('_lora_a', lora.rank)
    y += lora.scale * low @ matrix('_lora_b', columns)
  return y.reshape(2, 3, *out)


@pytest.mark.parametrize('name', [*KERNELS])
@pytest.mark.parametrize('param_dtype', ['float32', 'bfloat16', 'int8'])
@pytest.mark.parametrize(
  'lora',
  [LoraConfig(), LORA, LoraConfig(rank=4, alpha=3.0, rslora=True)],
  ids=['plain', 'lora', 'rslora'],
)
def test_products_are_those_of_float64(name, param_dtype, lora):
  module, x = random_one(name, lora, param_dtype=param_dtype)
  y = module.project(name, x)
  assert y.dtype == jnp.float32
  expected = reference(module, name, x, lora)
  assert np.abs(expected).max() > 0.5
  # float32 has 6e-8, and the largest sums have tens of terms.
  atol = 2e-6 * np.abs(expected).max()
  np.testing.assert_allclose(y, expected, rtol=0, atol=atol)


@pytest.mark.parametrize('name', [*KERNELS])
@pytest.mark.parametrize('param_dtype', ['float32', 'bfloat16', 'int8'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_narrow_products_keep_the_type_of_x(name, param_dtype, dtype):
  module, x = random_one(name, param_dtype=param_dtype, dtype=dtype)
  y = module.project(name, x)
  assert y.dtype == x.dtype == jnp.dtype(dtype)
  # Factors and three sums are rounded to 8 or 11 bits.
  expected = reference(module, name, x, LORA)
  atol = 4 * float(jnp.finfo(dtype).eps) * np.abs(expected).max()
  np.testing.assert_allclose(
    np.asarray(y, np.float64), expected, rtol=0, atol=atol
  )


@pytest.mark.parametrize('name', [*KERNELS])
@pytest.mark.parametrize('param_dtype', ['float32', 'int8'])
def test_a_plain_kernel_does_the_same(name, param_dtype):
  module, x = random_one(name, param_dtype=param_dtype)
  parts = (
    getattr(module, name + end)[...] if hasattr(module, name + end) else None
    for end in ('', '_scale', '_lora_a', '_lora_b')
  )
  kernel = projections.plain_kernel(name, *parts, LORA)
  assert kernel.dtype == jnp.float32
  plain = One(MODEL, LoraConfig(), name)
  setattr(plain, name, nnx.Param(kernel))
  y = module.project(name, x)
  atol = 1e-5 * float(jnp.abs(y).max())
  np.testing.assert_allclose(plain.project(name, x), y, rtol=0, atol=atol)


def test_the_scale_is_that_of_the_config():
  """y is linear in alpha, and falls with the rank or its root."""
  for rank, alpha, rslora, scale in [
    (4, 0.0, False, 2.0),
    (4, 8.0, False, 2.0),
    (4, 8.0, True, 4.0),
    (16, 1.0, True, 0.25),
  ]:
    lora = LoraConfig(rank=rank, alpha=alpha, rslora=rslora)
    module, x = random_one('up', lora)
    a, b = module.up_lora_a[...], module.up_lora_b[...]
    module.up = nnx.Param(jnp.zeros((10, 14)))
    np.testing.assert_allclose(
      module.project('up', x), scale * (x @ a @ b), rtol=0, atol=1e-5
    )


# ------------------------------------------------------------------------- int8

EXACT = [
  # kernel [in, out]                     Q                        scale
  ([[127.0, 0.0], [-127.0, 0.0]], [[127, 0], [-127, 0]], [1, 1 / 127]),
  ([[254.0, 1.0], [2.0, -1.0]], [[127, 127], [1, -127]], [2, 1 / 127]),
  # A half rounds to the even neighbour.
  ([[63.5, 0.75], [0.25, 63.5]], [[127, 2], [0, 127]], [0.5, 0.5]),
  ([[-63.5, 31.75], [0.75, 0.375]], [[-127, 127], [2, 2]], [0.5, 0.25]),
]


@pytest.mark.parametrize(('kernel', 'integers', 'scale'), EXACT)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_quantised_kernels_are_these(kernel, integers, scale, dtype):
  q, s = projections.quantize(jnp.asarray(kernel, dtype), 1)
  assert (q.dtype, s.dtype) == (jnp.int8, jnp.float32)
  np.testing.assert_array_equal(q, integers)
  np.testing.assert_array_equal(s, np.float32(scale))


@pytest.mark.parametrize('name', [*KERNELS])
@pytest.mark.parametrize('size', [1e-40, 1e-30, 1e-3, 1.0, 1e30])
def test_each_weight_is_within_half_a_step(name, size):
  """|W - Q s| <= s / 2, where a quotient up to 127 is rounded to float32."""
  _, into, out = KERNELS[name]
  shape = (*X_SHAPES[into], *X_SHAPES[out])
  rng = np.random.default_rng(0)
  # Channels of many sizes, and some of zeros.
  channels = 10.0 ** rng.uniform(-4, 4, X_SHAPES[out]) * rng.integers(
    0, 4, X_SHAPES[out]
  )
  kernel = (size * rng.normal(size=shape) * channels).astype(np.float32)
  q, s = projections.quantize(jnp.asarray(kernel), len(X_SHAPES[into]))
  wide = np.asarray(kernel, np.float64)
  scale = np.broadcast_to(np.asarray(s, np.float64), shape)
  error = np.abs(wide - np.asarray(q, np.float64) * scale)
  half = 0.5 + 127 * 2.0**-23
  assert (error <= scale * half).all()
  if size > 1e-40:
    assert np.abs(np.asarray(q, int)).max() == 127
  assert np.isfinite(s).all()
  assert (np.asarray(s) > 0).all()


def test_a_channel_has_its_own_scale():
  kernel = jnp.asarray([[1.0, 100.0, 0.0], [-0.5, 3.0, 0.0]])
  _, s = projections.quantize(kernel, 1)
  np.testing.assert_array_equal(s, np.float32([1, 100, 1]) / np.float32(127))


@pytest.mark.parametrize(
  ('param_dtype', 'dtype', 'expected'),
  [
    ('float32', 'float32', 'float32'),
    ('bfloat16', 'float32', 'bfloat16'),
    ('float32', 'bfloat16', 'float32'),
    ('int8', 'float32', 'float32'),
    ('int8', 'bfloat16', 'bfloat16'),
  ],
)
def test_what_is_never_an_integer_has_this_type(param_dtype, dtype, expected):
  config = dataclasses.replace(MODEL, param_dtype=param_dtype, dtype=dtype)
  assert projections.float_type(config) == jnp.dtype(expected)
  lora = LoraConfig(rank=1, targets=(ALL_LINEAR,))
  _, shapes = decoder.abstract(config, lora)
  assert shapes['embedding'].dtype == jnp.dtype(expected)
  assert shapes['blocks']['attention']['q_bias'].dtype == jnp.dtype(expected)
  assert shapes['blocks']['mlp_norm'].dtype == jnp.dtype(expected)
  assert shapes['blocks']['mlp']['up_lora_a'].dtype == jnp.float32


@pytest.mark.parametrize(
  ('path', 'count'),
  [('blocks/attention/q', 1), ('blocks/attention/o', 2), ('blocks/mlp/up', 1)],
)
def test_input_axes_are_counted(path, count):
  assert projections.count_inputs(path) == count
