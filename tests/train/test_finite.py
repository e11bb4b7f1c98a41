"""A state with NaN or infinite numbers is never saved, resumed or exported."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.train import export, loop, saved
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.step import is_finite
from isft_jax.train.trainer import make_trainer

STEPS = 4


@pytest.fixture
def config(data_folder):
  """Its step is the program of tests/following, which is compiled once."""
  return RunConfig(
    records=str(data_folder / 'records'),
    tokenizer=str(data_folder / 'tokenizer'),
    seq_len=256,
    targets_per_row=256,
    steps=STEPS,
    checkpoint_every=2,
    mesh=MeshConfig(1, 1, 1),
    model=ModelConfig(
      vocab_size=512, width=16, layers=2, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )


def trainer_of(config):
  return make_trainer(config.model, config.optim, config.mesh, config.steps)


def poison(monkeypatch, at_step, change):
  """Makes a step return other results: change(state, metrics)."""
  make = loop.make_trainer

  def poisoned(*args, **kwargs):
    trainer = make(*args, **kwargs)

    def step(state, batch):
      state, metrics = trainer.step(state, batch)
      if int(state.step) == at_step:
        state, metrics = change(state, metrics)
      return state, metrics

    return dataclasses.replace(trainer, step=step)

  monkeypatch.setattr(loop, 'make_trainer', poisoned)


def set_one(tree, value):
  """Sets the last number of the last array of a tree."""
  leaves, structure = jax.tree.flatten(tree)
  number = max(i for i, leaf in enumerate(leaves) if leaf.ndim)
  leaf = leaves[number]
  leaves[number] = leaf.at[(-1,) * leaf.ndim].set(value)
  return jax.tree.unflatten(structure, leaves)


def gradient(state, metrics):
  """The loss is finite: only the norm of the gradient shows it."""
  nan = jnp.full_like(metrics['grad_norm'], jnp.nan)
  return state, metrics | {'grad_norm': nan}


def infinite_gradient(state, metrics):
  inf = jnp.full_like(metrics['grad_norm'], jnp.inf)
  return state, metrics | {'grad_norm': inf}


def parameter(state, metrics):
  """No metric of this step shows it."""
  return state._replace(params=set_one(state.params, jnp.nan)), metrics


def infinite_parameter(state, metrics):
  return state._replace(params=set_one(state.params, -jnp.inf)), metrics


def moment(state, metrics):
  """An infinite second moment stops a parameter for ever, without any NaN."""
  return state._replace(opt_state=set_one(state.opt_state, jnp.inf)), metrics


PARAMETER = 'not finite|the loss of step .* is nan'
MOMENT = 'parameters or moments after step .* are not finite'


# Step 1 is not saved, step 2 would be, and step 4 has a checkpoint before it.
@pytest.mark.parametrize(
  ('change', 'at_step', 'words'),
  [
    (gradient, 1, 'the norm of the gradient of step 1 is nan'),
    (gradient, 2, 'the norm of the gradient of step 2 is nan'),
    (gradient, 4, 'the norm of the gradient of step 4 is nan'),
    (infinite_gradient, 2, 'the norm of the gradient of step 2 is inf'),
    (parameter, 1, PARAMETER),
    (parameter, 2, PARAMETER),
    (parameter, 4, PARAMETER),
    (infinite_parameter, 2, PARAMETER),
    (moment, 1, MOMENT),
    (moment, 2, MOMENT),
    (moment, 4, MOMENT),
  ],
)
def test_a_bad_update_ends_the_run_and_is_not_saved(
  change, at_step, words, config, tmp_path, monkeypatch
):
  poison(monkeypatch, at_step, change)
  with pytest.raises(FloatingPointError, match=words):
    loop.train(config, tmp_path)
  steps = {path.name for path in (tmp_path / 'checkpoints').glob('step_*')}
  assert steps == ({'step_2'} if at_step > 2 else set())
  if change is parameter:  # the state that is saved can be used
    monkeypatch.undo()
    assert loop.train(config, tmp_path).summary['steps'] == STEPS


def test_a_run_of_one_step_at_an_infinite_rate_saves_nothing(config, tmp_path):
  """Loss and gradient of the only step are finite."""
  config.steps = 1
  config.optim.learning_rate = float('inf')
  with pytest.raises(FloatingPointError, match='after step 1 are not finite'):
    loop.train(config, tmp_path)
  (row,) = metrics_lib.read(epath.Path(tmp_path) / 'metrics.jsonl')
  assert np.isfinite([row['loss'], row['grad_norm']]).all()
  assert not list((tmp_path / 'checkpoints').glob('step_*'))


def save_poisoned(config, workdir, value, step=STEPS):
  """Writes a checkpoint as an older version may have done."""
  trainer = trainer_of(config)
  state = trainer.init(0)._replace(step=jnp.int32(step))
  state = state._replace(params=set_one(state.params, value))
  with Checkpoints(workdir, config) as checkpoints:
    checkpoints.save(step, state, {'next_index': step}, fingerprint(config))


def fingerprint(config):
  (path,) = epath.Path(config.records).glob('trajectories/*/metadata.json')
  return json.loads(path.read_text())['fingerprint']


@pytest.mark.parametrize('step', [2, STEPS])
def test_a_poisoned_checkpoint_is_not_resumed(step, config, tmp_path):
  save_poisoned(config, tmp_path, jnp.nan, step)
  with pytest.raises(ValueError, match=f': step {step} has parameters'):
    loop.train(config, tmp_path)


@pytest.mark.parametrize(
  ('value', 'dtype', 'words'),
  [
    (jnp.nan, '', 'are not finite in float32; export another'),
    (jnp.inf, '', 'are not finite in float32; export another'),
    (-jnp.inf, 'bfloat16', 'are not finite in bfloat16; export another'),
    (jnp.nan, 'float16', 'are not finite in float16; export another'),
    (70_000.0, 'float16', 'the largest float16 is 65,504'),
    (-70_000.0, 'float16', 'give --dtype=bfloat16'),
  ],
)
def test_an_export_refuses_numbers_that_are_not_finite(
  value, dtype, words, config, tmp_path
):
  save_poisoned(config, tmp_path / 'run', value)
  with pytest.raises(
    ValueError, match=rf'/run: 1 of [\d,]+ values of .*{words}'
  ):
    export.export(str(tmp_path / 'run'), str(tmp_path / 'out'), dtype)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('value', 'dtype'), [(65_504.0, 'float16'), (70_000.0, 'bfloat16')]
)
def test_an_export_keeps_numbers_that_fit(value, dtype, config, tmp_path):
  save_poisoned(config, tmp_path / 'run', value)
  export.export(str(tmp_path / 'run'), str(tmp_path / 'out'), dtype)
  assert (tmp_path / 'out' / 'config.json').exists()
  params = saved.load(str(tmp_path / 'run'), dtype).model.params
  assert is_finite(params)


@pytest.mark.parametrize('value', [jnp.nan, jnp.inf, -jnp.inf])
def test_one_number_among_all_is_found(value):
  tree = {'a': jnp.zeros((3, 4)), 'b': {'c': jnp.ones(5), 'd': jnp.int32(1)}}
  assert is_finite(tree)
  for leaf in (tree['a'], tree['b']['c']):
    for number in range(leaf.size):
      bad = leaf.ravel().at[number].set(value)
      assert not is_finite({'bad': bad, **tree})
