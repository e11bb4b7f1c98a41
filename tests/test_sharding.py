"""Where arrays live: rules that match once or raise, meshes that cover."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from isft_jax import chips, sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig
from isft_jax.models import decoder
from isft_jax.train import optim
from isft_jax.types import Batch
from tests.fixtures import needs

P = PartitionSpec


def mesh_of(data=-1, fsdp=1, tensor=1, expert=1, context=1):
  return sharding.make_mesh(MeshConfig(data, fsdp, tensor, expert, context))


def shapes(tree):
  """Shapes of float32 arrays, in place of the tuples of a tree."""
  return jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    tree,
    is_leaf=lambda node: isinstance(node, tuple),
  )


# ----------------------------------------------------------------------- meshes


@pytest.mark.parametrize(
  ('devices', 'config', 'sizes'),
  [
    #              data, fsdp, tensor, expert; data, fsdp, expert, tensor
    (8, MeshConfig(), (8, 1, 1, 1, 1)),
    (1, MeshConfig(), (1, 1, 1, 1, 1)),
    (8, MeshConfig(8, 1, 1), (8, 1, 1, 1, 1)),
    (8, MeshConfig(-1, 2, 2), (2, 2, 1, 1, 2)),
    (8, MeshConfig(2, -1, 1), (2, 4, 1, 1, 1)),
    (8, MeshConfig(1, 2, -1), (1, 2, 1, 1, 4)),
    (8, MeshConfig(1, 2, 1, -1), (1, 2, 4, 1, 1)),
    (8, MeshConfig(-1, 2, 2, 2), (1, 2, 2, 1, 2)),
    (8, MeshConfig(-1, 1, 1, 4), (2, 1, 4, 1, 1)),
    (8, MeshConfig(2, 4, -1), (2, 4, 1, 1, 1)),
    (6, MeshConfig(-1, 3, 1), (2, 3, 1, 1, 1)),
    (8, MeshConfig(-1, 2, context=2), (2, 2, 1, 2, 1)),
    (8, MeshConfig(1, 1, context=-1), (1, 1, 1, 8, 1)),
    # Of two: fsdp takes a divisor, of at most so many.
    (8, MeshConfig(-1, -1, 1, fsdp_at_most=4), (2, 4, 1, 1, 1)),
    (8, MeshConfig(-1, -1, 1, fsdp_at_most=16), (1, 8, 1, 1, 1)),
    (8, MeshConfig(-1, -1, 2, fsdp_at_most=3), (2, 2, 1, 1, 2)),
    (8, MeshConfig(-1, -1, 1, 2, fsdp_at_most=3), (2, 2, 2, 1, 1)),
    (8, MeshConfig(-1, -1, 2, 2, fsdp_at_most=16), (1, 2, 2, 1, 2)),
    (6, MeshConfig(-1, -1, 1, fsdp_at_most=4), (2, 3, 1, 1, 1)),
    (8, MeshConfig(-1, -1, 1, 1, 4, fsdp_at_most=8), (1, 2, 1, 4, 1)),
    (1, MeshConfig(-1, -1, 1, fsdp_at_most=16), (1, 1, 1, 1, 1)),
    (8, MeshConfig(2, -1, 1, fsdp_at_most=2), (2, 4, 1, 1, 1)),  # not of one
  ],
)
def test_an_axis_of_minus_1_takes_what_the_others_leave(devices, config, sizes):
  mesh = sharding.make_mesh(config, jax.devices()[:devices])
  assert tuple(mesh.shape.items()) == tuple(
    zip(sharding.AXES, sizes, strict=True)
  )
  assert set(mesh.devices.flat) == set(jax.devices()[:devices])


@pytest.mark.parametrize(
  ('devices', 'config'),
  [
    (8, MeshConfig(2, 2, 1)),  # 4 of 8
    (8, MeshConfig(4, 2, 2)),  # 16
    (8, MeshConfig(-1, 3, 1)),  # 3 does not divide 8
    (8, MeshConfig(-1, -1, 1)),  # which of the two?
    (8, MeshConfig(-1, -1, 8)),
    (8, MeshConfig(-1, -1, 3, fsdp_at_most=4)),
    (8, MeshConfig(-1, 0, 1)),
    (8, MeshConfig(0, 8, 1)),
    (8, MeshConfig(-2, -4, 1)),
    (8, MeshConfig(-1, 16, 1)),
    (8, MeshConfig(2, 2, 1, 4)),  # 16
    (8, MeshConfig(-1, 1, 1, 3)),
    (8, MeshConfig(-1, -1, 1, 3, fsdp_at_most=4)),
    (8, MeshConfig(-1, 8, 1, 0)),
    (1, MeshConfig(1, 1, 2)),
    (1, MeshConfig(1, 1, 1, 2)),
    (8, MeshConfig(2, 2, 1, context=4)),  # 16
    (8, MeshConfig(-1, 1, context=3)),
  ],
)
def test_a_mesh_that_does_not_cover_the_devices_is_refused(devices, config):
  sizes = dataclasses.asdict(config)
  wanted = ' x '.join(
    f'config.mesh.{axis}={sizes[axis]}'
    for axis in ('data', 'fsdp', 'expert', 'context', 'tensor')
    if sizes[axis] != 1
  )
  message = f'^{wanted} does not cover {devices} devices; set one axis to -1'
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(config, jax.devices()[:devices])


def test_axes_are_the_compilers_to_use():
  """With explicit axes, a look-up in a sharded embedding raises."""
  assert mesh_of().axis_types == (AxisType.Auto,) * 5
  axes = 'data', 'fsdp', 'expert', 'context', 'tensor'
  assert mesh_of().axis_names == sharding.AXES == axes


@dataclasses.dataclass(frozen=True)
class Described:
  """A device of some slice, as a topology describes it."""

  id: int
  slice_index: int | None
  platform: str = 'tpu'
  device_kind: str = 'TPU v5 lite'
  process_index: int = 0
  core_on_chip: int = 0

  @property
  def coords(self):
    of_slice = self.id // 2  # two slices take turns below
    return of_slice % 2, of_slice // 2, 0


def test_data_alone_runs_across_slices():
  devices = [Described(n, slice_index=n % 2) for n in range(8)]
  found = sharding.make_mesh(MeshConfig(2, 2, 2), devices).devices
  assert [{device.id for device in part.flat} for part in found] == [
    {0, 2, 4, 6},
    {1, 3, 5, 7},
  ]


def test_fsdp_stays_within_a_slice():
  devices = [Described(n, slice_index=n % 2) for n in range(8)]
  mesh = sharding.make_mesh(MeshConfig(-1, -1, fsdp_at_most=8), devices)
  assert tuple(mesh.shape.values()) == (2, 4, 1, 1, 1)


def test_data_that_does_not_divide_over_the_slices_is_refused():
  devices = [Described(n, slice_index=n // 4) for n in range(8)]
  message = (
    'config.mesh.data=1 does not divide over 2 slices, and no other axis runs '
    'across them'
  )
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(MeshConfig(1, 8, 1), devices)


def test_devices_that_are_no_tpus_are_one_slice():
  """For GPUs, jax numbers by it what shares fast links: a host, at times."""
  devices = [Described(n, n // 2, platform='gpu') for n in range(4)]
  assert sharding.by_slice(devices) == [devices]
  assert sharding.by_slice(jax.devices()) == [jax.devices()]


@needs('libtpu')
def test_an_axis_that_splits_the_links_of_a_slice_is_refused():
  devices = chips.describe('v5p:4x4x4')
  assert sharding.make_mesh(MeshConfig(1, 16, 1, 4), devices).size == 64
  message = (
    'config.mesh.fsdp=32 x config.mesh.expert=2: on TPU v5 each axis must take '
    'whole axes of the slice; choose products of its sizes'
  )
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(MeshConfig(1, 32, 1, 2), devices)


# ------------------------------------------------------------------------ rules


def test_a_leaf_lives_where_the_one_rule_for_its_path_says():
  tree = shapes({'mlp': {'up': (4, 8), 'norm': (4,)}, 'head': [(16, 4)]})
  rules = (
    (r'mlp/up$', ('fsdp', 'tensor')),
    (r'norm$', (None,)),
    (r'^head/0$', ('tensor', None)),
  )
  mesh = mesh_of(2, 2, 2)
  found = sharding.shardings(tree, rules, mesh)
  assert jax.tree.map(lambda s: s.spec, found) == {
    'mlp': {'up': P('fsdp', 'tensor'), 'norm': P(None)},
    'head': [P('tensor', None)],
  }
  assert {s.mesh for s in jax.tree.leaves(found)} == {mesh}


RULES = ((r'(^|/)up$', ('fsdp', 'tensor')), (r'mlp/.*', ('fsdp', None)))


@pytest.mark.parametrize(
  ('tree', 'message'),
  [
    ({'down': (4, 4)}, r'down \(4, 4\): 0 sharding rules match'),
    ({'deep': {'upper': (4, 4)}}, r'deep/upper \(4, 4\): 0 sharding rules'),
    ({'mlp': {'up': (4, 4)}}, r'mlp/up \(4, 4\): 2 sharding rules match'),
    # One rule matches, but has not as many entries as the leaf dimensions.
    ({'up': (4,)}, r'up \(4,\): 1 sharding rules match .* each dimension'),
    ({'up': (4, 4, 4)}, r'up \(4, 4, 4\): 1 sharding rules match'),
  ],
)
def test_a_leaf_without_exactly_one_rule_is_named(tree, message):
  with pytest.raises(ValueError, match=message):
    sharding.shardings(shapes(tree), RULES, mesh_of(2, 2, 2))


def test_a_dimension_that_an_axis_does_not_divide_is_given_in_numbers():
  message = (
    r'up \(4, 6\): a dimension of 6 does not divide over config.mesh.tensor=4'
  )
  tree = shapes({'up': (4, 6)})
  with pytest.raises(ValueError, match=message):
    sharding.shardings(tree, RULES, mesh_of(1, 2, 4))
  # By 1 and by 2 it is divided.
  for sizes in ((8, 1, 1), (2, 2, 2)):
    assert sharding.shardings(tree, RULES, mesh_of(*sizes))


def test_a_dimension_may_be_split_over_several_axes():
  rules = ((r'table$', (('tensor', 'fsdp'), None)),)
  mesh = mesh_of(2, 2, 2)
  where = sharding.shardings(shapes({'table': (8, 3)}), rules, mesh)['table']
  assert where.spec == P(('tensor', 'fsdp'), None)
  assert where.shard_shape((8, 3)) == (2, 3)
  message = (
    r'table \(6, 3\): a dimension of 6 does not divide over '
    r'config.mesh.tensor=2 x config.mesh.fsdp=2$'
  )
  with pytest.raises(ValueError, match=message):
    sharding.shardings(shapes({'table': (6, 3)}), rules, mesh)


def test_scalars_are_replicated_and_need_no_rule():
  tree = {'count': jnp.int32(3), 'up': jnp.zeros((4, 4))}
  found = sharding.shardings(tree, RULES, mesh_of(2, 2, 2))
  assert found['count'].spec == P()
  assert found['count'].is_fully_replicated
  assert not found['up'].is_fully_replicated


def test_a_path_is_joined_by_slashes():
  tree = {'blocks': [optax.ScaleByAdamState(jnp.int32(0), {'q': 1}, 2)]}
  assert [
    sharding.path_name(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ] == ['blocks/0/count', 'blocks/0/mu/q', 'blocks/0/nu']


# ----------------------------------------------------------- rules of the model


MODELS = [
  ModelConfig(tie_embeddings=tie, qkv_bias=bias, qk_norm=norm, width=64)
  for tie, bias, norm in itertools.product((True, False), repeat=3)
]


@pytest.mark.parametrize('config', MODELS)
def test_every_parameter_of_every_kind_of_decoder_has_one_rule(config):
  _, params = decoder.abstract(config)
  found = sharding.shardings(params, decoder.PARTITION_RULES, mesh_of(2, 2, 2))
  assert jax.tree.structure(found) == jax.tree.structure(params)
  matrices = {
    sharding.path_name(path): leaf.spec
    for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    if 'norm' not in sharding.path_name(path)
  }
  # The vocabulary is split by all. What else has a width is split by fsdp and
  # context; heads and hidden by tensor.
  for name, spec in matrices.items():
    axes = jax.tree.leaves(tuple(spec))
    assert 'tensor' in axes, name
    assert {'fsdp', 'context'} <= set(axes) or name.endswith('_bias'), name


def test_the_moments_of_the_optimizer_live_with_their_parameters():
  _, params = decoder.abstract(ModelConfig())
  mesh = mesh_of(2, 2, 2)
  of_params = sharding.shardings(params, decoder.PARTITION_RULES, mesh)
  state = jax.eval_shape(optax.adamw(1e-3).init, params)
  adam, *others = sharding.shardings(state, decoder.PARTITION_RULES, mesh)
  assert adam.mu == of_params
  assert adam.nu == of_params
  assert adam.count.spec == P()
  assert all(leaf.spec == P() for leaf in jax.tree.leaves(others))


def test_the_whole_state_of_our_optimizer_has_a_place():
  """With a clip and a schedule, which count: scalars, on every device."""
  _, params = decoder.abstract(ModelConfig())
  optimizer = optim.make_optimizer(
    OptimConfig(schedule='cosine', warmup_steps=2), steps=10
  )
  state = jax.eval_shape(optimizer.init, params)
  found = sharding.shardings(state, decoder.PARTITION_RULES, mesh_of(1, 8, 1))
  assert jax.tree.structure(found) == jax.tree.structure(state)
  scalars = [
    where
    for where, leaf in zip(
      jax.tree.leaves(found), jax.tree.leaves(state), strict=True
    )
    if leaf.ndim == 0
  ]
  assert len(scalars) == 2 and all(s.spec == P() for s in scalars)
  assert len(jax.tree.leaves(found)) == 2 + 2 * len(jax.tree.leaves(params))


# ---------------------------------------------------------------------- batches


def batch_of(rows: int, columns: int, targets: int) -> Batch:
  """A batch whose numbers are all different within an array."""

  def numbers(size: int) -> np.ndarray:
    return np.arange(rows * size, dtype=np.int32).reshape(rows, size)

  return Batch(
    *(numbers(columns) for _ in range(3)),
    numbers(targets) % columns,
    *(numbers(targets) for _ in range(3)),
  )


@pytest.mark.parametrize(
  'sizes',
  [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8), (1, 1, 1, 8), (1, 2, 2, 2)],
)
def test_a_batch_is_whole_and_its_rows_are_split_over_all_but_tensor(sizes):
  mesh, batch = mesh_of(*sizes), batch_of(16, 3, 2)
  made = sharding.to_global(batch, mesh)
  jax.tree.map(np.testing.assert_array_equal, made, batch)
  rows = 16 * sizes[2] // 8
  assert {s.data.shape for s in made.tokens_BL.addressable_shards} == {
    (rows, 3)
  }
  assert {array.sharding for array in made} == {sharding.batch_sharding(mesh)}


def test_the_columns_and_the_targets_of_a_row_are_split_over_context():
  mesh, batch = mesh_of(2, 1, 1, 1, 4), batch_of(4, 16, 8)
  made = sharding.to_global(batch, mesh)
  assert {array.sharding for array in made} == {sharding.batch_sharding(mesh)}
  # Two parts of two columns on each device.
  places = [0, 1, 14, 15, 2, 3, 12, 13, 4, 5, 10, 11, 6, 7, 8, 9]
  for name in ('tokens_BL', 'positions_BL', 'segment_ids_BL'):
    array = getattr(made, name)
    np.testing.assert_array_equal(array, getattr(batch, name)[:, places])
    assert {s.data.shape for s in array.addressable_shards} == {(2, 4)}
  # A target's column has moved, and its token with it.
  for b, column in itertools.product(range(4), range(8)):
    place = made.columns_BK[b, column]
    assert (
      made.tokens_BL[b, place]
      == (batch.tokens_BL[b, batch.columns_BK[b, column]])
    )
  for name in ('targets_BK', 'weights_BK', 'authors_BK'):
    np.testing.assert_array_equal(getattr(made, name), getattr(batch, name))
    shards = getattr(made, name).addressable_shards
    assert {s.data.shape for s in shards} == {(2, 2)}


@pytest.mark.parametrize(
  ('columns', 'targets', 'message'),
  [
    (12, 8, 'seq_len=12 do not .*context=4; set seq_len to .* 8, such as 16$'),
    (16, 6, 'targets_per_row=6 do not .* to a multiple of 4, such as 8$'),
  ],
)
def test_a_row_that_does_not_divide_over_context_is_refused(
  columns, targets, message
):
  with pytest.raises(ValueError, match=message):
    sharding.to_global(batch_of(2, columns, targets), mesh_of(2, 1, 1, 1, 4))


@pytest.mark.parametrize(
  ('rows', 'sizes', 'message'),
  [
    (12, (8, 1, 1), 'a batch of 12 .* over config.mesh.data=8$'),
    (12, (4, 2, 1), 'a batch of 12 .*data=4 x .*fsdp=2$'),
    (12, (2, 2, 1, 2), 'a batch of 12 .*data=2 x .*fsdp=2 x .*expert=2$'),
    (1, (1, 2, 4), 'a batch of 1 rows .* over config.mesh.fsdp=2$'),
  ],
)
def test_rows_that_do_not_divide_over_the_mesh_are_refused(
  rows, sizes, message
):
  with pytest.raises(ValueError, match=message):
    sharding.to_global(batch_of(rows, 3, 2), mesh_of(*sizes))


def test_each_micro_batch_is_split_over_the_mesh():
  mesh = mesh_of(2, 2, 2)
  for rows, parts in ((4, 1), (8, 2), (12, 3)):
    sharding.check_batch_size(rows, mesh, parts)
  message = (
    r'12 rows in 2 microbatches \(optim.accumulate\) does not divide over '
    r'config.mesh.data=2 x config.mesh.fsdp=2$'
  )
  with pytest.raises(ValueError, match=message):
    sharding.check_batch_size(12, mesh, microbatches=2)


def test_what_is_constrained_is_moved_by_the_rules_and_else_left_alone():
  mesh = mesh_of(1, 4, 2)
  tree = {'table': np.arange(64.0).reshape(8, 8), 'other': np.ones(3)}
  rules = ((r'table$', ('tensor', 'fsdp')),)
  moved = jax.jit(lambda tree: sharding.constrain(tree, rules, mesh))(tree)
  jax.tree.map(np.testing.assert_array_equal, moved, tree)
  assert moved['table'].sharding.shard_shape((8, 8)) == (4, 2)
  assert moved['other'].sharding.is_fully_replicated


def test_what_is_replicated_is_whole_on_every_device():
  array = jax.device_put(jnp.arange(3), sharding.replicated(mesh_of(2, 2, 2)))
  assert [s.data.tolist() for s in array.addressable_shards] == [[0, 1, 2]] * 8


def test_a_vocabulary_that_does_not_divide_is_split_by_width():
  """OLMo 3 has 100,278 ids, a multiple of 2 only."""
  mesh = mesh_of(1, 4, 2)
  model = ModelConfig(vocab_size=22, width=16, tie_embeddings=False)
  _, params = decoder.abstract(model)
  found = sharding.shardings(params, decoder.PARTITION_RULES, mesh)
  for name in ('embedding', 'head'):
    assert found[name].spec == PartitionSpec(
      None, ('tensor', 'fsdp', 'context')
    )
  # The first choice is the one that an error names.
  _, params = decoder.abstract(dataclasses.replace(model, width=12))
  with pytest.raises(ValueError, match=r'embedding \(22, 12\): .* 22 does not'):
    sharding.shardings(params, decoder.PARTITION_RULES, mesh)
