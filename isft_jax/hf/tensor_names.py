"""Maps our parameter paths to Hugging Face names, shapes and transposes.

Hugging Face stores kernels as [out, in], and we store them as [in, ...]. We
have separate axes for heads and head size, which Hugging Face merges. Our stack
of layers is one tensor per layer there, and one per layer and expert.
"""

import itertools
import math
from collections.abc import Sequence

from isft_jax.config import ModelConfig

_LAYER = 'model.layers.{layer}.'
# Usually absent if the embeddings are tied.
HEAD = 'lm_head.weight'
# Our path -> (Hugging Face name, number of our axes that the kernel contracts).
# 0 axes: not a kernel, so it is not transposed.
_TENSORS = {
  'embedding': ('model.embed_tokens.weight', 0),
  'norm': ('model.norm.weight', 0),
  'head': (HEAD, 0),
  'blocks/attention_norm': (_LAYER + 'input_layernorm.weight', 0),
  'blocks/attention_post_norm': (_LAYER + 'post_attention_layernorm.weight', 0),
  'blocks/mlp_norm': (_LAYER + 'pre_feedforward_layernorm.weight', 0),
  'blocks/mlp_post_norm': (_LAYER + 'post_feedforward_layernorm.weight', 0),
  # q, k and v contract the width. o contracts heads and head size.
  'blocks/attention/q': (_LAYER + 'self_attn.q_proj.weight', 1),
  'blocks/attention/k': (_LAYER + 'self_attn.k_proj.weight', 1),
  'blocks/attention/v': (_LAYER + 'self_attn.v_proj.weight', 1),
  'blocks/attention/o': (_LAYER + 'self_attn.o_proj.weight', 2),
  'blocks/attention/q_bias': (_LAYER + 'self_attn.q_proj.bias', 0),
  'blocks/attention/k_bias': (_LAYER + 'self_attn.k_proj.bias', 0),
  'blocks/attention/v_bias': (_LAYER + 'self_attn.v_proj.bias', 0),
  'blocks/attention/q_norm': (_LAYER + 'self_attn.q_norm.weight', 0),
  'blocks/attention/k_norm': (_LAYER + 'self_attn.k_norm.weight', 0),
  'blocks/attention/q_heads_norm': (_LAYER + 'self_attn.q_norm.weight', 0),
  'blocks/attention/k_heads_norm': (_LAYER + 'self_attn.k_norm.weight', 0),
  'blocks/mlp/gate': (_LAYER + 'mlp.gate_proj.weight', 1),
  'blocks/mlp/up': (_LAYER + 'mlp.up_proj.weight', 1),
  'blocks/mlp/down': (_LAYER + 'mlp.down_proj.weight', 1),
  'blocks/experts/router': (_LAYER + 'mlp.gate.weight', 1),
}
# The first axes of these are the layer and the expert.
_EXPERTS = _LAYER + 'mlp.experts.{expert}.'
_OF_EXPERTS = {
  'blocks/experts/gate': (_EXPERTS + 'gate_proj.weight', 1),
  'blocks/experts/up': (_EXPERTS + 'up_proj.weight', 1),
  'blocks/experts/down': (_EXPERTS + 'down_proj.weight', 1),
}
_TENSORS |= _OF_EXPERTS
# Models with norms only before attention and MLP name the second after what
# stands before it.
_OF_NORMS_BEFORE = {
  'blocks/mlp_norm': _LAYER + 'post_attention_layernorm.weight',
}


def is_stacked(path: str) -> bool:
  """Returns whether a parameter's first axis is the layer."""
  return path.startswith('blocks/')


def has_experts(path: str) -> bool:
  """Returns whether a parameter's second axis is the expert."""
  return path in _OF_EXPERTS


def name(
  path: str, config: ModelConfig, layer: int = 0, expert: int = 0
) -> str:
  """Returns the Hugging Face name of a parameter, or of one part of it."""
  names = _OF_NORMS_BEFORE if config.norms == 'before' else {}
  form = names.get(path, _TENSORS[path][0])
  return form.format(layer=layer, expert=expert)


def names(path: str, config: ModelConfig) -> list[list[str]]:
  """Returns the names of a parameter's tensors.

  Args:
    path: path of our parameter.
    config: config of the model.

  Returns:
    For each layer (for one, if the parameter is no stack of layers), the names
    of its tensors: one, or one for each expert.
  """
  layers = config.layers if is_stacked(path) else 1
  experts = config.experts if has_experts(path) else 1
  return [
    [name(path, config, layer, expert) for expert in range(experts)]
    for layer in range(layers)
  ]


def flat_names(path: str, config: ModelConfig) -> list[str]:
  """Returns `names` as one list."""
  return list(itertools.chain.from_iterable(names(path, config)))


def part_shape(path: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Returns the shape of the part of our parameter that one tensor stores."""
  return tuple(shape[is_stacked(path) + has_experts(path) :])


def is_turned(path: str) -> bool:
  """Returns whether a folder stores the parameter transposed."""
  return _TENSORS[path][1] > 0


def groups(path: str, axes: int) -> tuple[range, range]:
  """Returns our axes that form the rows and the columns of a stored tensor.

  Args:
    path: path of our parameter.
    axes: number of axes of the part of the parameter.

  Returns:
    (axes of the rows, axes of the columns). A vector has no columns.
  """
  # A kernel [in, out] here is [out, in] there: its rows are our output axes.
  inputs = _TENSORS[path][1]
  if inputs:
    return range(inputs, axes), range(inputs)
  # The tables of the vocabulary have one row per id.
  columns = 1 if path in ('embedding', 'head') else 0
  return range(axes - columns), range(axes - columns, axes)


def stored_shape(path: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Returns the stored shape of a part of a parameter.

  Args:
    path: path of our parameter.
    shape: shape of the part of the parameter; see `part_shape`.

  Returns:
    The shape of the tensor in a Hugging Face folder.
  """
  return tuple(
    math.prod(shape[axis] for axis in group)
    for group in groups(path, len(shape))
    if group
  )
