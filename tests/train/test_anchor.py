"""Anchored objectives: the agent's tokens stay near the base.

The decoder is small, and the batches are those of test_meshes.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax import sharding
from isft_jax.config import LoraConfig, MeshConfig
from isft_jax.models import decoder, lora
from isft_jax.models.likelihood import target_nll, target_nll_and_kl
from isft_jax.train import loop
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.trainer import TrainState, make_trainer
from isft_jax.types import Provenance
from tests.train import test_meshes
from tests.train.test_lora import run_config, save_base

MODEL, OPTIM = test_meshes.MODEL, test_meshes.OPTIM
P = len(Provenance)


@pytest.fixture(scope='module')
def params():
  return jax.device_get(decoder.init(MODEL, jax.random.key(0)))


@pytest.fixture(scope='module')
def base():
  return jax.device_get(decoder.init(MODEL, jax.random.key(1)))


def trainer_of(anchors, mesh=None, **settings):
  return make_trainer(
    *(MODEL, OPTIM, mesh or MeshConfig(1, 1, 1), 10),
    components=len(anchors),
    anchors=anchors,
    **settings,
  )


def step(trainer, params, base, batch):
  """The state after a step, and its metrics."""
  params = jax.tree.map(jnp.array, params)  # the step takes them
  state = trainer.start(params)._replace(frozen=base)
  state, metrics = trainer.step(state, sharding.to_global(batch, trainer.mesh))
  return jax.device_get((state.params, metrics))


@pytest.mark.parametrize('kind', ['forward', 'reverse'])
def test_the_loss_is_the_distance_for_the_agent_and_nll_for_all_others(
  params, base, kind
):
  batch = test_meshes.batches()[0]
  graphdef, _ = decoder.abstract(MODEL)
  nll_BK, kl_BK = target_nll_and_kl(
    graphdef, params, graphdef, base, batch, kind == 'reverse'
  )
  is_agents_BK = batch.authors_BK == Provenance.AGENT
  loss_BK = np.where(is_agents_BK, kl_BK, nll_BK)
  expected = np.sum(loss_BK * batch.weights_BK) / batch.weights_BK.sum()
  _, metrics = step(trainer_of((kind,)), params, base, batch)
  assert metrics['loss'] == pytest.approx(expected, rel=1e-5)
  kl = np.asarray(kl_BK)[is_agents_BK & (batch.weights_BK != 0)]
  assert metrics['anchor_kl'] == pytest.approx(kl.mean(), rel=1e-5)
  np.testing.assert_allclose(
    target_nll(graphdef, params, batch), nll_BK, rtol=1e-5
  )


@pytest.mark.parametrize('kind', ['forward', 'reverse'])
def test_what_the_agent_wrote_is_not_learned(params, base, kind):
  """Other targets in the agent's slots: the same step, bit for bit."""
  batch = test_meshes.batches()[0]
  is_agents_BK = batch.authors_BK == Provenance.AGENT
  other = batch._replace(
    targets_BK=np.where(is_agents_BK, 3, batch.targets_BK).astype(np.int32)
  )
  trainer = trainer_of((kind,))
  one, _ = step(trainer, params, base, batch)
  two, _ = step(trainer, params, base, other)
  jax.tree.map(np.testing.assert_array_equal, one, two)


def test_without_weight_for_the_agent_it_is_l_do_whatever_the_base(
  params, base
):
  batch = test_meshes.batches()[0]
  is_agents_BK = batch.authors_BK == Provenance.AGENT
  batch = batch._replace(
    weights_BK=np.where(is_agents_BK, 0, batch.weights_BK).astype(np.float32)
  )
  anchored, _ = step(trainer_of(('forward',)), params, base, batch)
  plain, _ = step(trainer_of(('',)), params, (), batch)
  # The same sums, in two programs
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), anchored, plain
  )


def test_the_average_moves_behind_the_model(params):
  """The distance is 0 at first, and the average is as it is defined."""
  trainer = trainer_of(('average',))
  batch = sharding.to_global(test_meshes.batches()[0], trainer.mesh)
  state = trainer.start(jax.tree.map(jnp.array, params))
  apart, average = [], params
  for _ in range(3):
    before = jax.device_get(state.params)
    state, metrics = trainer.step(state, batch)
    apart.append(float(metrics['anchor_kl']))
    average = jax.tree.map(
      lambda a, p: np.float32(0.99) * a + np.float32(0.01) * p, average, before
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
      jax.device_get(state.opt_state[-1].params),
      average,
    )
  assert abs(apart[0]) < 1e-6 < apart[1] < apart[2]


def test_the_average_of_adapters_has_adapters(params):
  config = LoraConfig(rank=2)
  adapters, frozen = lora.split(decoder.init(MODEL, jax.random.key(2), config))
  trainer = trainer_of(('average',), lora=config)
  batch = sharding.to_global(test_meshes.batches()[0], trainer.mesh)
  state = trainer.start(adapters)._replace(frozen=frozen)
  names = jax.tree.structure(adapters)
  apart = []
  for _ in range(3):
    state, metrics = trainer.step(state, batch)
    apart.append(float(metrics['anchor_kl']))
  assert jax.tree.structure(state.opt_state[-1].params) == names
  assert abs(apart[0]) < 1e-6 < apart[1] < apart[2]


def test_tokens_without_weight_are_not_held(params, base):
  """Of two tokens of the agent, one is anchored: the metric is of that one."""
  batch = test_meshes.batches()[0]
  graphdef, _ = decoder.abstract(MODEL)
  _, kl_BK = target_nll_and_kl(graphdef, params, graphdef, base, batch)
  is_agents_BK = batch.authors_BK == Provenance.AGENT
  kept_BK = is_agents_BK & (np.cumsum(is_agents_BK, axis=1) % 2 == 1)
  weights_BK = np.where(is_agents_BK & ~kept_BK, 0, batch.weights_BK)
  batch = batch._replace(weights_BK=weights_BK.astype(np.float32))
  _, metrics = step(trainer_of(('forward',)), params, base, batch)
  expected = np.asarray(kl_BK)[kept_BK & (weights_BK != 0)].mean()
  assert metrics['anchor_kl'] == pytest.approx(expected, rel=1e-5)


def test_one_run_is_anchored_in_one_way():
  with pytest.raises(ValueError, match='are anchored in two ways; use either'):
    trainer_of(('forward', 'reverse'))


def test_each_component_of_a_mixture_is_anchored_or_not(params, base):
  batch = test_meshes.batches()[0]
  graphdef, _ = decoder.abstract(MODEL)
  nll_BK, kl_BK = target_nll_and_kl(graphdef, params, graphdef, base, batch)
  component_B1 = np.arange(8)[:, None] % 2
  mixed = batch._replace(
    authors_BK=(batch.authors_BK + P * component_B1).astype(np.int32)
  )
  is_held_BK = (batch.authors_BK == Provenance.AGENT) & (component_B1 == 1)
  loss_BK = np.where(is_held_BK, kl_BK, nll_BK)
  expected = np.sum(loss_BK * batch.weights_BK) / batch.weights_BK.sum()
  _, metrics = step(trainer_of(('', 'forward')), params, base, mixed)
  assert metrics['loss'] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
  'mesh',
  [MeshConfig(1, 4, 2), MeshConfig(2, 2, context=2)],
  ids=['1x4x2', 'context'],
)
def test_a_mesh_and_microbatches_change_nothing(params, base, mesh):
  batch = test_meshes.batches()[0]
  expected, metrics = step(trainer_of(('forward',)), params, base, batch)
  found, on_mesh = step(trainer_of(('forward',), mesh), params, base, batch)
  assert on_mesh['anchor_kl'] == pytest.approx(metrics['anchor_kl'], rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected
  )


def test_the_base_of_adapters_is_the_model_without_them(params):
  """New adapters change nothing: the distance is 0 until they learn."""
  config = LoraConfig(rank=2)
  adapters, _ = lora.split(decoder.init(MODEL, jax.random.key(2), config))
  trainer = trainer_of(('forward',), lora=config)
  batch = sharding.to_global(test_meshes.batches()[0], trainer.mesh)
  state: TrainState = trainer.start(adapters)._replace(frozen=params)
  apart = []
  for _ in range(3):
    state, metrics = trainer.step(state, batch)
    apart.append(float(metrics['anchor_kl']))
  assert abs(apart[0]) < 1e-6 < apart[1] < apart[2]


# ------------------------------------------------------------------ a whole run


def test_a_run_stays_near_its_base_and_resumes(data_folder, tmp_path):
  save_base(tmp_path / 'base', 0, data_folder)
  config = dataclasses.replace(
    run_config(data_folder, tmp_path / 'base'),
    lora=LoraConfig(),
    steps=4,
  )
  apart = {}
  for objective in ('anchored(9)', 'anchored(0.0001)'):
    run = dataclasses.replace(config, objective=objective)
    whole = loop.train(run, str(tmp_path / objective))
    lines = metrics_lib.read(tmp_path / objective / 'metrics.jsonl')
    apart[objective] = lines[-1]['anchor_kl']
  # Four steps of 1e-2, to which the world's tokens pull too
  assert 0 < apart['anchored(9)'] < 0.9 * apart['anchored(0.0001)']
  # Stopped after two steps, and gone on with.
  loop.train(dataclasses.replace(run, steps=2), str(tmp_path / 'again'))
  again = loop.train(run, str(tmp_path / 'again'))
  jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_an_anchored_run_needs_a_base(data_folder, tmp_path):
  config = dataclasses.replace(
    run_config(data_folder, ''), lora=LoraConfig(), objective='anchored(0.1)'
  )
  config.model = dataclasses.replace(MODEL, vocab_size=0)
  with pytest.raises(ValueError, match=r'needs a base .* config.model.init_fr'):
    loop.train(config, str(tmp_path))
