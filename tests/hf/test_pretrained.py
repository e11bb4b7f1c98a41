"""Our decoder is the model in the folder: parity with transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.hf import config_json, pretrained
from isft_jax.models import attention, layer_kinds
from tests.fixtures import import_or_skip
from tests.hf.random_folders import MODELS, TOKENS_BL, folder_of

torch = import_or_skip('torch')


def hidden_states(model: pretrained.Model, tokens_BL):
  """The residual stream: after the embedding, and after each layer."""
  module = nnx.merge(model.graphdef, model.params)
  graphdef, stacked = nnx.split(module.blocks)
  positions_BL = jnp.broadcast_to(
    jnp.arange(tokens_BL.shape[1]), tokens_BL.shape
  )

  config = module.config
  found = [module.embedding[...][tokens_BL] * config.embedding_scale]
  for layer in range(config.layers):
    window = layer_kinds.windows(config)[layer]
    rope = layer_kinds.ropes(config)[layer]
    scale = config.query_scale or None

    def attend(q_BLHA, k_BLNA, v_BLNA, window=window, scale=scale):
      ids_BL = jnp.ones_like(positions_BL)
      mixed_BLHA = attention.packed_attention(
        *(q_BLHA, k_BLNA, v_BLNA, ids_BL), 'xla', scale, (window,)
      )
      return mixed_BLHA, None

    def rotate(x_BLHA, rope=rope):
      return attention.rotate(x_BLHA, positions_BL, [rope])

    block = nnx.merge(graphdef, jax.tree.map(lambda x, i=layer: x[i], stacked))
    found.append(block(found[-1], rotate, attend)[0])
  return found


@pytest.mark.parametrize('name', MODELS)
def test_each_layer_and_the_logits_are_those_of_transformers(name, tmp_path):
  theirs = folder_of(name, tmp_path)
  model, config = pretrained.load(tmp_path)
  with torch.no_grad():
    expected = theirs(torch.asarray(TOKENS_BL), output_hidden_states=True)
  # Theirs ends with the last layer's output after the norm, which the logits
  # show.
  ours_BLD = hidden_states(model, TOKENS_BL)[: config.layers]
  for layer, ours, state in zip(
    range(config.layers), ours_BLD, expected.hidden_states[:-1], strict=True
  ):
    np.testing.assert_allclose(
      ours, state.numpy(), atol=1e-4, err_msg=f'what layer {layer} reads'
    )
  np.testing.assert_allclose(
    model(TOKENS_BL), expected.logits.numpy(), atol=1e-4, err_msg='logits'
  )


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
  'another family': (
    {'model_type': 'gpt2'},
    "model_type='gpt2' is not supported; it must be one of llama, ",
  ),
  'another activation': ({'hidden_act': 'gelu'}, "hidden_act='gelu' is not"),
  'a window that is not used': (
    {'layer_types': ['sliding_attention'] * 3},
    'layer_types=.* does not fit the other attributes',
  ),
  'a window without its size': (
    {
      'use_sliding_window': True,
      'layer_types': ['sliding_attention'] * 3,
      'sliding_window': None,
    },
    'sliding_window=None must be the window of layers that have one',
  ),
  'another scaling of positions': (
    {'rope_parameters': {'rope_type': 'dynamic', 'factor': 4.0}},
    'rope_parameters=.* has a type that is not supported',
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
    pretrained.load(folder)


NORM = 'model.norm.weight'
TENSORS = {
  'unknown': (lambda t: {**t, 'extra': t[NORM]}, 'unknown; the first is extra'),
  'missing': (
    lambda t: {k: v for k, v in t.items() if k != NORM},
    f'missing; the first is {NORM}',
  ),
  'misshapen': (
    lambda t: {**t, NORM: t[NORM][:-1]},
    f'{NORM} has shape .31., but the config gives .32.',
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
    pretrained.load(folder)


def test_a_tensor_in_two_files_is_named(qwen, tmp_path):
  copied(qwen, tmp_path)
  (tmp_path / 'again.safetensors').write_bytes(
    (tmp_path / 'model.safetensors').read_bytes()
  )
  with pytest.raises(ValueError, match='is in two files'):
    pretrained.load(tmp_path)


def test_old_folders_have_their_theta_flat(qwen, tmp_path):
  found = json.loads((qwen / 'config.json').read_text())
  theta = found.pop('rope_parameters')['rope_theta']
  copied(qwen, tmp_path)
  found['rope_theta'] = 2 * theta
  (tmp_path / 'config.json').write_text(json.dumps(found))
  assert pretrained.load(tmp_path)[1].rope_theta == 2 * theta


def test_other_formats_than_safetensors_are_not_opened(qwen, tmp_path):
  copied(qwen, tmp_path)
  (tmp_path / 'model.safetensors').rename(tmp_path / 'pytorch_model.bin')
  with pytest.raises(ValueError, match=r'no \*.safetensors there'):
    pretrained.load(tmp_path)


# ------------------------------------------------------------- and out again


@pytest.mark.parametrize('name', [n for n in MODELS if n != 'mistral'])
def test_folder_to_folder_is_bit_identical(name, tmp_path):
  folder_of(name, tmp_path / 'theirs')
  model, config = pretrained.load(tmp_path / 'theirs')
  pretrained.save(model, config, tmp_path / 'ours')
  theirs, ours = (
    safetensors.numpy.load_file(tmp_path / side / 'model.safetensors')
    for side in ('theirs', 'ours')
  )
  assert ours.keys() == theirs.keys()
  for tensor, value in theirs.items():
    np.testing.assert_array_equal(ours[tensor], value)
  assert pretrained.load(tmp_path / 'ours')[1] == config


@pytest.mark.parametrize('name', ['qwen2, tied', 'llama 3, scaled positions'])
def test_transformers_loads_what_is_saved_in_shards(name, tmp_path):
  folder_of(name, tmp_path / 'theirs')
  model, config = pretrained.load(tmp_path / 'theirs')
  pretrained.save(model, config, tmp_path / 'ours', shard_bytes=20_000)
  files = sorted(p.name for p in (tmp_path / 'ours').glob('*.safetensors'))
  assert len(files) > 2
  loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'ours')
  with torch.no_grad():
    logits_BLV = loaded(torch.asarray(TOKENS_BL)).logits.numpy()
  np.testing.assert_allclose(model(TOKENS_BL), logits_BLV, atol=1e-4)


def test_a_decoder_of_no_family_is_not_saved(tmp_path):
  with pytest.raises(ValueError, match='qkv_bias=True, qk_norm=True'):
    config_json.to_json(ModelConfig(qkv_bias=True, qk_norm=True))
  with pytest.raises(ValueError, match=r'layer_kinds=.*nope'):
    config_json.to_json(
      ModelConfig(qkv_bias=True, layer_kinds=('full', 'nope'))
    )


@pytest.mark.parametrize('own_tokenizer', [False, True])
def test_qwen2_with_another_tokenizer_is_saved_as_seed_oss(
  own_tokenizer, tmp_path
):
  """No dropout, and no embedding that a trainer would leave out."""
  folder_of('qwen2, tied', tmp_path / 'theirs')
  model, config = pretrained.load(tmp_path / 'theirs')
  pretrained.save(model, config, tmp_path, own_tokenizer=own_tokenizer)
  assert pretrained.load(tmp_path)[1] == config
  loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
  name = 'SeedOss' if own_tokenizer else 'Qwen2'
  assert type(loaded).__name__ == f'{name}ForCausalLM'
  logits = [loaded.eval()(torch.asarray(TOKENS_BL)).logits]
  logits += [loaded.train()(torch.asarray(TOKENS_BL)).logits]
  torch.testing.assert_close(*logits, rtol=0, atol=0)
  np.testing.assert_allclose(
    model(TOKENS_BL), logits[0].detach().numpy(), atol=1e-4
  )
  assert loaded.get_input_embeddings().padding_idx is None
  assert loaded.config.max_position_embeddings == 32_768
