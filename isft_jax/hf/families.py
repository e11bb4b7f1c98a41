"""Families of models, as rows of data: what a config.json of each means.

To add a family, add a row at the end of FAMILIES. Everything that its models
share goes into `fixed`, as fields of ModelConfig. Everything that its
config.json may say beyond the attributes that all families have goes into
`attributes`, `constants` or `harmless`. An attribute in none of them is
refused.

The defaults are those of transformers' config classes, which fill in what a
file leaves out.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from isft_jax.config import ModelConfig


class Attribute(NamedTuple):
  """An attribute of a config.json that sets a field of ModelConfig.

  Attributes:
    field: name of the field.
    to_field: attribute's value -> field's value; None: the same.
    to_file: field's value -> attribute's value; None: the same.
  """

  field: str
  to_field: Callable[[Any], Any] | None = None
  to_file: Callable[[Any], Any] | None = None


# (content of config.json, number of a layer) -> kind of the layer, where the
# file does not list them.
KindOf = Callable[[Mapping[str, Any], int], str]


def _all_full(content: Mapping[str, Any], layer: int) -> str:
  del content, layer
  return 'full'


def _all_in_window(content: Mapping[str, Any], layer: int) -> str:
  del layer
  return 'window' if content.get('sliding_window') is not None else 'full'


def _late_in_window(content: Mapping[str, Any], layer: int) -> str:
  # Qwen's file names the size of a window even if it does not use it.
  is_used = content.get('use_sliding_window') and content.get('sliding_window')
  is_late = layer >= content.get('max_window_layers', 28)
  return 'window' if is_used and is_late else 'full'


def _all_in_used_window(content: Mapping[str, Any], layer: int) -> str:
  is_used = content.get('use_sliding_window')
  return _all_in_window(content, layer) if is_used else 'full'


def _full_every(number: int) -> KindOf:
  """Returns a function that lets every Nth layer see all tokens."""

  def kind_of(content: Mapping[str, Any], layer: int) -> str:
    cycle = content.get('sliding_window_pattern', number)
    return 'window' if (layer + 1) % cycle else 'full'

  return kind_of


@dataclasses.dataclass(frozen=True)
class Family:
  """What the config.json of a family says, and what its models share.

  Attributes:
    architecture: name of the class in transformers.
    fixed: values of fields of ModelConfig.
    derived: fields that follow from others, by a function of the config.
    attributes: attributes that set a field.
    aliases: other name of an attribute -> its name.
    written: attribute -> what files that we write say of it, because it changes
      no logit but training in transformers.
    has_tokenizer: transformers gives its models a tokenizer of this family,
      whatever their tokenizer.json says.
    constants: attribute -> the only value that it may have. It is written.
    defaults: attribute -> its value where a file lacks it.
    harmless: attributes that change no logit.
    kind_of: kind of a layer where the file does not list them.
    has_head_dim: the file has the size of a head; otherwise heads share the
      width.
    lists_layers: the file lists the kinds in layer_types.
    lists_nope: the file lists layers without positions in no_rope_layers.
    window_flag: the file has use_sliding_window.
    theta: base of the rotary frequencies where a file lacks it.
    window_theta: the same for layers with a window, in families that have one
      set of rotary numbers for each type of layer; None for other families.
  """

  architecture: str
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  derived: Callable[[ModelConfig], Mapping[str, Any]] = lambda config: {}
  attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)
  aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
  written: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  has_tokenizer: bool = False
  constants: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {'hidden_act': 'silu'}
  )
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  harmless: frozenset[str] = frozenset()
  has_head_dim: bool = True
  kind_of: KindOf = _all_full
  lists_layers: bool = False
  lists_nope: bool = False
  window_flag: bool = False
  theta: float = 10_000.0
  window_theta: float | None = None

  @property
  def fields(self) -> dict[str, Any]:
    """Values of fields of ModelConfig that all models of the family share."""
    # ModelConfig's own default is the shape of Qwen2.
    return {'qkv_bias': False, **self.fixed}


_QWEN_WINDOW: dict[str, Any] = {
  'kind_of': _late_in_window,
  'lists_layers': True,
  'window_flag': True,
}
_GRANITE = {
  'embedding_multiplier': Attribute('embedding_scale'),
  'attention_multiplier': Attribute('query_scale'),
  'residual_multiplier': Attribute('residual_scale'),
  'logits_scaling': Attribute('logits_divisor'),
}
_OLMO = {
  'norms': 'after',
  'qk_norm': True,
  'qk_norm_all_heads': True,
}

# A decoder is written as the first family that can express it, so a new row at
# the end changes no other family's files.
FAMILIES: dict[str, Family] = {
  'llama': Family('LlamaForCausalLM'),
  'qwen2': Family(
    'Qwen2ForCausalLM',
    has_head_dim=False,
    has_tokenizer=True,
    fixed={'qkv_bias': True},
    defaults={'num_key_value_heads': 32},
    **_QWEN_WINDOW,
  ),
  'qwen3': Family(
    'Qwen3ForCausalLM',
    fixed={'qk_norm': True},
    defaults={'num_key_value_heads': 32, 'head_dim': 128},
    **_QWEN_WINDOW,
  ),
  'mistral': Family(
    'MistralForCausalLM',
    # The window of its first version.
    defaults={'sliding_window': 4_096, 'num_key_value_heads': 8},
    kind_of=_all_in_window,
  ),
  'gemma3_text': Family(
    'Gemma3ForCausalLM',
    fixed={
      'qk_norm': True,
      'norms': 'both',
      'norm_plus_one': True,
      'activation': 'gelu_tanh',
    },
    derived=lambda config: {'embedding_scale': config.width**0.5},
    attributes={
      'query_pre_attn_scalar': Attribute(
        'query_scale', lambda x: x**-0.5, lambda scale: round(scale**-2)
      ),
    },
    constants={'hidden_activation': 'gelu_pytorch_tanh'},
    # Files of the models that read images have few other attributes.
    defaults={
      'vocab_size': 262_208,
      'num_attention_heads': 8,
      'num_key_value_heads': 4,
      'head_dim': 256,
      'rms_norm_eps': 1e-6,
      'query_pre_attn_scalar': 256,
      'sliding_window': 4_096,
      'tie_word_embeddings': True,
    },
    harmless=frozenset({'_sliding_window_pattern'}),
    kind_of=_full_every(6),
    lists_layers=True,
    theta=1_000_000.0,
    window_theta=10_000.0,
  ),
  'qwen3_moe': Family(
    'Qwen3MoeForCausalLM',
    fixed={'qk_norm': True},
    attributes={
      'num_experts': Attribute('experts'),
      'num_experts_per_tok': Attribute('experts_per_token'),
      'norm_topk_prob': Attribute('normalize_experts'),
      'moe_intermediate_size': Attribute('mlp_width'),
    },
    # transformers 5 writes this one.
    aliases={'num_local_experts': 'num_experts'},
    constants={'hidden_act': 'silu', 'decoder_sparse_step': 1},
    defaults={
      'num_key_value_heads': 4,
      'num_experts': 128,
      'num_experts_per_tok': 8,
      'norm_topk_prob': False,
      'moe_intermediate_size': 768,
    },
    # The width of layers without experts, of which there are none.
    harmless=frozenset(
      {'intermediate_size', 'output_router_logits', 'router_aux_loss_coef'}
    ),
    kind_of=_all_in_used_window,
    window_flag=True,
  ),
  'olmo2': Family('Olmo2ForCausalLM', fixed=_OLMO, has_head_dim=False),
  'olmo3': Family(
    'Olmo3ForCausalLM',
    has_head_dim=False,
    fixed=_OLMO,
    defaults={'sliding_window': 4_096},
    kind_of=_full_every(4),
    lists_layers=True,
    theta=500_000.0,
    window_theta=500_000.0,
  ),
  'smollm3': Family(
    'SmolLM3ForCausalLM',
    has_head_dim=False,
    defaults={
      'num_key_value_heads': 4,
      'rms_norm_eps': 1e-6,
      'tie_word_embeddings': True,
    },
    lists_layers=True,
    lists_nope=True,
    theta=2_000_000.0,
  ),
  'granite': Family(
    'GraniteForCausalLM',
    has_head_dim=False,
    attributes=_GRANITE,
    defaults=dict.fromkeys(_GRANITE, 1.0),
  ),
  # Computes what Qwen2 does, with heads of any size. transformers takes its
  # tokenizer as tokenizer.json has it, so models of Qwen2's shape that have
  # another tokenizer are written as this family.
  'seed_oss': Family(
    'SeedOssForCausalLM',
    fixed={'qkv_bias': True},
    constants={
      'hidden_act': 'silu',
      'attention_bias': True,
      'attention_out_bias': False,
    },
    defaults={'num_key_value_heads': 8, 'head_dim': 128},
    harmless=frozenset({'residual_dropout'}),
    written={
      'attention_dropout': 0.0,
      'residual_dropout': 0.0,
      'max_position_embeddings': 32_768,  # the default of Qwen2
      # The embedding of a padding token would not be trained.
      **dict.fromkeys(('bos_token_id', 'eos_token_id', 'pad_token_id')),
    },
  ),
}
# model_type of a model that also reads images -> the family of its text part.
TEXT_PARTS = {'gemma3': 'gemma3_text'}
