"""Converts between a Hugging Face config.json and our model config.

Each attribute must be either read here or known to be harmless. Anything else
raises an error: otherwise a different model would train, and be wrong silently.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax.numpy as jnp

from isft_jax import files
from isft_jax.config import ModelConfig
from isft_jax.hf import limits

# Differences between the families: (biases of q, k and v; norms of q and k).
# Seed-OSS computes what Qwen2 does, with heads of any size.
FAMILIES = {
  'llama': (False, False),
  'mistral': (False, False),
  'qwen2': (True, False),
  'qwen3': (False, True),
  'seed_oss': (True, False),
}
# Fields of ModelConfig that a config.json determines.
SHAPE = (
  *('vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'head_size'),
  *('mlp_width', 'rope_theta', 'rope_scaling', 'norm_eps', 'tie_embeddings'),
  *('qkv_bias', 'qk_norm'),
)
# Attribute -> allowed values. It may also be missing.
_REQUIRED: dict[str, tuple[object, ...]] = {
  'add_cross_attention': (False, None),
  'attention_bias': (False, None),
  'attention_out_bias': (False, None),
  'auto_map': (None, {}),  # names Python code inside the folder
  'hidden_act': ('silu',),
  'is_encoder_decoder': (False, None),
  'mlp_bias': (False, None),
  'partial_rotary_factor': (1.0, None),
  'pruned_heads': (None, {}),
  'rope_interleaved': (False, None),
  'use_mrope': (False, None),
  'use_sliding_window': (False, None),
}
# Attributes of quantised weights: GPTQ, AWQ, bitsandbytes, FP8 and
# compressed-tensors have the first, MLX the second.
_QUANTIZED = ('quantization_config', 'quantization', 'compression_config')
# Attribute -> field of ModelConfig. A file must have all of these.
_SIZES = {
  'vocab_size': 'vocab_size',
  'hidden_size': 'width',
  'num_hidden_layers': 'layers',
  'num_attention_heads': 'heads',
  'intermediate_size': 'mlp_width',
  'rms_norm_eps': 'norm_eps',
}
# Attributes that may be missing or null.
_OPTIONAL_SIZES = {'num_key_value_heads': 'kv_heads', 'head_dim': 'head_size'}
# Attributes that this module reads.
_READ = {
  *('head_dim', 'hidden_size', 'intermediate_size', 'layer_types'),
  *('max_window_layers', 'model_type', 'num_attention_heads'),
  *('num_hidden_layers', 'num_key_value_heads', 'rms_norm_eps'),
  *('rope_parameters', 'rope_scaling', 'rope_theta', 'sliding_window'),
  *('tie_word_embeddings', 'vocab_size'),
}
# Attributes that change no logit of a decoder, by purpose. Collected from
# folders of Llama 2 and 3, TinyLlama, SmolLM, Mistral, Qwen2, Qwen2.5 and
# Qwen3, and from Unsloth, mergekit, transformers.js and old transformers, which
# add their own.
_HARMLESS = {
  # names, versions, classes
  *('_name_or_path', '_commit_hash', 'architectures', 'transformers_version'),
  *('name_or_path', 'is_llama_config', 'transformers.js_config'),
  *('unsloth_fixed', 'unsloth_version', 'model_name'),
  # tokenizers
  *('bos_token_id', 'eos_token_id', 'pad_token_id', 'unk_token_id'),
  *('sep_token_id', 'decoder_start_token_id', 'tokenizer_class', 'prefix'),
  *('max_position_embeddings', 'max_sequence_length', 'model_max_length'),
  # training: initialisation, dropout (which we do not have), losses
  *('initializer_range', 'attention_dropout', 'gradient_checkpointing'),
  *('hidden_dropout', 'residual_dropout', 'problem_type', 'finetuning_task'),
  *('num_labels', 'id2label', 'label2id', 'task_specific_params'),
  'pad_to_multiple_of',
  # computation: data types, kernels, caches, slices, outputs
  *('dtype', 'torch_dtype', 'use_bfloat16', '_pre_quantization_dtype'),
  *('_attn_implementation', '_attn_implementation_autoset'),
  *('_attn_implementation_internal', 'attn_implementation'),
  *('_flash_attn_2_enabled', 'use_cache', 'cache_implementation'),
  *('chunk_size_feed_forward', 'pretraining_tp', 'torchscript'),
  *('output_attentions', 'output_hidden_states', 'return_dict'),
  *('tf_legacy_loss', 'is_decoder', 'tie_encoder_decoder'),
  'cross_attention_hidden_size',
  # generation, which transformers 4 also stored here
  *('max_length', 'min_length', 'max_new_tokens', 'do_sample', 'num_beams'),
  *('early_stopping', 'num_beam_groups', 'diversity_penalty', 'temperature'),
  *('top_k', 'top_p', 'typical_p', 'repetition_penalty', 'length_penalty'),
  *('no_repeat_ngram_size', 'encoder_no_repeat_ngram_size', 'bad_words_ids'),
  *('num_return_sequences', 'output_scores', 'return_dict_in_generate'),
  *('forced_bos_token_id', 'forced_eos_token_id', 'remove_invalid_values'),
  *('exponential_decay_length_penalty', 'suppress_tokens'),
  'begin_suppress_tokens',
}
# Attributes that a file of Seed-OSS must have, because its defaults are others.
_SEED_OSS = {
  'attention_bias': True,
  'attention_out_bias': False,
  'mlp_bias': False,
  'attention_dropout': 0.0,
  'residual_dropout': 0.0,
  'max_position_embeddings': 32_768,  # the default of Qwen2
  # The embedding of a padding token would not be trained.
  **{'bos_token_id': None, 'eos_token_id': None, 'pad_token_id': None},
}
# Attributes inside rope_parameters and rope_scaling.
_ROPE = {
  *('rope_theta', 'rope_type', 'type', 'partial_rotary_factor'),
  *limits.SCALING,
}


def model_config(content: Mapping[str, Any], place: str) -> ModelConfig:
  """Returns the config of the decoder that a config.json describes.

  Args:
    content: content of the file.
    place: path of the file, for messages.

  Returns:
    The config of the model.

  Raises:
    ValueError: our decoder does not support the model. The message names the
      attribute.
  """

  # The error names the attribute and its value, so that users can look it up.
  def refuse(name: str, why: str) -> NoReturn:
    value = f'{files.shown(name)}={files.shorten(content.get(name))}'
    if name not in content:
      value = f'{name} is missing and'
    raise ValueError(f'{place}: {value} {why}')

  # Family, and weights that are not quantised.
  family = content.get('model_type')
  if not isinstance(family, str) or family not in FAMILIES:
    refuse(
      'model_type', f'is not supported; it must be one of {", ".join(FAMILIES)}'
    )
  for name in _QUANTIZED:
    if content.get(name):
      refuse(
        name,
        'means quantised weights, which are not supported; use the '
        "model's unquantised folder or a GGUF file",
      )

  # Attributes with unsupported values, and unknown attributes.
  # Seed-OSS has biases unless it says otherwise.
  required = dict(_REQUIRED)
  if family == 'seed_oss':
    required['attention_bias'] = (True,)
  for name, values in required.items():
    if name in content and content[name] not in values:
      refuse(name, 'is not supported')
  known = _READ | _HARMLESS | _REQUIRED.keys() | {*_QUANTIZED}
  unknown = sorted(content.keys() - known)
  if unknown:
    refuse(unknown[0], 'is neither supported nor known to be harmless')

  # Sizes and constants, each of its type and in its range.
  for name, field in (_SIZES | _OPTIONAL_SIZES).items():
    # Seed-OSS has defaults for them that do not follow from other sizes.
    is_optional = name in _OPTIONAL_SIZES and family != 'seed_oss'
    if is_optional and content.get(name) is None:
      continue
    if why := limits.problem(field, content.get(name)):
      refuse(name, why)
  if type(content.get('tie_word_embeddings', False)) is not bool:
    refuse('tie_word_embeddings', 'must be true or false')

  # Every layer must see all earlier tokens. Qwen2 names the size of a window
  # that it does not use (use_sliding_window=False). Without the attribute,
  # transformers gives Mistral the window of its first version.
  layer_types = content.get('layer_types')
  if layer_types is not None:
    if not isinstance(layer_types, list):
      refuse('layer_types', 'must be a list with the type of each layer')
    if any(kind != 'full_attention' for kind in layer_types):
      refuse('layer_types', 'has layers that do not see all earlier tokens')
    if len(layer_types) != content['num_hidden_layers']:
      refuse('layer_types', 'must have one entry for each layer')
  window = content.get('sliding_window', 4096 if family == 'mistral' else None)
  if window and 'use_sliding_window' not in content:
    raise ValueError(
      f'{place}: sliding_window={files.shorten(window)} is not supported; if '
      'your rows are no longer than that, set it to null in this file: no '
      'result changes'
    )

  theta, scaling = _rope(content, refuse)
  width, heads = content['hidden_size'], content['num_attention_heads']
  # Older Llama folders have no head_dim: the heads then share the width.
  head_size = content.get('head_dim')
  if head_size is None:
    if width % heads:
      refuse('num_attention_heads', f'must divide hidden_size={width}')
    head_size = width // heads
  # Without the attribute, each query head has its own keys and values.
  kv_heads = content.get('num_key_value_heads')
  qkv_bias, qk_norm = FAMILIES[family]
  config = ModelConfig(
    vocab_size=content['vocab_size'],
    width=width,
    layers=content['num_hidden_layers'],
    heads=heads,
    kv_heads=heads if kv_heads is None else kv_heads,
    head_size=head_size,
    mlp_width=content['intermediate_size'],
    rope_theta=theta,
    rope_scaling=scaling,
    norm_eps=content['rms_norm_eps'],
    tie_embeddings=content.get('tie_word_embeddings', False),
    qkv_bias=qkv_bias,
    qk_norm=qk_norm,
  )
  if why := limits.mismatch(config):
    raise ValueError(f'{place}: {why}')
  return config


def _rope(
  content: Mapping[str, Any], refuse: Callable[[str, str], NoReturn]
) -> tuple[float, tuple[float, ...]]:
  """Returns theta and Llama 3's scaling."""
  # transformers 5 nests both in rope_parameters; older versions have rope_theta
  # beside rope_scaling.
  names = [
    name
    for name in ('rope_parameters', 'rope_scaling')
    if content.get(name) is not None
  ]
  for name in names:
    if not isinstance(content[name], dict):
      refuse(name, 'must be an object')
    if unknown := sorted(content[name].keys() - _ROPE):
      refuse(name, f'has the unknown attribute {files.shorten(unknown[0])}')
  if len(names) == 2 and content[names[0]] != content[names[1]]:
    refuse(names[1], 'differs from rope_parameters; remove one of them')
  name = names[0] if names else 'rope_theta'
  rope = content[name] if names else {}

  # 10,000 is the base of RoFormer, and the default of transformers.
  theta = rope.get('rope_theta', content.get('rope_theta', 10_000.0))
  if why := limits.problem('rope_theta', theta):
    if 'rope_theta' in rope:
      refuse(name, f'has rope_theta={files.shorten(theta)}, which {why}')
    refuse('rope_theta', why)
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if rope.get('partial_rotary_factor') not in (None, 1.0):
    refuse(name, 'rotates only part of a head, which is not supported')
  # No scaling: the speeds follow from theta only.
  if kind == 'default':
    return float(theta), ()
  if kind != 'llama3' or any(key not in rope for key in limits.SCALING):
    refuse(name, 'has a type that is not supported')
  for key in limits.SCALING:
    if why := limits.problem(key, rope[key]):
      refuse(name, f'has {key}={files.shorten(rope[key])}, which {why}')
  return float(theta), tuple(float(rope[key]) for key in limits.SCALING)


def to_json(
  config: ModelConfig, own_tokenizer: bool = False
) -> dict[str, object]:
  """Returns the config.json of a decoder, in the format of transformers 5.

  Args:
    config: config of the model.
    own_tokenizer: whether the tokenizer of a Qwen2 model splits texts otherwise
      than Qwen2's. transformers gives every model of type qwen2 that one, and
      so the file says seed_oss, which is the same decoder.

  Returns:
    Content of the file.

  Raises:
    ValueError: no family of models has these biases and norms.
  """
  # A Mistral model has the flags of Llama, and is written as one.
  kinds = {FAMILIES[name]: name for name in ('llama', 'qwen2', 'qwen3')}
  family = kinds.get((config.qkv_bias, config.qk_norm))
  if family is None:
    raise ValueError(
      f'no family of models has qkv_bias={config.qkv_bias} and '
      f'qk_norm={config.qk_norm}'
    )
  # Qwen2 has no head_dim, so only width / heads can be expressed.
  is_share = config.head_size * config.heads == config.width
  if family == 'qwen2' and (own_tokenizer or not is_share):
    family = 'seed_oss'
  # transformers 5 nests theta in rope_parameters.
  rope: dict[str, str | float] = {
    'rope_type': 'default',
    'rope_theta': config.rope_theta,
  }
  if config.rope_scaling:
    scaling = zip(limits.SCALING, config.rope_scaling, strict=True)
    rope |= {'rope_type': 'llama3', **dict(scaling)}
    # transformers expects an integer here; the config stores all of them as
    # floats.
    rope['original_max_position_embeddings'] = int(config.rope_scaling[-1])
  content = {
    'architectures': [f'{family.title().replace("_", "")}ForCausalLM'],
    'model_type': family,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_width,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'hidden_act': 'silu',
    'rms_norm_eps': config.norm_eps,
    'rope_parameters': rope,
    'tie_word_embeddings': config.tie_embeddings,
    'dtype': jnp.dtype(config.param_dtype).name,
  }
  # Qwen2 computes the head size from the width, and has no head_dim.
  if family != 'qwen2':
    content['head_dim'] = config.head_size
  return content | (_SEED_OSS if family == 'seed_oss' else {})
