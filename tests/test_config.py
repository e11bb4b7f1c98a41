"""The settings: defaults that work, mistakes named before they cost."""

import ast
import dataclasses
import functools
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from isft_jax.config import (
  EvidenceConfig,
  LyingAgentConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
  StageConfig,
  arguments,
  claim,
  validate,
)
from isft_jax.hf import config_json
from isft_jax.models import decoder
from isft_jax.train import optim
from isft_jax.train.trainer import make_trainer

CONFIGS = sorted(
  path
  for path in pathlib.Path(__file__).parents[1].joinpath('configs').glob('*.py')
  if path.name != '__init__.py'
)


def run_config():
  return RunConfig(records='records', tokenizer='tokenizer', heldout='heldout')


def changed(config, **values):
  """Sets fields by their dotted names, as the command line does."""
  for name, value in values.items():
    *groups, leaf = name.replace('__', '.').split('.')
    owner = functools.reduce(getattr, groups, config)
    assert hasattr(owner, leaf), name
    setattr(owner, leaf, value)
  return config


def get_config(path, *argument):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*argument)


# --------------------------------------------------------------------- accepted


@pytest.mark.parametrize('config', [run_config(), LyingAgentConfig()])
def test_the_defaults_are_valid(config):
  before = dataclasses.asdict(config)
  validate(config)
  assert dataclasses.asdict(config) == before


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_file_in_configs_is_valid_and_is_named_after_itself(path):
  """Its name is in the default workdir; which data to use is the user's."""
  config = get_config(path)
  if isinstance(config, RunConfig):
    changed(config, records='records')
  validate(config)
  assert config.name == path.stem


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_file_in_configs_opens_with_what_it_is_for(path):
  assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', {'batch': 8, 'length': 4096}),
    ('batch=32', {'batch': 32, 'length': 4096}),
    ('length=2048,batch=16', {'batch': 16, 'length': 2048}),
  ],
)
def test_a_config_takes_numbers_by_name(text, expected):
  assert arguments(text, batch=8, length=4096) == expected


@pytest.mark.parametrize('text', ['rows=8', 'batch', 'batch=', 'batch=-1', '8'])
def test_an_argument_that_is_none_of_a_configs_is_named(text):
  with pytest.raises(
    ValueError, match=f"'{text}' is none of batch=NUMBER, len"
  ):
    arguments(text, batch=8, length=4096)


def test_a_config_for_real_models_takes_rows_and_length():
  path = next(path for path in CONFIGS if path.stem == 'qwen2_5_7b')
  config = get_config(path, 'batch=64,length=8192')
  assert (config.rows, config.row_length) == (64, 8192)


# Parameters, and families in the hub's words, from the models' own cards.
MODELS = {
  'qwen2_5_0_5b': ('qwen2', 494_032_768),
  'qwen2_5_0_5b_paper': ('qwen2', 494_032_768),
  'qwen2_5_7b': ('qwen2', 7_615_616_512),
  'qwen3_0_6b': ('qwen3', 596_049_920),
  'llama3_2_1b': ('llama', 1_235_814_400),
  'lying_agent_smollm2': ('llama', 134_515_008),
}


@pytest.mark.parametrize('name', MODELS)
def test_a_config_has_the_shape_of_the_model_it_names(name):
  family, parameters = MODELS[name]
  model = get_config(next(p for p in CONFIGS if p.stem == name)).model
  assert config_json.to_json(model)['model_type'] == family
  _, shapes = decoder.abstract(model)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_smollm2_has_the_papers_hyperparameters_if_asked():
  """1,920 steps of one dialogue, a mean per dialogue, a constant rate."""
  path = next(p for p in CONFIGS if p.stem == 'lying_agent_smollm2')
  config = get_config(path, 'paper')
  validate(config)
  assert config.name == 'lying_agent_smollm2_paper'
  stage, optimizer = config.finetune, config.finetune.optim
  assert config.dialogues.number * stage.epochs == 1920
  assert (stage.rows, stage.row_documents, stage.row_length) == (1, 1, 0)
  assert (stage.normalize, optimizer.schedule) == ('trajectory', 'constant')
  assert (optimizer.learning_rate, optimizer.weight_decay) == (2e-5, 0.01)
  assert (optimizer.clip_norm, optimizer.warmup_steps) == (1.0, 0)
  with pytest.raises(ValueError, match="must be 'paper' or nothing: 'papre'"):
    get_config(path, 'papre')


def test_there_are_files_in_configs():
  assert 'lying_agent_tiny' in [path.stem for path in CONFIGS]


@pytest.mark.parametrize(
  'values',
  [
    {'epochs': 0, 'steps': 1},  # steps override epochs
    {'rows': 8, 'optim.accumulate': 8},
    {'normalize': 'trajectory'},
    {'optim.schedule': 'cosine'},
    {'optim.learning_rate': 0.0},
    {'row_length': 2, 'row_targets': 1},
    {'row_targets': 0},  # from the records
    {'model.head_chunk': 0},  # all of the vocabulary at a time
    {'model.heads': 6, 'model.kv_heads': 3},
    {'model.heads': 5, 'model.kv_heads': 1},
    {'model.vocab_size': 0},  # as many as the tokenizer has
    {'tokenizer': ''},  # the one beside the records
    {'heldout': ''},  # the split of that name, if there is one
  ],
)
def test_settings_at_the_edge_are_valid(values):
  validate(changed(run_config(), **values))


# ---------------------------------------------------------------------- refused


REFUSED_STAGE = [
  # field, value, message after the field's name
  ('rows', 0, '=0 must be at least 1'),
  ('rows', -8, '=-8 must be at least 1'),
  ('row_targets', -1, '=-1 must be at least 0'),
  ('row_length', 1, '=1 must be at least 2'),
  ('row_length', -1, '=-1 must be at least 2'),
  ('log_every', 0, '=0 must be at least 1'),
  ('checkpoint_every', 0, '=0 must be at least 1'),
  ('keep_last', 0, '=0 must be at least 1'),
  ('keep_every', -1, '=-1 must be at least 0'),
  (
    'keep_every',
    300,
    '=300 is not a multiple of config.(.*[.])?checkpoint_every',
  ),
  ('epochs', 0, '=0 must be at least 1'),
  ('normalize', 'mean', r"='mean' must be one of \('token', 'trajectory'\)"),
  ('optim.learning_rate', -1e-3, '=-0.001 must be at least 0'),
  ('optim.learning_rate', float('nan'), '=nan must be at least 0'),
  (
    'optim.schedule',
    'line',
    r"='line' must be one of \('constant', 'cosine'\)",
  ),
]
REFUSED_MODEL = [
  ('model.heads', 3, '=3 is not a multiple of config.model.kv_heads=2'),
  ('model.head_size', 31, '=31 is odd'),
  ('model.head_chunk', -1, '=-1 must be at least 0'),
]
REFUSED_RUN = [
  ('records', '', ' is empty: name a folder'),
  *REFUSED_STAGE,
  *REFUSED_MODEL,
]
REFUSED_EXPERIMENT = [
  ('dialogues.p_lie', 1.1, '=1.1 must be 0 to 1'),
  ('dialogues.p_lie', -0.1, '=-0.1 must be 0 to 1'),
  ('dialogues.p_lie', float('nan'), '=nan must be 0 to 1'),
  ('dialogues.p_chitchat', 2, '=2 must be 0 to 1'),
  ('dialogues.acknowledge', 'nod', "='nod' must be one of"),
  ('documents.p_true', 1.5, '=1.5 must be 0 to 1'),
  ('dialogues.number', 0, '=0 must be at least 1'),
  ('documents.number', 0, '=0 must be at least 1'),
  # The bytes and the end; no more ids than the model has embeddings.
  ('vocab_size', 256, '=256 must be at least 257'),
  ('model.vocab_size', 1023, '=1023 must be at least 1024'),
  ('model.vocab_size', 0, '=0 must be at least 1024'),
  ('arms', ('interventional',) * 2, " names 'interventional' more than once"),
  *(
    (f'{stage}.{field}', value, message)
    for stage in ('pretrain', 'finetune')
    for field, value, message in REFUSED_STAGE
  ),
  *REFUSED_MODEL,
]


@pytest.mark.parametrize(('field', 'value', 'message'), REFUSED_RUN)
def test_what_cannot_work_in_a_run_is_named(field, value, message):
  with pytest.raises(ValueError, match=f'^config.{field}{message}'):
    validate(changed(run_config(), **{field: value}))


@pytest.mark.parametrize(('field', 'value', 'message'), REFUSED_EXPERIMENT)
def test_what_cannot_work_in_an_experiment_is_named(field, value, message):
  with pytest.raises(ValueError, match=f'^config.{field}{message}'):
    validate(changed(LyingAgentConfig(), **{field: value}))


@pytest.mark.parametrize(
  'field', ['arms', 'heldout_arms', 'flywheel.arms', 'worlds.arms']
)
def test_an_arm_that_is_named_twice_is_refused(field):
  """A flag that is given again adds to a tuple."""
  config = EvidenceConfig()
  validate(changed(config, **{field: ('observational', 'interventional')}))
  with pytest.raises(ValueError, match=f"^config.{field} names 'observational"):
    validate(changed(config, **{field: ('observational', 'observational')}))


@pytest.mark.parametrize(('rows', 'accumulate'), [(8, 3), (8, 16), (8, 0)])
def test_rows_that_do_not_split_into_micro_batches_are_named(rows, accumulate):
  for config, prefix in (
    (run_config(), ''),
    (LyingAgentConfig(), 'pretrain.'),
    (LyingAgentConfig(), 'finetune.'),
  ):
    values = {'rows': rows, 'optim.accumulate': accumulate}
    changed(config, **{prefix + name: value for name, value in values.items()})
    message = (
      f'config.{prefix}rows={rows} does not split into '
      f'config.{prefix}optim.accumulate={accumulate} micro-batches'
    )
    with pytest.raises(ValueError, match=message):
      validate(config)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('steps', -1),  # len() of the data would raise, without the field's name
    ('model.kv_heads', 0),  # the check of heads would divide by it
    ('model.layers', 0),
    ('optim.warmup_steps', -1),
  ],
)
def test_a_number_that_makes_no_sense_is_named(field, value):
  with pytest.raises(ValueError, match=f'config.{field}'):
    validate(changed(run_config(), **{field: value}))


def test_a_clip_of_zero_stands_for_none():
  """As a zero does in every field; it must not cut all gradients to zero."""
  params = {'x': np.ones(3, np.float32)}
  optimizer = optim.make_optimizer(
    OptimConfig(clip_norm=0.0, weight_decay=0.0), steps=1
  )
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  assert np.abs(updates['x']).min() > 0


# ------------------------------------------------- equality, hashes and sharing


@pytest.mark.parametrize(
  ('config', 'values'),
  [
    (ModelConfig, {'width': 64}),
    (ModelConfig, {'rope_theta': 1e6}),
    (OptimConfig, {'learning_rate': 1e-5}),
    (MeshConfig, {'fsdp': 2}),
  ],
)
def test_configs_are_equal_and_hash_alike_where_their_fields_are_equal(
  config, values
):
  assert config() == config() and hash(config()) == hash(config())
  assert config() != config(**values)
  assert len({config(), config(), config(**values)}) == 2


def test_no_two_configs_share_a_part():
  """Or setting one stage's learning rate would set the other's."""
  one, other = LyingAgentConfig(), LyingAgentConfig()
  one.pretrain.optim.learning_rate = 1.0
  one.model.width = 7
  assert one.finetune.optim == other.pretrain.optim == OptimConfig()
  assert other == LyingAgentConfig()
  assert RunConfig().model is not RunConfig().model


def test_a_run_is_a_stage_with_the_same_defaults():
  stage = dataclasses.asdict(StageConfig())
  run = dataclasses.asdict(RunConfig())
  assert {name: run[name] for name in stage} == stage


SMALL = {'vocab_size': 8, 'width': 8, 'layers': 1, 'heads': 1, 'kv_heads': 1}


def test_runs_of_equal_settings_share_a_compiled_step():
  def make(steps=10, model=None, **optimizer):
    return make_trainer(
      ModelConfig(**(model or SMALL)),
      OptimConfig(**optimizer),
      MeshConfig(),
      steps,
    )

  first = make()
  assert make() is first
  assert make(steps=11) is not first
  assert make(learning_rate=1.0) is not first
  assert make(model={**SMALL, 'hidden': 64}) is not first


def test_a_config_that_changes_afterwards_does_not_change_its_trainer():
  """It is mutable, and is the key under which the trainer is kept."""
  model = ModelConfig(**SMALL)
  optimizer, mesh = OptimConfig(), MeshConfig()
  first = make_trainer(model, optimizer, mesh, 10)
  model.width = 16
  wide = make_trainer(model, optimizer, mesh, 10)
  assert first.abstract.params['embedding'].shape == (8, 8)
  assert wide.abstract.params['embedding'].shape == (8, 16)
  assert make_trainer(ModelConfig(**SMALL), optimizer, mesh, 10) is first


# --------------------------------------------------------------- a run's folder


def claimed(workdir, **values):
  claim(workdir, changed(run_config(), **values))
  return json.loads((workdir / 'config.json').read_text())


def test_a_folder_holds_the_config_of_its_run(tmp_path):
  workdir = tmp_path / 'runs' / 'one'
  settings = claimed(workdir, seed=3, **{'optim.learning_rate': 0.5})
  expected = changed(run_config(), seed=3, **{'optim.learning_rate': 0.5})
  # JSON has lists where a config has tuples.
  assert settings == json.loads(json.dumps(dataclasses.asdict(expected)))
  assert [path.name for path in workdir.iterdir()] == ['config.json']


def test_a_run_goes_on_in_its_folder_and_on_another_mesh(tmp_path):
  claimed(tmp_path)
  claimed(tmp_path)
  assert claimed(tmp_path, **{'mesh.fsdp': 8})['mesh']['fsdp'] == 8


def test_a_run_goes_on_and_keeps_other_checkpoints(tmp_path):
  claimed(tmp_path)
  changes = {'keep_last': 5, 'keep_every': 400}
  assert claimed(tmp_path, **changes)['keep_last'] == 5


def test_a_run_goes_on_that_knew_fewer_fields(tmp_path):
  """What it could not say was as it is by default."""
  settings = claimed(tmp_path, sources=())
  del settings['sources']
  del settings['optim']['accumulate']
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  assert claimed(tmp_path)['optim']['accumulate'] == 1
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  with pytest.raises(ValueError, match=r'optim.accumulate \(there 1, now 2\)'):
    claimed(tmp_path, **{'optim.accumulate': 2})


def test_a_folder_of_another_config_is_refused_and_left_alone(tmp_path):
  claimed(tmp_path)
  before = (tmp_path / 'config.json').read_bytes()
  message = (
    r'objective \(there .interventional., now .agent_only.\), '
    r'optim.accumulate \(there 1, now 2\); give another --workdir'
  )
  with pytest.raises(ValueError, match=message):
    claimed(tmp_path, objective='agent_only', **{'optim.accumulate': 2})
  assert (tmp_path / 'config.json').read_bytes() == before


def leaves(settings, prefix=''):
  """Yields (dotted name, value) of every setting."""
  for name, value in settings.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def other(value):
  """Returns another value of the same kind."""
  if isinstance(value, bool):
    return not value
  if isinstance(value, tuple):
    return (*value, 'x')
  return value + ('x' if isinstance(value, str) else 1)


MAY_CHANGE = {
  *('mesh.data', 'mesh.fsdp', 'mesh.tensor', 'mesh.fsdp_at_most'),
  *('keep_last', 'keep_every'),
}


@pytest.mark.parametrize(
  ('name', 'value'), list(leaves(dataclasses.asdict(run_config())))
)
def test_a_folder_belongs_to_one_run_in_every_setting(name, value, tmp_path):
  claimed(tmp_path)
  if name in MAY_CHANGE:
    claimed(tmp_path, **{name: other(value)})
  else:
    with pytest.raises(ValueError, match=f'{name} .there '):
      claimed(tmp_path, **{name: other(value)})


def test_an_experiment_does_not_go_on_in_the_folder_of_a_run(tmp_path):
  claimed(tmp_path)
  with pytest.raises(ValueError, match=f'{tmp_path} holds a run of another'):
    claim(tmp_path, LyingAgentConfig())


def test_the_arms_of_an_experiment_are_the_same_when_read_back(tmp_path):
  """JSON has lists where the config has tuples."""
  claim(tmp_path, LyingAgentConfig())
  claim(tmp_path, LyingAgentConfig())
  with pytest.raises(ValueError, match='arms'):
    claim(tmp_path, LyingAgentConfig(arms=('agent_only',)))
