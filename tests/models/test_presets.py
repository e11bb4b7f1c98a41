"""Shapes of known models: complete, exact, and never shared."""

import jax
import pytest

from isft_jax.config import ModelConfig
from isft_jax.hf import config_json
from isft_jax.models import decoder, presets

# Parameters, from the models' cards and from the index of their safetensors.
PARAMETERS = {
  'gemma-3-270m': 268_098_176,
  'gemma-3-1b': 999_885_952,
  'llama-3-70b': 70_553_706_496,
  'llama-3.2-1b': 1_235_814_400,
  'olmo-3-7b': 7_298_011_136,
  'qwen2.5-0.5b': 494_032_768,
  'qwen2.5-1.5b': 1_543_714_304,
  'qwen2.5-3b': 3_085_938_688,
  'qwen2.5-7b': 7_615_616_512,
  'qwen2.5-32b': 32_763_876_352,
  'qwen3-0.6b': 596_049_920,
  'qwen3-8b': 8_190_735_360,
  'qwen3-30b-a3b': 30_532_122_624,
  'smollm2-135m': 134_515_008,
  'smollm3-3b': 3_075_098_624,
}


def test_the_number_of_parameters_is_the_models_own():
  assert PARAMETERS.keys() == presets.SHAPES.keys()
  for name, expected in PARAMETERS.items():
    _, shapes = decoder.abstract(presets.model_config(name))
    actual = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert (name, actual) == (name, expected)


def test_a_shape_depends_on_no_default_of_ours():
  """Each sets every field that a config.json decides, and no other."""
  for name, shape in presets.SHAPES.items():
    assert (name, sorted(shape)) == (name, sorted(config_json.SHAPE))


def test_a_shape_goes_through_a_config_json_unchanged():
  for name in presets.SHAPES:
    model = presets.model_config(name)
    assert config_json.model_config(config_json.to_json(model), name) == model


def test_settings_are_added_and_nothing_is_shared():
  model = presets.model_config('qwen3-0.6b', init_from='DIR', remat='full')
  assert model == ModelConfig(
    init_from='DIR', remat='full', **presets.SHAPES['qwen3-0.6b']
  )
  model.width = 7
  assert presets.model_config('qwen3-0.6b').width == 1_024


def test_an_unknown_name_is_refused():
  with pytest.raises(ValueError, match="must be one of 'gemma-3-270m', "):
    presets.model_config('gpt-2')
