"""How a parameter here is called, shaped and turned in a folder's tensors.

Kernels are stored there as [out, in], here as [in, ...]; heads are axes here,
and one axis with their size there. A stack of layers is a tensor a layer.
"""

import math
from collections.abc import Sequence

_LAYER = 'model.layers.{layer}.'
HEAD = 'lm_head.weight'
# Path here -> (name there, axes here that a kernel contracts; 0: no kernel).
_TENSORS = {
  'embedding': ('model.embed_tokens.weight', 0),
  'norm': ('model.norm.weight', 0),
  'head': (HEAD, 0),
  'blocks/attention_norm': (_LAYER + 'input_layernorm.weight', 0),
  'blocks/mlp_norm': (_LAYER + 'post_attention_layernorm.weight', 0),
  'blocks/attention/q': (_LAYER + 'self_attn.q_proj.weight', 1),
  'blocks/attention/k': (_LAYER + 'self_attn.k_proj.weight', 1),
  'blocks/attention/v': (_LAYER + 'self_attn.v_proj.weight', 1),
  'blocks/attention/o': (_LAYER + 'self_attn.o_proj.weight', 2),
  'blocks/attention/q_bias': (_LAYER + 'self_attn.q_proj.bias', 0),
  'blocks/attention/k_bias': (_LAYER + 'self_attn.k_proj.bias', 0),
  'blocks/attention/v_bias': (_LAYER + 'self_attn.v_proj.bias', 0),
  'blocks/attention/q_norm': (_LAYER + 'self_attn.q_norm.weight', 0),
  'blocks/attention/k_norm': (_LAYER + 'self_attn.k_norm.weight', 0),
  'blocks/mlp/gate': (_LAYER + 'mlp.gate_proj.weight', 1),
  'blocks/mlp/up': (_LAYER + 'mlp.up_proj.weight', 1),
  'blocks/mlp/down': (_LAYER + 'mlp.down_proj.weight', 1),
}


def is_stacked(path: str) -> bool:
  """Returns whether a parameter's first axis is that of layers."""
  return path.startswith('blocks/')


def name(path: str, layer: int = 0) -> str:
  """Returns what a parameter, or a layer of it, is called in a folder."""
  return _TENSORS[path][0].format(layer=layer)


def names(path: str, layers: int) -> list[str]:
  """Returns the names of all tensors that hold a parameter, in order."""
  return [name(path, i) for i in range(layers if is_stacked(path) else 1)]


def is_turned(path: str) -> bool:
  """Returns whether a folder stores the parameter with its axes turned."""
  return _TENSORS[path][1] > 0


def groups(path: str, axes: int) -> tuple[range, range]:
  """Returns which axes here make up the rows and the columns of a tensor.

  axes: how many a parameter has, or a layer of it. No columns: a vector.
  """
  inputs = _TENSORS[path][1]
  if inputs:
    return range(inputs, axes), range(inputs)
  columns = 1 if path in ('embedding', 'head') else 0
  return range(axes - columns), range(axes - columns, axes)


def stored_shape(path: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Returns the shape in a folder of a parameter, or of a layer of it."""
  return tuple(
    math.prod(shape[axis] for axis in group)
    for group in groups(path, len(shape))
    if group
  )
