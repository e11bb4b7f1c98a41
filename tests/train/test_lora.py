"""Runs with adapters: what learns, what is saved, and what is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from isft_jax import sharding
from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
)
from isft_jax.hf import adapter_folder, pretrained
from isft_jax.models import decoder, lora, projections
from isft_jax.models.likelihood import target_nll
from isft_jax.train import checkpoint, export, loop, saved, start
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.trainer import make_trainer
from tests.fixtures import fast_jit
from tests.train import test_meshes

SHAPE = ModelConfig(
  vocab_size=512,
  width=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=4,
  mlp_width=24,
)
LORA = LoraConfig(rank=3, targets=('q_proj', 'o_proj', 'down_proj'))


def save_base(folder, seed, data_folder=None):
  """Writes a random model, with the tokenizer of the dialogues."""
  graphdef, _ = decoder.abstract(SHAPE)
  params = decoder.init(SHAPE, jax.random.key(seed))
  pretrained.save(pretrained.Model(graphdef, params), SHAPE, str(folder))
  if data_folder:
    for path in (data_folder / 'tokenizer').iterdir():
      shutil.copy(path, folder)


def run_config(data_folder, base, **settings):
  return RunConfig(
    **{
      'records': str(data_folder / 'records'),
      'tokenizer': str(data_folder / 'tokenizer'),
      'batch_size': 4,
      'seq_len': 256,
      'steps': 4,
      'checkpoint_every': 2,
      'mesh': MeshConfig(1, 1, 1),
      'model': ModelConfig(init_from=str(base)),
      'lora': LORA,
      'optim': OptimConfig(learning_rate=1e-2),
      **settings,
    }
  )


@pytest.fixture(scope='module')
def folders(tmp_path_factory, data_folder):
  """A base, another base of the same shape, and a run of four steps."""
  folder = tmp_path_factory.mktemp('lora')
  save_base(folder / 'base', 0, data_folder)
  save_base(folder / 'other', 1, data_folder)
  config = run_config(data_folder, folder / 'base')
  trained = loop.train(config, str(folder / 'run'))
  return folder, config, trained


def assert_equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


# ------------------------------------------------------------- what is learned


def test_the_base_stays_as_it_is_and_adapters_learn(folders):
  folder, _, trained = folders
  adapters, base = lora.split(trained.params)
  assert_equal(base, pretrained.load(folder / 'base')[0].params)
  assert sorted(flatten_dict(adapters, sep='/')) == [
    'blocks/attention/o_lora_a',
    'blocks/attention/o_lora_b',
    'blocks/attention/q_lora_a',
    'blocks/attention/q_lora_b',
    'blocks/mlp/down_lora_a',
    'blocks/mlp/down_lora_b',
  ]
  # B begins at 0.
  assert all(
    np.abs(leaf).max() > 1e-3
    for leaf in jax.tree.leaves(jax.device_get(adapters))
  )


def test_a_checkpoint_holds_adapters_and_names_their_base(folders):
  folder, *_ = folders
  with Checkpoints(folder / 'run') as checkpoints:
    stored = checkpoints.restore_run()
  assert stored['base'] == {
    'place': str(folder / 'base'),
    'sha256': saved.digest(str(folder / 'base')),
  }
  step = checkpoint.checkpoint_folder(folder / 'run') / 'step_4'
  for item in ('params', 'opt_state'):
    names = (step / item / '_METADATA').read_text()
    assert 'q_lora_a' in names
    assert 'embedding' not in names and "'q'" not in names


def test_the_gradients_are_those_of_the_merged_weights():
  """W' = W + s A B: dA = s dW' B^T and dB = s A^T dW'."""
  config = LoraConfig(rank=3, alpha=5, rslora=True)
  graphdef, _ = decoder.abstract(test_meshes.MODEL, config)
  plain, _ = decoder.abstract(test_meshes.MODEL)
  params = decoder.init(test_meshes.MODEL, jax.random.key(0), config)
  adapters, base = lora.split(params)
  # Adapters that do something: B of a new one is 0.
  adapters = jax.tree.map(
    lambda leaf: (
      0.02 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
    ),
    adapters,
  )
  batch = test_meshes.batches()[0]

  def loss(graphdef, params):
    return jnp.sum(target_nll(graphdef, params, batch) * batch.weights_BK)

  gradient = fast_jit(jax.grad(lambda a: loss(graphdef, lora.join(base, a))))(
    adapters
  )
  merged = lora.merge(lora.join(base, adapters), config, 'float32')
  whole = fast_jit(jax.grad(lambda p: loss(plain, p)))(merged)
  whole = flatten_dict(whole, sep='/')
  flat = flatten_dict(gradient, sep='/')
  given = flatten_dict(adapters, sep='/')
  assert len(flat) == 2 * 7
  for name, sizes in {
    'blocks/attention/q': (32, 64),
    'blocks/attention/o': (64, 32),
    'blocks/mlp/down': (64, 32),
  }.items():
    weight = np.asarray(whole[name], np.float64).reshape(2, *sizes)
    a = np.asarray(given[name + '_lora_a'], np.float64).reshape(2, -1, 3)
    b = np.asarray(given[name + '_lora_b'], np.float64).reshape(2, 3, -1)
    for end, expected in (
      ('_lora_a', config.scale * weight @ b.swapaxes(1, 2)),
      ('_lora_b', config.scale * a.swapaxes(1, 2) @ weight),
    ):
      actual = np.asarray(flat[name + end]).reshape(expected.shape)
      # float32 sums over 192 targets
      np.testing.assert_allclose(
        actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
      )


def ten_steps(param_dtype, mesh):
  """Returns adapters and loss after each step; the base stays as it is."""
  model = dataclasses.replace(test_meshes.MODEL, param_dtype=param_dtype)
  config = LoraConfig(rank=4)
  params = decoder.init(model, jax.random.key(0), config)
  adapters, base = lora.split(params)
  trainer = make_trainer(model, test_meshes.OPTIM, mesh, 10, lora=config)
  placed = jax.tree.map(lambda leaf: leaf.sharding, trainer.abstract.frozen)
  state = trainer.start(jax.tree.map(jnp.copy, adapters))
  state = state._replace(
    frozen=jax.device_put(jax.tree.map(np.asarray, base), placed)
  )
  path = []
  for batch in test_meshes.batches():
    state, metrics = trainer.step(
      state, sharding.to_global(batch, trainer.mesh)
    )
    path.append(jax.device_get((state.params, metrics['loss'])))
  assert_equal(state.frozen, base)
  return path


@pytest.fixture(scope='module')
def on_one_device():
  one = MeshConfig(1, 1, 1)
  return {dtype: ten_steps(dtype, one) for dtype in ('float32', 'int8')}


@pytest.mark.parametrize(
  ('name', 'param_dtype'),
  [
    ('8x1x1', 'float32'),
    ('1x8x1', 'float32'),
    ('2x2x2', 'float32'),
    ('expert', 'float32'),
    ('context 4', 'float32'),
    # Axes that split the kernels of a base and their scales.
    ('1x8x1', 'int8'),
    ('2x2x2', 'int8'),
    ('context 4', 'int8'),
  ],
)
def test_ten_steps_on_a_mesh_are_those_of_one_device(
  name, param_dtype, on_one_device
):
  found = ten_steps(param_dtype, test_meshes.MESHES[name])
  for expected, actual in zip(on_one_device[param_dtype], found, strict=True):
    jax.tree.map(
      # float32 sums in another order, carried on through ten steps of 1e-2
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
      actual,
      expected,
    )


def test_microbatches_are_one_batch(folders, data_folder):
  folder, config, trained = folders
  optim = dataclasses.replace(config.optim, accumulate=2)
  config = dataclasses.replace(config, optim=optim)
  split = loop.train(config, str(folder / 'accumulated'))
  jax.tree.map(
    # float32 sums in another order, through four steps of 1e-2
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    split.params,
    trained.params,
  )


# ------------------------------------------------------- resuming and starting


def test_a_resumed_run_ends_as_if_it_had_not_stopped(folders):
  folder, config, trained = folders
  half = dataclasses.replace(config, steps=2)
  loop.train(half, str(folder / 'resumed'))
  resumed = loop.train(config, str(folder / 'resumed'))
  assert_equal(resumed.params, trained.params)


def test_a_run_resumes_only_on_its_base(folders):
  folder, config, _ = folders
  shutil.copytree(folder / 'run', folder / 'again')
  shutil.copytree(folder / 'base', folder / 'moved')
  longer = dataclasses.replace(config, steps=5)

  def resume(base):
    model = dataclasses.replace(config.model, init_from=str(folder / base))
    loop.train(dataclasses.replace(longer, model=model), str(folder / 'again'))

  with pytest.raises(ValueError) as error:
    resume('other')
  text = str(error.value)
  assert text.startswith(
    f'{folder}/again: its adapters were trained on the base {folder}/base '
    '(checksum '
  )
  assert f', and this is {folder}/other (checksum ' in text
  assert '\n' not in text
  resume('moved')
  assert saved.load_adapter(str(folder / 'again')).run['steps'] == 5


def test_a_shared_base_is_not_loaded_again(folders, monkeypatch):
  folder, config, trained = folders
  monkeypatch.setattr(start, 'load_base', None)  # any call would raise
  again = loop.train(config, str(folder / 'shared'), base=trained.base)
  assert_equal(again.params, trained.params)
  # No second copy in memory: the very buffers of the first run.
  assert again.base.identity == trained.base.identity
  buffers = [
    {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}
    for tree in (again.base.params, lora.split(again.params)[1])
  ]
  assert buffers[0] == buffers[1]


@pytest.mark.parametrize('kind', ['run', 'adapted run'])
def test_a_base_may_be_a_run(folders, data_folder, kind):
  """The base is then the run's model, with its adapters merged."""
  folder, config, _ = folders
  place = folder / 'run'
  if kind == 'run':
    place = folder / 'full'
    model = dataclasses.replace(SHAPE, init_from=str(folder / 'base'))
    full = run_config(data_folder, '', model=model, lora=LoraConfig(), steps=1)
    loop.train(full, str(place))
  model = dataclasses.replace(SHAPE, init_from=str(place))
  config = dataclasses.replace(config, model=model)
  trained = loop.train(config, str(folder / f'on {kind}'))
  expected = saved.load(str(place)).model.params
  assert_equal(lora.split(trained.params)[1], expected)
  merged = saved.load(str(folder / f'on {kind}'))
  assert_equal(merged.model.params, lora.merge(trained.params, LORA, 'float32'))


# ------------------------------------------------------------ loading, exports


def test_a_loaded_run_is_the_base_with_its_adapters_merged(folders):
  folder, _, trained = folders
  model = saved.load(str(folder / 'run')).model
  assert_equal(model.params, lora.merge(trained.params, LORA, 'float32'))
  tokens_BL = np.random.default_rng(0).integers(0, 512, (2, 9))
  joined = pretrained.Model(trained.graphdef, trained.params)
  # (x W) + s (x A) B against x (W + s A B), in float32
  np.testing.assert_allclose(model(tokens_BL), joined(tokens_BL), atol=1e-5)


def test_a_base_that_has_moved_can_be_named(folders):
  folder, *_ = folders
  shutil.copytree(folder / 'run', folder / 'orphan')
  path = folder / 'orphan'
  (folder / 'base').rename(folder / 'elsewhere')
  try:
    with pytest.raises(ValueError, match='name its new place with --base'):
      saved.load(str(path))
    with pytest.raises(
      ValueError, match=r'had the checksum .*, and .*other has'
    ):
      saved.load(str(path), base=str(folder / 'other'))
    found = saved.load(str(path), base=str(folder / 'elsewhere')).model.params
  finally:
    (folder / 'elsewhere').rename(folder / 'base')
  assert_equal(found, saved.load(str(path)).model.params)


def test_an_exported_model_is_merged_and_an_adapter_is_not(folders):
  folder, _, trained = folders
  export.export(str(folder / 'run'), str(folder / 'merged'))
  model, _ = pretrained.load(folder / 'merged')
  assert_equal(model.params, lora.merge(trained.params, LORA, 'float32'))
  export.export_adapter(str(folder / 'run'), str(folder / 'adapter'))
  names = {path.name for path in (folder / 'adapter').iterdir()}
  assert {adapter_folder.CONFIG, adapter_folder.WEIGHTS} < names
  assert 'config.json' not in names
  written = json.loads((folder / 'adapter' / 'adapter_config.json').read_text())
  assert written['base_model_name_or_path'] == str(folder / 'base')


def test_training_goes_on_from_an_adapter(folders, data_folder):
  folder, config, trained = folders
  if not (folder / 'adapter').exists():
    export.export_adapter(str(folder / 'run'), str(folder / 'adapter'))
  given = LoraConfig(init_from=str(folder / 'adapter'))
  # With a rate of 0 the adapters stay as they were read.
  optim = OptimConfig(learning_rate=0.0)
  config = dataclasses.replace(config, lora=given, optim=optim)
  again = loop.train(config, str(folder / 'continued'))
  assert_equal(again.params, trained.params)
  stored = json.loads((folder / 'continued' / 'config.json').read_text())
  assert stored['lora'] == {
    'rank': 3,
    'alpha': 6.0,
    'targets': ['q_proj', 'o_proj', 'down_proj'],
    'rslora': False,
    'dropout': 0.0,
    'init_from': str(folder / 'adapter'),
  }
  other = dataclasses.replace(config.model, init_from=str(folder / 'other'))
  with pytest.raises(ValueError, match='its base had weights with the check'):
    loop.train(
      dataclasses.replace(config, model=other), str(folder / 'on another')
    )
  wider = dataclasses.replace(given, rank=4)
  with pytest.raises(
    ValueError, match=r'differs from the adapter in .* rank=3'
  ):
    loop.train(dataclasses.replace(config, lora=wider), str(folder / 'wider'))


def test_a_full_run_has_no_adapter_to_export(folders, data_folder):
  folder, *_ = folders
  full = run_config(data_folder, folder / 'base', lora=LoraConfig(), steps=1)
  loop.train(full, str(folder / 'all weights'))
  with pytest.raises(ValueError, match='trained all weights and has no adapt'):
    export.export_adapter(str(folder / 'all weights'), str(folder / 'none'))
  with pytest.raises(ValueError, match='has no adapters, so it needs no --bas'):
    saved.load(str(folder / 'all weights'), base=str(folder / 'base'))


# ------------------------------------------------------------------------ int8


def test_an_int8_base_is_rounded_as_it_is_read(folders):
  folder, config, _ = folders
  model = dataclasses.replace(config.model, param_dtype='int8')
  trained = loop.train(
    dataclasses.replace(config, model=model), str(folder / 'int8')
  )
  _, base = lora.split(trained.params)
  exact = pretrained.load(folder / 'base')[0].params
  for name, leaf in flatten_dict(base, sep='/').items():
    if name.endswith('_scale'):
      assert leaf.dtype == jnp.float32
    elif name.rpartition('/')[2] in projections.KERNELS:
      assert leaf.dtype == jnp.int8
  # Every weight is within half a step of its channel.
  plain = lora.merge(base, LoraConfig(), 'float32')
  for layer in range(2):
    error = plain['blocks']['mlp']['down'] - exact['blocks']['mlp']['down']
    step = base['blocks']['mlp']['down_scale']
    half = np.asarray(step[layer] / 2)[None] * (1 + 1e-5)
    assert (np.abs(error[layer]) <= half).all()
  # What is loaded later is what was trained.
  merged = saved.load(str(folder / 'int8')).model.params
  assert_equal(merged, lora.merge(trained.params, LORA, 'float32'))
  run = dataclasses.replace(
    SHAPE, init_from=str(folder / 'run'), param_dtype='int8'
  )
  with pytest.raises(ValueError, match='an int8 base must be a model folder'):
    loop.train(
      dataclasses.replace(config, model=run), str(folder / 'int8 of a run')
    )


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'rank': -1}, 'config.lora.rank must be from 0 to 1000000 (got -1)'),
    (
      {'rank': 4, 'alpha': -2},
      'config.lora.alpha must be from 0 to 1000000 (got -2)',
    ),
    (
      {'rank': 4, 'dropout': 0.05},
      'config.lora.dropout must be 0, because adapters are trained without '
      'dropout (got 0.05)',
    ),
    (
      {'alpha': 32},
      'config.lora.rank is 0, so that all weights would be trained; set it, as '
      'in config.lora.rank=16, or remove the other fields of config.lora',
    ),
    (
      {'rank': 4, 'targets': ('q_proj', 'lm_head')},
      "config.lora.targets must be one of 'q_proj', 'k_proj', 'v_proj', "
      "'o_proj', 'gate_proj', 'up_proj', 'down_proj', 'all-linear' (got "
      "'lm_head')",
    ),
    (
      {'rank': 4, 'targets': ()},
      'config.lora.targets is empty: name the maps, or all-linear',
    ),
  ],
)
def test_settings_that_cannot_work_are_named(settings, message):
  config = RunConfig(records='R', lora=LoraConfig(**settings))
  config.model.init_from = 'M'
  with pytest.raises(ValueError) as error:
    config.check()
  assert str(error.value) == message


def test_adapters_need_a_base_and_an_int8_base_needs_adapters():
  config = RunConfig(records='R', lora=LoraConfig(rank=4))
  with pytest.raises(ValueError, match=r'config.lora needs a base to adapt'):
    config.check()
  model = ModelConfig(init_from='M', param_dtype='int8')
  with pytest.raises(ValueError, match='=int8 is for a base that is not train'):
    RunConfig(records='R', model=model).check()
