"""Random models of every family, in folders that transformers writes."""

import numpy as np
import transformers

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
YARN = {
  'rope_type': 'yarn',
  'rope_theta': 10_000.0,
  'factor': 4.0,
  'original_max_position_embeddings': 16,
}
LINEAR = {'rope_type': 'linear', 'rope_theta': 10_000.0, 'factor': 8.0}
PLAIN = {'rope_type': 'default', 'rope_theta': 100.0}
TYPED = {'full_attention': YARN, 'sliding_attention': PLAIN}
LAYER_TYPES = ['sliding_attention', 'sliding_attention', 'full_attention']
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
  'seed-oss, heads wider than their share': (
    'SeedOss',
    {'head_dim': 24, 'tie_word_embeddings': True, 'pad_token_id': None},
  ),
  'mistral': ('Mistral', {'sliding_window': None, 'head_dim': 8}),
  'mistral, windows': ('Mistral', {'sliding_window': 7}),
  'qwen2, late windows': (
    'Qwen2',
    {'use_sliding_window': True, 'sliding_window': 5, 'max_window_layers': 1},
  ),
  'qwen3, yarn': ('Qwen3', {'head_dim': 16, 'rope_parameters': YARN}),
  'qwen3, windows listed': (
    'Qwen3',
    {
      'head_dim': 16,
      'use_sliding_window': True,
      'sliding_window': 5,
      'layer_types': LAYER_TYPES,
    },
  ),
  'qwen3 moe': (
    'Qwen3Moe',
    {
      'head_dim': 16,
      'num_experts': 6,
      'num_experts_per_tok': 2,
      'moe_intermediate_size': 12,
      'norm_topk_prob': True,
    },
  ),
  'gemma 3, small': (
    'Gemma3Text',
    {
      'head_dim': 16,
      'num_hidden_layers': 7,
      'sliding_window': 5,
      'query_pre_attn_scalar': 12,
      'pad_token_id': None,
    },
  ),
  'gemma 3, scaled positions': (
    'Gemma3Text',
    {
      'head_dim': 16,
      'sliding_window': 5,
      'layer_types': LAYER_TYPES,
      'rope_parameters': {**TYPED, 'full_attention': LINEAR},
      'pad_token_id': None,
    },
  ),
  'olmo 2': ('Olmo2', {'tie_word_embeddings': False, 'pad_token_id': None}),
  'olmo 3': (
    'Olmo3',
    {
      'num_hidden_layers': 5,
      'sliding_window': 5,
      'rope_parameters': TYPED,
      'pad_token_id': None,
    },
  ),
  'smollm 3': ('SmolLM3', {'num_hidden_layers': 5, 'pad_token_id': None}),
  'granite': (
    'Granite',
    {
      'embedding_multiplier': 12.0,
      'attention_multiplier': 0.015625,
      'residual_multiplier': 0.22,
      'logits_scaling': 8.0,
    },
  ),
}
# One of each family.
FAMILIES = (
  *('llama 3, scaled positions', 'qwen2, late windows', 'qwen3, yarn'),
  *('mistral, windows', 'gemma 3, small', 'olmo 2', 'olmo 3', 'smollm 3'),
  *('granite', 'qwen3 moe', 'seed-oss, heads wider than their share'),
)
TOKENS_BL = np.random.default_rng(0).integers(0, 96, (2, 40))


def folder_of(name, path):
  """Saves a random model as transformers does, biases and norms random too."""
  import torch  # not everywhere: tests ask for it first

  family, changes = MODELS[name]
  config = getattr(transformers, f'{family}Config')(**{**SMALL, **changes})
  torch.manual_seed(0)
  # The text part of Gemma 3 has a config of its own.
  name = family.removesuffix('Text')
  model = getattr(transformers, f'{name}ForCausalLM')(config).eval()
  with torch.no_grad():
    for parameter_name, parameter in model.named_parameters():
      if parameter_name.endswith(('bias', 'norm.weight', 'layernorm.weight')):
        parameter.add_(torch.randn_like(parameter) * 0.3)
  model.save_pretrained(path, safe_serialization=True)
  return model
