"""Converts between a Hugging Face config.json and our model config.

Each attribute must be either read here or known to be harmless. Anything else
raises an error: otherwise a different model would train, and be wrong silently.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import jax.numpy as jnp

from isft_jax import files
from isft_jax.config import ModelConfig
from isft_jax.hf import limits, rope_json
from isft_jax.hf.families import FAMILIES, TEXT_PARTS, Family
from isft_jax.models import layer_kinds

# Fields of ModelConfig that a config.json determines.
SHAPE = (
  *('vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'head_size'),
  *('mlp_width', 'experts', 'experts_per_token', 'normalize_experts'),
  *('rope_theta', 'rope_type', 'rope_scaling', 'layer_kinds', 'window'),
  *('window_theta', 'norm_eps', 'tie_embeddings', 'qkv_bias', 'qk_norm'),
  *('qk_norm_all_heads', 'norms', 'norm_plus_one', 'activation'),
  *('embedding_scale', 'query_scale', 'residual_scale', 'logits_divisor'),
)
# Attribute -> allowed values. It may also be missing.
_REQUIRED: dict[str, tuple[object, ...]] = {
  'add_cross_attention': (False, None),
  'attention_bias': (False, None),
  'attn_logit_softcapping': (None,),
  'auto_map': (None, {}),  # names Python code inside the folder
  'final_logit_softcapping': (None,),
  'is_encoder_decoder': (False, None),
  'mlp_bias': (False, None),
  'mlp_only_layers': (None, []),
  'partial_rotary_factor': (1.0, None),
  'pruned_heads': (None, {}),
  'rope_interleaved': (False, None),
  'use_bidirectional_attention': (False, None),
  'use_mrope': (False, None),
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
  *('max_window_layers', 'model_type', 'no_rope_layer_interval'),
  *('no_rope_layers', 'num_attention_heads', 'num_hidden_layers'),
  *('num_key_value_heads', 'rms_norm_eps', 'sliding_window'),
  *('sliding_window_pattern', 'tie_word_embeddings', 'use_sliding_window'),
  *('vocab_size', *rope_json.READ),
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
  *('hidden_dropout', 'problem_type', 'finetuning_task', 'num_labels'),
  *('id2label', 'label2id', 'task_specific_params', 'pad_to_multiple_of'),
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
# Attributes of a model that also reads images, beside its text_config.
_BESIDE_TEXT = {
  *('text_config', 'vision_config', 'mm_tokens_per_image', 'model_type'),
  *('boi_token_index', 'eoi_token_index', 'image_token_index'),
  'tie_word_embeddings',
}
_KINDS = {'full_attention': 'full', 'sliding_attention': 'window'}


def model_config(content: Mapping[str, Any], place: str) -> ModelConfig:
  """Returns the config of the decoder that a config.json describes.

  Args:
    content: content of the file.
    place: path of the file, for messages.

  Returns:
    The config of the model, or of the part that reads text if the model also
    reads images.

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
  model_type = content.get('model_type')
  if isinstance(model_type, str) and model_type in TEXT_PARTS:
    content = _text_part(content, refuse)
    model_type = content['model_type']
  if not isinstance(model_type, str) or model_type not in FAMILIES:
    refuse(
      'model_type', f'is not supported; it must be one of {", ".join(FAMILIES)}'
    )
  family = FAMILIES[model_type]
  for name in _QUANTIZED:
    if content.get(name):
      refuse(
        name,
        'means quantised weights, which are not supported; use the '
        "model's unquantised folder or a GGUF file",
      )

  # Attributes with unsupported values, and unknown attributes.
  required: dict[str, tuple[object, ...]] = {
    name: (value,) for name, value in family.constants.items()
  }
  if not family.window_flag:
    required['use_sliding_window'] = (False, None)
  for name, values in (_REQUIRED | required).items():
    if name in content and content[name] not in values:
      refuse(name, 'is not supported')
  known = _READ | _HARMLESS | _REQUIRED.keys() | {*_QUANTIZED}
  known |= required.keys() | family.attributes.keys() | family.harmless
  known |= family.aliases.keys()
  unknown = sorted(content.keys() - known)
  if unknown:
    refuse(unknown[0], 'is neither supported nor known to be harmless')
  given, content = content, {**family.defaults, **content}
  for alias, name in family.aliases.items():
    if alias in given:
      if given.get(name, given[alias]) != given[alias]:
        refuse(alias, f'differs from {name}; remove one of them')
      content[name] = given[alias]

  # Sizes and constants, each of its type and in its range.
  fields: dict[str, Any] = {}
  for name, field in (_SIZES | _OPTIONAL_SIZES).items():
    if name in family.harmless:
      continue
    if name in _OPTIONAL_SIZES and content.get(name) is None:
      continue
    if why := limits.problem(field, content.get(name)):
      refuse(name, why)
    fields[field] = content[name]
  for name, (field, to_field, _) in family.attributes.items():
    value = content.get(name)
    if to_field is None:
      why = limits.problem(field, value)
    else:
      is_positive = limits.is_number(value, 1e-6, 1e12)
      why = '' if is_positive else 'must be a number above 0'
    if why:
      refuse(name, why)
    fields[field] = to_field(value) if to_field else value
  is_tied = content.get('tie_word_embeddings', False)
  if why := limits.problem('tie_embeddings', is_tied):
    refuse('tie_word_embeddings', why)

  fields |= _layers(given, content, family, refuse)
  full, window = rope_json.read(content, family, refuse)
  if 'window' in fields['layer_kinds'] and window != full:
    fields['window_theta'] = window.theta
  width, heads = fields['width'], fields['heads']
  # Older Llama folders have no head_dim: the heads then share the width.
  if 'head_size' not in fields:
    if width % heads:
      refuse('num_attention_heads', f'must divide hidden_size={width}')
    fields['head_size'] = width // heads
  # Without the attribute, each query head has its own keys and values.
  fields.setdefault('kv_heads', heads)
  config = ModelConfig(
    rope_theta=full.theta,
    rope_type=full.kind,
    rope_scaling=full.scaling,
    tie_embeddings=is_tied,
    **family.fields,
    **fields,
  )
  config = dataclasses.replace(config, **family.derived(config))
  if why := limits.mismatch(config):
    raise ValueError(f'{place}: {why}')
  return config


def _text_part(
  content: Mapping[str, Any], refuse: rope_json.Refuse
) -> dict[str, Any]:
  """Returns the config.json of the part of a model that reads text."""
  unknown = sorted(content.keys() - _BESIDE_TEXT - _HARMLESS - {*_QUANTIZED})
  if unknown:
    refuse(unknown[0], 'is neither supported nor known to be harmless')
  text = content.get('text_config')
  family = TEXT_PARTS[content['model_type']]
  if not isinstance(text, dict) or text.get('model_type', family) != family:
    refuse('text_config', f'must be an object with model_type={family!r}')
  outer = {
    name: content[name]
    for name in ('tie_word_embeddings', *_QUANTIZED)
    if name in content
  }
  return {**text, 'model_type': family, **outer}


def _layers(
  given: Mapping[str, Any],
  content: Mapping[str, Any],
  family: Family,
  refuse: rope_json.Refuse,
) -> dict[str, Any]:
  """Returns the fields layer_kinds and window."""
  layers = content['num_hidden_layers']
  for name in ('sliding_window', 'sliding_window_pattern', 'max_window_layers'):
    least = 0 if name == 'max_window_layers' else 1
    value = content.get(name)
    is_null = name != 'max_window_layers' and value is None
    if name in content and not is_null and not limits.is_whole(value, least):
      refuse(name, f'must be an integer of at least {least}')
  if content.get('use_sliding_window') not in (True, False, None):
    refuse('use_sliding_window', 'must be true or false')
  each = [family.kind_of(content, layer) for layer in range(layers)]

  # What the file lists. A family whose classes do not read the list must say
  # the same without it.
  listed = content.get('layer_types')
  if listed is not None:
    if not isinstance(listed, list):
      refuse('layer_types', 'must be a list with the type of each layer')
    if len(listed) != layers:
      refuse('layer_types', 'must have one entry for each layer')
    if any(not isinstance(t, str) or t not in _KINDS for t in listed):
      refuse('layer_types', f'has other types than {" and ".join(_KINDS)}')
    kinds = [_KINDS[layer_type] for layer_type in listed]
    is_off = family.window_flag and not content.get('use_sliding_window')
    if kinds != each and (not family.lists_layers or is_off):
      refuse('layer_types', 'does not fit the other attributes')
    each = kinds
  window = content.get('sliding_window')
  if 'window' in each:
    if window is None:
      refuse('sliding_window', 'must be the window of layers that have one')
    if family.lists_nope:
      refuse('layer_types', 'has windows, which this family has not')
  elif given.get('sliding_window') and not (
    family.window_flag or family.lists_layers or 'use_sliding_window' in given
  ):
    refuse(
      'sliding_window',
      'is not supported in this family; if your rows are no longer than that, '
      'set it to null in this file: no result changes',
    )
  if family.lists_nope:
    each = _with_nope(content, each, refuse)
  return {
    'layer_kinds': layer_kinds.shortest_cycle(each),
    'window': window if 'window' in each else 0,
  }


def _with_nope(
  content: Mapping[str, Any], each: list[str], refuse: rope_json.Refuse
) -> list[str]:
  """Returns the kinds of layers, with those that have no positions."""
  every = content.get('no_rope_layer_interval', 4)
  if not limits.is_whole(every, 1):
    refuse('no_rope_layer_interval', 'must be an integer of at least 1')
  flags = content.get('no_rope_layers')
  if flags is None:
    flags = [int((layer + 1) % every != 0) for layer in range(len(each))]
  # 1 stands for a layer with positions.
  is_list = isinstance(flags, list) and len(flags) == len(each)
  if not is_list or any(type(f) is not int or f not in (0, 1) for f in flags):
    refuse('no_rope_layers', 'must be a list with 0 or 1 for each layer')
  return [
    kind if flag else 'nope' for kind, flag in zip(each, flags, strict=True)
  ]


def to_json(
  config: ModelConfig, own_tokenizer: bool = False
) -> dict[str, object]:
  """Returns the config.json of a decoder, in the format of transformers 5.

  It is that of the first family that can express the decoder: whose file, read
  again, gives the same config.

  Args:
    config: config of the model.
    own_tokenizer: whether the tokenizer of the model is not that of its family;
      families that force theirs on it are left out.

  Returns:
    Content of the file.

  Raises:
    ValueError: no family of models has this shape.
  """
  shape = {name: getattr(config, name) for name in SHAPE}
  shape = {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}
  for model_type, family in FAMILIES.items():
    if own_tokenizer and family.has_tokenizer:
      continue
    content = _content(config, model_type, family)
    try:
      read = model_config(content, '')
    except ValueError:  # this family cannot say it
      continue
    if shape == {name: getattr(read, name) for name in SHAPE}:
      return content
  plain = ModelConfig(qkv_bias=False)
  special = ', '.join(
    f'{name}={value}'
    for name, value in shape.items()
    if name not in _SIZES.values() and value != getattr(plain, name)
  )
  raise ValueError(f'no family of models has this decoder: {special}')


def _content(
  config: ModelConfig, model_type: str, family: Family
) -> dict[str, object]:
  """Returns what the config.json of a family can say of a decoder."""
  content: dict[str, Any] = {
    'architectures': [family.architecture],
    'model_type': model_type,
    **{name: getattr(config, field) for name, field in _SIZES.items()},
    'num_key_value_heads': config.kv_heads,
    **({'head_dim': config.head_size} if family.has_head_dim else {}),
    **family.constants,
    **family.written,
    'rope_parameters': rope_json.write(config, family),
    'tie_word_embeddings': config.tie_embeddings,
    'dtype': jnp.dtype(config.param_dtype).name,
  }
  for name, (field, _, to_file) in family.attributes.items():
    value = getattr(config, field)
    content[name] = to_file(value) if to_file and value else value
  # Windows, and layers without positions.
  kinds = layer_kinds.kinds(config)
  has_windows = 'window' in kinds
  if has_windows or 'sliding_window' in family.defaults:
    content['sliding_window'] = config.window if has_windows else None
  if has_windows and family.window_flag:
    content['use_sliding_window'] = True
  if family.lists_layers and (has_windows or not family.window_flag):
    names = {kind: name for name, kind in _KINDS.items()}
    full = names['full']
    content['layer_types'] = [names.get(kind, full) for kind in kinds]
  if family.lists_nope:
    content['no_rope_layers'] = [int(kind != 'nope') for kind in kinds]
  return content
