"""The files in configs/: valid, and readable on their own."""

import ast
import dataclasses
import importlib.util
import pathlib
import runpy

import jax
import pytest

from configs import _finetune
from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
)
from isft_jax.hf import config_json
from isft_jax.models import decoder
from isft_jax.models.presets import model_config
from tests.config_fields import changed

CONFIGS = {
  path.stem: path
  for path in sorted(
    pathlib.Path(__file__).parents[1].joinpath('configs').glob('[!_]*.py')
  )
}


def get_config(name, *argument):
  """Loads a file by its path, as the command line does."""
  spec = importlib.util.spec_from_file_location(name, CONFIGS[name])
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*argument)


def test_there_are_files_in_configs():
  assert {'lying_agent_tiny', 'train_tiny', 'qwen2_5_7b'} < CONFIGS.keys()


@pytest.mark.parametrize('name', CONFIGS)
def test_every_file_is_valid_and_is_named_after_itself(name):
  """Its name is in the default workdir; which data to use is the user's."""
  config = get_config(name)
  if isinstance(config, RunConfig):
    changed(config, {'records': 'records'})
  config.check()
  assert config.name == name


@pytest.mark.parametrize('name', CONFIGS)
def test_a_file_opens_with_what_a_reader_asks_first(name):
  text = ast.get_docstring(ast.parse(CONFIGS[name].read_text()))
  title, blank, *lines = text.splitlines()
  assert title.endswith('.') and not blank
  openings = [line.replace(',', ':').split(':')[0] for line in lines]
  wanted = ['Reproduces', 'Hardware', 'Time', 'Expected']
  assert [word for word in openings if word in wanted] == wanted
  assert openings.index('Expected') < min(
    i for i, word in enumerate(openings) if word in ('Command', 'Commands')
  )
  assert f'--config=configs/{name}.py' in text or f'--config={name}' in text


# ----------------------------------------------------------------- fine-tuning


def test_an_argument_is_numbers_by_name():
  for text, expected in (
    ('', {'batch_size': 8, 'seq_len': 4096}),
    ('batch_size=32', {'batch_size': 32, 'seq_len': 4096}),
    ('seq_len=2048,batch_size=16', {'batch_size': 16, 'seq_len': 2048}),
  ):
    numbers = _finetune.parse_numbers(text, batch_size=8, seq_len=4096)
    assert numbers == expected


def test_an_argument_may_have_old_names():
  with pytest.warns(FutureWarning) as caught:
    config = get_config('qwen2_5_7b', 'batch=64,length=8192')
  assert [str(warning.message) for warning in caught] == [
    'batch is the old name of batch_size; write batch_size=64',
    'length is the old name of seq_len; write seq_len=8192',
  ]
  assert config == get_config('qwen2_5_7b', 'batch_size=64,seq_len=8192')


@pytest.mark.parametrize(
  'text', ['rows=8', 'batch_size', 'batch_size=', 'batch_size=-1', '8']
)
def test_an_argument_of_another_form_is_named(text):
  message = (
    'its argument must be one of batch_size=NUMBER, seq_len=NUMBER '
    rf"\(got '{text}'\)"
  )
  with pytest.raises(ValueError, match=message):
    _finetune.parse_numbers(f'seq_len=16,{text}', batch_size=8, seq_len=4096)


def test_a_fine_tuning_run_in_full():
  """The settings that the six files share, and those that they choose."""
  assert get_config('qwen2_5_7b', 'batch_size=64,seq_len=8192') == RunConfig(
    name='qwen2_5_7b',
    batch_size=64,
    seq_len=8192,
    targets_per_row=0,
    epochs=2,
    eval_every=100,
    model=ModelConfig(
      init_from='Qwen/Qwen2.5-7B-Instruct',
      vocab_size=152_064,
      width=3_584,
      layers=28,
      heads=28,
      kv_heads=4,
      head_size=128,
      mlp_width=18_944,
      rope_theta=1_000_000.0,
      tie_embeddings=False,
      dtype='bfloat16',
      remat='full',
    ),
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=16),
    optim=OptimConfig(
      learning_rate=5e-6, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )


@pytest.mark.parametrize(
  ('name', 'batch', 'learning_rate', 'fsdp_at_most'),
  [
    ('gemma3_1b', 8, 1e-5, 16),
    ('gemma3_270m', 8, 2e-5, 16),
    ('llama3_2_1b', 8, 1e-5, 16),
    ('llama3_70b', 128, 5e-6, 32),
    ('qwen2_5_0_5b', 8, 1e-5, 8),
    ('qwen2_5_7b', 16, 5e-6, 16),
    ('qwen2_5_32b', 64, 5e-6, 16),
    ('olmo3_7b', 16, 5e-6, 16),
    ('qwen3_0_6b', 8, 1e-5, 16),
    ('qwen3_30b_a3b', 64, 5e-6, 16),
    ('qwen3_8b', 16, 5e-6, 16),
    ('smollm2_135m', 8, 5e-5, 16),
  ],
)
def test_what_a_fine_tuning_run_chooses(
  name, batch, learning_rate, fsdp_at_most
):
  config = get_config(name)
  assert (config.batch_size, config.seq_len) == (batch, 4096)
  assert config.optim.learning_rate == learning_rate
  assert config.mesh.fsdp_at_most == fsdp_at_most


def test_the_fastest_settings_are_taken_if_asked_for():
  """Otherwise each layer is recomputed, on any mesh."""
  config, other = (get_config('qwen2_5_7b', text) for text in ('fastest=1', ''))
  assert config.model.remat == 'q,k,v,attention,o,gate,up'
  assert config.optim.accumulate == 4
  assert (config.mesh.fsdp, config.mesh.tensor) == (4, 4)
  assert other == dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, remat='full'),
    optim=dataclasses.replace(config.optim, accumulate=1),
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=16),
  )
  assert get_config('qwen2_5_7b', 'fastest=0') == other


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('qwen2_5_7b', 'fastest=1,batch_size=32'),
    ('qwen2_5_7b', 'context=2,fastest=1'),
    ('olmo3_7b', 'fastest=1'),
  ],
)
def test_the_fastest_settings_are_those_of_one_batch(name, text):
  message = rf"needs the default batch .* \(got '{text}'\); leave it out"
  with pytest.raises(ValueError, match=message):
    get_config(name, text)


@pytest.mark.parametrize('name', CONFIGS)
def test_the_fastest_settings_are_compiled(name):
  module = runpy.run_path(str(CONFIGS[name]))
  arguments = [argument for argument, _ in module.get('SLICES', ())]
  assert ('FASTEST' in module) == ('fastest=1' in arguments)


# ---------------------------------------------------------------------- models

# Parameters, and families in the hub's words, from the models' own cards.
MODELS = {
  'qwen2_5_0_5b': ('qwen2', 494_032_768),
  'qwen2_5_0_5b_paper': ('qwen2', 494_032_768),
  'qwen2_5_7b': ('qwen2', 7_615_616_512),
  'gemma3_1b': ('gemma3_text', 999_885_952),
  'gemma3_270m': ('gemma3_text', 268_098_176),
  'olmo3_7b': ('olmo3', 7_298_011_136),
  'qwen3_0_6b': ('qwen3', 596_049_920),
  'qwen3_30b_a3b': ('qwen3_moe', 30_532_122_624),
  'qwen3_8b': ('qwen3', 8_190_735_360),
  'smollm2_135m': ('llama', 134_515_008),
  'llama3_2_1b': ('llama', 1_235_814_400),
  'lying_agent_smollm2': ('llama', 134_515_008),
  'flywheel_smollm2': ('llama', 134_515_008),
}


@pytest.mark.parametrize('name', MODELS)
def test_a_config_has_the_shape_of_the_model_it_names(name):
  family, parameters = MODELS[name]
  model = get_config(name).model
  assert config_json.to_json(model)['model_type'] == family
  _, shapes = decoder.abstract(model)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_smollm2_has_the_papers_hyperparameters_if_asked():
  """1,920 steps of one dialogue, a mean per dialogue, a constant rate."""
  config = get_config('lying_agent_smollm2', 'paper')
  config.check()
  assert config.name == 'lying_agent_smollm2_paper'
  stage, optimizer = config.finetune, config.finetune.optim
  assert config.dialogues.number * stage.epochs == 1920
  assert (stage.batch_size, stage.documents_per_row, stage.seq_len) == (1, 1, 0)
  assert (stage.normalize, optimizer.schedule) == ('trajectory', 'constant')
  assert (optimizer.learning_rate, optimizer.weight_decay) == (2e-5, 0.01)
  assert (optimizer.clip_norm, optimizer.warmup_steps) == (1.0, 0)
  message = (
    "its argument must be 'paper', 'lora=RANK' with a rank from 1 to 9999, or "
    "nothing (got '{}')"
  )
  for text in ('papre', 'lora=0', 'lora=-1', 'lora=', 'lora', 'lora=16,paper'):
    with pytest.raises(ValueError) as error:
      get_config('lying_agent_smollm2', text)
    assert str(error.value) == message.format(text)


def test_adapters_on_smollm2_change_only_what_learns():
  full = get_config('lying_agent_smollm2')
  config = get_config('lying_agent_smollm2', 'lora=16')
  config.check()
  assert config.lora == LoraConfig(rank=16)
  optim = dataclasses.replace(
    full.finetune.optim, learning_rate=config.finetune.optim.learning_rate
  )
  assert config == dataclasses.replace(
    full,
    name='lying_agent_smollm2_lora16',
    lora=config.lora,
    finetune=dataclasses.replace(full.finetune, optim=optim),
  )


def test_a_model_of_yours_may_get_adapters():
  full, config = get_config('finetune'), get_config('finetune', 'lora=8')
  assert (full.lora, config.lora) == (LoraConfig(), LoraConfig(rank=8))
  rates = full.optim.learning_rate, config.optim.learning_rate
  assert rates == (5e-5, 5e-4)
  with pytest.raises(
    ValueError, match=r"^its argument must be 'lora=RANK' wit"
  ):
    get_config('finetune', 'lora=0')


def test_a_run_of_adapters_in_full():
  text = 'model=qwen2.5-7b,base=int8,batch_size=1,seq_len=4096,rank=8'
  config = get_config('lora', text)
  assert config == RunConfig(
    name='lora',
    batch_size=1,
    seq_len=4096,
    targets_per_row=0,
    epochs=2,
    eval_every=100,
    model=model_config(
      'qwen2.5-7b',
      init_from='Qwen/Qwen2.5-7B-Instruct',
      dtype='bfloat16',
      param_dtype='int8',
      remat='full',
    ),
    lora=LoraConfig(rank=8),
    mesh=MeshConfig(data=-1, fsdp=-1, fsdp_at_most=8),
    optim=OptimConfig(
      learning_rate=2e-4, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )
  defaults = get_config('lora')
  assert defaults.model.init_from == 'Qwen/Qwen2.5-0.5B-Instruct'
  assert defaults.model.param_dtype == 'bfloat16'
  with pytest.raises(ValueError, match=r'^its base must be one of bfloat16, i'):
    get_config('lora', 'base=int4')
