"""The TPU's kernel, run on CPU, is the plain products: values and gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas.ops.tpu import splash_attention as kernels
from jax.sharding import NamedSharding, PartitionSpec

from isft_jax import column_order, sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.models import attention, decoder, splash_attention

interpreted = functools.partial(
  splash_attention.splash_attention, interpret=True
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
  """(mixed_BLHA, (dq, dk, dv) of its weighted sum)."""
  mixed_BLHA, pull = jax.vjp(lambda *qkv: attend(*qkv, ids_BL), *arrays)
  return mixed_BLHA, pull(weights_BLHA)


@pytest.mark.parametrize(
  ('L', 'H', 'N', 'A'),
  [
    (192, 7, 1, 128),
    (256, 2, 2, 32),
    (640, 2, 1, 64),  # two blocks
  ],
)
def test_values_and_gradients_are_those_of_plain_products(L, H, N, A):
  arrays, ids_BL = heads(2, L, H, N, A), documents(L)
  weights_BLHA = draw(3, 2, L, H, A)
  got = value_and_gradients(interpreted, arrays, weights_BLHA, ids_BL)
  expected = value_and_gradients(
    attention.packed_attention, arrays, weights_BLHA, ids_BL
  )
  # float32 sums of up to 640 terms of about 1, in another order
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize(
  ('L', 'window'), [(192, 50), (640, 1), (640, 400), (192, 999)]
)
def test_a_window_is_that_of_plain_products(L, window):
  arrays, ids_BL = heads(2, L, 2, 1, 32), documents(L)
  weights_BLHA = draw(3, 2, L, 2, 32)
  expected = value_and_gradients(
    functools.partial(
      attention.packed_attention, scale=0.3, windows=(0, window), which=1
    ),
    *(arrays, weights_BLHA, ids_BL),
  )
  got = value_and_gradients(
    functools.partial(interpreted, scale=0.3, window=window),
    *(arrays, weights_BLHA, ids_BL),
  )
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


def test_no_gradient_crosses_documents_or_goes_back_in_time():
  L, first, last = 192, 60, 100
  document_L = np.repeat([1, 2, 3], [first, 90, 42])
  # Only the second document's outputs up to column `last` are asked for.
  weights_BLHA = draw(3, 1, L, 2, 32).at[:, :first].set(0).at[:, last:].set(0)
  _, gradients = value_and_gradients(
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
  arrays, ids_BL = heads(4, 128, 4, 2, 32), documents(128)
  ids_BL = jnp.concatenate([ids_BL, ids_BL[::-1] + 1])
  weights_BLHA = draw(3, 4, 128, 4, 32)
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
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(whole), strict=True):
    assert x.sharding.is_equivalent_to(split, 4)
    np.testing.assert_allclose(x, y, atol=1e-6)


@pytest.mark.parametrize(
  ('sizes', 'L', 'window'),
  [
    ((2, 1, 1, 1, 2), 512, 0),
    ((1, 1, 2, 1, 4), 1024, 0),
    ((2, 1, 1, 1, 2), 1024, 300),  # blocks of 256 columns
  ],
)
def test_a_mesh_may_split_the_columns_of_a_row(sizes, L, window):
  """Every part of a row on another device, with documents across them."""
  mesh = sharding.make_mesh(
    MeshConfig(*sizes), jax.devices()[: math.prod(sizes)]
  )
  context = sizes[-1]
  arrays, ids_BL = heads(2, L, 4, 2, 32), documents(L)
  weights_BLHA = draw(3, 2, L, 4, 32)
  whole = value_and_gradients(
    functools.partial(attention.packed_attention, windows=(window,)),
    *(arrays, weights_BLHA, ids_BL),
  )

  def on_mesh(*arguments):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return interpreted(*arguments, window=window)

  columns = column_order.columns(L, context)
  split = NamedSharding(
    mesh,
    PartitionSpec(('data', 'fsdp', 'expert'), 'context', 'tensor', None),
  )
  in_places = jax.tree.map(lambda x: x[:, columns], (arrays, weights_BLHA))
  got = value_and_gradients(
    on_mesh,
    *jax.device_put(in_places, split),
    jax.device_put(ids_BL[:, columns], sharding.batch_sharding(mesh)),
  )
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(whole), strict=True):
    assert x.sharding.is_equivalent_to(split, 4)
    # float32 sums of up to 1,024 terms of about 1, in another order
    np.testing.assert_allclose(x, y[:, columns], atol=1e-5)


def test_every_device_computes_as_many_blocks_as_any_other():
  kernel = splash_attention._kernel(4096, 2, 0, 4, interpret=True)
  for info in (kernel.fwd_mask_info, kernel.dq_mask_info):
    blocks = np.asarray(info.block_mask).reshape(4, -1)
    counts = (blocks != 0).sum(axis=1)
    assert len(set(counts)) == 1, counts
    # Blocks on and below the diagonal of the row, and no other.
    assert counts.sum() * 512**2 == splash_attention.count_pairs(4096)


@pytest.mark.parametrize(
  ('L', 'window', 'devices'),
  [(640, 0, 1), (1024, 300, 1), (1024, 1, 2), (2048, 0, 4), (2048, 700, 2)],
)
def test_the_blocks_are_those_of_the_masks_of_the_library(L, window, devices):
  kernel = splash_attention._kernel(L, 2, window, devices, interpret=True)
  shape = kernel.fwd_mask_info.q_sequence.shape * 2  # whole blocks
  mask = (
    kernels.LocalMask(shape, window_size=(window - 1, 0), offset=0)
    if window
    else kernels.CausalMask(shape)
  )
  mask.q_sequence = column_order.columns(shape[0], devices)
  expected = kernels.make_splash_mha(
    kernels.MultiHeadMask([mask] * 2),
    block_sizes=kernel.kwargs['block_sizes'],
    head_shards=1,
    q_seq_shards=devices,
  )
  for x, y in zip(
    jax.tree.leaves(kernel), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(x, y)


def test_columns_that_do_not_divide_over_the_mesh_are_an_error():
  mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, context=4))
  q, k, v = heads(2, 1152, 2, 2, 32)
  with (
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    pytest.raises(
      ValueError,
      match=r'seq_len=1152 .*context=4 .* multiple of 1024, such as 2048',
    ),
  ):
    jax.eval_shape(interpreted, q, k, v, jnp.ones((2, 1152), int))


def test_rows_that_do_not_divide_over_the_mesh_are_an_error():
  mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2))
  q, k, v = heads(4, 128, 2, 2, 32)
  with (
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    pytest.raises(ValueError, match=r'4 rows .*\.data=4 x .*\.fsdp=2 and'),
  ):
    jax.eval_shape(interpreted, q, k, v, jnp.ones((4, 128), int))


def test_a_decoder_of_recomputed_layers_uses_the_kernel(monkeypatch):
  monkeypatch.setattr(attention, 'splash_attention', interpreted)
  shape = {
    **{'vocab_size': 32, 'width': 16, 'layers': 2, 'heads': 2, 'kv_heads': 1},
    **{'head_size': 8, 'mlp_width': 16, 'qkv_bias': False, 'remat': 'full'},
    # One kernel for each window; the number of a layer chooses.
    **{'layer_kinds': ('full', 'window'), 'window': 9},
  }
  tokens_BL = jax.random.randint(jax.random.key(1), (2, 128), 0, 32)
  positions_BL = jnp.tile(jnp.arange(128), (2, 1))
  weights_BLD = draw(3, 2, 128, 16) / 1000  # gradients of about 1
  init = jax.jit(decoder.init, static_argnums=0)
  params = init(ModelConfig(**shape), jax.random.key(0))

  def gradients(kind):
    graphdef, _ = decoder.abstract(ModelConfig(**shape, attention=kind))

    @jax.grad
    def gradient(params):
      model = nnx.merge(graphdef, params)
      hidden_BLD = model(tokens_BL, positions_BL, documents(128))
      return (hidden_BLD * weights_BLD).sum()

    traced = jax.jit(gradient).trace(params)
    return str(traced.jaxpr), traced.lower().compile()(params)

  kernel, got = gradients('splash')
  products, expected = gradients('xla')
  assert 'pallas_call' in kernel and 'pallas_call' not in products
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    # float32 sums in another order, through two layers
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize(
  ('length', 'expected'),
  [
    (1, (1, 128)),
    (128, (1, 128)),
    (192, (1, 256)),
    (512, (1, 512)),
    (513, (2, 384)),
    (640, (2, 384)),
    (2048, (4, 512)),
    (32_768, (64, 512)),
  ],
)
def test_blocks_of_a_row(length, expected):
  assert splash_attention.blocks(length) == expected


@pytest.mark.parametrize('window', [1, 2, 511, 512, 513, 514, 1025, 2048, 0])
def test_the_blocks_of_a_window_are_those_with_a_visible_pair(window):
  """Of a row of 2,048 tokens: 4 blocks of 512."""
  columns_L = np.arange(2048)
  mask_LL = columns_L[:, None] >= columns_L
  if window:
    mask_LL &= columns_L[:, None] < columns_L + window
  blocks = mask_LL.reshape(4, 512, 4, 512).any((1, 3)).sum()
  assert splash_attention.count_pairs(2048, window) == blocks * 512**2
