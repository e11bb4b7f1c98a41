"""Operations of a step: the formulas by hand, and against the traced step."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from isft_jax.config import LoraConfig, ModelConfig, OptimConfig
from isft_jax.models import decoder, flops
from isft_jax.models import remat as remat_lib
from isft_jax.models.experts import Experts
from isft_jax.models.lora import split
from isft_jax.train import optim
from isft_jax.train.step import make_step
from isft_jax.train.trainer import TrainState
from isft_jax.types import Batch

MODEL = ModelConfig(
  vocab_size=48,
  width=16,
  layers=3,
  heads=4,
  kv_heads=2,
  head_size=8,
  mlp_width=24,
  head_chunk=0,
  attention='xla',
)
B, L, K = 2, 10, 5


def test_a_forward_pass_by_hand():
  """D 16, A 8, H 4, N 2, F 24; a multiply and an add are two operations."""
  projections = 16 * 8 * (4 + 2 * 2) + 4 * 8 * 16  # q, k and v; o
  mlp = 3 * 16 * 24
  pairs = 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10
  assert flops.forward(MODEL, B, L, K) == (
    2 * (2 * 10) * 3 * (projections + mlp),
    2 * 2 * 3 * 2 * 4 * 8 * pairs,  # scores, and their mixing
    2 * (2 * 5) * 48 * 16,
  )
  needed = flops.model(MODEL, B, L, K)
  assert needed == tuple(3 * part for part in flops.forward(MODEL, B, L, K))
  assert needed.total == sum(needed)


def test_of_the_head_the_scored_targets_alone_count():
  """And nothing else of a step depends on how many they are."""
  some, more = (flops.model(MODEL, B, L, targets) for targets in (5, 10))
  assert more == some._replace(head=2 * some.head)


def test_a_window_leaves_out_what_a_query_does_not_see():
  """Of 10 columns, with a window of 3: 1 + 2 + 3 + 7 x 3 pairs."""
  config = dataclasses.replace(
    MODEL, layer_kinds=('window', 'window', 'full'), window=3
  )
  pairs = 2 * (1 + 2 + 3 * 8) + 55
  attention = flops.forward(config, B, L, K).attention
  assert attention == 2 * 2 * 2 * 4 * 8 * pairs
  wide = dataclasses.replace(config, window=99)
  assert flops.forward(wide, B, L, K) == flops.forward(MODEL, B, L, K)


def of_products(jaxpr) -> int:
  """Operations of a program's matrix products, each as often as it runs."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'ragged_dot_general':
      # Each row meets one group, whose number is the first axis of a kernel.
      (rows, into), out = (
        equation.invars[0].aval.shape,
        equation.outvars[0].aval,
      )
      total += 2 * rows * into * out.shape[-1]
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      depth = (equation.invars[0].aval.shape[axis] for axis in contracted)
      total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(depth)
    times = equation.params.get('length', 1)
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        total += times * of_products(inner)
  return total


ADAPTERS = {
  'full': LoraConfig(),
  'lora': LoraConfig(rank=3),
  'some': LoraConfig(rank=3, targets=('q_proj', 'up_proj')),
}


REMATS = [
  *('none', 'full', 'dots', 'attention', 'attention,o', 'q,gate', 'down'),
  *('k,v,up,o', 'q,k,v,attention,o,gate,up,down'),
]
SHAPES = {
  'norms before': {},
  'norms after': {'norms': 'after'},
  'windows': {'layer_kinds': ('window', 'full'), 'window': 3},
}


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('lora', ADAPTERS)
@pytest.mark.parametrize('remat', REMATS)
def test_what_is_done_is_what_the_traced_step_does(remat, lora, shape):
  """Exactly, with plain products for attention: whole squares of scores."""
  # Every other case takes the head in parts: in each remat, adapter and shape.
  case = [*REMATS].index(remat) + [*ADAPTERS].index(lora)
  chunk = 12 * ((case + [*SHAPES].index(shape)) % 2)
  config = dataclasses.replace(
    MODEL, remat=remat, head_chunk=chunk, **SHAPES[shape]
  )
  lora = ADAPTERS[lora]
  graphdef, params = decoder.abstract(config, lora)
  optimizer = optim.make_optimizer(OptimConfig(), 10)

  def start(params):
    adapters, base = split(params) if lora.rank else (params, ())
    return TrainState(jnp.int32(0), adapters, optimizer.init(adapters), base)

  def of(columns, dtype=jnp.int32):
    return jax.ShapeDtypeStruct((B, columns), dtype)

  batch = Batch(*[of(L)] * 3, of(K), of(K), of(K, jnp.float32), of(K))
  step = make_step(graphdef, optimizer, microbatches=1)
  traced = jax.make_jaxpr(step)(jax.eval_shape(start, params), batch)
  done = flops.hardware(config, B, L, K, lora)
  assert done.total == of_products(traced.jaxpr)


EXPERTS = dataclasses.replace(MODEL, experts=8, experts_per_token=3)


def test_experts_by_hand():
  """Each token uses the router, of 16 to 8, and 3 experts of width 24."""
  dense, mixed = (flops.forward(c, B, L, K) for c in (MODEL, EXPERTS))
  added = 16 * 8 + (3 - 1) * 3 * 16 * 24
  assert mixed == dense._replace(blocks=dense.blocks + 2 * (2 * 10) * 3 * added)


@pytest.mark.parametrize('remat', ['none', 'full', 'dots', 'gate', 'down'])
def test_what_experts_do_is_what_their_traced_gradient_does(remat):
  config = dataclasses.replace(EXPERTS, remat=remat, layers=1)
  graphdef, params = nnx.split(Experts(config, nnx.Rngs(0)))

  def mix(params, x_BLD):
    return nnx.merge(graphdef, params)(x_BLD, jax.nn.silu)

  if remat != 'none':
    mix = jax.checkpoint(mix, policy=remat_lib.policy(remat))
  total = jax.grad(lambda *args: mix(*args).sum(), argnums=(0, 1))
  traced = jax.make_jaxpr(total)(params, jnp.ones((B, L, 16)))
  # All of a layer, without what it has beside its experts.
  rest = dataclasses.replace(
    config, experts=0, experts_per_token=0, mlp_width=0
  )
  done, other = (flops.hardware(c, B, L, K).blocks for c in (config, rest))
  assert of_products(traced.jaxpr) == done - other


def test_a_step_of_adapters_by_hand():
  """Rank 2 on q (16 to 4 x 8) and down (24 to 16); the rest only gives dx."""
  lora = LoraConfig(rank=2, targets=('q_proj', 'down_proj'))
  once = flops.forward(MODEL, B, L, K)
  to_rank, from_rank = flops.count_adapters(MODEL, lora, B, L)
  assert to_rank == 2 * (2 * 10) * 3 * 2 * (16 + 24)
  assert from_rank == 2 * (2 * 10) * 3 * 2 * (4 * 8 + 16)
  assert flops.model(MODEL, B, L, K, lora) == (
    2 * once.blocks + 3 * (to_rank + from_rank),
    3 * once.attention,
    2 * once.head,
  )


def test_the_kernel_does_the_blocks_on_and_below_the_diagonal():
  """1,024 columns: 2 blocks of 512, so 3 squares; 2 + 7 products a layer."""
  config = dataclasses.replace(MODEL, attention='splash')
  done = flops.hardware(config, B, 1024, K)
  assert done.attention == 2 * B * 3 * 9 * 8 * 4 * 3 * 512**2
  again = dataclasses.replace(config, remat='full')
  assert flops.hardware(again, B, 1024, K).attention * 9 == done.attention * 11


def test_the_kernels_for_gpus_have_smaller_blocks():
  """1,024 columns of float32: 32 blocks of 32; 2 + 7 products per layer."""
  config = dataclasses.replace(MODEL, attention='triton')
  done = flops.hardware(config, B, 1024, K)
  squares = 32 * 33 // 2
  assert done.attention == 2 * B * 3 * 9 * 8 * 4 * squares * 32**2


def test_a_published_count():
  """6 operations a parameter and token, of Qwen2.5-0.5B's 358 M in layers."""
  config = ModelConfig(
    vocab_size=151_936,
    width=896,
    layers=24,
    heads=14,
    kv_heads=2,
    head_size=64,
    mlp_width=4_864,
  )
  matrices = 24 * (896 * 64 * (14 + 2 + 2 + 14) + 3 * 896 * 4_864)
  assert matrices == 357_826_560
  assert flops.model(config, 8, 2048, 1024).blocks == 6 * matrices * 8 * 2048
