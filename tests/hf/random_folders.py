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
}
TOKENS_BL = np.random.default_rng(0).integers(0, 96, (2, 40))


def folder_of(name, path):
  """Saves a random model as transformers does, biases and norms random too."""
  import torch  # not everywhere: tests ask for it first

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
