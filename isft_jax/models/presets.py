"""Shapes of known models, by name.

  model = model_config('qwen2.5-0.5b', dtype='bfloat16', remat='full')

A run that starts from other weights takes the shape from their config.json; see
`init_from` in isft_jax/config.py.
"""

from typing import Any

from isft_jax.config import ModelConfig, check_choice

# Shared by the models of a family.
_QWEN2_5 = {
  'vocab_size': 151_936,
  'rope_theta': 1_000_000.0,
  'rope_scaling': (),
  'norm_eps': 1e-6,
  'tie_embeddings': True,
  'qkv_bias': True,
  'qk_norm': False,
}
# Larger models have more unused ids, and an untied output head.
_QWEN2_5_LARGE = _QWEN2_5 | {'vocab_size': 152_064, 'tie_embeddings': False}
# Qwen3 replaces the biases of q, k and v by norms of q and k.
_QWEN3 = _QWEN2_5 | {'qkv_bias': False, 'qk_norm': True}
_LLAMA3 = {
  'vocab_size': 128_256,
  'rope_theta': 500_000.0,
  'rope_scaling': (),
  'norm_eps': 1e-5,
  'tie_embeddings': False,
  'qkv_bias': False,
  'qk_norm': False,
}
# All fields that a config.json determines, by name of the model.
SHAPES: dict[str, dict[str, Any]] = {
  'llama-3-70b': _LLAMA3
  | {
    'width': 8_192,
    'layers': 80,
    'heads': 64,
    'kv_heads': 8,
    'head_size': 128,
    'mlp_width': 28_672,
  },
  'llama-3.2-1b': _LLAMA3
  | {
    'width': 2_048,
    'layers': 16,
    'heads': 32,
    'kv_heads': 8,
    'head_size': 64,
    'mlp_width': 8_192,
    # Llama 3's scaling of rotary speeds; see `attention.rope_speeds`.
    'rope_scaling': (32.0, 1.0, 4.0, 8_192.0),
    'tie_embeddings': True,
  },
  'qwen2.5-0.5b': _QWEN2_5
  | {
    'width': 896,
    'layers': 24,
    'heads': 14,
    'kv_heads': 2,
    'head_size': 64,
    'mlp_width': 4_864,
  },
  'qwen2.5-1.5b': _QWEN2_5
  | {
    'width': 1_536,
    'layers': 28,
    'heads': 12,
    'kv_heads': 2,
    'head_size': 128,
    'mlp_width': 8_960,
  },
  'qwen2.5-3b': _QWEN2_5
  | {
    'width': 2_048,
    'layers': 36,
    'heads': 16,
    'kv_heads': 2,
    'head_size': 128,
    'mlp_width': 11_008,
  },
  'qwen2.5-7b': _QWEN2_5_LARGE
  | {
    'width': 3_584,
    'layers': 28,
    'heads': 28,
    'kv_heads': 4,
    'head_size': 128,
    'mlp_width': 18_944,
  },
  'qwen2.5-32b': _QWEN2_5_LARGE
  | {
    'width': 5_120,
    'layers': 64,
    'heads': 40,
    'kv_heads': 8,
    'head_size': 128,
    'mlp_width': 27_648,
  },
  'qwen3-0.6b': _QWEN3
  | {
    'width': 1_024,
    'layers': 28,
    'heads': 16,
    'kv_heads': 8,
    'head_size': 128,
    'mlp_width': 3_072,
  },
  'qwen3-8b': _QWEN3
  | {
    'width': 4_096,
    'layers': 36,
    'heads': 32,
    'kv_heads': 8,
    'head_size': 128,
    'mlp_width': 12_288,
    'tie_embeddings': False,
  },
  'smollm2-135m': {
    'vocab_size': 49_152,
    'width': 576,
    'layers': 30,
    'heads': 9,
    'kv_heads': 3,
    'head_size': 64,
    'mlp_width': 1_536,
    'rope_theta': 100_000.0,
    'rope_scaling': (),
    'norm_eps': 1e-5,
    'tie_embeddings': True,
    'qkv_bias': False,
    'qk_norm': False,
  },
}


def model_config(name: str, **settings: Any) -> ModelConfig:
  """Returns the settings of a known model.

  Args:
    name: key of `SHAPES`.
    **settings: fields of `ModelConfig` that are not part of the shape.

  Raises:
    ValueError: the name is not in `SHAPES`.
  """
  check_choice('name of a model', name, SHAPES)
  return ModelConfig(**SHAPES[name], **settings)
