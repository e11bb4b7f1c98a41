"""The real compiler for TPUs takes the train step; no TPU is needed."""

import os
import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from isft_jax import chips, sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig
from isft_jax.models import experts
from isft_jax.tpu import collectives
from isft_jax.train.trainer import make_trainer
from isft_jax.types import Batch
from tests.fixtures import needs

# libtpu asks no metadata server, and lets other processes load it too.
os.environ['TPU_SKIP_MDS_QUERY'] = '1'
os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'

pytestmark = needs('libtpu')

B, L, K = 4, 256, 128
SHAPE = {  # nothing else is of size L
  **{'vocab_size': 320, 'width': 64, 'layers': 2, 'heads': 4, 'kv_heads': 2},
  **{'mlp_width': 192, 'dtype': 'bfloat16'},
}
ONE = MeshConfig(data=1, fsdp=1, tensor=1)
FOUR = MeshConfig(data=1, fsdp=2, tensor=2)


def trainer_for(mesh: MeshConfig, **settings):
  if mesh == ONE:
    described = {'topology_name': 'v5e:1x1', 'chips_per_host_bounds': [1, 1, 1]}
  else:
    described = {'topology_name': 'v5e:2x2'}
  found = topologies.get_topology_desc(platform='tpu', **described)
  model = ModelConfig(**SHAPE, **settings)
  optim = OptimConfig(accumulate=mesh.fsdp)
  return make_trainer(model, optim, mesh, 10, devices=found.devices)


def batch_for(trainer) -> Batch:
  def of(columns, dtype=jnp.int32):
    where = sharding.batch_sharding(trainer.mesh)
    return jax.ShapeDtypeStruct((B, columns), dtype, sharding=where)

  return Batch(
    **dict.fromkeys(('tokens_BL', 'positions_BL', 'segment_ids_BL'), of(L)),
    **dict.fromkeys(('columns_BK', 'targets_BK', 'authors_BK'), of(K)),
    weights_BK=of(K, jnp.float32),
  )


def kernels(text: str) -> int:
  """How many kernels a compiled program calls."""
  return text.count('custom_call_target="tpu_custom_call"')


def has_scores(text: str) -> bool:
  return bool(re.search(rf'\[[\d,]*\b{L},{L}\]', text))


@pytest.mark.parametrize(
  ('mesh', 'head_size', 'remat', 'calls'),
  [
    (ONE, 128, 'none', 3),  # forward; dk and dv; dq
    (FOUR, 64, 'full', 4),  # and forward again
  ],
  ids=['one', 'four'],
)
def test_a_train_step_on_tpus_calls_kernels_and_has_no_scores(
  mesh, head_size, remat, calls
):
  trainer = trainer_for(mesh, head_size=head_size, remat=remat)
  step = trainer.step.lower(trainer.abstract, batch_for(trainer)).compile()
  text = step.as_text()
  assert kernels(text) == calls
  assert not has_scores(text)


def test_without_the_kernel_there_are_scores():
  trainer = trainer_for(ONE, attention='xla')
  evaluate = trainer.evaluate.lower(trainer.abstract.params, batch_for(trainer))
  text = evaluate.compile().as_text()
  assert kernels(text) == 0
  assert has_scores(text)


def test_a_described_trainer_lowers_every_part():
  trainer = trainer_for(FOUR, head_size=64)
  params = trainer.abstract.params
  trainer.init.lower(0)
  trainer.start.lower(params)
  evaluate = trainer.evaluate.lower(params, batch_for(trainer))
  assert 'tpu_custom_call' in evaluate.as_text()
  # What leaves the trainer is used without its mesh: no kernel is in it.
  assert nnx.merge(trainer.graphdef, params).config.attention == 'auto'


def test_experts_are_grouped_kernels_and_their_gradients_are_scattered():
  """No array has all rows for each expert, as a dense product would."""
  D, F, E, top_k = 256, 128, 8, 3
  mesh = sharding.make_mesh(
    MeshConfig(1, fsdp=2, expert=2), chips.describe('v5e:2x2')
  )

  def placed(name, *shape, dtype=jnp.float32):
    (axes,) = (
      axes[1:]  # of one layer
      for rule, axes in experts.PARTITION_RULES
      if re.search(rule, f'blocks/experts/{name}')
    )
    where = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  params = experts.Params(
    router=placed('router', D, E),
    gate=placed('gate', E, D, F),
    up=placed('up', E, D, F),
    down=placed('down', E, F, D),
  )
  x_BLD = jax.ShapeDtypeStruct(
    (B, L, D), jnp.bfloat16, sharding=sharding.batch_sharding(mesh)
  )

  def loss(*arguments):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      mixed_BLD = experts.mix(*arguments, top_k, True)
    return jnp.sum(mixed_BLD.astype(jnp.float32) ** 2)

  places = jax.tree.map(lambda leaf: leaf.sharding, (x_BLD, params))
  step = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=places)
  text = step.lower(x_BLD, params).compile().as_text()
  # 3 products forward, 6 backward.
  assert len(re.findall(r'%ragged-dot-none[.\d]* = ', text)) == 9
  # The two rows of an expert group, and half of the experts on a device.
  rows = 2 * L * top_k
  assert f'[{rows},{F}]' in text
  assert not re.search(rf'\[{E // 2},{rows},|\[{rows},{E // 2},', text)
  # Half of a device's kernels comes from the other device of its fsdp group,
  # half of the tokens from that of its expert group; the outputs go back. Their
  # gradients take the same ways.
  kernels_here, tokens = 3 * (E // 2) * D * F * 2, 2 * L * D * 2
  sent = collectives.by_kind(collectives.collectives(text, mesh.size))
  for kind in ('all-gather', 'reduce-scatter'):
    expected = kernels_here / 2 + 2 * tokens / 2
    assert sent[kind] == pytest.approx(expected, rel=0.02), kind
  assert sent['all-reduce'] < 0.02 * sent['reduce-scatter']
