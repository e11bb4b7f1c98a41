"""Reads and writes the rotary positions of a config.json.

transformers 5 nests them in rope_parameters, which may have one object for each
type of layer; older versions have rope_theta beside rope_scaling.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from isft_jax import files
from isft_jax.config import ModelConfig
from isft_jax.hf import limits
from isft_jax.hf.families import Family
from isft_jax.models.layer_kinds import Rope

Refuse = Callable[[str, str], NoReturn]

# Attributes that set something, by kind of scaling; see `_scaling`.
_OF_KIND = {
  'default': frozenset[str](),
  'linear': frozenset({'factor'}),
  'llama3': frozenset(limits.LLAMA3),
  'yarn': frozenset(limits.YARN) | {'mscale', 'mscale_all_dim', 'truncate'},
}
_COMMON = {'rope_theta', 'rope_type', 'type', 'partial_rotary_factor'}
_FULL, _WINDOW = 'full_attention', 'sliding_attention'
# Attributes that this module reads.
READ = {'rope_parameters', 'rope_scaling', 'rope_theta', 'rope_local_base_freq'}


def read(
  content: Mapping[str, Any], family: Family, refuse: Refuse
) -> tuple[Rope, Rope]:
  """Returns the rotary positions of layers without and with a window.

  Args:
    content: content of config.json.
    family: its family.
    refuse: (attribute, why) -> raises ValueError.
  """
  # The attribute that has the numbers, and whether it has some for each type.
  names = [
    name
    for name in ('rope_parameters', 'rope_scaling')
    if content.get(name) is not None
  ]
  for name in names:
    if not isinstance(content[name], dict):
      refuse(name, 'must be an object')
  if len(names) == 2 and content[names[0]] != content[names[1]]:
    refuse(names[1], 'differs from rope_parameters; remove one of them')
  name = names[0] if names else 'rope_theta'
  rope = content[name] if names else {}
  is_nested = bool(rope.keys() & {_FULL, _WINDOW})
  theta = content.get('rope_theta', family.theta)

  if family.window_theta is None:
    if is_nested:
      unknown = min(rope.keys() & {_FULL, _WINDOW})
      refuse(name, f'has the unknown attribute {files.shorten(unknown)}')
    if 'rope_local_base_freq' in content:
      refuse('rope_local_base_freq', 'is not supported in this family')
    one = _rope(content, rope, name, theta, refuse)
    return one, one

  if not is_nested:
    # As older files have it: a scaling is that of layers that see all tokens.
    if name == 'rope_parameters':
      refuse(name, f'must have {_FULL} and {_WINDOW}')
    full = _rope(content, rope, name, theta, refuse)
    theta = content.get('rope_local_base_freq', family.window_theta)
    # One theta for both types: transformers 4 gave it to both, 5 to one.
    if 'rope_local_base_freq' not in content and full.theta != family.theta:
      refuse('rope_theta', 'must be given for each type in rope_parameters')
    return full, _rope(content, {}, 'rope_local_base_freq', theta, refuse)
  if unknown := sorted(rope.keys() - {_FULL, _WINDOW}):
    refuse(name, f'has the unknown attribute {files.shorten(unknown[0])}')
  both = []
  for kind, theta in ((_FULL, family.theta), (_WINDOW, family.window_theta)):
    numbers = rope.get(kind) or {}
    if not isinstance(numbers, dict):
      refuse(name, f'must have an object as {kind}')
    theta = content.get('rope_theta', theta)
    both.append(_rope(content, numbers, name, theta, refuse))
  full, window = both
  if window.scaling:
    refuse(name, f'scales the positions of {_WINDOW}, which is not supported')
  return full, window


def _rope(
  content: Mapping[str, Any],
  rope: Mapping[str, Any],
  name: str,
  theta: Any,
  refuse: Refuse,
) -> Rope:
  """Reads an object with the rotary numbers of layers of one type."""
  kind = rope.get('rope_type', rope.get('type', 'default'))
  own_theta = rope.get('rope_theta', theta)
  if why := limits.problem('rope_theta', own_theta):
    if 'rope_theta' in rope:
      refuse(name, f'has rope_theta={files.shorten(own_theta)}, which {why}')
    refuse('rope_theta' if name != 'rope_local_base_freq' else name, why)
  if rope.get('partial_rotary_factor') not in (None, 1.0):
    refuse(name, 'rotates only part of a head, which is not supported')
  if not isinstance(kind, str) or kind not in _OF_KIND:
    refuse(name, 'has a type that is not supported')
  known = _COMMON.union(*_OF_KIND.values())
  if unknown := sorted(rope.keys() - known):
    refuse(name, f'has the unknown attribute {files.shorten(unknown[0])}')

  def number(key: str, default: float | None = None) -> float:
    value = rope.get(key)
    value = default if value is None else value
    if value is None:
      refuse(name, f'has a type that is not supported without {key}')
    if why := limits.problem(key, value):
      refuse(name, f'has {key}={files.shorten(value)}, which {why}')
    return float(value)

  if kind == 'default':
    return Rope(float(own_theta))
  if kind == 'linear':
    return Rope(float(own_theta), kind, (number('factor'),))
  # Where the length of pre-training is missing, transformers takes that of the
  # model.
  positions = content.get('max_position_embeddings')
  length = number('original_max_position_embeddings', positions)
  if kind == 'llama3':
    low, high = number('low_freq_factor'), number('high_freq_factor')
    return Rope(float(own_theta), kind, (number('factor'), low, high, length))
  factor, truncate = number('factor'), rope.get('truncate', True)
  if type(truncate) is not bool:
    refuse(name, f'has truncate={files.shorten(truncate)}, which is no truth')
  # As in transformers: 0.1 log(factor) + 1, or a ratio of two such numbers.
  mixed = 0.1 * math.log(factor) + 1
  if rope.get('mscale') and rope.get('mscale_all_dim'):
    above, below = number('mscale'), number('mscale_all_dim')
    mixed = (0.1 * above * math.log(factor) + 1) / (
      0.1 * below * math.log(factor) + 1
    )
  return Rope(
    float(own_theta),
    kind,
    (
      factor,
      number('beta_fast', 32.0),
      number('beta_slow', 1.0),
      length,
      number('attention_factor', mixed),
      float(truncate),
    ),
  )


def write(config: ModelConfig, family: Family) -> dict[str, Any]:
  """Returns the rope_parameters of a config.json.

  Args:
    config: config of the model.
    family: family of the file.
  """
  full = _numbers(
    Rope(config.rope_theta, config.rope_type, config.rope_scaling)
  )
  if family.window_theta is None:
    return full
  theta = config.window_theta or config.rope_theta
  return {_FULL: full, _WINDOW: _numbers(Rope(theta))}


def _numbers(rope: Rope) -> dict[str, Any]:
  if not rope.scaling:
    return {'rope_type': 'default', 'rope_theta': rope.theta}
  names = {
    'linear': ('factor',),
    'llama3': tuple(limits.LLAMA3),
    'yarn': limits.YARN,
  }[rope.kind]
  numbers: dict[str, Any] = dict(zip(names, rope.scaling, strict=False))
  # transformers expects an integer here; the config has floats.
  length = 'original_max_position_embeddings'
  if length in numbers:
    numbers[length] = int(numbers[length])
  if rope.kind == 'yarn':
    numbers['truncate'] = bool(rope.scaling[-1])
  return {'rope_type': rope.kind, 'rope_theta': rope.theta, **numbers}
