"""Reads and writes adapters as peft does.

  lora = read_config(folder)
  adapters = load(folder, model_config, lora)
  save(adapters, model_config, lora, folder, base='ORG/NAME', sha256='...')

A folder has adapter_config.json and adapter_model.safetensors. Settings and
tensors that our adapters do not have are refused, because they would be ignored
otherwise, and another model would train.
"""

import json
import math
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from isft_jax import files
from isft_jax.config import (
  ALL_LINEAR,
  LORA_MOST,
  LORA_TARGETS,
  LoraConfig,
  ModelConfig,
)
from isft_jax.hf import tensor_files, tensor_names, weight_digest
from isft_jax.models import decoder
from isft_jax.models import lora as lora_lib
from isft_jax.models.projections import LORA_A, LORA_B

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
# What peft puts before the names of the base's tensors.
_PREFIX = 'base_model.model.'
# Our digest of the base's weights, in the metadata of the tensors.
_DIGEST = 'isft_jax.base_sha256'
# Settings of peft that our adapters have, or that change nothing here. Every
# other one must be off: absent, null, false, empty or 0.
_KNOWN = (
  *('peft_type', 'r', 'lora_alpha', 'use_rslora', 'target_modules', 'bias'),
  *('init_lora_weights', 'lora_dropout', 'task_type', 'inference_mode'),
  *('base_model_name_or_path', 'revision', 'auto_mapping', 'peft_version'),
  # Sizes of features that are off, and how 'eva' found A to begin with.
  *('megatron_core', 'qalora_group_size', 'runtime_config', 'eva_config'),
)
# A 0 here is the first layer.
_INDICES = ('layers_to_transform',)
# Ways to begin that leave the base as it is. Others, such as 'pissa', change
# its weights too.
_PLAIN_STARTS = (None, True, False, 'gaussian', 'orthogonal', 'eva')


def is_folder(place: str | pathlib.Path) -> bool:
  """Returns whether a place is a folder with an adapter."""
  return bool(place) and (pathlib.Path(place) / CONFIG).is_file()


def read_config(folder: str | pathlib.Path) -> LoraConfig:
  """Reads the settings of an adapter.

  Args:
    folder: with adapter_config.json.

  Returns:
    The settings; `init_from` is the folder.

  Raises:
    ValueError: the folder has no adapter, or one with a setting that is not
      supported.
  """
  path = pathlib.Path(folder) / CONFIG
  if not path.is_file():
    raise ValueError(f'{folder}: no {CONFIG} there; name an adapter of peft')
  content = files.read_json(path)
  if content.get('peft_type') != 'LORA':
    shown = files.shorten(content.get('peft_type'))
    raise ValueError(f"{path}: peft_type must be 'LORA' (got {shown})")
  if content.get('bias', 'none') != 'none':
    shown = files.shorten(content['bias'])
    raise ValueError(f"{path}: bias must be 'none' (got {shown})")
  begun = content.get('init_lora_weights')
  if not any(begun is each or begun == each for each in _PLAIN_STARTS):
    raise ValueError(
      f'{path}: init_lora_weights={files.shorten(begun)} changes the weights '
      'of the base too; convert the adapter to a plain one with peft'
    )
  # A setting that is unknown here, and off, changes nothing.
  for name in sorted(content.keys() - set(_KNOWN)):
    is_on = content[name] or (name in _INDICES and content[name] == 0)
    if is_on:
      raise ValueError(
        f'{path}: {files.shown(name)} is {files.shorten(content[name])}, '
        'which is not supported; only plain LoRA of linear maps is'
      )
  rslora = content.get('use_rslora')
  if rslora is not None and not isinstance(rslora, bool):
    raise ValueError(
      f'{path}: use_rslora must be true or false (got {files.shorten(rslora)})'
    )
  rank = _number(content, 'r', path)
  if rank != int(rank):
    raise ValueError(f'{path}: r must be a whole number (got {rank})')
  return LoraConfig(
    rank=int(rank),
    alpha=_number(content, 'lora_alpha', path),
    targets=_targets(content.get('target_modules'), path),
    rslora=bool(rslora),
    init_from=str(folder),
  )


def _number(content: Mapping[str, Any], name: str, path: pathlib.Path) -> float:
  value: Any = content.get(name)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  # Compared first, because a large integer is too large for a float.
  if is_number and 0 < value <= LORA_MOST:
    return float(value)
  raise ValueError(
    f'{path}: {name} must be a number above 0, and at most {LORA_MOST:,} (got '
    f'{files.shorten(value)})'
  )


def _targets(value: Any, path: pathlib.Path) -> tuple[str, ...]:
  """Returns the names of the maps that have an adapter."""
  if value == ALL_LINEAR:
    return (ALL_LINEAR,)
  if not isinstance(value, list) or not value:
    raise ValueError(
      f'{path}: target_modules must be a list of names or {ALL_LINEAR!r} (got '
      f'{files.shorten(value)}); write out the names that a pattern matches'
    )
  # 'self_attn.q_proj' is q_proj of every layer too.
  names = {str(name).rpartition('.')[2]: str(name) for name in value}
  for last, name in sorted(names.items()):
    if last not in LORA_TARGETS:
      raise ValueError(
        f'{path}: target_modules has {files.shown(name)}, and must be of '
        f'{", ".join(LORA_TARGETS)}'
      )
  if len(names) == len(LORA_TARGETS):
    return (ALL_LINEAR,)
  return tuple(name for name in LORA_TARGETS if name in names)


def load(
  folder: str | pathlib.Path, model: ModelConfig, lora: LoraConfig, sha256: str
) -> dict:
  """Reads the tensors of an adapter.

  Args:
    folder: of the adapter.
    model: config of the base.
    lora: settings of the adapter.
    sha256: digest of the base's weights, or '' to compare nothing.

  Returns:
    A nested dict of float32 arrays on the host: A and B, stacked over layers.

  Raises:
    ValueError: the file is damaged; a tensor is missing, unknown, not finite,
      or of another shape or type; or the adapter says that its base has another
      digest.
  """
  path = pathlib.Path(folder) / WEIGHTS
  if not path.is_file():
    raise ValueError(
      f'{folder}: no {WEIGHTS} there (other formats run code as they load)'
    )
  _, shapes = decoder.abstract(model, lora)
  leaves = traverse_util.flatten_dict(lora_lib.split(shapes)[0], sep='/')
  with tensor_files.opened(path) as stored:
    trained_on = (stored.metadata() or {}).get(_DIGEST, '')
    if sha256 and trained_on and trained_on != sha256:
      raise ValueError(
        f'{folder}: its base had weights with the checksum '
        f'{files.shown(trained_on[:12])}, and this base has {sha256[:12]}; '
        'name the base of the adapter'
      )
    _check(path, stored, leaves, model)
    # The layers of a parameter are tensors of their own.
    adapters = {}
    for name, leaf in leaves.items():
      stack = np.empty(leaf.shape, np.float32)
      for layer in range(model.layers):
        stack[layer] = _read(
          path, stored, _name(name, model, layer), stack.shape[1:]
        )
      adapters[name] = stack
  return traverse_util.unflatten_dict(adapters, sep='/')


def merged(folder: str, place: str, params: dict, model: ModelConfig) -> dict:
  """Returns the parameters of a model with an adapter merged into it.

  Args:
    folder: of the adapter.
    place: of the model, to compare with the adapter's base.
    params: parameters of the model.
    model: config of the model.

  Returns:
    Parameters of the same shapes and types.

  Raises:
    ValueError: the adapter is damaged, or belongs to another base.
  """
  lora = read_config(folder)
  sha256 = weight_digest.digest(place)
  adapters = load(folder, model, lora, sha256)
  joined = lora_lib.join(params, jax.tree.map(jnp.asarray, adapters))
  return lora_lib.merge(joined, lora, model.param_dtype)


def _check(
  path: pathlib.Path, stored: Any, leaves: Mapping[str, Any], model: ModelConfig
) -> None:
  """Checks names, types and shapes, before there is memory for any tensor."""
  wanted = {
    _name(leaf, model, layer): _matrix(leaf, shape.shape[1:])
    for leaf, shape in leaves.items()
    for layer in range(model.layers)
  }
  names = set(stored.keys())
  for problem, wrong in (
    ('unknown', names - wanted.keys()),
    ('missing', wanted.keys() - names),
  ):
    if wrong:
      raise ValueError(
        f'{path}: {len(wrong)} tensors are {problem} for this base of '
        f'{model.layers} layers; the first is {files.shown(min(wrong))}'
      )
  for name, (columns, rows) in wanted.items():
    tensor = stored.get_slice(name)
    tensor_files.check_dtype(path, name, tensor.get_dtype())
    if tensor.get_shape() != [rows, columns]:
      raise ValueError(
        f'{path}: {name} has shape {tensor.get_shape()}, but the base and the '
        f'rank give {[rows, columns]}'
      )


def _read(
  path: pathlib.Path, stored: Any, name: str, shape: tuple[int, ...]
) -> np.ndarray:
  with np.errstate(over='ignore'):  # a float64 may become infinite
    tensor = np.asarray(stored.get_tensor(name)).astype(np.float32)
  if not np.isfinite(tensor).all():
    raise ValueError(f'{path}: {name} is not finite')
  return tensor.T.reshape(shape)


def save(
  adapters: Mapping[str, Any],
  model: ModelConfig,
  lora: LoraConfig,
  folder: str | pathlib.Path,
  base: str,
  sha256: str,
) -> None:
  """Writes adapters as a folder that peft loads.

  Args:
    adapters: nested dict of A and B, stacked over layers.
    model: config of the base.
    lora: settings of the adapters.
    folder: existing folder.
    base: place of the base, which peft loads it from.
    sha256: digest of the base's weights.
  """
  folder = pathlib.Path(folder)
  tensors = {}
  for leaf, stack in traverse_util.flatten_dict(adapters, sep='/').items():
    for layer, array in enumerate(np.asarray(jax.device_get(stack))):
      columns, rows = _matrix(leaf, array.shape)
      turned = array.reshape(columns, rows).T
      tensors[_name(leaf, model, layer)] = np.ascontiguousarray(turned)
  metadata = {'format': 'pt', _DIGEST: sha256}
  with files.replacing(folder / WEIGHTS) as part:
    # safetensors makes a file that only its owner may read.
    part.touch()
    mode = os.stat(part).st_mode
    safetensors.numpy.save_file(tensors, part, metadata=metadata)
    os.chmod(part, stat.S_IMODE(mode))
  content = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'r': lora.rank,
    'lora_alpha': _as_int(lora.alpha or 2 * lora.rank),
    'target_modules': list(lora_lib.map_names(lora, model)),
    'use_rslora': lora.rslora,
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': False,
    'inference_mode': True,
  }
  files.write_atomically(folder / CONFIG, json.dumps(content, indent=2) + '\n')


def _as_int(number: float) -> float:
  return int(number) if number == int(number) else number


def _name(path: str, model: ModelConfig, layer: int) -> str:
  """Returns peft's name of A or B of one layer."""
  for end, name in ((LORA_A, 'lora_A'), (LORA_B, 'lora_B')):
    if path.endswith(end):
      kernel = tensor_names.name(path.removesuffix(end), model, layer)
      return f'{_PREFIX}{kernel.removesuffix("weight")}{name}.weight'
  raise AssertionError(path)


def _matrix(path: str, shape: tuple[int, ...]) -> tuple[int, int]:
  """Returns our rows and columns: [in, rank] of A, [rank, out] of B."""
  # peft stores both transposed.
  if path.endswith(LORA_A):
    return math.prod(shape[:-1]), shape[-1]
  return shape[0], math.prod(shape[1:])
