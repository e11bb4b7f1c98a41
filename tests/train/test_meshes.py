"""Ten steps on any mesh are the ten steps of one device, in every parameter."""

import dataclasses

import jax
import numpy as np
import pytest

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig
from isft_jax.models import decoder
from isft_jax.train import optim
from isft_jax.train.step import make_step
from isft_jax.train.trainer import TrainState, make_trainer
from isft_jax.types import Batch

STEPS = 10
MODEL = ModelConfig(
  vocab_size=64,
  width=32,
  layers=2,
  heads=8,
  kv_heads=2,
  head_size=8,
  mlp_width=64,
)
# eps far above a gradient's rounding: with 1e-8, Adam would turn the sign of
# noise into a step of full size.
OPTIM = OptimConfig(learning_rate=1e-2, eps=1e-3)
MESHES = {
  '8x1x1': MeshConfig(data=8),
  '1x8x1': MeshConfig(data=1, fsdp=8),
  '2x2x2': MeshConfig(data=2, fsdp=2, tensor=2),
  # A dense model: its parameters ignore the axis.
  'expert': MeshConfig(data=1, fsdp=2, tensor=2, expert=2),
  # A row's columns are split, with documents that cross the borders.
  'context 2': MeshConfig(data=2, fsdp=2, context=2),
  'context 4': MeshConfig(data=1, context=4, tensor=2),
  'context 8': MeshConfig(data=1, context=8),
}


def batches() -> list[Batch]:
  """Ten batches of two documents a row, a third of the targets unscored."""
  rng = np.random.default_rng(0)
  made = []
  for _ in range(STEPS):
    tokens = rng.integers(0, MODEL.vocab_size, (8, 33))
    made.append(
      Batch(
        tokens_BL=tokens[:, :-1].astype(np.int32),
        positions_BL=np.tile(
          np.concatenate([np.arange(21), np.arange(11)]).astype(np.int32),
          (8, 1),
        ),
        segment_ids_BL=np.tile(
          np.repeat([1, 2], [21, 11]).astype(np.int32), (8, 1)
        ),
        columns_BK=np.tile(np.arange(32, dtype=np.int32), (8, 1)),
        targets_BK=tokens[:, 1:].astype(np.int32),
        weights_BK=(rng.random((8, 32)) > 1 / 3).astype(np.float32),
        authors_BK=rng.integers(1, 8, (8, 32)).astype(np.int32),
      )
    )
  return made


@pytest.fixture(scope='module')
def params():
  return jax.device_get(
    jax.jit(decoder.init, static_argnums=0)(MODEL, jax.random.key(0))
  )


@pytest.fixture(scope='module')
def one_device(params):
  """Every parameter and loss, step by step, without any sharding."""
  graphdef, _ = decoder.abstract(MODEL)
  optimizer = optim.make_optimizer(OPTIM, STEPS)
  step = jax.jit(make_step(graphdef, optimizer, microbatches=1))
  state = TrainState(np.int32(0), params, optimizer.init(params))
  path = []
  for batch in batches():
    state, metrics = step(state, batch)
    path.append(jax.device_get((state.params, metrics['loss'])))
  return path


def test_windows_and_experts_agree_if_the_columns_of_a_row_are_split():
  model = dataclasses.replace(
    MODEL,
    layer_kinds=('window', 'full'),
    window=5,
    experts=4,
    experts_per_token=2,
  )
  params = jax.device_get(decoder.init(model, jax.random.key(0)))
  mesh = MeshConfig(data=1, fsdp=2, expert=2, context=2)
  paths = []
  for each in (MeshConfig(1, 1, 1), mesh):
    trainer = make_trainer(model, OPTIM, each, STEPS)
    state, losses = trainer.start(params), []
    for batch in batches():
      batch = sharding.to_global(batch, trainer.mesh)
      state, metrics = trainer.step(state, batch)
      losses.append(float(metrics['loss']))
    paths.append((jax.device_get(state.params), losses))
  (one, losses), (split, split_losses) = paths
  np.testing.assert_allclose(split_losses, losses, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), split, one
  )


@pytest.mark.parametrize('name', MESHES)
def test_ten_steps_agree_in_every_parameter(name, params, one_device):
  trainer = make_trainer(MODEL, OPTIM, MESHES[name], STEPS)
  state = trainer.start(params)
  for batch, (expected, loss) in zip(batches(), one_device, strict=True):
    state, metrics = trainer.step(
      state, sharding.to_global(batch, trainer.mesh)
    )
    # float32 sums in another order, carried on through ten steps of 1e-2
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
      got = state.params
      for key in path:
        got = got[key.key]
      np.testing.assert_allclose(
        got, leaf, atol=2e-5, err_msg=sharding.path_name(path)
      )
  for a, b in zip(
    jax.tree.leaves(one_device[-1][0]), jax.tree.leaves(params), strict=True
  ):
    assert (
      np.abs(a - b).max() > 1e-2
    )  # a thousand times the tolerance: it moved
