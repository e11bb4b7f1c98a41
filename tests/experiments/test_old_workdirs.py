"""Runs resume in workdirs whose config.json an older version wrote.

The files in old_workdirs/ are never edited. Commit 7397c8a wrote them, when all
settings were in isft_jax/config.py: those of isft-train, those of each
experiment, and those of runs inside an experiment (NAME-RUN.json).
"""

import dataclasses
import json
import pathlib
import shutil

import pytest

from configs import (
  evidence_tiny,
  flywheel_smollm2,
  lying_agent_smoke,
  lying_agent_smollm2,
  lying_agent_tiny,
  train_tiny,
)
from isft_jax.config import ModelConfig, OptimConfig, RunConfig, claim
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments import lying_agent
from isft_jax.experiments.evidence import bases
from isft_jax.train import loop
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.worlds.lying_agent import generator
from tests.config_fields import changed, leaves

OLD = pathlib.Path(__file__).parent / 'old_workdirs'


def train_config(**values):
  return RunConfig(
    tokenizer='data/tokenizer',
    seq_len=256,
    targets_per_row=256,
    steps=7,
    log_every=2,
    checkpoint_every=3,
    model=ModelConfig(
      vocab_size=512, width=16, layers=2, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
    **values,
  )


def tiny_config():
  """isft-train fills in the size of the tokenizer."""
  fields = {
    'records': 'data/records',
    'heldout': 'data/records',
    'tokenizer': 'data/tokenizer',
    'seq_len': 256,
    'model.vocab_size': 512,
  }
  return changed(train_tiny.get_config(), fields)


def given_config():
  """Dialogues and facts of files, which have moved since."""
  fields = {
    'dialogues.number': 1,
    'dialogues.heldout': 0,
    'dialogues.file': 'elsewhere/dialogues.jsonl',
    'dialogues.sha256': (
      '1697d3b8c2115c9279e0691539622036be19849b445f3a7c199310a5f72dd168'
    ),
    'facts_file': 'elsewhere/facts.csv',
    'facts_sha256': (
      '722b38119f6e062cce03447aa5f3f0d5903eb6501833caa95196b9d25b9d7841'
    ),
    'piecewise': True,
    'finetune.shuffle': False,
  }
  return changed(lying_agent_smollm2.get_config('paper'), fields)


def smoke_run(arm):
  config = lying_agent_smoke.get_config()
  workdir = pathlib.Path('runs/lying_agent_smoke')
  return lying_agent.make_run(config, workdir, arm)


def evidence_base():
  config = evidence_tiny.get_config()
  folder = pathlib.Path('runs/evidence_tiny/bases/seed-0')
  return bases.make_run(config, config.pretrain, 'base', bases.PLAN, folder, 0)


# What the same command gives now.
CONFIGS = {
  'train': lambda: train_config(records='data/records'),
  'train_mixture': lambda: train_config(
    mixture=(
      ('data/records', 3.0, 'interventional'),
      ('./data/records', 1.0, ''),
    )
  ),
  'train_tiny': tiny_config,
  'lying_agent_smoke': lying_agent_smoke.get_config,
  'lying_agent_smoke-base': lambda: smoke_run('base'),
  'lying_agent_smoke-interventional': lambda: smoke_run('interventional'),
  'lying_agent_tiny': lying_agent_tiny.get_config,
  'lying_agent_smollm2': lying_agent_smollm2.get_config,
  'lying_agent_smollm2_paper': given_config,
  'evidence_tiny': evidence_tiny.get_config,
  'evidence_tiny-base': evidence_base,
  'flywheel_smollm2': lambda: dataclasses.replace(
    flywheel_smollm2.get_config(), only=''
  ),
}


def stored(name):
  return json.loads((OLD / f'{name}.json').read_text())


# Fields that were renamed since.
RENAMED = {
  'hidden': 'mlp_width',
  'row_documents': 'documents_per_row',
  'row_length': 'seq_len',
  'row_targets': 'targets_per_row',
  'rows': 'batch_size',
  'sources': 'mixture',
}


def renamed(tree):
  """Returns a config.json with the names that its fields have now."""
  if not isinstance(tree, dict):
    return tree
  return {RENAMED.get(name, name): renamed(tree[name]) for name in tree}


def flat(tree, prefix=''):
  """Returns the values of a config.json by their dotted names."""
  values = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      values |= flat(value, f'{prefix}{name}.')
    else:
      values[prefix + name] = value
  return values


def test_every_old_config_json_is_claimed_below():
  assert {path.stem for path in OLD.iterdir()} == CONFIGS.keys()


@pytest.mark.parametrize('name', CONFIGS)
def test_a_run_resumes_in_an_old_workdir(name, tmp_path):
  shutil.copy(OLD / f'{name}.json', tmp_path / 'config.json')
  config = CONFIGS[name]()
  claim(tmp_path, config)  # raises if a setting differs
  for field in flat(renamed(stored(name))):
    assert field in dict(leaves(config)), f'{field} was renamed or removed'


@pytest.mark.parametrize('name', CONFIGS)
def test_the_settings_are_those_of_the_old_config_json(name):
  """One by one, as JSON; fields that were added since have their defaults."""
  config = CONFIGS[name]()
  now = flat(json.loads(json.dumps(dataclasses.asdict(config))))
  default = flat(json.loads(json.dumps(dataclasses.asdict(type(config)()))))
  moved = dict.fromkeys(config.BY_CHECKSUM)
  assert default | flat(renamed(stored(name))) | moved == now | moved


@pytest.mark.parametrize('name', CONFIGS)
def test_a_run_with_another_seed_is_refused(name, tmp_path):
  shutil.copy(OLD / f'{name}.json', tmp_path / 'config.json')
  config = dataclasses.replace(CONFIGS[name](), seed=9)
  with pytest.raises(ValueError, match=r': seed \(there 0, now 9\); give'):
    claim(tmp_path, config)
  assert json.loads((tmp_path / 'config.json').read_text()) == stored(name)


def test_training_resumes_at_the_checkpoint_of_an_old_workdir(
  tmp_path, monkeypatch
):
  """At step 4 of 7, after the checkpoint of step 3."""
  monkeypatch.chdir(tmp_path)
  dialogues = list(generator.dialogues(40, 0.6, 0.5, seed=0))
  template = chat_template.ChatTemplate(chat_template.PLAIN)
  encoder = tokenizer.train(map(template.text, dialogues), 512)
  encoder.save_pretrained('data/tokenizer')
  renderer = Renderer(encoder, chat_template.PLAIN)
  dataset.write(
    'data/records',
    lambda: map(renderer.example, dialogues),
    renderer.metadata(),
  )
  add, steps = metrics_lib.Metrics.add, []

  def add_or_stop(self, step, values, *rest):
    if step == 5 and 3 in steps:
      raise KeyboardInterrupt
    steps.append(step)
    add(self, step, values, *rest)

  monkeypatch.setattr(metrics_lib.Metrics, 'add', add_or_stop)
  config = CONFIGS['train']()
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, 'run')
  # The whole run was the old version's: what it wrote is what we write, up to
  # names.
  shutil.copy(OLD / 'train.json', 'run/config.json')
  with Checkpoints('run') as checkpoints:
    assert checkpoints.latest() == 3
    assert (
      flat(renamed(stored('train'))).items()
      <= flat(checkpoints.restore_run()['config']).items()
    )

  steps.clear()
  trained = loop.train(config, 'run')
  assert steps == [4, 5, 6, 7]
  assert trained.summary['steps'] == 7
  lines = metrics_lib.read(pathlib.Path('run/metrics.jsonl'))
  assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
