"""The GPU's kernels, emulated on the CPU: values, gradients, what they skip."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import (
  AbstractDevice,
  AbstractMesh,
  AxisType,
  NamedSharding,
  PartitionSpec,
)

from isft_jax import axes, sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.models import attention, decoder, triton_attention

interpreted = functools.partial(
  triton_attention.triton_attention, interpret=True
)


def draw(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def heads(B, L, H, N, A):
  """Random (q_BLHA, k_BLNA, v_BLNA)."""
  return draw(0, B, L, H, A), draw(1, B, L, N, A), draw(2, B, L, N, A)


def documents(L):
  """Ids of two packed rows: documents of 1 token up to half, then padding."""
  lengths = [1, 2, L // 2, 1, L // 4]
  row = np.repeat([1, 2, 3, 4, 5], lengths)
  row_L = np.pad(row, (0, L - len(row)))
  return jnp.asarray([row_L, row_L[::-1]], jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(attend, arrays, weights_BLHA, ids_BL):
  """[mixed_BLHA, dq, dk, dv of its weighted sum]."""
  mixed_BLHA, pull = jax.vjp(lambda *qkv: attend(*qkv, ids_BL), *arrays)
  return [mixed_BLHA, *pull(weights_BLHA)]


def reference(arrays, weights_BLHA, ids_BL, scale, window=0):
  """The same in float64, with NumPy."""
  q, k, v, d = (np.asarray(x, np.float64) for x in (*arrays, weights_BLHA))
  B, L, H, _ = q.shape
  group = H // k.shape[2]
  mixed, dq, dk, dv = (np.zeros_like(x) for x in (q, q, k, v))
  columns_L = np.arange(L)
  distance_LL = columns_L[:, None] - columns_L
  seen_LL = (distance_LL >= 0) & (distance_LL < (window or L))
  for b, h in itertools.product(range(B), range(H)):
    n = h // group
    ids_L = np.asarray(ids_BL[b])
    scores_LL = np.where(
      seen_LL & (ids_L[:, None] == ids_L),
      q[b, :, h] @ k[b, :, n].T * scale,
      -np.inf,
    )
    weights_LL = np.exp(scores_LL - scores_LL.max(1, keepdims=True))
    weights_LL /= weights_LL.sum(1, keepdims=True)
    mixed[b, :, h] = weights_LL @ v[b, :, n]
    d_weights_LL = d[b, :, h] @ v[b, :, n].T
    mean_L1 = (weights_LL * d_weights_LL).sum(1, keepdims=True)
    d_scores_LL = weights_LL * (d_weights_LL - mean_L1) * scale
    dq[b, :, h] = d_scores_LL @ k[b, :, n]
    dk[b, :, n] += d_scores_LL.T @ q[b, :, h]
    dv[b, :, n] += weights_LL.T @ d[b, :, h]
  return [mixed, dq, dk, dv]


SHAPES = [
  # L, H, N, A
  (70, 6, 2, 64),  # padded to three blocks of 32
  (96, 2, 1, 128),
  (33, 3, 3, 10),  # heads are padded to 16
]


@pytest.mark.parametrize(
  ('L', 'H', 'N', 'A', 'scale', 'window'),
  [
    *((*shape, None, 0) for shape in SHAPES),
    (*SHAPES[0], 0.3, 20),
    (*SHAPES[2], None, 1),
  ],
)
def test_float32_is_float64_to_its_precision(L, H, N, A, scale, window):
  arrays, ids_BL = heads(2, L, H, N, A), documents(L)
  weights_BLHA = draw(3, 2, L, H, A)
  got = value_and_gradients(
    functools.partial(interpreted, scale=scale, window=window),
    *(arrays, weights_BLHA, ids_BL),
  )
  expected = reference(arrays, weights_BLHA, ids_BL, scale or A**-0.5, window)
  for name, x, y in zip(('mixed', *'qkv'), got, expected, strict=True):
    # sums of up to 128 terms of about 1
    np.testing.assert_allclose(x, y, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(('L', 'H', 'N', 'A'), SHAPES[:2])
def test_bfloat16_is_about_as_near_to_float64_as_products_of_jax(L, H, N, A):
  narrow = [
    x.astype(jnp.bfloat16) for x in (*heads(2, L, H, N, A), draw(3, 2, L, H, A))
  ]
  arguments = tuple(narrow[:3]), narrow[3], documents(L)
  expected = reference(*arguments, A**-0.5)

  def errors(attend):
    return [
      np.sqrt(np.mean((np.asarray(x, np.float64) - y) ** 2))
      for x, y in zip(
        value_and_gradients(attend, *arguments), expected, strict=True
      )
    ]

  def products(q_BLHA, k_BLNA, v_BLNA, segment_ids_BL):
    same_BLL = segment_ids_BL[:, :, None] == segment_ids_BL[:, None]
    return jax.nn.dot_product_attention(
      q_BLHA, k_BLNA, v_BLNA, mask=same_BLL[:, None], is_causal=True
    )

  got, plain = errors(interpreted), errors(products)
  # Gradients of q and k also use the mixed values, which are rounded: their
  # errors are 1.2 times those of products.
  for name, x, y in zip(('mixed', *'qkv'), got, plain, strict=True):
    assert x <= 1.3 * y, name


@pytest.mark.parametrize(
  ('ids', 'window', 'first', 'end'),
  [
    # One document: all earlier blocks of keys, all later blocks of queries.
    ([1] * 12, 0, [0, 0, 0], [3, 3, 3]),
    # The first query of block 2 sees 8, 7, ...: the window ends in block 1.
    ([1] * 12, 5, [0, 0, 1], [2, 3, 3]),
    ([1] * 12, 6, [0, 0, 0], [3, 3, 3]),
    # A document per block.
    ([1] * 4 + [2] * 4 + [0] * 4, 0, [0, 1, 2], [1, 2, 3]),
    # The second document is in all blocks; the first is not in the last.
    ([1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 0], 0, [0, 0, 0], [3, 3, 3]),
    ([1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 0], 0, [0, 0, 2], [2, 2, 3]),
  ],
)
def test_blocks_that_are_visited(ids, window, first, end):
  """Blocks of 4 columns."""
  got = triton_attention._visited(jnp.asarray([ids]), 4, window)
  assert [x.tolist() for x in got] == [[first], [end]]


def test_other_documents_are_not_even_read():
  q, k, v = heads(1, 128, 2, 1, 16)
  ids_1L = jnp.repeat(jnp.array([1, 2]), 64)[None]
  # Any product with nan is nan, also one with a weight of 0.
  k, v = (x.at[:, :64].set(jnp.nan) for x in (k, v))
  weights_1LHA = draw(3, 1, 128, 2, 16).at[:, :64].set(0)
  mixed, dq, dk, dv = value_and_gradients(
    interpreted, (q, k, v), weights_1LHA, ids_1L
  )
  for x in (mixed, dq, dk, dv):
    assert jnp.isfinite(x[:, 64:]).all()


def test_no_gradient_crosses_documents_or_goes_back_in_time():
  L, first, last = 192, 60, 100
  document_L = np.repeat([1, 2, 3], [first, 90, 42])
  # Only the second document's outputs up to column `last` are asked for.
  weights_BLHA = draw(3, 1, L, 2, 32).at[:, :first].set(0).at[:, last:].set(0)
  _, *gradients = value_and_gradients(
    interpreted,
    heads(1, L, 2, 1, 32),
    weights_BLHA,
    jnp.asarray(document_L[None], jnp.int32),
  )
  for name, d_BLNA in zip('qkv', gradients, strict=True):
    moved_L = np.asarray(jnp.abs(d_BLNA).max((0, 2, 3)))
    assert (moved_L[:first] == 0).all(), name
    assert (moved_L[last:] == 0).all(), name
    # The first query of a document sees one key: its softmax is constant.
    inside_L = moved_L[first + (name == 'q') : last]
    assert (inside_L > 0).all(), name


def test_a_mesh_splits_rows_and_heads_and_changes_nothing():
  mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, expert=2, tensor=2))
  arrays, ids_BL = heads(4, 64, 4, 2, 16), documents(64)
  ids_BL = jnp.concatenate([ids_BL, ids_BL[::-1] + 1])
  weights_BLHA = draw(3, 4, 64, 4, 16)
  whole = value_and_gradients(interpreted, arrays, weights_BLHA, ids_BL)

  def on_mesh(*arguments):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return interpreted(*arguments)

  split = NamedSharding(
    mesh, PartitionSpec(('data', 'fsdp', 'expert'), None, 'tensor', None)
  )
  got = value_and_gradients(
    on_mesh,
    *jax.device_put((arrays, weights_BLHA), split),
    jax.device_put(ids_BL, sharding.batch_sharding(mesh)),
  )
  for x, y in zip(got, whole, strict=True):
    assert x.sharding.is_equivalent_to(split, 4)
    np.testing.assert_allclose(x, y, atol=1e-6)


def test_rows_that_do_not_divide_over_the_mesh_are_an_error():
  mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2))
  q, k, v = heads(4, 32, 2, 2, 16)
  with (
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    pytest.raises(ValueError, match=r'4 rows .*\.data=4 x .*\.fsdp=2 and'),
  ):
    jax.eval_shape(interpreted, q, k, v, jnp.ones((4, 32), int))


def test_columns_that_are_split_are_an_error():
  mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=4, context=2))
  q, k, v = heads(4, 32, 2, 2, 16)
  with (
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    pytest.raises(ValueError, match=r'context=2; set config.model.attention='),
  ):
    jax.eval_shape(interpreted, q, k, v, jnp.ones((4, 32), int))


def sub_jaxprs(value):
  if hasattr(value, 'jaxpr'):
    yield value.jaxpr
  elif hasattr(value, 'eqns'):
    yield value
  elif isinstance(value, (tuple, list)):
    for each in value:
      yield from sub_jaxprs(each)


def largest_array(jaxpr):
  """Elements of the largest array in a program, those of its kernels too."""
  sizes = [0]
  for equation in jaxpr.eqns:
    sizes += [getattr(var.aval, 'size', 0) for var in equation.outvars]
    for value in equation.params.values():
      sizes += [largest_array(inner) for inner in sub_jaxprs(value)]
  return max(sizes)


def step_of(attend, L):
  """Traces values and gradients of one row of two heads of 32."""
  shapes = [
    jax.ShapeDtypeStruct((1, L, heads, 32), jnp.bfloat16)
    for heads in (2, 1, 1, 2)
  ]
  ids_1L = jax.ShapeDtypeStruct((1, L), jnp.int32)
  *qkv, weights = shapes
  return value_and_gradients.trace(attend, tuple(qkv), weights, ids_1L)


def test_no_array_grows_with_the_square_of_the_length():
  """The largest is that of the queries; xla has scores."""
  kernel = largest_array(step_of(interpreted, 4096).jaxpr.jaxpr)
  assert kernel == 4096 * 2 * 32
  plain = largest_array(step_of(attention.packed_attention, 4096).jaxpr.jaxpr)
  assert plain >= 4096**2


def test_it_lowers_for_a_gpu():
  """The three kernels, to the code that a GPU's driver compiles."""
  mesh = AbstractMesh(
    (1,) * len(axes.AXES),
    axes.AXES,
    axis_types=(AxisType.Auto,) * len(axes.AXES),
    abstract_device=AbstractDevice('NVIDIA H100', None, 'gpu'),
  )
  with jax.sharding.use_abstract_mesh(mesh):
    step = step_of(triton_attention.triton_attention, 256)
    text = step.lower(lowering_platforms=('cuda',)).as_text()
  for name in ('forward_kernel', 'dq_kernel', 'dkv_kernel'):
    assert f'name = "{name}"' in text


def test_a_decoder_of_recomputed_layers_uses_the_kernels(monkeypatch):
  monkeypatch.setattr(attention, 'triton_attention', interpreted)
  shape = {
    **{'vocab_size': 32, 'width': 16, 'layers': 2, 'heads': 2, 'kv_heads': 1},
    **{'head_size': 8, 'mlp_width': 16, 'qkv_bias': False, 'remat': 'full'},
    # One kernel for each window; the number of a layer chooses.
    **{'layer_kinds': ('full', 'window'), 'window': 9},
  }
  tokens_BL = jax.random.randint(jax.random.key(1), (2, 64), 0, 32)
  positions_BL = jnp.tile(jnp.arange(64), (2, 1))
  weights_BLD = draw(3, 2, 64, 16) / 1000  # gradients of about 1
  init = jax.jit(decoder.init, static_argnums=0)
  params = init(ModelConfig(**shape), jax.random.key(0))

  def gradients(kind):
    graphdef, _ = decoder.abstract(ModelConfig(**shape, attention=kind))

    @jax.grad
    def gradient(params):
      model = nnx.merge(graphdef, params)
      hidden_BLD = model(tokens_BL, positions_BL, documents(64))
      return (hidden_BLD * weights_BLD).sum()

    traced = jax.jit(gradient).trace(params)
    return str(traced.jaxpr), traced.lower().compile()(params)

  kernel, got = gradients('triton')
  products, expected = gradients('xla')
  assert 'pallas_call' in kernel and 'pallas_call' not in products
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    # float32 sums in another order, through two layers
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize(
  ('length', 'head_size', 'dtype', 'window', 'blocks', 'size'),
  [
    (256, 64, 'bfloat16', 0, 1 + 2 + 3 + 4, 64),
    (250, 128, 'bfloat16', 0, 1 + 2 + 3 + 4, 64),
    (128, 64, 'float32', 0, 1 + 2 + 3 + 4, 32),
    (256, 64, 'bfloat16', 1, 1 + 1 + 1 + 1, 64),
    (256, 64, 'bfloat16', 65, 1 + 2 + 2 + 2, 64),
    (256, 64, 'bfloat16', 66, 1 + 2 + 3 + 3, 64),
  ],
)
def test_pairs_of_a_document(length, head_size, dtype, window, blocks, size):
  counted = triton_attention.count_pairs(length, head_size, dtype, window)
  assert counted == blocks * size**2
