"""The trainer: a step that is compiled again says so; what is donated is."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig
from isft_jax.tpu.compile import lower_step
from isft_jax.train.trainer import make_trainer, warn_when_retraced

MODEL = ModelConfig(
  vocab_size=64,
  width=32,
  layers=2,
  heads=8,
  kv_heads=2,
  head_size=8,
  mlp_width=64,
)


@pytest.fixture
def trainer():
  return make_trainer(MODEL, OptimConfig(), MeshConfig(2, 2, 2), steps=10)


def test_a_step_that_is_compiled_again_says_what_is_new(capsys):
  step = jax.jit(
    warn_when_retraced(lambda state, batch: state + batch['x'].sum())
  )
  state = jnp.float32(0)
  for columns in (3, 3, 3):
    step(state, {'x': np.ones((2, columns), np.float32)})
  assert capsys.readouterr().out == ''
  step(state, {'x': np.ones((2, 5), np.float32)})
  assert capsys.readouterr().out == (
    'warning: the step is compiled again: 1/x was float32[2, 3] and is '
    'float32[2, 5]\n'
  )
  step(state, {'x': np.ones((2, 5), np.int32)})
  assert '1/x was float32[2, 5] and is int32[2, 5]' in capsys.readouterr().out


def test_the_trainers_own_step_does(trainer, capsys):
  lower_step(trainer, batch_size=4, seq_len=8, targets_per_row=4)
  assert capsys.readouterr().out == ''
  lower_step(trainer, batch_size=4, seq_len=8, targets_per_row=6)
  said = capsys.readouterr().out
  assert '1/targets_BK was int32[4, 4] and is int32[4, 6]' in said
  assert 'tokens_BL' not in said and said.count('\n') == 1


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_step_keeps_the_type_of_every_array_of_the_state(dtype):
  """Moments are as wide as their parameters: another type would be compiled
  again at the second step, and rounded where a run resumes."""
  model = dataclasses.replace(MODEL, dtype='bfloat16', param_dtype=dtype)
  trainer = make_trainer(model, OptimConfig(), MeshConfig(data=1), steps=10)
  state, _ = lower_step(
    trainer, batch_size=4, seq_len=8, targets_per_row=4
  ).out_info
  found = jax.tree.map(lambda leaf: leaf.dtype, state)
  assert found == jax.tree.map(lambda leaf: leaf.dtype, trainer.abstract)
  for leaf in jax.tree.leaves((state.params, state.opt_state)):
    assert leaf.dtype in (jnp.dtype(dtype), jnp.int32)  # int32: counts of steps


def test_the_whole_state_is_replaced_in_place(trainer):
  """Each of its arrays is an argument that a result takes the memory of."""
  text = lower_step(
    trainer, batch_size=4, seq_len=8, targets_per_row=4
  ).as_text()
  leaves = jax.tree.leaves(trainer.abstract)
  assert len(re.findall(r'tf.aliasing_output|jax.buffer_donor', text)) == len(
    leaves
  )


def test_given_parameters_become_the_state(trainer):
  """They are no second copy beside it."""
  params = jax.tree.map(
    lambda leaf: jax.device_put(np.ones(leaf.shape, np.float32), leaf.sharding),
    trainer.abstract.params,
  )
  state = trainer.start(params)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    assert np.all(np.asarray(leaf) == 1), sharding.path_name(path)


@pytest.fixture(scope='module')
def loops():
  """The loops of a step in two micro-batches, on 8 devices: what they carry."""
  model = dataclasses.replace(MODEL, head_chunk=16)
  optim = OptimConfig(accumulate=2)
  trainer = make_trainer(model, optim, MeshConfig(1, 8, 1), steps=10)
  lowered = lower_step(trainer, batch_size=16, seq_len=12, targets_per_row=5)
  fast = {'xla_backend_optimization_level': 0}
  text = lowered.compile(compiler_options=fast).as_text()
  return [line for line in text.splitlines() if ' while(' in line]


def test_gradients_of_micro_batches_are_summed_where_moments_rest(loops):
  """Of the embedding [64, 32] and of mlp/down [2, 64, 32], an eighth each."""
  assert any('f32[8,32]' in loop and 'f32[2,64,4]' in loop for loop in loops)
  assert not any(re.search(r'f32\[(2,)?64,32\]', loop) for loop in loops)


def test_each_device_computes_its_own_rows_alone(loops):
  """Of 8 rows a micro-batch, one; of all its 12 tokens and 32 columns."""
  assert any('f32[1,12,32]' in loop for loop in loops)
  assert not any(re.search(r'f32\[(2,)?8,12,', loop) for loop in loops)
