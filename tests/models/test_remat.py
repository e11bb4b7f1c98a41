"""What each policy keeps between the passes: exactly what its name says."""

import collections
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.interpreters import partial_eval

from isft_jax.config import REMAT_NAMES, ModelConfig
from isft_jax.models import decoder, remat

# No two sizes are equal.
MODEL = ModelConfig(
  vocab_size=19,
  width=8,
  layers=3,
  heads=4,
  kv_heads=2,
  head_size=6,
  mlp_width=10,
  attention='xla',
  norms='both',
)
B, L = 1, 7
ROWS = [
  np.arange(L, dtype=np.int32)[None],
  np.arange(L, dtype=np.int32)[None],
  np.ones((B, L), np.int32),
]


def trace(config, function):
  """function(loss, params) of a model's loss; shapes only."""
  graphdef, params = decoder.abstract(config)

  def loss(params):
    return jnp.square(nnx.merge(graphdef, params)(*ROWS)).sum()

  return function(loss, params)


def saved(config) -> collections.Counter:
  """Shapes of the arrays of all layers that the backward pass gets."""

  def residuals(loss, params):
    _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), params)
    shapes = collections.Counter(x.shape for x in jax.tree.leaves(backward))
    shapes.subtract(x.shape for x in jax.tree.leaves(params))
    return shapes

  shapes = trace(config, residuals)
  return collections.Counter(
    {s: n for s, n in shapes.items() if s[:1] == (config.layers,) and n > 0}
  )


def added(kept, **changes) -> list[tuple[int, ...]]:
  """Shapes, without layers, that a policy saves and 'full' does not."""
  full, more = (
    saved(dataclasses.replace(MODEL, remat=policy, **changes))
    for policy in ('full', kept)
  )
  return sorted(shape[1:] for shape in (more - full).elements())


@pytest.mark.parametrize(
  ('policy', 'names'),
  [
    ('full', ''),
    ('attention,up', 'attention up'),
    ('dots', 'q k v o gate up down'),
    ('none', 'q k v attention o gate up down'),
  ],
)
def test_names_that_a_policy_keeps(policy, names):
  assert remat.kept(policy) == {*names.split()}


# Products have one axis for the tokens of all rows.
SHAPES = {
  'q': (L, 4, 6),
  'k': (L, 2, 6),
  'v': (L, 2, 6),
  'attention': (B, L, 4, 6),
  'o': (L, 8),
  'gate': (L, 10),
  'up': (L, 10),
  'down': (L, 8),
}


def test_full_saves_the_input_of_each_layer():
  full = saved(dataclasses.replace(MODEL, remat='full'))
  assert full[3, B, L, 8] == 1
  # The others are constants, such as the number of each layer.
  assert all(L not in s for s in full if s != (3, B, L, 8))


@pytest.mark.parametrize('name', REMAT_NAMES)
def test_a_name_saves_its_activation_and_nothing_else(name):
  assert added(name) == [SHAPES[name]]


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'norms': 'before'},
    {'experts': 5, 'experts_per_token': 2, 'norms': 'before'},
    {'attention': 'splash', 'dtype': 'bfloat16', 'param_dtype': 'bfloat16'},
  ],
  ids=['products', 'no norm after', 'experts', 'kernel'],
)
def test_widths_are_the_numbers_that_are_saved(changes):
  """Per token; the kernel's rows are padded from 7 to 128 columns."""
  widths = remat.widths(dataclasses.replace(MODEL, **changes))
  for name in REMAT_NAMES:
    shapes = added(name, **changes)
    padded = name == 'attention' and 'attention' in changes
    numbers = sum(math.prod(shape) for shape in shapes)
    if padded:
      numbers += 4 * 128  # the sums of the softmax have 4 bytes, not 2
    assert numbers == widths[name] * (128 if padded else L), name


def test_dots_saves_every_product_with_parameters():
  products = [shape for name, shape in SHAPES.items() if name != 'attention']
  assert added('dots') == sorted(products)


def test_the_last_product_is_not_saved_if_no_norm_follows():
  assert added('up,down', norms='before') == [SHAPES['up']]


def test_experts_save_a_row_for_each_expert_of_a_token():
  experts = {'experts': 5, 'experts_per_token': 2}
  for name in ('gate', 'up'):
    assert added(name, **experts) == [(2 * L, 10)]


# ------------------------------------------------------------------- the kernel


@pytest.mark.parametrize(
  'windows',
  [{}, {'layer_kinds': ('window', 'full', 'full'), 'window': 3}],
  ids=['one', 'two'],
)
def test_the_kernel_saves_its_result_and_the_sums_of_its_softmax(windows):
  """Padded to its blocks: 128 columns of heads of 128."""
  kernel = [(B, 4, 128), (B, 4, 128, 128)]
  assert added('attention', attention='splash', **windows) == kernel


def count_kernels(jaxpr) -> int:
  """Kernels in a program, in a loop or not."""
  total = 0
  for equation in jaxpr.eqns:
    total += equation.primitive.name == 'pallas_call'
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        total += count_kernels(inner)
  return total


@pytest.mark.parametrize(
  ('policy', 'kernels'),
  [
    ('none', 3),  # forward; dk and dv; dq
    ('full', 4),  # and forward again
    ('dots', 4),
    ('q,k,v', 4),
    ('attention', 3),
    ('attention,q,k,v', 3),
  ],
)
def test_the_forward_kernel_runs_again_unless_its_result_is_kept(
  policy, kernels
):
  config = dataclasses.replace(MODEL, attention='splash', remat=policy)
  traced = trace(config, lambda loss, p: jax.make_jaxpr(jax.grad(loss))(p))
  # Without kernels whose results nobody uses, which compilers drop.
  outputs = [True] * len(traced.jaxpr.outvars)
  jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, outputs)
  assert count_kernels(jaxpr) == kernels
