"""Where a run's model comes from, and what it takes along."""

import copy
import dataclasses

import huggingface_hub
import jax
import numpy as np
import pytest

from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.train import start
from isft_jax.train.trainer import make_trainer
from tests.dialogues import chatml_tokenizer, plain_tokenizer

SHAPE = ModelConfig(
  vocab_size=64,
  width=32,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=8,
  mlp_width=64,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  graphdef, _ = decoder.abstract(SHAPE)
  params = decoder.init(SHAPE, jax.random.key(0))
  pretrained.save(pretrained.Model(graphdef, params), SHAPE, str(path))
  return path


def test_the_shape_is_the_folders_and_all_else_is_the_configs(folder):
  ours = ModelConfig(init_from=str(folder), width=8, dtype='bfloat16')
  expected = dataclasses.replace(SHAPE, init_from=str(folder), dtype='bfloat16')
  assert start.with_shape(ours) == expected


def test_a_hub_id_is_the_folder_that_the_hub_gives(folder, monkeypatch):
  monkeypatch.setattr(
    huggingface_hub, 'snapshot_download', lambda *_, **__: str(folder)
  )
  shaped = start.with_shape(ModelConfig(init_from='Qwen/Qwen2.5-0.5B'))
  assert shaped == dataclasses.replace(SHAPE, init_from='Qwen/Qwen2.5-0.5B')


def test_a_run_has_the_configs_shape(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  model = ModelConfig(init_from=str(tmp_path))
  assert start.with_shape(model) == model
  assert start.with_shape(ModelConfig()) == ModelConfig()


@pytest.mark.parametrize('place', ['nothing', 'tests/nothing', '/a/b/c'])
def test_what_is_nowhere_is_named(place):
  with pytest.raises(ValueError, match=f'from=.{place}. must be the workdir'):
    start.with_shape(ModelConfig(init_from=place))


def test_weights_arrive_where_the_step_wants_them(folder):
  """Sharded, in the type of the parameters, at step 0."""
  mesh = MeshConfig(data=1, fsdp=4, tensor=2)
  trainer = make_trainer(SHAPE, OptimConfig(), mesh, 10)
  model = dataclasses.replace(SHAPE, init_from=str(folder))
  state = start.begin(RunConfig(model=model), trainer, 'a fingerprint')
  loaded, _ = pretrained.load(folder)
  assert int(state.step) == 0
  jax.tree.map(np.testing.assert_array_equal, state.params, loaded.params)
  jax.tree.map(
    lambda leaf, like: (
      leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
      or pytest.fail(str(like))
    ),
    state.params,
    trainer.abstract.params,
  )


def test_records_and_weights_must_share_a_tokenizer(tmp_path):
  """Ids of a tokenizer of other texts mean other things."""
  ours, others = plain_tokenizer(), chatml_tokenizer()
  ours.save_pretrained(tmp_path / 'same')
  others.save_pretrained(tmp_path / 'other')

  def check(folder, tokenizer=ours, template=''):
    place = str(tmp_path / folder)
    return start.check_tokenizer(place, 'records', tokenizer, template)

  assert check('same') == []
  with pytest.raises(ValueError) as error:
    check('other')
  assert str(error.value).startswith(
    f'the tokenizers of records and {tmp_path}/other differ in '
  )
  assert str(error.value).endswith(
    f'prepare the records with --tokenizer={tmp_path}/other'
  )


def test_other_templates_and_added_tokens_are_warnings(tmp_path):
  theirs = chatml_tokenizer()
  theirs.save_pretrained(tmp_path)
  ours = copy.deepcopy(theirs)
  ours.add_special_tokens({'additional_special_tokens': ['<tool>']})
  assert start.check_tokenizer(str(tmp_path), 'records', ours, 'another') == [
    f'the tokenizers of records and {tmp_path} differ in 1 added tokens: '
    f"{len(theirs)} ('<tool>' and none)",
    f'records and {tmp_path} have different chat templates; the model learns '
    'that of the records. To keep its own, prepare them with '
    f'--tokenizer={tmp_path}',
  ]


def test_a_model_without_a_tokenizer_cannot_be_checked(folder):
  (warning,) = start.check_tokenizer(str(folder), 'records', None, '')
  assert warning.startswith(f'{folder}: no tokenizer there ')
  assert warning.endswith('for the tokenizer of records cannot be checked')
