"""The look-up in parts is the look-up, forward and back, on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from isft_jax import sharding
from isft_jax.config import MeshConfig
from isft_jax.models.sharded_embedding import look_up
from isft_jax.tpu import collectives as collectives_lib

V, D = 24, 16
MESHES = [  # data, fsdp, tensor, expert, context
  *((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (4, 1, 2)),
  *((1, 1, 1, 8), (1, 2, 2, 2)),
  *((1, 2, 1, 1, 4), (2, 1, 2, 1, 2)),
]


def on(mesh, function):
  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  where = (
    NamedSharding(mesh, PartitionSpec('tensor', ('fsdp', 'context'))),
    sharding.batch_sharding(mesh),
  )
  return jax.jit(traced, in_shardings=where)


def weighted_sum(table_VD, tokens_BL):
  """Every entry with a weight of its own."""
  x_BLD = look_up(table_VD, tokens_BL, 'float32')
  return jnp.sum(x_BLD * jnp.arange(x_BLD.size).reshape(x_BLD.shape))


@pytest.fixture(scope='module')
def table_VD():
  return np.arange(V * D, dtype=np.float32).reshape(V, D)


@pytest.fixture(scope='module')
def tokens_BL():
  """The first and last id, and one that repeats in a row and across rows."""
  tokens_BL = np.random.default_rng(0).integers(0, V, (8, 8), np.int32)
  tokens_BL[:, 0], tokens_BL[:, 1], tokens_BL[:, 2:4] = 0, V - 1, 7
  return tokens_BL


@pytest.mark.parametrize('sizes', MESHES)
def test_every_row_is_its_own_and_so_is_its_gradient(
  sizes, table_VD, tokens_BL
):
  mesh = sharding.make_mesh(MeshConfig(*sizes))
  found = on(mesh, lambda *args: look_up(*args, 'float32'))(table_VD, tokens_BL)
  np.testing.assert_array_equal(found, table_VD[tokens_BL])

  gradient = on(mesh, jax.grad(weighted_sum))(table_VD, tokens_BL)
  weights = np.arange(tokens_BL.size * D).reshape(-1, D)
  expected = np.zeros((V, D))
  np.add.at(expected, tokens_BL.reshape(-1), weights)
  # Whole numbers below 2^24: exact in float32 in any order.
  np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize('sizes', [(1, 1, 1), *MESHES])
def test_an_unknown_id_is_nan_and_alone(sizes, table_VD, tokens_BL):
  tokens_BL = tokens_BL.copy()
  tokens_BL[3, 2] = V
  tokens_BL[5, 4] = 2 * V
  mesh = sharding.make_mesh(MeshConfig(*sizes))
  function = lambda *args: look_up(*args, 'bfloat16')  # noqa: E731
  if sizes == (1, 1, 1):  # no mesh in context
    found = jax.jit(function)(table_VD, tokens_BL)
  else:
    found = on(mesh, function)(table_VD, tokens_BL)
  assert found.dtype == jnp.bfloat16
  unknown_BL = np.isnan(np.asarray(found, np.float32)).all(-1)
  np.testing.assert_array_equal(unknown_BL, tokens_BL >= V)
  assert np.isnan(np.asarray(found, np.float32)).sum() == 2 * D


def test_no_device_adds_up_a_whole_table():
  """What is summed over the replicas is their share of it: a half of V x D."""
  ids = 4_096
  mesh = sharding.make_mesh(MeshConfig(4, 2, 1))
  shapes = (
    jax.ShapeDtypeStruct((ids, D), jnp.float32),
    jax.ShapeDtypeStruct((8, 6), jnp.int32),
  )
  gradient = on(mesh, jax.grad(weighted_sum))
  text = gradient.lower(*shapes).compile().as_text()
  found = collectives_lib.by_kind(collectives_lib.collectives(text, 8))
  share = ids * D * 4 // 2
  assert found['all-reduce'] == 2 * share * 3 // 4
  assert sum(found.values()) < 1.05 * found['all-reduce']
