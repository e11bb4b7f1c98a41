"""Experts: each token by itself in float64, every mesh, and transformers."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.models import experts
from isft_jax.models.experts import Params
from tests.fixtures import fast_jit, import_or_skip

B, L, D, F, E = 8, 4, 8, 4, 8
KERNELS = 'gate', 'up', 'down'


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def inputs(dtype=np.float64):
  """Random (x_BLD, params)."""
  shapes = (D, E), (E, D, F), (E, D, F), (E, F, D)
  arrays = (draw(seed, *shape) for seed, shape in enumerate(shapes, 1))
  return jax.tree.map(
    lambda array: array.astype(dtype), (draw(0, B, L, D), Params(*arrays))
  )


def one_by_one(x_BLD, params, top_k, normalize):
  """Each token by itself: its experts, and the sum of their outputs."""

  def mix(x_D):
    p_E = jax.nn.softmax(x_D @ params.router)
    best_k = jnp.argsort(-p_E)[:top_k]
    p_k = p_E[best_k] / (p_E[best_k].sum() if normalize else 1)
    gate_kF = jnp.einsum('D,kDF->kF', x_D, params.gate[best_k])
    up_kF = jnp.einsum('D,kDF->kF', x_D, params.up[best_k])
    hidden_kF = gate_kF / (1 + jnp.exp(-gate_kF)) * up_kF
    return p_k @ jnp.einsum('kF,kFD->kD', hidden_kF, params.down[best_k])

  return jax.vmap(jax.vmap(mix))(x_BLD)


def gradients(top_k, normalize, function=experts.mix):
  """Returns a function of (x_BLD, params): its value, and all gradients."""

  def run(x_BLD, params):
    mixed_BLD, pull = jax.vjp(
      lambda *args: function(*args, top_k, normalize), x_BLD, params
    )
    return mixed_BLD, pull(draw(9, *mixed_BLD.shape).astype(mixed_BLD.dtype))

  return run


def assert_close(got, expected, tolerance):
  """Errors are those of sums, so they are relative to the largest entry."""
  assert jax.tree.structure(got) == jax.tree.structure(expected)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    scale = max(1, np.abs(y).max())
    np.testing.assert_allclose(x / scale, y / scale, rtol=0, atol=tolerance)


# ------------------------------------------------------------------- one device


@pytest.mark.parametrize(
  ('top_k', 'normalize'),
  [(1, False), (1, True), (3, False), (3, True), (8, False)],
)
def test_values_and_gradients_are_those_of_each_token(top_k, normalize):
  with jax.enable_x64(True):
    got, expected = (
      fast_jit(gradients(top_k, normalize, function))(*inputs())
      for function in (experts.mix, one_by_one)
    )
  assert_close(got, expected, 1e-10)


def test_an_expert_that_no_token_chose_has_no_gradient():
  x_BLD, params = inputs(np.float32)
  x_BLD[..., 0] = 1
  params.router[0, [2, 5]] = -100  # the least likely of every token
  _, (_, moved) = fast_jit(gradients(3, True))(x_BLD, params)
  for name in KERNELS:
    moved_E = np.abs(np.asarray(getattr(moved, name))).max((1, 2))
    assert (moved_E[[2, 5]] == 0).all()
    assert (np.delete(moved_E, [2, 5]) > 0).all()


def test_of_equal_probabilities_the_first_win():
  chosen_Tk, p_Tk = experts.choose(jnp.ones((2, D)), jnp.ones((D, E)), 3, False)
  assert chosen_Tk.tolist() == [[0, 1, 2]] * 2
  assert p_Tk.tolist() == [[1 / E] * 3] * 2


# ----------------------------------------------------------------------- meshes


MESHES = {  # data, fsdp, tensor, expert, context
  'expert=2': MeshConfig(4, 1, 1, 2),
  'expert=4': MeshConfig(2, 1, 1, 4),
  'expert=8': MeshConfig(1, 1, 1, 8),
  'fsdp=2,expert=4': MeshConfig(1, 2, 1, 4),
  'tensor=2,expert=4': MeshConfig(1, 1, 2, 4),
  'all': MeshConfig(1, 2, 2, 2),
  'fsdp=2,tensor=2': MeshConfig(2, 2, 2, 1),
  'context=2': MeshConfig(1, 2, 1, 2, 2),
  'context=4': MeshConfig(2, 1, 1, 1, 4),
}


def places(mesh, params):
  """Returns the shardings of (x_BLD, params), as they are stored."""

  def place(path, _):
    name = f'blocks/experts/{sharding.path_name(path)}'
    (spec,) = (
      axes for rule, axes in experts.PARTITION_RULES if re.search(rule, name)
    )
    return NamedSharding(mesh, PartitionSpec(*spec[1:]))  # of one layer

  by_path = jax.tree_util.tree_map_with_path(place, params)
  return sharding.batch_sharding(mesh), by_path


def on_mesh(mesh, function, params):
  """Jits a function of (x_BLD, params) for a mesh in context."""

  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return fast_jit(traced, in_shardings=places(mesh, params))


@pytest.mark.parametrize('name', MESHES)
def test_a_mesh_changes_nothing(name):
  mesh, (x_BLD, params) = sharding.make_mesh(MESHES[name]), inputs(np.float32)
  got = on_mesh(mesh, gradients(3, True), params)(x_BLD, params)
  expected = fast_jit(gradients(3, True))(x_BLD, params)
  # float32 sums in another order
  assert_close(got, expected, 1e-5)
  # Gradients are computed where the parameters are stored.
  _, stored = places(mesh, params)
  for leaf, place in zip(got[1][1][1:4], stored[1:4], strict=True):
    assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def test_all_tokens_may_choose_the_experts_of_one_device():
  """No expert has a capacity: none of 24 tokens is dropped."""
  x_BLD, params = inputs(np.float32)
  x_BLD[..., 0] = 3
  params.router[0, 2:4] = 4  # the second device has these two
  chosen_Tk, _ = experts.choose(x_BLD.reshape(-1, D), params.router, 2, False)
  assert {*np.asarray(chosen_Tk).flat} == {2, 3}
  mesh = sharding.make_mesh(MESHES['fsdp=2,expert=4'])
  got = on_mesh(mesh, gradients(2, False), params)(x_BLD, params)
  expected = fast_jit(gradients(2, False, one_by_one))(x_BLD, params)
  assert_close(got, expected, 1e-5)
  assert (np.abs(got[0]).max(-1) > 0.01).all()


def test_shards_need_no_mesh_in_context():
  """Probes generate with the shards of a training, and any number of rows."""
  x_BLD, params = inputs(np.float32)
  mesh = sharding.make_mesh(MESHES['all'])
  _, stored = places(mesh, params)
  mix = fast_jit(lambda x_BLD, params: experts.mix(x_BLD, params, 3, True))
  got = mix(x_BLD[:3], jax.device_put(params, stored))
  np.testing.assert_allclose(got, mix(x_BLD[:3], params), atol=1e-5)


# ------------------------------------------------------------------- the module


CONFIG = ModelConfig(
  width=64, mlp_width=32, layers=2, experts=16, experts_per_token=3
)


def module(**settings):
  """Returns (graphdef, dict of parameters)."""
  config = dataclasses.replace(CONFIG, **settings)
  graphdef, params = nnx.split(experts.Experts(config, nnx.Rngs(0)))
  return graphdef, nnx.to_pure_dict(params)


def test_parameters_have_these_shapes_deviations_and_types():
  _, params = module(param_dtype='bfloat16')
  expected = {
    'router': ((64, 16), 64**-0.5),
    'gate': ((16, 64, 32), 64**-0.5),
    'up': ((16, 64, 32), 64**-0.5),
    'down': ((16, 32, 64), (32 * 2 * 2) ** -0.5),
  }
  assert params.keys() == expected.keys()
  for name, (shape, deviation) in expected.items():
    assert (params[name].shape, params[name].dtype) == (shape, jnp.bfloat16)
    found = np.std(params[name].astype(np.float64))
    assert found == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize('param_dtype', ['float32', 'int8'])
def test_every_parameter_of_stacked_layers_has_one_rule(param_dtype):
  config = dataclasses.replace(CONFIG, param_dtype=param_dtype)
  stack = nnx.vmap(functools.partial(experts.Experts, config))
  layers = nnx.eval_shape(
    lambda: nnx.split_rngs(splits=config.layers)(stack)(nnx.Rngs(0))
  )
  params = {'blocks': {'experts': nnx.to_pure_dict(nnx.state(layers))}}
  mesh = sharding.make_mesh(MESHES['all'])
  placed = sharding.shardings(params, experts.PARTITION_RULES, mesh)
  for name, place in placed['blocks']['experts'].items():
    axes = {axis for axis in jax.tree.leaves(tuple(place.spec)) if axis}
    if name in KERNELS:
      assert axes == {'fsdp', 'context', 'expert', 'tensor'}, name
    elif name != 'router':
      assert 'expert' in axes, name


def test_experts_that_do_not_divide_over_their_axis_are_named():
  _, params = module(experts=6)
  message = (
    r'blocks/experts/gate \(1, 6, 64, 32\): a dimension of 6 does not divide '
    r'over config.mesh.expert=4'
  )
  with pytest.raises(ValueError, match=message):
    sharding.shardings(
      {'blocks': {'experts': {'gate': params['gate'][None]}}},
      experts.PARTITION_RULES,
      sharding.make_mesh(MESHES['expert=4']),
    )


def test_the_module_mixes_by_its_config():
  x_BLD = draw(0, 2, 3, 64).astype(np.float32)
  for normalize, activation in ((True, jax.nn.silu), (False, jnp.tanh)):
    graphdef, params = module(normalize_experts=normalize)
    expected = experts.mix(x_BLD, Params(**params), 3, normalize, activation)
    found = nnx.merge(graphdef, params)(x_BLD, activation)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('name', ['', 'all'])
def test_int8_kernels_are_their_floats(name):
  """Products are scaled, and the scales are split over a mesh."""
  _, params = module(param_dtype='int8')
  floats = {'router': params['router']}
  for kind in KERNELS:
    kernel, scale = params[kind], params[f'{kind}_scale']
    assert (kernel.dtype, scale.dtype) == (jnp.int8, jnp.float32)
    assert (np.abs(kernel).max(axis=1) == 127).all()
    floats[kind] = kernel * scale[:, None]
  x_BLD, params = draw(0, B, L, 64).astype(np.float32), Params(**params)

  def run(x_BLD, params):
    mix = lambda x_BLD: experts.mix(x_BLD, params, 3, True)  # noqa: E731
    mixed_BLD, pull = jax.vjp(mix, x_BLD)
    return mixed_BLD, pull(mixed_BLD)

  step = fast_jit(run)
  if name:
    step = on_mesh(sharding.make_mesh(MESHES[name]), run, params)
  expected = fast_jit(run)(x_BLD, Params(**floats))
  assert_close(step(x_BLD, params), expected, 1e-5)


# ----------------------------------------------------------------- transformers


def block_of_transformers(top_k, normalize):
  """Returns the block of Qwen3-MoE with random weights."""
  torch = import_or_skip('torch')
  qwen = import_or_skip(
    'transformers.models.qwen3_moe.modeling_qwen3_moe', 'torch'
  )
  config = qwen.Qwen3MoeConfig(
    **{'hidden_size': 64, 'moe_intermediate_size': 32, 'num_experts': 16},
    **{'num_experts_per_tok': top_k, 'norm_topk_prob': normalize},
    experts_implementation='eager',
  )
  torch.manual_seed(0)
  block = qwen.Qwen3MoeSparseMoeBlock(config)
  with torch.no_grad():
    for weights in block.parameters():
      weights.normal_(std=weights.shape[-1] ** -0.5)
  return block


def as_params(router_ED, gate_and_up, down_EDF):
  """Returns our parameters, or gradients, of the tensors of a block."""
  gate_EFD, up_EFD = np.split(gate_and_up.numpy(), 2, axis=1)
  kernels = gate_EFD, up_EFD, down_EDF.numpy()
  return Params(
    router_ED.numpy().T, *(kernel.swapaxes(1, 2) for kernel in kernels)
  )


@pytest.mark.parametrize(('top_k', 'normalize'), [(1, False), (4, True)])
def test_values_and_gradients_are_those_of_transformers(top_k, normalize):
  torch = import_or_skip('torch')
  block = block_of_transformers(top_k, normalize)
  tensors = (
    block.gate.weight,
    block.experts.gate_up_proj,
    block.experts.down_proj,
  )
  x_BLD = draw(0, 3, 7, 64).astype(np.float32)
  x = torch.from_numpy(x_BLD).requires_grad_()
  mixed = block(x)
  mixed.backward(torch.from_numpy(draw(9, 3, 7, 64).astype(np.float32)))
  expected = (
    mixed.detach().numpy(),
    (x.grad.numpy(), as_params(*(tensor.grad for tensor in tensors))),
  )
  params = as_params(*(tensor.detach() for tensor in tensors))
  got = fast_jit(gradients(top_k, normalize))(x_BLD, params)
  assert_close(got, expected, 1e-5)


def test_probabilities_in_bfloat16_are_those_of_transformers():
  """Logits are rounded to bfloat16; the softmax is float32; p is rounded."""
  torch = import_or_skip('torch')
  router = block_of_transformers(4, True).gate.to(torch.bfloat16)
  # Sums of small whole numbers are exact in any order, so both round the same
  # logits, of up to 16 bits.
  rng = np.random.default_rng(0)
  x_TD = rng.integers(-9, 9, (200, 64))
  router_DE = rng.integers(-9, 9, (64, 16)) / 64
  with torch.no_grad():
    router.weight.copy_(torch.from_numpy(router_DE.T))
    _, expected, _ = router(torch.from_numpy(x_TD).to(torch.bfloat16))
  _, p_Tk = experts.choose(
    jnp.asarray(x_TD, jnp.bfloat16), jnp.asarray(router_DE), 4, True
  )
  assert p_Tk.dtype == jnp.bfloat16
  # One step of bfloat16: the softmaxes differ in their last bit of float32.
  np.testing.assert_allclose(
    p_Tk.astype(jnp.float32), expected.float().numpy(), rtol=2**-7
  )
