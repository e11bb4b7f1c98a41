"""The text part of a model that also reads images, from either kind of file."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from isft_jax.config import ModelConfig
from isft_jax.hf import pretrained
from isft_jax.models import decoder

CONFIG = ModelConfig(
  vocab_size=24,
  width=16,
  layers=2,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=16,
  rope_theta=1e6,
  layer_kinds=('window', 'full'),
  window=4,
  window_theta=1e4,
  qkv_bias=False,
  qk_norm=True,
  norms='both',
  norm_plus_one=True,
  activation='gelu_tanh',
  embedding_scale=4.0,
  query_scale=0.25,
)
IMAGES = {
  'vision_tower.layer.weight': np.ones((2, 2), np.float32),
  'multi_modal_projector.weight': np.ones(3, np.float32),
}


def old_name(name):
  return 'language_model.' + name


def new_name(name):
  return name.replace('model.', 'model.language_model.', 1)


@pytest.mark.parametrize('rename', [old_name, new_name])
def test_the_text_part_is_the_model_of_text_only(rename, tmp_path):
  graphdef, _ = decoder.abstract(CONFIG)
  params = decoder.init(CONFIG, jax.random.key(0))
  text, whole = tmp_path / 'text', tmp_path / 'whole'
  pretrained.save(pretrained.Model(graphdef, params), CONFIG, text)
  tensors = safetensors.numpy.load_file(text / 'model.safetensors')
  whole.mkdir()
  prefix = 'model.' if rename is new_name else ''
  safetensors.numpy.save_file(
    {
      **{rename(name): tensor for name, tensor in tensors.items()},
      **{prefix + name: tensor for name, tensor in IMAGES.items()},
    },
    whole / 'model.safetensors',
  )
  content = json.loads((text / 'config.json').read_text())
  (whole / 'config.json').write_text(
    json.dumps({'model_type': 'gemma3', 'text_config': content})
  )
  model, config = pretrained.load(whole)
  assert config == CONFIG
  jax.tree.map(np.testing.assert_array_equal, model.params, params)


def test_an_unknown_tensor_of_such_a_model_is_refused(tmp_path):
  graphdef, _ = decoder.abstract(CONFIG)
  params = decoder.init(CONFIG, jax.random.key(0))
  pretrained.save(pretrained.Model(graphdef, params), CONFIG, tmp_path)
  path = tmp_path / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors |= {'audio_tower.weight': np.ones(2, np.float32)}
  safetensors.numpy.save_file(tensors, path)
  content = json.loads((tmp_path / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(
    json.dumps({'model_type': 'gemma3', 'text_config': content})
  )
  with pytest.raises(ValueError, match='unknown; the first is audio_tower'):
    pretrained.load(tmp_path)
