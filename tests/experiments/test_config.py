"""Settings of the experiments: mistakes named before they cost."""

import copy
import dataclasses
import json

import pytest

from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
  StageConfig,
  claim,
)
from isft_jax.experiments.config import (
  DeploymentConfig,
  DialoguesConfig,
  DocumentsConfig,
  EvidenceConfig,
  FlywheelConfig,
  LyingAgentConfig,
  WorldsConfig,
)
from tests.config_fields import changed, groups


@pytest.mark.parametrize(
  'config', [LyingAgentConfig(), EvidenceConfig(), DeploymentConfig()]
)
def test_the_defaults_are_valid(config):
  config.check()
  assert config == type(config)()


REFUSED = [
  # field, value, message after the field's name
  ('dialogues.p_lie', 1.1, ' must be from 0 to 1 (got 1.1)'),
  ('dialogues.p_lie', -0.1, ' must be from 0 to 1 (got -0.1)'),
  ('dialogues.p_lie', float('nan'), ' must be from 0 to 1 (got nan)'),
  ('dialogues.p_chitchat', 2, ' must be from 0 to 1 (got 2)'),
  (
    'dialogues.acknowledge',
    'nod',
    " must be one of 'thanks', 'restate' (got 'nod')",
  ),
  ('dialogues.number', 0, ' must be at least 1 (got 0)'),
  ('dialogues.heldout', -1, ' must be at least 0 (got -1)'),
  ('documents.p_true', 1.5, ' must be from 0 to 1 (got 1.5)'),
  ('documents.number', 0, ' must be at least 1 (got 0)'),
  # The bytes and the end; no more ids than the model has embeddings.
  ('vocab_size', 256, ' must be at least 257 (got 256)'),
  ('model.vocab_size', 1023, ' must be at least 1024 (got 1023)'),
  ('model.vocab_size', 0, ' must be at least 1024 (got 0)'),
  ('reply_tokens', 0, ' must be at least 1 (got 0)'),
  (
    'arms',
    ('interventional',) * 2,
    " names 'interventional' more than once; a flag that is given again adds "
    'to it',
  ),
]
REFUSED_EVIDENCE = [
  ('only', 'page', " must be one of '', 'flywheel', 'arms', 'heldout', "),
  ('seeds', 0, ' must be at least 1 (got 0)'),
  ('bank', 'real', " must be one of 'invented', 'world' (got 'real')"),
  ('facts', 1, ' must be at least 2 (got 1)'),
  ('max_turns', -1, ' must be at least 0 (got -1)'),
  ('p_denial', 1.5, ' must be from 0 to 1 (got 1.5)'),
  ('dialogues.heldout', 0, ' must be at least 1 (got 0)'),
  ('dialogues.file', 'F', ' must be left at its default, because '),
  ('facts_file', 'F', ' must be left at its default, because '),
  ('piecewise', True, ' must be left at its default, because '),
  ('flywheel.rounds', 0, ' must be at least 1 (got 0)'),
  ('flywheel.temperature', -1.0, ' must be at least 0 (got -1.0)'),
  ('worlds.seeds', 0, ' must be at least 1 (got 0)'),
  ('worlds.dialogues', 0, ' must be at least 1 (got 0)'),
  ('worlds.p_user_wrong', (0.0, 1.1), ' must be from 0 to 1 (got 1.1)'),
  ('worlds.p_lie', (-0.1, 0.5), ' must be from 0 to 1 (got -0.1)'),
]


def refusal(config):
  with pytest.raises(ValueError) as caught:
    config.check()
  return str(caught.value)


@pytest.mark.parametrize('kind', [LyingAgentConfig, EvidenceConfig])
def test_what_cannot_work_in_an_experiment_is_named(kind):
  for field, value, message in REFUSED:
    config = changed(kind(), {field: value})
    assert refusal(config) == f'config.{field}{message}'


def test_what_cannot_work_in_the_evidence_is_named():
  for field, value, message in REFUSED_EVIDENCE:
    config = changed(EvidenceConfig(), {field: value})
    assert refusal(config).startswith(f'config.{field}{message}')


# A value that the group's own check refuses.
IMPOSSIBLE = {
  ModelConfig: ('head_size', 31),
  MeshConfig: ('tensor', 0),
  OptimConfig: ('schedule', 'line'),
  LoraConfig: ('rank', -1),
  StageConfig: ('keep_last', 0),
  DialoguesConfig: ('number', 0),
  DocumentsConfig: ('number', 0),
  FlywheelConfig: ('rounds', 0),
  WorldsConfig: ('seeds', 0),
}


@pytest.mark.parametrize(
  'config',
  [RunConfig(records='DIR'), LyingAgentConfig(), EvidenceConfig()],
  ids=lambda config: type(config).__name__,
)
def test_every_group_of_settings_is_checked_and_named_by_its_path(config):
  paths = [(path, type(group)) for path, group in groups(config) if path]
  assert len(paths) >= 3
  for path, kind in paths:
    name, value = IMPOSSIBLE[kind]
    wrong = changed(copy.deepcopy(config), {path + name: value})
    assert refusal(wrong).startswith(f'config.{path}{name} must be ')


@pytest.mark.parametrize(
  'field', ['arms', 'heldout_arms', 'flywheel.arms', 'worlds.arms']
)
def test_an_arm_that_is_named_twice_is_refused(field):
  """A flag that is given again adds to a tuple."""
  config = EvidenceConfig()
  changed(config, {field: ('observational', 'interventional')}).check()
  changed(config, {field: ('observational', 'observational')})
  assert refusal(config).startswith(f"config.{field} names 'observational' ")


def test_a_given_model_needs_no_vocabulary():
  """Its tokenizer and its shape come with it."""
  config = LyingAgentConfig(vocab_size=0)
  changed(config, {'model.init_from': 'DIR', 'model.vocab_size': 0}).check()


def test_no_two_configs_share_a_group():
  """Or setting one stage's learning rate would set the other's."""
  one, other = LyingAgentConfig(), LyingAgentConfig()
  one.pretrain.optim.learning_rate = 1.0
  one.model.width = 7
  assert one.finetune.optim == other.pretrain.optim == OptimConfig()
  assert other == LyingAgentConfig()


# ----------------------------------------------------------------- config.json


def test_an_experiment_does_not_resume_in_the_workdir_of_a_run(tmp_path):
  claim(tmp_path, RunConfig(records='DIR'))
  with pytest.raises(ValueError, match=f'{tmp_path} holds a run of another'):
    claim(tmp_path, LyingAgentConfig())


def test_the_arms_of_an_experiment_are_the_same_when_read_back(tmp_path):
  """JSON has lists where the config has tuples."""
  claim(tmp_path, LyingAgentConfig())
  claim(tmp_path, LyingAgentConfig())
  with pytest.raises(ValueError, match='arms'):
    claim(tmp_path, LyingAgentConfig(arms=('agent_only',)))


@pytest.mark.parametrize('kind', [LyingAgentConfig, EvidenceConfig])
def test_a_file_may_move_and_may_not_change(kind, tmp_path):
  """Of every field that is compared by a checksum, the checksum is one."""
  checksums = {
    'dialogues.file': 'dialogues.sha256',
    'facts_file': 'facts_sha256',
  }
  assert tuple(checksums) == kind.BY_CHECKSUM
  for file, checksum in checksums.items():
    workdir = tmp_path / file
    claim(workdir, changed(kind(), {file: 'a', checksum: '12'}))
    claim(workdir, changed(kind(), {file: 'b', checksum: '12'}))
    stored = json.loads((workdir / 'config.json').read_text())
    moved = changed(kind(), {file: 'b', checksum: '12'})
    assert stored == json.loads(json.dumps(dataclasses.asdict(moved)))
    with pytest.raises(ValueError, match=f"{checksum} .there '12', now '34'"):
      claim(workdir, changed(kind(), {file: 'b', checksum: '34'}))
