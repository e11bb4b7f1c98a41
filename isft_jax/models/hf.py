"""Weights in and out of Hugging Face folders: safetensors, and nothing else.

  model, config = load(folder, dtype='float32')
  logits_BLV = model(tokens_BL)
  save(model, config, other_folder)

Kernels are stored there as [out, in], here as [in, ...]. A tensor that is
unknown, missing, there twice, of another shape or not finite raises.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.models import decoder, hf_config

_LAYER = 'model.layers.{layer}.'
# Path here -> name there. Of a layer's tensors, the path has a leading axis.
_NAMES = {
  'embedding': 'model.embed_tokens.weight',
  'norm': 'model.norm.weight',
  'head': 'lm_head.weight',
  'blocks/attention_norm': _LAYER + 'input_layernorm.weight',
  'blocks/mlp_norm': _LAYER + 'post_attention_layernorm.weight',
  'blocks/attention/q': _LAYER + 'self_attn.q_proj.weight',
  'blocks/attention/k': _LAYER + 'self_attn.k_proj.weight',
  'blocks/attention/v': _LAYER + 'self_attn.v_proj.weight',
  'blocks/attention/o': _LAYER + 'self_attn.o_proj.weight',
  'blocks/attention/q_bias': _LAYER + 'self_attn.q_proj.bias',
  'blocks/attention/k_bias': _LAYER + 'self_attn.k_proj.bias',
  'blocks/attention/v_bias': _LAYER + 'self_attn.v_proj.bias',
  'blocks/attention/q_norm': _LAYER + 'self_attn.q_norm.weight',
  'blocks/attention/k_norm': _LAYER + 'self_attn.k_norm.weight',
  'blocks/mlp/gate': _LAYER + 'mlp.gate_proj.weight',
  'blocks/mlp/up': _LAYER + 'mlp.up_proj.weight',
  'blocks/mlp/down': _LAYER + 'mlp.down_proj.weight',
}
_ROWS_OUT = ('embedding', 'head')  # [vocabulary, width] there and here


class Model(NamedTuple):
  """A decoder with its parameters: a function of tokens."""

  graphdef: Any
  params: dict

  def __call__(self, tokens_BL, positions_BL=None, segment_ids_BL=None):
    """Returns float32 logits [B, L, V].

    positions_BL: int32; by default counted from 0 in each row.
    segment_ids_BL: int32, of packed documents; by default one a row.
    """
    tokens_BL = jnp.asarray(tokens_BL, jnp.int32)
    if positions_BL is None:
      positions_BL = jnp.broadcast_to(
        jnp.arange(tokens_BL.shape[1], dtype=jnp.int32), tokens_BL.shape
      )
    if segment_ids_BL is None:
      segment_ids_BL = jnp.ones_like(tokens_BL)
    module = nnx.merge(self.graphdef, self.params)
    return module.logits(module(tokens_BL, positions_BL, segment_ids_BL))


def is_folder(place: str) -> bool:
  """Returns whether a model of Hugging Face's kind is there."""
  return bool(place) and bool(list(pathlib.Path(place).glob('*.safetensors')))


def read_config(folder: str) -> ModelConfig:
  """Returns the decoder of a folder. Raises ValueError for another model."""
  path = pathlib.Path(folder) / 'config.json'
  if not path.is_file():
    raise ValueError(f'{folder}: no config.json there; name a model folder')
  return hf_config.model_config(json.loads(path.read_text()), str(path))


def load(
  folder: str, *, dtype: str = 'float32', place: Callable | None = None
) -> tuple[Model, ModelConfig]:
  """Loads a decoder from config.json and safetensors.

  dtype: of the parameters and of the computation.
  place: (path, shape) -> the sharding of a parameter; by default one device.

  Raises ValueError, naming the attribute or the tensor, for what does not fit.
  """
  folder = pathlib.Path(folder)
  config = dataclasses.replace(
    read_config(folder), dtype=dtype, param_dtype=dtype
  )
  graphdef, shapes = decoder.abstract(config)
  files = _files(folder)
  leaves = dict(_leaves(shapes))
  _check_names(files, leaves, config, folder)

  def read(path, leaf):
    sharding = place(path, leaf.shape) if place else None
    if sharding is None:
      sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.make_array_from_callback(
      leaf.shape,
      sharding,
      lambda index: _read(files, path, leaf, index, folder),
    )

  params = _nested({path: read(path, leaf) for path, leaf in leaves.items()})
  return Model(graphdef, params), config


def save(
  model: Model, config: ModelConfig, folder: str, shard_bytes: int = 5 * 10**9
) -> None:
  """Writes config.json and safetensors that transformers loads.

  A tensor at a time comes off the devices, a file at a time is held on the
  host. The index, with more than one file, is written last.

  Raises ValueError for a decoder that is of none of its families.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  found = json.dumps(hf_config.to_json(config), indent=2) + '\n'
  shards = _shards(_stored(dict(_leaves(model.params)), config), shard_bytes)
  weight_map, total = {}, 0
  for number, held in enumerate(shards, start=1):
    path = folder / f'model-{number:05}.safetensors'
    safetensors.numpy.save_file(held, path, metadata={'format': 'pt'})
    weight_map |= dict.fromkeys(held, path.name)
    total += sum(tensor.nbytes for tensor in held.values())
  if len(set(weight_map.values())) == 1:
    path.rename(folder / 'model.safetensors')
  else:
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    (folder / 'model.safetensors.index.json').write_text(
      json.dumps(index, indent=2) + '\n'
    )
  (folder / 'config.json').write_text(found)


def _stored(leaves: dict, config: ModelConfig) -> Iterator[tuple]:
  """Yields (name, tensor) as folders hold them, layer after layer."""
  for path, leaf in leaves.items():
    for layer, name in enumerate(_names(path, config)):
      here = np.asarray(leaf[layer] if path.startswith('blocks/') else leaf)
      stored = _stored_shape(path, here.shape)
      if len(stored) == 2 and path not in _ROWS_OUT:
        yield name, np.ascontiguousarray(here.reshape(stored[::-1]).T)
      else:
        yield name, here.reshape(stored)


def _shards(tensors: Iterator[tuple], most: int) -> Iterator[dict]:
  held, size = {}, 0
  for name, tensor in tensors:
    if held and size + tensor.nbytes > most:
      yield held
      held, size = {}, 0
    held[name] = tensor
    size += tensor.nbytes
  yield held


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns which file holds each tensor."""
  files = {}
  for path in sorted(folder.glob('*.safetensors')):
    with safetensors.safe_open(path, 'np') as tensors:
      for name in tensors.keys():  # noqa: SIM118 (it is no dict)
        if name in files:
          raise ValueError(f'{folder}: {name} is in two files')
        files[name] = path
  if not files:
    raise ValueError(
      f'{folder}: no *.safetensors there; other formats run code as they load'
    )
  return files


def _check_names(files, leaves, config: ModelConfig, folder) -> None:
  wanted = {name for path in leaves for name in _names(path, config)}
  # Some folders store the tied head again.
  tied = {_NAMES['head']} if config.tie_embeddings else set()
  unknown = sorted(files.keys() - wanted - tied)
  missing = sorted(wanted - files.keys())
  for what, names in (('unknown', unknown), ('missing', missing)):
    if names:
      raise ValueError(
        f'{folder}: {len(names)} tensors are {what}, the first is {names[0]}'
      )


def _names(path: str, config: ModelConfig) -> list[str]:
  layers = range(config.layers) if path.startswith('blocks/') else range(1)
  return [_NAMES[path].format(layer=layer) for layer in layers]


def _read(files, path: str, leaf, index, folder) -> np.ndarray:
  """Returns the part of a parameter that `index` names, and reads no more."""
  if not path.startswith('blocks/'):
    part = _tensor(files, _NAMES[path], path, leaf.shape, index, folder)
    return part.astype(leaf.dtype)
  layers, *rest = index
  parts = [
    _tensor(
      files,
      _NAMES[path].format(layer=layer),
      path,
      leaf.shape[1:],
      tuple(rest),
      folder,
    ).astype(leaf.dtype)
    for layer in range(*layers.indices(leaf.shape[0]))
  ]
  return np.stack(parts)


def _tensor(files, name, path, shape, index, folder) -> np.ndarray:
  """Returns a part of one stored tensor, in the axes that it has here."""
  with safetensors.safe_open(files[name], 'flax') as tensors:
    stored = tuple(tensors.get_slice(name).get_shape())
    if stored != _stored_shape(path, shape):
      raise ValueError(
        f'{folder}: {name} is {list(stored)}; the config asks for '
        f'{list(_stored_shape(path, shape))}'
      )
    whole = np.asarray(tensors.get_tensor(name))
  if not np.isfinite(whole.astype(np.float32)).all():
    raise ValueError(f'{folder}: {name} is not finite')
  here = whole.T if len(stored) == 2 and path not in _ROWS_OUT else whole
  return here.reshape(shape)[index]


def _stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  if path in _ROWS_OUT or path.endswith('norm'):
    return tuple(shape)
  if path.endswith('_bias'):
    return (int(np.prod(shape)),)
  if path.endswith('/o'):  # heads, size, width
    return (shape[2], shape[0] * shape[1])
  return (int(np.prod(shape[1:])), shape[0])


def _leaves(tree, prefix: str = '') -> Iterator[tuple[str, Any]]:
  for name, value in tree.items():
    if isinstance(value, dict):
      yield from _leaves(value, f'{prefix}{name}/')
    else:
      yield prefix + name, value


def _nested(leaves: dict[str, Any]) -> dict:
  tree = {}
  for path, value in leaves.items():
    *above, last = path.split('/')
    place = tree
    for name in above:
      place = place.setdefault(name, {})
    place[last] = value
  return tree
