"""From a folder of weights to a trained folder of weights."""

import dataclasses

import jax
import numpy as np
import pytest
import transformers
from flax.traverse_util import flatten_dict

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.rendering import chat_template
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.train import loop, saved
from isft_jax.train.export import export
from tests.dialogues import dialogues, write_records
from tests.fixtures import import_or_skip

torch = import_or_skip('torch')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """A random Qwen3, records, two steps of training, and the export of it."""
  folder = tmp_path_factory.mktemp('export')
  config = transformers.Qwen3Config(
    vocab_size=512,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=True,
  )
  torch.manual_seed(0)
  transformers.Qwen3ForCausalLM(config).save_pretrained(folder / 'start')
  run = RunConfig(
    records=write_records(folder / 'records', dialogues()[:16]),
    batch_size=8,
    seq_len=256,
    targets_per_row=256,
    steps=2,
    model=ModelConfig(  # its shape is the folder's
      init_from=str(folder / 'start'), remat='full'
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )
  trained = loop.train(run, str(folder / 'run'))
  export(str(folder / 'run'), str(folder / 'end'))
  return folder, trained


def test_the_export_is_the_trained_model(folders):
  folder, trained = folders
  model, _ = pretrained.load(folder / 'end')
  jax.tree.map(np.testing.assert_array_equal, model.params, trained.params)
  start, _ = pretrained.load(folder / 'start')
  moved = jax.tree.map(
    lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))),
    model.params,
    start.params,
  )
  assert all(jax.tree.leaves(moved))


def test_transformers_loads_model_tokenizer_and_template(folders):
  folder, trained = folders
  end = folder / 'end'
  loaded = transformers.AutoModelForCausalLM.from_pretrained(end)
  encoder = transformers.AutoTokenizer.from_pretrained(end)
  assert encoder.chat_template == chat_template.PLAIN
  ids = encoder.apply_chat_template(
    [{'role': 'user', 'content': 'Tell me about gold.'}],
    add_generation_prompt=True,
    return_dict=False,
  )
  tokens_BL = np.asarray([ids])
  with torch.no_grad():
    theirs = loaded(torch.asarray(tokens_BL)).logits.numpy()
  ours = pretrained.Model(trained.graphdef, trained.params)(tokens_BL)
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_weights_can_be_narrower(folders, tmp_path):
  folder, _ = folders
  export(str(folder / 'run'), str(tmp_path / 'half'), 'bfloat16')
  loaded = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'half', dtype='auto'
  )
  assert loaded.dtype == torch.bfloat16


def test_no_device_holds_the_whole_model(folders):
  """Eight devices share out what they divide; one does what they do not."""
  folder, _ = folders
  _, config = pretrained.load(folder / 'end')
  for width, devices in ((32, 8), (36, 6), (34, 2)):
    model = dataclasses.replace(config, vocab_size=384, width=width)
    placed = saved._placed(decoder.abstract(model)[1])
    for path, leaf in flatten_dict(placed, sep='/').items():
      if 'norm' not in path:
        shard = leaf.sharding.shard_shape(leaf.shape)
        assert np.prod(leaf.shape) == devices * np.prod(shard), path


def test_what_cannot_be_exported_is_named(folders, tmp_path):
  folder, _ = folders
  with pytest.raises(ValueError, match='no checkpoints there'):
    export(str(tmp_path), str(tmp_path / 'out'))
  with pytest.raises(ValueError, match='is not empty; name another --output'):
    export(str(folder / 'run'), str(folder / 'end'))
