"""Our decoder is the model in the folder: parity with transformers."""

import json

import numpy as np
import pytest
import safetensors.numpy

from isft_jax.models import hf

torch = pytest.importorskip('torch', reason='parity is with torch')
transformers = pytest.importorskip('transformers')

SMALL = {
  'vocab_size': 96,
  'hidden_size': 32,
  'intermediate_size': 48,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'rms_norm_eps': 1e-6,
  'max_position_embeddings': 512,
}
LLAMA3 = {
  'rope_type': 'llama3',
  'rope_theta': 10_000.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 16,
}
MODELS = {
  'qwen2, tied': ('Qwen2', {'tie_word_embeddings': True}),
  'qwen2, untied': ('Qwen2', {'tie_word_embeddings': False}),
  'qwen3, heads wider than their share': (
    'Qwen3',
    {'head_dim': 24, 'tie_word_embeddings': True},
  ),
  'qwen3, one key head': ('Qwen3', {'num_key_value_heads': 1, 'head_dim': 8}),
  'llama': ('Llama', {'tie_word_embeddings': False}),
  'llama 3, scaled positions': ('Llama', {'rope_parameters': LLAMA3}),
  'mistral': ('Mistral', {'sliding_window': None, 'head_dim': 8}),
}
TOKENS_BL = np.random.default_rng(0).integers(0, 96, (2, 40))


def folder_of(name, path):
  """A random model as transformers saves it, biases and norms too."""
  family, changes = MODELS[name]
  config = getattr(transformers, f'{family}Config')(**{**SMALL, **changes})
  torch.manual_seed(0)
  model = getattr(transformers, f'{family}ForCausalLM')(config).eval()
  with torch.no_grad():
    for parameter_name, parameter in model.named_parameters():
      if parameter_name.endswith(('bias', 'norm.weight', 'layernorm.weight')):
        parameter.add_(torch.randn_like(parameter) * 0.3)
  model.save_pretrained(path, safe_serialization=True)
  return model


@pytest.mark.parametrize('name', MODELS)
def test_logits_are_those_of_transformers(name, tmp_path):
  theirs = folder_of(name, tmp_path)
  model, _ = hf.load(tmp_path)
  with torch.no_grad():
    expected_BLV = theirs(torch.asarray(TOKENS_BL)).logits.numpy()
  np.testing.assert_allclose(model(TOKENS_BL), expected_BLV, atol=1e-4)


@pytest.mark.parametrize('name', ['qwen2, tied', 'llama 3, scaled positions'])
def test_packed_documents_are_each_alone(name, tmp_path):
  folder_of(name, tmp_path)
  model, _ = hf.load(tmp_path)
  first, second = TOKENS_BL[:1, :13], TOKENS_BL[1:, :22]
  packed = model(
    np.concatenate([first, second], 1),
    np.concatenate([np.arange(13), np.arange(22)])[None],
    np.repeat([1, 2], [13, 22])[None],
  )
  np.testing.assert_allclose(packed[:, :13], model(first), atol=1e-5)
  np.testing.assert_allclose(packed[:, 13:], model(second), atol=1e-5)


# ----------------------------------------------------------- what is refused


@pytest.fixture(scope='module')
def qwen(tmp_path_factory):
  path = tmp_path_factory.mktemp('qwen')
  folder_of('qwen2, untied', path)
  return path


def copied(source, target, config=None, tensors=None):
  """A copy of a folder, with its config or its tensors changed."""
  found = json.loads((source / 'config.json').read_text())
  if config:
    found |= config
  (target / 'config.json').write_text(json.dumps(found))
  stored = safetensors.numpy.load_file(source / 'model.safetensors')
  safetensors.numpy.save_file(
    tensors(stored) if tensors else stored, target / 'model.safetensors'
  )
  return target


ATTRIBUTES = {
  'another family': ({'model_type': 'gpt2'}, "model_type='gpt2' is none of"),
  'another activation': ({'hidden_act': 'gelu'}, "hidden_act='gelu' is not"),
  'a window in use': (
    {'use_sliding_window': True},
    'use_sliding_window=True is not supported',
  ),
  'layers that see a window': (
    {'layer_types': ['sliding_attention']},
    'layer_types=',
  ),
  'another scaling of positions': (
    {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}},
    'rope_parameters=',
  ),
  'quantised weights': (
    {'quantization_config': {'bits': 4}},
    'quantization_config=',
  ),
  'experts': ({'num_experts': 8}, 'num_experts=8 is neither supported nor'),
}


@pytest.mark.parametrize('what', ATTRIBUTES)
def test_an_attribute_that_makes_another_model_is_named(what, qwen, tmp_path):
  changes, message = ATTRIBUTES[what]
  folder = copied(qwen, tmp_path, config=changes)
  with pytest.raises(ValueError, match='config.json: ' + message):
    hf.load(folder)


NORM = 'model.norm.weight'
TENSORS = {
  'unknown': (lambda t: {**t, 'extra': t[NORM]}, 'unknown, the first is extra'),
  'missing': (
    lambda t: {k: v for k, v in t.items() if k != NORM},
    f'missing, the first is {NORM}',
  ),
  'misshapen': (
    lambda t: {**t, NORM: t[NORM][:-1]},
    f'{NORM} is .31.; the config asks for .32.',
  ),
  'not finite': (
    lambda t: {**t, NORM: t[NORM] * np.nan},
    f'{NORM} is not finite',
  ),
}


@pytest.mark.parametrize('what', TENSORS)
def test_a_tensor_that_does_not_fit_is_named(what, qwen, tmp_path):
  change, message = TENSORS[what]
  folder = copied(qwen, tmp_path, tensors=change)
  with pytest.raises(ValueError, match=message):
    hf.load(folder)


def test_a_tensor_in_two_files_is_named(qwen, tmp_path):
  copied(qwen, tmp_path)
  (tmp_path / 'again.safetensors').write_bytes(
    (tmp_path / 'model.safetensors').read_bytes()
  )
  with pytest.raises(ValueError, match='is in two files'):
    hf.load(tmp_path)


def test_old_folders_have_their_theta_flat(qwen, tmp_path):
  found = json.loads((qwen / 'config.json').read_text())
  theta = found.pop('rope_parameters')['rope_theta']
  copied(qwen, tmp_path)
  found['rope_theta'] = 2 * theta
  (tmp_path / 'config.json').write_text(json.dumps(found))
  assert hf.load(tmp_path)[1].rope_theta == 2 * theta


def test_other_formats_than_safetensors_are_not_opened(qwen, tmp_path):
  copied(qwen, tmp_path)
  (tmp_path / 'model.safetensors').rename(tmp_path / 'pytorch_model.bin')
  with pytest.raises(ValueError, match=r'no \*.safetensors there'):
    hf.load(tmp_path)
