"""Settings of a run: valid defaults, and mistakes named before they cost."""

import copy
import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

from isft_jax.config import (
  LORA_TARGETS,
  RENAMED,
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
  StageConfig,
  claim,
  differences,
  with_new_names,
)
from isft_jax.train import optim
from isft_jax.train.trainer import make_trainer
from tests.config_fields import changed, leaves


def run_config():
  return RunConfig(records='records', tokenizer='tokenizer', heldout='heldout')


# --------------------------------------------------------------------- accepted


def test_the_defaults_are_valid():
  config = run_config()
  config.check()
  assert config == run_config()


@pytest.mark.parametrize(
  'fields',
  [
    {'epochs': 0, 'steps': 1},  # steps override epochs
    {'batch_size': 8, 'optim.accumulate': 8},
    {'normalize': 'trajectory'},
    {'optim.schedule': 'cosine'},
    {'optim.learning_rate': 0.0},
    {'seq_len': 2, 'targets_per_row': 1},
    {'seq_len': 0},  # from the records
    {'targets_per_row': 0},  # from the records
    {'model.head_chunk': 0},  # the whole vocabulary at once
    {'model.heads': 6, 'model.kv_heads': 3},
    {'model.heads': 5, 'model.kv_heads': 1},
    {'model.vocab_size': 0},  # the tokenizer's
    {'mesh.data': -1, 'mesh.fsdp': -1, 'mesh.tensor': 1},
    {'mesh.data': 1, 'mesh.expert': -1},
    {'model.experts': 4, 'model.experts_per_token': 1},
    {'model.experts': 4, 'model.experts_per_token': 4},
    {'keep_every': 400},  # twice checkpoint_every
    {'tokenizer': ''},  # the one that is stored with the records
    {'heldout': ''},  # the split of that name, if there is one
  ],
)
def test_settings_at_the_edge_are_valid(fields):
  changed(run_config(), fields).check()


# ---------------------------------------------------------------------- refused

REFUSED = [
  # field, value, message after the field's name
  ('records', '', ' is empty: name a folder, as in --config.records=DIR'),
  ('batch_size', 0, ' must be at least 1 (got 0)'),
  ('batch_size', -8, ' must be at least 1 (got -8)'),
  ('targets_per_row', -1, ' must be at least 0 (got -1)'),
  ('documents_per_row', -1, ' must be at least 0 (got -1)'),
  ('seq_len', 1, ' must be at least 2 (got 1)'),
  ('seq_len', -1, ' must be at least 2 (got -1)'),
  ('log_every', 0, ' must be at least 1 (got 0)'),
  ('checkpoint_every', 0, ' must be at least 1 (got 0)'),
  ('keep_last', 0, ' must be at least 1 (got 0)'),
  ('keep_every', -1, ' must be at least 0 (got -1)'),
  (
    'keep_every',
    300,
    ' must be a multiple of config.checkpoint_every=200 (got 300): other steps '
    'have no checkpoint to keep',
  ),
  ('steps', -1, ' must be at least 0 (got -1)'),
  ('epochs', 0, ' must be at least 1 (got 0)'),
  ('normalize', 'mean', " must be one of 'token', 'trajectory' (got 'mean')"),
  ('optim.learning_rate', -1e-3, ' must be at least 0 (got -0.001)'),
  ('optim.learning_rate', float('nan'), ' must be at least 0 (got nan)'),
  ('optim.warmup_steps', -1, ' must be at least 0 (got -1)'),
  ('optim.clip_norm', -1.0, ' must be at least 0 (got -1.0)'),
  (
    'optim.schedule',
    'line',
    " must be one of 'constant', 'cosine' (got 'line')",
  ),
  ('optim.accumulate', 0, ' must be at least 1 (got 0)'),
  ('model.layers', 0, ' must be at least 1 (got 0)'),
  ('model.width', 0, ' must be at least 1 (got 0)'),
  ('model.heads', 0, ' must be at least 1 (got 0)'),
  ('model.kv_heads', 0, ' must be at least 1 (got 0)'),
  ('model.head_size', 0, ' must be at least 1 (got 0)'),
  ('model.mlp_width', 0, ' must be at least 1 (got 0)'),
  (
    'model.norms',
    'pre',
    " must be one of 'before', 'after', 'both' (got 'pre')",
  ),
  (
    'model.activation',
    'relu',
    " must be one of 'silu', 'gelu_tanh' (got 'relu')",
  ),
  (
    'model.rope_type',
    'ntk',
    " must be one of 'llama3', 'linear', 'yarn' (got 'ntk')",
  ),
  (
    'model.rope_scaling',
    (8.0,),
    " must have 4 numbers for config.model.rope_type='llama3' (got 1)",
  ),
  ('model.layer_kinds', (), " is empty; set it to ('full',)"),
  (
    'model.layer_kinds',
    ('half',),
    " must be one of 'full', 'window', 'nope' (got 'half')",
  ),
  ('model.window', -1, ' must be at least 0 (got -1)'),
  (
    'model.window',
    4,
    "=4 and config.model.layer_kinds=('full',) do not fit: a window is the "
    "number of tokens that layers of kind 'window' see",
  ),
  (
    'model.heads',
    3,
    ' must be a multiple of config.model.kv_heads=2 (got 3)',
  ),
  (
    'model.head_size',
    31,
    ' must be even, because rotary positions rotate pairs (got 31)',
  ),
  ('model.experts', -1, ' must be at least 0 (got -1)'),
  ('model.experts_per_token', 1, ' must be from 0 to 0 (got 1)'),
  ('model.head_chunk', -1, ' must be at least 0 (got -1)'),
  (
    'model.attention',
    'flash',
    " must be one of 'auto', 'splash', 'triton', 'xla' (got 'flash')",
  ),
  (
    'model.remat',
    'all',
    " must be one of 'none', 'dots', 'full', 'q', 'k', 'v', 'attention', 'o', "
    "'gate', 'up', 'down' (got 'all')",
  ),
  (
    'model.remat',
    'q,k,q',
    " names 'q' more than once; a flag that is given again adds to it",
  ),
  (
    'model.remat',
    'q,full',
    " must be one of 'q', 'k', 'v', 'attention', 'o', 'gate', 'up', 'down' "
    "(got 'full')",
  ),
  (
    'mesh.fsdp',
    0,
    ' must be at least 1, or -1 for the devices that remain (got 0)',
  ),
  (
    'mesh.data',
    -2,
    ' must be at least 1, or -1 for the devices that remain (got -2)',
  ),
  (
    'mesh.expert',
    0,
    ' must be at least 1, or -1 for the devices that remain (got 0)',
  ),
  ('lora.rank', -1, ' must be from 0 to 1000000 (got -1)'),
  ('lora.alpha', -0.5, ' must be from 0 to 1000000 (got -0.5)'),
  ('lora.alpha', math.inf, ' must be from 0 to 1000000 (got inf)'),
  ('lora.alpha', math.nan, ' must be from 0 to 1000000 (got nan)'),
  (
    'lora.dropout',
    0.1,
    ' must be 0, because adapters are trained without dropout (got 0.1)',
  ),
]


def refusal(config):
  with pytest.raises(ValueError) as caught:
    config.check()
  return str(caught.value)


def test_what_cannot_work_in_a_run_is_named():
  for field, value, message in REFUSED:
    config = changed(run_config(), {field: value})
    assert refusal(config) == f'config.{field}{message}'


@pytest.mark.parametrize('number', [0, 5])
def test_a_token_has_at_least_one_expert_and_at_most_all(number):
  fields = {'model.experts': 4, 'model.experts_per_token': number}
  assert refusal(changed(run_config(), fields)) == (
    f'config.model.experts_per_token must be from 1 to 4 (got {number})'
  )


@pytest.mark.parametrize(('rows', 'accumulate'), [(8, 3), (8, 16)])
def test_rows_that_do_not_split_into_microbatches_are_named(rows, accumulate):
  fields = {'batch_size': rows, 'optim.accumulate': accumulate}
  assert refusal(changed(run_config(), fields)) == (
    'config.batch_size must be a multiple of '
    f'config.optim.accumulate={accumulate} (got {rows}): a batch is split into '
    'that many microbatches'
  )


def test_a_prefix_leads_to_the_settings():
  stage = changed(StageConfig(), {'optim.accumulate': 0})
  message = r'^config\.pretrain\.optim\.accumulate must be at least 1'
  with pytest.raises(ValueError, match=message):
    stage.check('config.pretrain.')


def test_a_clip_of_zero_stands_for_none():
  """As a zero does in every field; it must not cut all gradients to zero."""
  params = {'x': np.ones(3, np.float32)}
  optimizer = optim.make_optimizer(
    OptimConfig(clip_norm=0.0, weight_decay=0.0), steps=1
  )
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  assert np.abs(updates['x']).min() > 0


# --------------------------------------------------------------------- adapters

LORAS = [
  # rank, alpha, rslora, scale
  (1, 0.0, False, 2.0),  # an alpha of 0 is twice the rank
  (8, 0.0, False, 2.0),
  (8, 16.0, False, 2.0),
  (8, 4.0, False, 0.5),
  (16, 8.0, True, 2.0),
  (16, 0.0, True, 8.0),
  (2, 1.0, True, 2**-0.5),
]


@pytest.mark.parametrize(('rank', 'alpha', 'rslora', 'scale'), LORAS)
def test_the_scale_of_an_adapter(rank, alpha, rslora, scale):
  lora = LoraConfig(rank=rank, alpha=alpha, rslora=rslora)
  assert lora.scale == pytest.approx(scale, rel=1e-15)


@pytest.mark.parametrize(
  ('targets', 'maps'),
  [
    (('up_proj,q_proj',), ('q_proj', 'up_proj')),  # as a flag gives them
    (('all-linear',), LORA_TARGETS),
    (('q_proj',), ('q_proj',)),
    (('down_proj', 'v_proj', 'q_proj'), ('q_proj', 'v_proj', 'down_proj')),
    (('v_proj', 'all-linear'), LORA_TARGETS),
    (LORA_TARGETS[::-1], LORA_TARGETS),
  ],
)
def test_the_maps_of_an_adapter_are_in_the_order_of_a_layer(targets, maps):
  assert LoraConfig(rank=1, targets=targets).maps == maps
  # Without a rank no map has one.
  assert LoraConfig(targets=targets).maps == ()


LORAS_REFUSED = [
  ({'alpha': 8.0}, 'rank is 0, so that all weights would be trained; set it'),
  ({'rslora': True}, 'rank is 0, so that all weights would be trained; set'),
  ({'targets': ('q_proj',)}, 'rank is 0, so that all weights would be trai'),
  ({'rank': 4, 'targets': ('q_proj,q_proj',)}, "targets names 'q_proj' more"),
  ({'rank': 4, 'targets': ()}, 'targets is empty: name the maps, or all-lin'),
  ({'rank': 4, 'targets': ('lm_head',)}, "targets must be one of 'q_proj', "),
  ({'rank': 4, 'targets': ('q_proj', 'q_proj')}, "targets names 'q_proj' more"),
]


@pytest.mark.parametrize(('fields', 'message'), LORAS_REFUSED)
def test_adapters_that_cannot_be_are_named(fields, message):
  with pytest.raises(ValueError) as caught:
    LoraConfig(**fields).check('config.lora.')
  assert str(caught.value).startswith(f'config.lora.{message}')


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'rank': 1},
    {'rank': 4, 'alpha': 0.5, 'rslora': True, 'targets': ('q_proj', 'up_proj')},
    {'init_from': 'folder'},  # which sets the other fields
  ],
)
def test_adapters_that_can_be_are_accepted(fields):
  LoraConfig(**fields).check('config.lora.')


# ------------------------------------------------- equality, hashes and sharing


@pytest.mark.parametrize(
  ('config', 'values'),
  [
    (ModelConfig, {'width': 64}),
    (ModelConfig, {'rope_theta': 1e6}),
    (OptimConfig, {'learning_rate': 1e-5}),
    (MeshConfig, {'fsdp': 2}),
    (LoraConfig, {'rank': 4, 'targets': ('q_proj',)}),
  ],
)
def test_configs_are_equal_and_hash_alike_where_their_fields_are_equal(
  config, values
):
  assert config() == config() and hash(config()) == hash(config())
  assert config() != config(**values)
  assert len({config(), config(), config(**values)}) == 2


def test_a_run_is_a_stage_with_the_same_defaults():
  stage = dataclasses.asdict(StageConfig())
  run = dataclasses.asdict(RunConfig())
  assert {name: run[name] for name in stage} == stage
  assert RunConfig().model is not RunConfig().model


def test_the_run_of_a_stage_has_all_its_fields():
  stage = StageConfig(
    batch_size=4,
    steps=7,
    normalize='trajectory',
    keep_every=200,
    optim=OptimConfig(learning_rate=0.5),
  )
  assert RunConfig.from_stage(stage, name='arm', seed=3) == RunConfig(
    name='arm', seed=3, **vars(stage)
  )


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
  assert make(model={**SMALL, 'mlp_width': 64}) is not first


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


# ------------------------------------------------------------------- old names

OLD_NAMES = [
  # class, old name, name, value
  (ModelConfig, 'hidden', 'mlp_width', 64),
  (StageConfig, 'rows', 'batch_size', 4),
  (StageConfig, 'row_length', 'seq_len', 64),
  (StageConfig, 'row_targets', 'targets_per_row', 32),
  (StageConfig, 'row_documents', 'documents_per_row', 2),
  (RunConfig, 'rows', 'batch_size', 4),
  (RunConfig, 'row_length', 'seq_len', 64),
  (RunConfig, 'row_targets', 'targets_per_row', 32),
  (RunConfig, 'row_documents', 'documents_per_row', 2),
  (RunConfig, 'sources', 'mixture', (('DIR', 1.0, ''),)),
]


@pytest.mark.parametrize(('cls', 'old', 'name', 'value'), OLD_NAMES)
def test_an_old_name_is_the_field_with_a_warning(cls, old, name, value):
  expected = cls(**{name: value})
  assert expected != cls()
  message = f'^{cls.__name__}: {old} is the old name of {name}; write {name}$'
  with pytest.warns(FutureWarning, match=message) as caught:
    assert cls(**{old: value}) == expected
  # The line of the user's file, not one of ours.
  assert {warning.filename for warning in caught} == {__file__}
  config = cls()
  with pytest.warns(FutureWarning, match=message) as caught:
    setattr(config, old, value)
  assert {warning.filename for warning in caught} == {__file__}
  assert config == expected
  with pytest.warns(FutureWarning, match=message) as caught:
    assert getattr(config, old) == value
  assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(('cls', 'old', 'name', 'value'), OLD_NAMES)
def test_both_names_of_a_field_are_refused(cls, old, name, value):
  message = f'^{cls.__name__}: {old} is the old name of {name}; give only'
  with pytest.raises(TypeError, match=message):
    cls(**{old: value, name: value})
  with pytest.raises(TypeError, match=message):
    cls(**{name: value, old: value})


def test_old_names_are_those_of_no_other_class():
  assert {old: name for _, old, name, _ in OLD_NAMES} == RENAMED
  for cls in (ModelConfig, OptimConfig, MeshConfig, StageConfig, RunConfig):
    fields = {field.name for field in dataclasses.fields(cls)}
    assert fields.isdisjoint(RENAMED)
    for old, name in RENAMED.items():
      assert hasattr(cls, old) == (name in fields)
  with pytest.raises(TypeError, match='unexpected keyword argument'):
    OptimConfig(rows=8)


def test_new_names_give_no_warning():
  with warnings.catch_warnings(action='error'):
    config = RunConfig(batch_size=4, model=ModelConfig(mlp_width=64))
    config.seq_len = 2
    assert dataclasses.replace(config).seq_len == 2
    assert copy.deepcopy(config) == config


def test_a_config_json_is_read_under_new_names():
  stored = {
    'name': 'rows',
    'rows': 4,
    'model': {'hidden': 64, 'width': 8},
    'flywheel': {'stage': {'row_length': 2, 'optim': {'b1': 0.9}}},
    'sources': [['DIR', 1.0, '']],
  }
  before = json.dumps(stored)
  expected = {
    'name': 'rows',
    'batch_size': 4,
    'model': {'mlp_width': 64, 'width': 8},
    'flywheel': {'stage': {'seq_len': 2, 'optim': {'b1': 0.9}}},
    'mixture': [['DIR', 1.0, '']],
  }
  assert with_new_names(stored) == expected == with_new_names(expected)
  assert json.dumps(stored) == before


def test_a_run_resumes_under_new_names_and_writes_them(tmp_path):
  fields = {'batch_size': 4, 'model.mlp_width': 64}
  settings = claimed(tmp_path, fields)
  old = {name: old for old, name in RENAMED.items()}
  stored = {old.get(name, name): value for name, value in settings.items()}
  stored['model'] = dict(settings['model'])
  stored['model']['hidden'] = stored['model'].pop('mlp_width')
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  with pytest.raises(ValueError, match=r'batch_size \(there 4, now 8\);'):
    claimed(tmp_path, {'model.mlp_width': 64})
  assert json.loads((tmp_path / 'config.json').read_text()) == stored
  assert claimed(tmp_path, fields) == settings


# ----------------------------------------------------------------- config.json


def claimed(workdir, fields=None):
  """Claims a workdir for a run; returns the config.json that is then there."""
  claim(workdir, changed(run_config(), fields or {}))
  return json.loads((workdir / 'config.json').read_text())


def test_a_workdir_holds_the_config_of_its_run(tmp_path):
  workdir = tmp_path / 'runs' / 'one'
  fields = {'seed': 3, 'optim.learning_rate': 0.5}
  expected = dataclasses.asdict(changed(run_config(), fields))
  # JSON has lists where a config has tuples.
  assert claimed(workdir, fields) == json.loads(json.dumps(expected))
  assert [path.name for path in workdir.iterdir()] == ['config.json']


def test_a_host_that_leaves_writing_to_another_still_checks(tmp_path):
  claim(tmp_path / 'new', run_config(), write=False)
  assert not (tmp_path / 'new').exists()
  claimed(tmp_path)
  with pytest.raises(ValueError, match='seed'):
    claim(tmp_path, changed(run_config(), {'seed': 1}), write=False)


def test_a_run_resumes_in_its_workdir_and_on_another_mesh(tmp_path):
  claimed(tmp_path)
  claimed(tmp_path)
  assert claimed(tmp_path, {'mesh.fsdp': 8})['mesh']['fsdp'] == 8


def test_a_run_resumes_with_other_checkpoints_to_keep(tmp_path):
  claimed(tmp_path)
  fields = {'keep_last': 5, 'keep_every': 400}
  assert claimed(tmp_path, fields)['keep_last'] == 5


def test_a_field_that_a_config_json_lacks_had_its_default(tmp_path):
  settings = claimed(tmp_path)
  del settings['mixture']
  del settings['optim']['warmup_steps']
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  assert claimed(tmp_path)['optim']['warmup_steps'] == 0
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  with pytest.raises(
    ValueError, match=r'optim.warmup_steps \(there 0, now 2\)'
  ):
    claimed(tmp_path, {'optim.warmup_steps': 2})


def test_a_field_that_no_longer_exists_is_a_difference():
  stored = json.loads(json.dumps(dataclasses.asdict(run_config())))
  assert differences(stored, run_config()) == []
  stored['optim']['momentum'] = 0.9
  assert differences(stored, run_config()) == [('optim.momentum', 0.9, None)]


def test_a_workdir_of_another_config_is_refused_and_left_alone(tmp_path):
  claimed(tmp_path)
  before = (tmp_path / 'config.json').read_bytes()
  message = (
    r'objective \(there .interventional., now .agent_only.\), '
    r'optim.warmup_steps \(there 0, now 2\); give another --workdir'
  )
  with pytest.raises(ValueError, match=message):
    claimed(tmp_path, {'objective': 'agent_only', 'optim.warmup_steps': 2})
  assert (tmp_path / 'config.json').read_bytes() == before


def other(value):
  """Returns another value of the same kind."""
  if isinstance(value, bool):
    return not value
  if isinstance(value, tuple):
    return (*value, 'x')
  return value + ('x' if isinstance(value, str) else 1)


MAY_CHANGE = {
  *('mesh.data', 'mesh.fsdp', 'mesh.tensor', 'mesh.fsdp_at_most'),
  *('mesh.expert', 'mesh.context'),
  *('model.remat', 'model.head_chunk', 'optim.accumulate'),
  *('keep_last', 'keep_every', 'keep_best'),
  'epochs',  # more of them
}


def test_a_workdir_belongs_to_one_run_in_every_setting(tmp_path):
  fields = dict(leaves(run_config()))
  assert len(fields) > 50 and fields.keys() > MAY_CHANGE
  for name, value in fields.items():
    workdir = tmp_path / name
    claimed(workdir)
    if name in MAY_CHANGE:
      claimed(workdir, {name: other(value)})
    else:
      with pytest.raises(ValueError, match=f' {name} .there '):
        claimed(workdir, {name: other(value)})


@pytest.mark.parametrize('name', ['steps', 'epochs'])
def test_a_run_continues_with_more_and_never_with_fewer(name, tmp_path):
  claimed(tmp_path, {name: 5})
  claimed(tmp_path, {name: 7})
  for fewer in (6, 0):
    with pytest.raises(ValueError, match=f' {name} .there 7, now {fewer}'):
      claimed(tmp_path, {name: fewer})


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'config.json: damaged, not the config of a run; give another'),
    (b'\xff{}', 'config.json: damaged, not the config of a run'),
    (b'[]', 'config.json: damaged, not the config of a run'),
    (b'[' * 99_999, 'config.json: damaged, not the config of a run'),
    (
      b'{"model_type": "llama", "hidden_size": 64}',
      'a model, not the workdir of a run; give another --workdir, and the '
      'model as --config.model.init_from',
    ),
  ],
  ids=range(5),
)
def test_a_workdir_with_another_config_json_is_left_alone(
  content, message, tmp_path
):
  (tmp_path / 'config.json').write_bytes(content)
  with pytest.raises(ValueError, match=message) as failure:
    claimed(tmp_path)
  assert str(failure.value).startswith(str(tmp_path))
  assert (tmp_path / 'config.json').read_bytes() == content
