"""Shapes of known models, by name.

  model = model_config('qwen2.5-0.5b', dtype='bfloat16', remat='full')

A run that starts from other weights takes the shape from their config.json; see
`init_from` in isft_jax/config.py.
"""

import math
from typing import Any

from isft_jax.config import ModelConfig, check_choice

# A Llama 2 without its sizes: what the other families differ from.
_PLAIN = {
  'experts': 0,
  'experts_per_token': 0,
  'normalize_experts': True,
  'rope_theta': 10_000.0,
  'rope_type': 'llama3',
  'rope_scaling': (),
  'layer_kinds': ('full',),
  'window': 0,
  'window_theta': 0.0,
  'norm_eps': 1e-6,
  'tie_embeddings': True,
  'qkv_bias': False,
  'qk_norm': False,
  'qk_norm_all_heads': False,
  'norms': 'before',
  'norm_plus_one': False,
  'activation': 'silu',
  'embedding_scale': 1.0,
  'query_scale': 0.0,
  'residual_scale': 1.0,
  'logits_divisor': 1.0,
}
# Shared by the models of a family.
_QWEN2_5 = _PLAIN | {
  'vocab_size': 151_936,
  'rope_theta': 1_000_000.0,
  'qkv_bias': True,
}
# Larger models have more unused ids, and an untied output head.
_QWEN2_5_LARGE = _QWEN2_5 | {'vocab_size': 152_064, 'tie_embeddings': False}
# Qwen3 replaces the biases of q, k and v by norms of q and k.
_QWEN3 = _QWEN2_5 | {'qkv_bias': False, 'qk_norm': True}
_LLAMA3 = _PLAIN | {
  'vocab_size': 128_256,
  'rope_theta': 500_000.0,
  'norm_eps': 1e-5,
  'tie_embeddings': False,
}
_GEMMA3 = _PLAIN | {
  'vocab_size': 262_144,
  'rope_theta': 1_000_000.0,
  # Five layers see a window, and the sixth sees all.
  'layer_kinds': ('window',) * 5 + ('full',),
  'window': 512,
  'window_theta': 10_000.0,
  'qk_norm': True,
  'norms': 'both',
  'norm_plus_one': True,
  'activation': 'gelu_tanh',
  'query_scale': 256**-0.5,
}
# All fields that a config.json determines, by name of the model.
SHAPES: dict[str, dict[str, Any]] = {
  'gemma-3-270m': _GEMMA3
  | {
    'width': 640,
    'layers': 18,
    'heads': 4,
    'kv_heads': 1,
    'head_size': 256,
    'mlp_width': 2_048,
    'embedding_scale': 640**0.5,
  },
  'gemma-3-1b': _GEMMA3
  | {
    'width': 1_152,
    'layers': 26,
    'heads': 4,
    'kv_heads': 1,
    'head_size': 256,
    'mlp_width': 6_912,
    'embedding_scale': 1_152**0.5,
  },
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
  'olmo-3-7b': _PLAIN
  | {
    'vocab_size': 100_278,
    'width': 4_096,
    'layers': 32,
    'heads': 32,
    'kv_heads': 32,
    'head_size': 128,
    'mlp_width': 11_008,
    'rope_theta': 500_000.0,
    # For 65,536 tokens; layers with a window are not scaled.
    'rope_type': 'yarn',
    'rope_scaling': (8.0, 32.0, 1.0, 8_192.0, 0.1 * math.log(8) + 1, 1.0),
    'layer_kinds': ('window', 'window', 'window', 'full'),
    'window': 4_096,
    'window_theta': 500_000.0,
    'tie_embeddings': False,
    'qk_norm': True,
    'qk_norm_all_heads': True,
    'norms': 'after',
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
  'qwen3-30b-a3b': _QWEN3
  | {
    'width': 2_048,
    'layers': 48,
    'heads': 32,
    'kv_heads': 4,
    'head_size': 128,
    'mlp_width': 768,
    'experts': 128,
    'experts_per_token': 8,
    'tie_embeddings': False,
  },
  'smollm2-135m': _PLAIN
  | {
    'vocab_size': 49_152,
    'width': 576,
    'layers': 30,
    'heads': 9,
    'kv_heads': 3,
    'head_size': 64,
    'mlp_width': 1_536,
    'rope_theta': 100_000.0,
    'norm_eps': 1e-5,
  },
  'smollm3-3b': _PLAIN
  | {
    'vocab_size': 128_256,
    'width': 2_048,
    'layers': 36,
    'heads': 16,
    'kv_heads': 4,
    'head_size': 128,
    'mlp_width': 11_008,
    'rope_theta': 5_000_000.0,
    # Every fourth layer has no positions.
    'layer_kinds': ('full', 'full', 'full', 'nope'),
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
