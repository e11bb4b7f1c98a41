"""config.json files as they are on the hub: what loads, and what is refused."""

import json

import pytest

from isft_jax.hf import config_json
from isft_jax.models import layer_kinds, presets

COMMON = {
  'attention_dropout': 0.0,
  'hidden_act': 'silu',
  'initializer_range': 0.02,
  'tie_word_embeddings': True,
  'use_cache': True,
}
SMOLLM2 = COMMON | {
  'architectures': ['LlamaForCausalLM'],
  'model_type': 'llama',
  'attention_bias': False,
  'bos_token_id': 1,
  'eos_token_id': 2,
  'hidden_size': 576,
  'intermediate_size': 1536,
  'is_llama_config': True,
  'max_position_embeddings': 8192,
  'mlp_bias': False,
  'num_attention_heads': 9,
  'num_hidden_layers': 30,
  'num_key_value_heads': 3,
  'pad_token_id': 2,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_interleaved': False,
  'rope_scaling': None,
  'rope_theta': 100000,
  'torch_dtype': 'bfloat16',
  'transformers.js_config': {'kv_cache_dtype': {'q4f16': 'float16'}},
  'transformers_version': '4.42.3',
  'vocab_size': 49152,
}
TINYLLAMA = COMMON | {
  'architectures': ['LlamaForCausalLM'],
  'model_type': 'llama',
  'bos_token_id': 1,
  'eos_token_id': 2,
  'hidden_size': 2048,
  'intermediate_size': 5632,
  'max_position_embeddings': 2048,
  'num_attention_heads': 32,
  'num_hidden_layers': 22,
  'num_key_value_heads': 4,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_scaling': None,
  'rope_theta': 10000.0,
  'tie_word_embeddings': False,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.35.0',
  'vocab_size': 32000,
}
LLAMA2_13B = TINYLLAMA | {
  '_name_or_path': 'meta-llama/Llama-2-13b-hf',
  'hidden_size': 5120,
  'intermediate_size': 13824,
  'max_position_embeddings': 4096,
  'num_attention_heads': 40,
  'num_hidden_layers': 40,
  'num_key_value_heads': 40,
  'pretraining_tp': 2,
  'torch_dtype': 'float16',
  'transformers_version': '4.31.0.dev0',
}
LLAMA3_2 = COMMON | {
  'architectures': ['LlamaForCausalLM'],
  'model_type': 'llama',
  'attention_bias': False,
  'bos_token_id': 128000,
  'eos_token_id': [128001, 128008, 128009],
  'head_dim': 64,
  'hidden_size': 2048,
  'intermediate_size': 8192,
  'max_position_embeddings': 131072,
  'mlp_bias': False,
  'num_attention_heads': 32,
  'num_hidden_layers': 16,
  'num_key_value_heads': 8,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_scaling': {
    'factor': 32.0,
    'high_freq_factor': 4.0,
    'low_freq_factor': 1.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'llama3',
  },
  'rope_theta': 500000.0,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.45.0.dev0',
  'vocab_size': 128256,
}
MISTRAL = COMMON | {
  'architectures': ['MistralForCausalLM'],
  'model_type': 'mistral',
  'bos_token_id': 1,
  'eos_token_id': 2,
  'hidden_size': 4096,
  'intermediate_size': 14336,
  'max_position_embeddings': 32768,
  'num_attention_heads': 32,
  'num_hidden_layers': 32,
  'num_key_value_heads': 8,
  'rms_norm_eps': 1e-05,
  'rope_theta': 1000000.0,
  'sliding_window': None,
  'tie_word_embeddings': False,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.36.0',
  'vocab_size': 32000,
}
QWEN2_5 = COMMON | {
  'architectures': ['Qwen2ForCausalLM'],
  'model_type': 'qwen2',
  'bos_token_id': 151643,
  'eos_token_id': 151645,
  'hidden_size': 896,
  'intermediate_size': 4864,
  'max_position_embeddings': 32768,
  'max_window_layers': 21,
  'num_attention_heads': 14,
  'num_hidden_layers': 24,
  'num_key_value_heads': 2,
  'rms_norm_eps': 1e-06,
  'rope_theta': 1000000.0,
  'sliding_window': 32768,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.43.1',
  'use_mrope': False,
  'use_sliding_window': False,
  'vocab_size': 151936,
}
QWEN3 = COMMON | {
  'architectures': ['Qwen3ForCausalLM'],
  'model_type': 'qwen3',
  'attention_bias': False,
  'bos_token_id': 151643,
  'eos_token_id': 151645,
  'head_dim': 128,
  'hidden_size': 1024,
  'intermediate_size': 3072,
  'max_position_embeddings': 40960,
  'max_window_layers': 28,
  'num_attention_heads': 16,
  'num_hidden_layers': 28,
  'num_key_value_heads': 8,
  'rms_norm_eps': 1e-06,
  'rope_scaling': None,
  'rope_theta': 1000000,
  'sliding_window': None,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.51.0',
  'use_sliding_window': False,
  'vocab_size': 151936,
}
QWEN3_YARN = QWEN3 | {
  'rope_scaling': {
    'rope_type': 'yarn',
    'factor': 4.0,
    'original_max_position_embeddings': 32768,
  },
}
QWEN3_30B_A3B = QWEN3 | {
  'architectures': ['Qwen3MoeForCausalLM'],
  'model_type': 'qwen3_moe',
  'decoder_sparse_step': 1,
  'hidden_size': 2048,
  'intermediate_size': 6144,
  'max_window_layers': 48,
  'mlp_only_layers': [],
  'moe_intermediate_size': 768,
  'norm_topk_prob': True,
  'num_attention_heads': 32,
  'num_experts': 128,
  'num_experts_per_tok': 8,
  'num_hidden_layers': 48,
  'num_key_value_heads': 4,
  'output_router_logits': False,
  'router_aux_loss_coef': 0.001,
  'tie_word_embeddings': False,
}
MISTRAL_V0_1 = MISTRAL | {'rope_theta': 10000.0, 'sliding_window': 4096}
# As the hub has it: without the tied head, and with the window's pattern.
GEMMA3_1B = {
  'architectures': ['Gemma3ForCausalLM'],
  'model_type': 'gemma3_text',
  'attention_bias': False,
  'attention_dropout': 0.0,
  'attn_logit_softcapping': None,
  'bos_token_id': 2,
  'cache_implementation': 'hybrid',
  'eos_token_id': [1, 106],
  'final_logit_softcapping': None,
  'head_dim': 256,
  'hidden_activation': 'gelu_pytorch_tanh',
  'hidden_size': 1152,
  'initializer_range': 0.02,
  'intermediate_size': 6912,
  'max_position_embeddings': 32768,
  'num_attention_heads': 4,
  'num_hidden_layers': 26,
  'num_key_value_heads': 1,
  'pad_token_id': 0,
  'query_pre_attn_scalar': 256,
  'rms_norm_eps': 1e-06,
  'rope_local_base_freq': 10000,
  'rope_scaling': None,
  'rope_theta': 1000000,
  'sliding_window': 512,
  'sliding_window_pattern': 6,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.50.0.dev0',
  'use_cache': True,
  'vocab_size': 262144,
}
# A model that also reads images says little of its text part.
GEMMA3_4B = {
  'architectures': ['Gemma3ForConditionalGeneration'],
  'boi_token_index': 255999,
  'eoi_token_index': 256000,
  'eos_token_id': [1, 106],
  'image_token_index': 262144,
  'initializer_range': 0.02,
  'mm_tokens_per_image': 256,
  'model_type': 'gemma3',
  'text_config': {
    'hidden_size': 2560,
    'intermediate_size': 10240,
    'model_type': 'gemma3_text',
    'num_hidden_layers': 34,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
    'sliding_window': 1024,
  },
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.50.0.dev0',
  'vision_config': {'hidden_size': 1152, 'model_type': 'siglip_vision_model'},
}
OLMO2 = COMMON | {
  'architectures': ['Olmo2ForCausalLM'],
  'model_type': 'olmo2',
  'attention_bias': False,
  'eos_token_id': 100257,
  'hidden_size': 4096,
  'intermediate_size': 11008,
  'max_position_embeddings': 4096,
  'num_attention_heads': 32,
  'num_hidden_layers': 32,
  'num_key_value_heads': 32,
  'pad_token_id': 100277,
  'rms_norm_eps': 1e-06,
  'rope_scaling': None,
  'rope_theta': 500000,
  'tie_word_embeddings': False,
  'vocab_size': 100352,
}
OLMO3 = OLMO2 | {
  'architectures': ['Olmo3ForCausalLM'],
  'model_type': 'olmo3',
  'layer_types': (['sliding_attention'] * 3 + ['full_attention']) * 8,
  'max_position_embeddings': 65536,
  'rope_scaling': {
    'attention_factor': 1.2079441541679836,
    'beta_fast': 32.0,
    'beta_slow': 1.0,
    'factor': 8.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'yarn',
  },
  'sliding_window': 4096,
  'vocab_size': 100278,
}
SMOLLM3 = COMMON | {
  'architectures': ['SmolLM3ForCausalLM'],
  'model_type': 'smollm3',
  'attention_bias': False,
  'bos_token_id': None,
  'eos_token_id': 128012,
  'hidden_size': 2048,
  'intermediate_size': 11008,
  'layer_types': ['full_attention'] * 36,
  'max_position_embeddings': 65536,
  'max_window_layers': 28,
  'mlp_bias': False,
  'no_rope_layer_interval': 4,
  'no_rope_layers': [1, 1, 1, 0] * 9,
  'num_attention_heads': 16,
  'num_hidden_layers': 36,
  'num_key_value_heads': 4,
  'pad_token_id': 128004,
  'pretraining_tp': 2,
  'rms_norm_eps': 1e-06,
  'rope_scaling': None,
  'rope_theta': 5000000.0,
  'sliding_window': None,
  'use_sliding_window': False,
  'vocab_size': 128256,
}
GRANITE = COMMON | {
  'architectures': ['GraniteForCausalLM'],
  'model_type': 'granite',
  'attention_bias': False,
  'attention_multiplier': 0.015625,
  'embedding_multiplier': 12.0,
  'hidden_size': 2048,
  'intermediate_size': 8192,
  'logits_scaling': 8.0,
  'max_position_embeddings': 131072,
  'mlp_bias': False,
  'num_attention_heads': 32,
  'num_hidden_layers': 40,
  'num_key_value_heads': 8,
  'residual_multiplier': 0.22,
  'rms_norm_eps': 1e-05,
  'rope_scaling': None,
  'rope_theta': 10000000.0,
  'vocab_size': 49159,
}
SEED_OSS = COMMON | {
  'architectures': ['SeedOssForCausalLM'],
  'model_type': 'seed_oss',
  'attention_bias': True,
  'attention_dropout': 0.1,
  'attention_out_bias': False,
  'bos_token_id': 0,
  'eos_token_id': 2,
  'head_dim': 128,
  'hidden_size': 5120,
  'intermediate_size': 27648,
  'max_position_embeddings': 524288,
  'mlp_bias': False,
  'num_attention_heads': 80,
  'num_hidden_layers': 64,
  'num_key_value_heads': 8,
  'pad_token_id': 1,
  'residual_dropout': 0.1,
  'rms_norm_eps': 1e-06,
  'rope_scaling': {'rope_type': 'default'},
  'rope_theta': 10000000.0,
  'tie_word_embeddings': False,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.55.0',
  'vocab_size': 155136,
}
# What transformers 4 wrote into every config.json before generation had its
# own file.
GENERATION = {
  **{'do_sample': False, 'early_stopping': False, 'num_beams': 1},
  **{'max_length': 20, 'min_length': 0, 'temperature': 1.0, 'top_k': 50},
  **{'top_p': 1.0, 'typical_p': 1.0, 'repetition_penalty': 1.0},
  **{'length_penalty': 1.0, 'no_repeat_ngram_size': 0, 'bad_words_ids': None},
  **{'num_return_sequences': 1, 'output_scores': False, 'pruned_heads': {}},
  **{'add_cross_attention': False, 'is_decoder': False, 'torchscript': False},
  **{'tie_encoder_decoder': False, 'cross_attention_hidden_size': None},
}
# Name: a config.json; layers, width, heads, kv heads and size of a head.
CONFIGS = {
  'SmolLM2': (SMOLLM2, (30, 576, 9, 3, 64)),
  'TinyLlama': (TINYLLAMA, (22, 2048, 32, 4, 64)),
  'Llama 2': (LLAMA2_13B, (40, 5120, 40, 40, 128)),
  'Llama 3.2': (LLAMA3_2, (16, 2048, 32, 8, 64)),
  'Mistral v0.3': (MISTRAL, (32, 4096, 32, 8, 128)),
  'Qwen2.5': (QWEN2_5, (24, 896, 14, 2, 64)),
  'Qwen3': (QWEN3, (28, 1024, 16, 8, 128)),
  'Qwen3 beyond 32k': (QWEN3_YARN, (28, 1024, 16, 8, 128)),
  'Qwen3-30B-A3B': (QWEN3_30B_A3B, (48, 2048, 32, 4, 128)),
  'Mistral v0.1': (MISTRAL_V0_1, (32, 4096, 32, 8, 128)),
  'OLMo 2': (OLMO2, (32, 4096, 32, 32, 128)),
  'OLMo 3': (OLMO3, (32, 4096, 32, 32, 128)),
  'SmolLM3': (SMOLLM3, (36, 2048, 16, 4, 128)),
  'Granite 3.3': (GRANITE, (40, 2048, 32, 8, 64)),
  'Seed-OSS': (SEED_OSS, (64, 5120, 80, 8, 128)),
  'Unsloth': (
    {**QWEN2_5, 'unsloth_fixed': True, 'unsloth_version': '2025.3.19'},
    (24, 896, 14, 2, 64),
  ),
  'mergekit': (
    {**MISTRAL, '_name_or_path': 'mistralai/Mistral-7B-v0.1'},
    (32, 4096, 32, 8, 128),
  ),
  'saved again': (
    {**SMOLLM2, '_attn_implementation_autoset': True, 'dtype': 'float32'},
    (30, 576, 9, 3, 64),
  ),
  'old transformers': ({**SMOLLM2, **GENERATION}, (30, 576, 9, 3, 64)),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_of_the_hub_load(name):
  found, shape = CONFIGS[name]
  config = config_json.model_config(found, 'config.json')
  sizes = (config.layers, config.width, config.heads, config.kv_heads)
  assert (*sizes, config.head_size) == shape
  assert config.rope_theta == found['rope_theta']
  assert config.tie_embeddings == found['tie_word_embeddings']
  again = json.loads(json.dumps(config_json.to_json(config)))
  assert config_json.model_config(again, 'config.json') == config


def test_gemma_3_of_text_only():
  config = config_json.model_config(GEMMA3_1B, 'config.json')
  assert config == presets.model_config('gemma-3-1b')
  kinds = layer_kinds.kinds(config)
  assert [i for i, kind in enumerate(kinds) if kind == 'full'] == [
    5,
    11,
    17,
    23,
  ]
  again = json.loads(json.dumps(config_json.to_json(config)))
  assert config_json.model_config(again, 'config.json') == config


def test_the_text_part_of_a_gemma_3_that_reads_images():
  config = config_json.model_config(GEMMA3_4B, 'config.json')
  sizes = (config.layers, config.width, config.heads, config.kv_heads)
  assert (*sizes, config.head_size) == (34, 2560, 8, 4, 256)
  assert (config.vocab_size, config.tie_embeddings) == (262_208, True)
  assert (config.rope_theta, config.window_theta) == (1e6, 1e4)
  assert (config.rope_type, config.rope_scaling) == ('linear', (8.0,))
  assert (config.window, config.embedding_scale) == (1024, 2560**0.5)
  # It is written as a model of text only.
  assert config_json.to_json(config)['model_type'] == 'gemma3_text'


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'text_config': None}, 'text_config=None must be an object'),
    ({'quantization_config': {'bits': 4}}, 'quantization_config=.* quantised'),
    ({'audio_config': {}}, 'audio_config=.* is neither supported nor known'),
    ({'text_config': {'model_type': 'llama'}}, 'text_config=.* model_type='),
  ],
)
def test_another_model_that_reads_images_is_refused(changes, message):
  with pytest.raises(ValueError, match='config.json: ' + message):
    config_json.model_config({**GEMMA3_4B, **changes}, 'config.json')


def test_presets_are_the_models_of_the_hub():
  for name, found in {
    'olmo-3-7b': OLMO3,
    'qwen3-0.6b': QWEN3,
    'qwen3-30b-a3b': QWEN3_30B_A3B,
    'smollm3-3b': SMOLLM3,
    'smollm2-135m': SMOLLM2,
  }.items():
    config = config_json.model_config(found, 'config.json')
    assert config == presets.model_config(name)


AWQ = {'quant_method': 'awq', 'bits': 4}
REFUSED = [
  ({'quantization_config': AWQ}, 'quantization_config=.* quantised weights'),
  ({'quantization': {'bits': 4}}, 'quantization=.* unquantised folder'),
  ({'auto_map': {'AutoModelForCausalLM': 'm.M'}}, 'auto_map=.* not supported'),
  ({'rope_interleaved': True}, 'rope_interleaved=True is not supported'),
  ({'mlp_bias': True}, 'mlp_bias=True is not supported'),
  ({'sliding_window': 4096}, 'sliding_window=4096 is not .* if your rows'),
  ({'rope_scaling': {'type': 'dynamic', 'factor': 2}}, 'rope_scaling=.* type'),
  ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor=0.5 is not'),
  ({'logit_scale': 0.1}, 'logit_scale=0.1 is neither supported nor known'),
  ({'layer_types': [['full_attention']] * 30}, 'layer_types=.* other types'),
  ({'layer_types': ['sliding_attention'] * 30}, 'layer_types=.* does not fit'),
  ({'num_hidden_layers': None}, 'num_hidden_layers=None must be an integer'),
  ({'rms_norm_eps': None}, 'rms_norm_eps=None must be a number'),
]


@pytest.mark.parametrize(('changes', 'message'), REFUSED, ids=str)
def test_an_attribute_that_makes_another_model_is_named(changes, message):
  with pytest.raises(ValueError, match='config.json: ' + message):
    config_json.model_config({**SMOLLM2, **changes}, 'config.json')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'attention_bias': False}, 'attention_bias=False is not supported'),
    ({'attention_bias': None}, 'attention_bias=None is not supported'),
    ({'attention_out_bias': True}, 'attention_out_bias=True is not supported'),
  ],
  ids=str,
)
def test_seed_oss_has_the_biases_of_qwen2(changes, message):
  with pytest.raises(ValueError, match=message):
    config_json.model_config({**SEED_OSS, **changes}, 'config.json')


def test_a_qwen2_model_is_written_as_seed_oss_for_another_tokenizer():
  """Or for heads that Qwen2 cannot have; other families have both."""
  for name, own, wide in (
    ('Qwen2.5', 'seed_oss', 'seed_oss'),
    ('Qwen3', 'qwen3', 'qwen3'),
    ('Llama 3.2', 'llama', 'llama'),
  ):
    found, _ = CONFIGS[name]
    config = config_json.model_config(found, 'config.json')
    usual = config_json.to_json(config)
    assert usual['model_type'] == found['model_type']
    assert config_json.to_json(config, True)['model_type'] == own
    config.head_size *= 2
    content = config_json.to_json(config)
    assert content['model_type'] == wide
    assert config_json.model_config(content, 'config.json') == config


def test_the_window_of_mistral_v0_1_is_stated_or_not():
  """transformers takes 4,096 where the file says nothing."""
  found = {k: v for k, v in MISTRAL.items() if k != 'sliding_window'}
  config = config_json.model_config(found, 'config.json')
  assert (config.layer_kinds, config.window) == (('window',), 4_096)
