"""What a Hugging Face config.json says of a decoder, or why it is another one.

An attribute that is neither read here nor known to change nothing raises: a
model that is silently another would train, and be wrong.
"""

from collections.abc import Mapping

from isft_jax.config import ModelConfig

# What sets the families apart: (biases of q, k and v; norms of q and k).
_FAMILIES = {
  'llama': (False, False),
  'mistral': (False, False),
  'qwen2': (True, False),
  'qwen3': (False, True),
}
# The fields that a config.json decides.
SHAPE = (
  *('vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'head_size'),
  *('hidden', 'rope_theta', 'rope_scaling', 'norm_eps', 'tie_embeddings'),
  *('qkv_bias', 'qk_norm'),
)
# Attribute -> the value it must have, if it is there at all.
_REQUIRED = {
  'attention_bias': (False, None),
  'hidden_act': ('silu',),
  'mlp_bias': (False, None),
  'pretraining_tp': (1,),
  'quantization_config': (None,),
  'use_sliding_window': (False, None),
}
_READ = {
  *('head_dim', 'hidden_size', 'intermediate_size', 'layer_types'),
  *('max_window_layers', 'model_type', 'num_attention_heads'),
  *('num_hidden_layers', 'num_key_value_heads', 'rms_norm_eps'),
  *('rope_parameters', 'rope_scaling', 'rope_theta', 'sliding_window'),
  *('tie_word_embeddings', 'vocab_size'),
}
# Of tokenizers, of generation, of torch, or of dropout, which is not used.
_HARMLESS = {
  *('_name_or_path', 'architectures', 'attention_dropout', 'auto_map'),
  *('bos_token_id', 'dtype', 'eos_token_id', 'initializer_range'),
  *('max_position_embeddings', 'output_attentions', 'output_hidden_states'),
  *('pad_token_id', 'return_dict', 'torch_dtype', 'transformers_version'),
  *('use_cache', 'chunk_size_feed_forward', 'id2label', 'label2id'),
  *('is_encoder_decoder', 'problem_type', 'use_mrope', 'unk_token_id'),
}
_LLAMA3 = (
  'factor',
  'low_freq_factor',
  'high_freq_factor',
  'original_max_position_embeddings',
)


def model_config(found: Mapping, where: str) -> ModelConfig:
  """Returns the decoder that a config.json describes.

  found: its content. where: its path, for messages.

  Raises ValueError, naming the attribute, for what this decoder is not.
  """

  def refuse(name, why):
    raise ValueError(f'{where}: {name}={found.get(name)!r} {why}')

  family = found.get('model_type')
  if family not in _FAMILIES:
    refuse('model_type', f'is none of {", ".join(_FAMILIES)}')
  for name, values in _REQUIRED.items():
    if name in found and found[name] not in values:
      refuse(name, 'is not supported')
  unknown = sorted(found.keys() - _READ - _HARMLESS - _REQUIRED.keys())
  if unknown:
    refuse(unknown[0], 'is neither supported nor known to be harmless')
  windows = found.get('layer_types') or ['full_attention']
  if set(windows) != {'full_attention'}:
    refuse('layer_types', 'has layers that do not see the whole past')
  # Qwen2 states the size of a window that it does not use.
  if found.get('sliding_window') and 'use_sliding_window' not in found:
    refuse('sliding_window', 'is not supported')
  for name in ('hidden_size', 'num_attention_heads', 'vocab_size'):
    if not isinstance(found.get(name), int):
      refuse(name, 'is missing or no number')

  theta, scaling = _rope(found, refuse)
  heads = found['num_attention_heads']
  qkv_bias, qk_norm = _FAMILIES[family]
  return ModelConfig(
    vocab_size=found['vocab_size'],
    width=found['hidden_size'],
    layers=found['num_hidden_layers'],
    heads=heads,
    kv_heads=found.get('num_key_value_heads') or heads,
    head_size=found.get('head_dim') or found['hidden_size'] // heads,
    hidden=found['intermediate_size'],
    rope_theta=theta,
    rope_scaling=scaling,
    norm_eps=found['rms_norm_eps'],
    tie_embeddings=bool(found.get('tie_word_embeddings', False)),
    qkv_bias=qkv_bias,
    qk_norm=qk_norm,
  )


def _rope(found: Mapping, refuse) -> tuple[float, tuple[float, ...]]:
  """Returns theta and Llama 3's scaling; new folders nest them, old do not."""
  name = 'rope_parameters' if found.get('rope_parameters') else 'rope_scaling'
  rope = found.get(name) or {}
  theta = rope.get('rope_theta', found.get('rope_theta', 10_000.0))
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind == 'default':
    return float(theta), ()
  if kind != 'llama3' or any(key not in rope for key in _LLAMA3):
    refuse(name, 'is of a type that is not supported')
  return float(theta), tuple(float(rope[key]) for key in _LLAMA3)


def to_json(config: ModelConfig) -> dict:
  """Returns the config.json of a decoder, in the words of transformers 5.

  Raises ValueError for one that is of no family.
  """
  kinds = {
    flags: name for name, flags in _FAMILIES.items() if name != 'mistral'
  }
  family = kinds.get((config.qkv_bias, config.qk_norm))
  share = config.width // config.heads
  if family is None or (family == 'qwen2' and config.head_size != share):
    raise ValueError(
      f'no family of models has qkv_bias={config.qkv_bias}, '
      f'qk_norm={config.qk_norm} and heads of size {config.head_size} in a '
      f'width of {config.width}'
    )
  rope = {'rope_type': 'default', 'rope_theta': config.rope_theta}
  if config.rope_scaling:
    scaling = zip(_LLAMA3, config.rope_scaling, strict=True)
    rope |= {'rope_type': 'llama3', **dict(scaling)}
    rope[_LLAMA3[-1]] = int(rope[_LLAMA3[-1]])
  found = {
    'architectures': [f'{family.capitalize()}ForCausalLM'],
    'model_type': family,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'intermediate_size': config.hidden,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'hidden_act': 'silu',
    'rms_norm_eps': config.norm_eps,
    'rope_parameters': rope,
    'tie_word_embeddings': config.tie_embeddings,
    'dtype': config.param_dtype,
  }
  return found | ({} if family == 'qwen2' else {'head_dim': config.head_size})
