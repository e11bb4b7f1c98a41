"""Loads models from Hugging Face folders and GGUF files, and saves folders.

  model, config = load(place, dtype='float32')
  logits_BLV = model(tokens_BL)
  save(model, config, other_folder)

A tensor that is unknown, missing, stored twice, not finite or of another shape
raises an error: otherwise a different model would train, and be wrong silently.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from isft_jax import files, gguf_file, places
from isft_jax.config import ModelConfig
from isft_jax.hf import (
  config_json,
  families,
  generation_config,
  gguf_weights,
  tensor_files,
  tensor_names,
)
from isft_jax.models import decoder, experts, projections
from isft_jax.sharding import path_name
from isft_jax.types import PyTree


class Model(NamedTuple):
  """A decoder with its parameters: a function from tokens to logits."""

  graphdef: decoder.GraphDef
  params: dict

  def __call__(
    self,
    tokens_BL: jax.typing.ArrayLike,
    positions_BL: jax.Array | None = None,
    segment_ids_BL: jax.Array | None = None,
  ) -> jax.Array:
    """Computes the logits of all tokens.

    Args:
      tokens_BL: ids.
      positions_BL: int32; None: counted from 0 in each row.
      segment_ids_BL: int32, number of the document; None: one per row.

    Returns:
      float32 [B, L, V].
    """
    # Rows hold one document each, unless the caller says otherwise.
    tokens_BL = jnp.asarray(tokens_BL, jnp.int32)
    # Positions count from 0 in each row.
    if positions_BL is None:
      positions_BL = jnp.broadcast_to(
        jnp.arange(tokens_BL.shape[1], dtype=jnp.int32), tokens_BL.shape
      )
    if segment_ids_BL is None:
      segment_ids_BL = jnp.ones_like(tokens_BL)
    module = nnx.merge(self.graphdef, self.params)
    return module.logits(module(tokens_BL, positions_BL, segment_ids_BL))


def read_config(place: str | pathlib.Path) -> ModelConfig:
  """Reads the config of a model.

  Args:
    place: a folder, a hub id, a GGUF file or a preset.

  Returns:
    The config of our decoder.

  Raises:
    ValueError: no model is there, or one that our decoder does not support.
  """
  place = str(place)
  # A GGUF file has the config in its metadata.
  if places.is_gguf(place):
    return gguf_weights.model_config(gguf_file.read(places.gguf_path(place)))
  path = tensor_files.fetch(place) / 'config.json'
  if not path.exists():
    raise ValueError(f'{place}: no config.json there; name a model folder')
  return config_json.model_config(files.read_json(path), str(path))


def read_generation_config(place: str | pathlib.Path) -> dict:
  """Reads the settings for generation that come with a model.

  Args:
    place: a folder, a hub id, a GGUF file or a preset.

  Returns:
    Content of generation_config.json, or {}. For a GGUF file: the ids that end
    a reply, {'eos_token_id': [...]}.

  Raises:
    ValueError: the file is not JSON, or has a setting that is out of range.
  """
  place = str(place)
  if places.is_gguf(place):
    path = places.gguf_path(place)
    keys = gguf_file.read(path).metadata
    # The end of the text, and the end of a turn, if they differ.
    ids = {}
    for name in ('tokenizer.ggml.eos_token_id', 'tokenizer.ggml.eot_token_id'):
      ids[name] = keys.get(name)
      if ids[name] is not None and not generation_config.is_id(ids[name]):
        raise ValueError(
          f'{path}: {name} must be an id (got {files.shorten(ids[name])})'
        )
    return {'eos_token_id': [id for id in ids.values() if id is not None]}
  path = tensor_files.fetch(place) / 'generation_config.json'
  if not path.exists():
    return {}
  return generation_config.check(files.read_json(path), str(path))


def _tensors(place: str, config: ModelConfig) -> tensor_files.Tensors:
  if places.is_gguf(place):
    file = gguf_file.read(places.gguf_path(place))
    return gguf_weights.Tensors(file, config)
  folder = tensor_files.fetch(place)
  tensors = tensor_files.FolderTensors(folder)
  content = files.read_json(folder / 'config.json')
  is_part = content.get('model_type') in families.TEXT_PARTS
  return tensor_files.TextTensors(tensors) if is_part else tensors


def load(
  folder: str | pathlib.Path,
  *,
  dtype: jax.typing.DTypeLike = 'float32',
  int8: bool = False,
  place: Callable[[str, tuple[int, ...]], Sharding] | None = None,
) -> tuple[Model, ModelConfig]:
  """Loads a decoder from config.json and safetensors, or from a GGUF file.

  The host's memory holds at most one stored tensor at a time, and only those
  shards of it that this host's devices need. Quantised weights are dequantised.

  Args:
    folder: path of a folder or a .gguf file, id of a model on the hub, or a
      preset such as 'smollm2-135m-instruct'.
    dtype: data type of the parameters and of the computation, as in 'float32'
      or jnp.float32.
    int8: round the kernels of the layers to int8, with a scale for each output
      channel; the other parameters and the computation have `dtype`.
    place: (path, shape) -> sharding of a parameter; None: one device.

  Returns:
    (model, config).

  Raises:
    ValueError: the model is not supported. The message names the attribute or
      the tensor.
  """
  folder = str(folder)
  dtype = jnp.dtype(dtype).name
  # Parameters and computation have the same data type.
  config = dataclasses.replace(
    read_config(folder), dtype=dtype, param_dtype=dtype
  )
  # Check all names and shapes before any weight is read.
  tensors = _tensors(folder, config)
  graphdef, shapes = decoder.abstract(config)
  leaves = traverse_util.flatten_dict(shapes, sep='/')
  _check(tensors, leaves, config)
  if int8:
    config = dataclasses.replace(config, param_dtype='int8')
    graphdef, shapes = decoder.abstract(config)
    leaves = traverse_util.flatten_dict(shapes, sep='/')
  # Without shardings, the whole model is on the first device.
  one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  placed = {
    path: place(path, leaf.shape) if place else one_device
    for path, leaf in leaves.items()
  }
  params: dict[str, jax.Array] = {}
  for path, leaf in leaves.items():
    if path.endswith(projections.SCALE):
      continue  # read with its kernel
    names = tensor_names.names(path, config)
    scale = path + projections.SCALE
    if scale in leaves:
      params[path], params[scale] = _read_int8(
        *(tensors, names, path, leaf, leaves[scale], dtype),
        *(placed[path], placed[scale]),
      )
    else:
      params[path] = _read(tensors, names, path, leaf, placed[path])
  return Model(graphdef, traverse_util.unflatten_dict(params, sep='/')), config


def load_params(
  place: str, config: ModelConfig, abstract: PyTree = None
) -> dict:
  """Loads the parameters of a model in the types that a config gives them.

  Args:
    place: a folder, a hub id, a GGUF file or a preset.
    config: config of the model. With param_dtype 'int8' the layers' kernels are
      rounded to int8 while they are read.
    abstract: the parameters as ShapeDtypeStructs with shardings; None puts them
      on one device.

  Returns:
    A nested dict of arrays.

  Raises:
    ValueError: as `load` raises it.
  """
  shardings = {
    path_name(path): leaf.sharding
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
  }
  int8 = config.param_dtype == 'int8'
  model, _ = load(
    place,
    dtype=config.dtype if int8 else config.param_dtype,
    int8=int8,
    place=(lambda path, shape: shardings[path]) if shardings else None,
  )
  return model.params


def save(
  model: Model,
  config: ModelConfig,
  folder: str | pathlib.Path,
  shard_bytes: int = 5 * 10**9,
  own_tokenizer: bool = False,
) -> None:
  """Writes config.json and safetensors for transformers.

  Tensors are fetched from the devices one at a time. The host's memory holds
  one file at a time.

  Args:
    model: decoder with its parameters.
    config: config of the model.
    folder: folder to write to. It is created if it does not exist.
    shard_bytes: maximum bytes per file.
    own_tokenizer: see `config_json.to_json`.

  Raises:
    ValueError: no family of models has the biases and norms of this decoder.
  """
  folder = pathlib.Path(folder)
  # Converted first, so that an unsupported shape writes nothing. Written last,
  # so that a folder with a config is complete.
  content = config_json.to_json(config, own_tokenizer)
  folder.mkdir(parents=True, exist_ok=True)
  leaves = traverse_util.flatten_dict(model.params, sep='/')
  # Bytes of each stored tensor: one per layer, and per layer and expert.
  sizes: dict[str, int] = {}
  for path, leaf in leaves.items():
    names = tensor_names.flat_names(path, config)
    sizes |= dict.fromkeys(names, leaf.nbytes // len(names))
  tensor_files.write(folder, sizes, _stored(leaves, config), shard_bytes)
  files.write_atomically(
    folder / 'config.json', json.dumps(content, indent=2) + '\n'
  )


def _stored(
  leaves: dict[str, jax.Array], config: ModelConfig
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, tensor) in Hugging Face names and shapes, by layer."""
  for path, leaf in leaves.items():
    for layer, names in enumerate(tensor_names.names(path, config)):
      array = np.asarray(leaf[layer] if tensor_names.is_stacked(path) else leaf)
      parts = array if tensor_names.has_experts(path) else [array]
      for name, part in zip(names, parts, strict=True):
        stored = tensor_names.stored_shape(path, part.shape)
        # Merge our axes to (columns, rows), and transpose to (rows, columns).
        if tensor_names.is_turned(path):
          part = part.reshape(stored[::-1]).T
        yield name, np.ascontiguousarray(part.reshape(stored))


def _check(
  tensors: tensor_files.Tensors,
  leaves: dict[str, jax.ShapeDtypeStruct],
  config: ModelConfig,
) -> None:
  """Raises ValueError for an unknown or missing tensor or a wrong shape."""
  # Expected shape of each tensor, by its name in the folder.
  wanted: dict[str, tuple[int, ...]] = {}
  for path, leaf in leaves.items():
    part = tensor_names.part_shape(path, leaf.shape)
    stored = tensor_names.stored_shape(path, part)
    wanted |= dict.fromkeys(tensor_names.flat_names(path, config), stored)
  # Some folders of tied models store the head too. It must be the embedding.
  embedding = tensor_names.name('embedding', config)
  is_twice = config.tie_embeddings and tensor_names.HEAD in tensors.names()
  if is_twice:
    wanted[tensor_names.HEAD] = wanted[embedding]
  for problem, names in (
    ('unknown', tensors.names() - wanted.keys()),
    ('missing', wanted.keys() - tensors.names()),
  ):
    if names:
      raise ValueError(
        f'{tensors.place}: {len(names)} tensors are {problem}; the first is '
        f'{files.shown(min(names))}'
      )
  # Names fit. Now the shapes, which needs no weights, and then the twin.
  for name, shape in wanted.items():
    tensors.check_shape(name, shape)
  if is_twice:
    tensors.check_equal(tensor_names.HEAD, embedding)


def _read(
  tensors: tensor_files.Tensors,
  names: list[list[str]],
  path: str,
  leaf: jax.ShapeDtypeStruct,
  sharding: Sharding,
) -> jax.Array:
  """Reads a parameter to its devices, one stored tensor at a time."""
  if not tensor_names.is_stacked(path):
    return _read_layer(
      *(tensors, names[0], path, leaf.shape, leaf.dtype, sharding)
    )
  # Put one layer at a time into a stack on the devices, in place.
  zeros, put = _stacking(leaf.shape, leaf.dtype, sharding)
  stack, place = zeros(), _of_layer(sharding)
  for i, each in enumerate(names):
    layer = _read_layer(
      *(tensors, each, path, leaf.shape[1:], leaf.dtype, place)
    )
    stack = put(stack, layer, i)
  return stack


def _read_int8(
  tensors: tensor_files.Tensors,
  names: list[list[str]],
  path: str,
  leaf: jax.ShapeDtypeStruct,
  scale: jax.ShapeDtypeStruct,
  dtype: str,
  sharding: Sharding,
  of_scale: Sharding,
) -> tuple[jax.Array, jax.Array]:
  """Reads the stack of a kernel as int8, with its scales, layer by layer."""
  shape = leaf.shape
  zeros, put = _stacking(shape, leaf.dtype, sharding)
  zero_scales, put_scale = _stacking(scale.shape, jnp.float32, of_scale)
  place, stack, scales = _of_layer(sharding), zeros(), zero_scales()
  quantize = _quantizing(path, place, _of_layer(of_scale))
  for i, each in enumerate(names):
    kernel = _read_layer(
      *(tensors, each, path, shape[1:], jnp.dtype(dtype), place)
    )
    integers, factors = quantize(kernel)
    stack, scales = put(stack, integers, i), put_scale(scales, factors, i)
  return stack, scales


@functools.lru_cache(maxsize=64)
def _quantizing(
  path: str, sharding: Sharding, of_scale: Sharding
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
  quantize: Callable[..., tuple[jax.Array, jax.Array]]
  if tensor_names.has_experts(path):
    quantize = experts.quantize_experts
  else:
    inputs = projections.count_inputs(path)
    quantize = functools.partial(projections.quantize, inputs=inputs)
  return jax.jit(quantize, out_shardings=(sharding, of_scale))


def _read_layer(
  tensors: tensor_files.Tensors,
  names: list[str],
  path: str,
  shape: tuple[int, ...],
  dtype: np.dtype,
  sharding: Sharding,
) -> jax.Array:
  """Reads a parameter, or a layer of it, from its stored tensors."""

  @functools.cache  # devices that hold the same shard read it once
  def shard(bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
    index = tuple(slice(*pair) for pair in bounds)
    if not tensor_names.has_experts(path):
      return tensors.part(names[0], path, shape, index, dtype)
    # The first axis are the experts, each of which is a tensor.
    here = [
      tensors.part(name, path, shape[1:], index[1:], dtype)
      for name in names[index[0]]
    ]
    return np.stack(here)

  def read(index: tuple[slice, ...] | None) -> np.ndarray:
    slices = zip(index or (), shape, strict=True)
    return shard(tuple(s.indices(n)[:2] for s, n in slices))

  # jax calls `read` once per local device, with the slice of its shard.
  return jax.make_array_from_callback(shape, sharding, read)


@functools.lru_cache(maxsize=64)
def _stacking(
  shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding
) -> tuple[Callable[[], jax.Array], Callable[..., jax.Array]]:
  """Returns two functions: make a stack of zeros, and put a layer into it."""

  def put(stack: jax.Array, values: jax.Array, layer: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, values, layer, 0)

  return (
    # `put` donates the stack, so it is updated in place.
    jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding),
    jax.jit(put, donate_argnums=0, out_shardings=sharding),
  )


def _of_layer(sharding: Sharding) -> Sharding:
  """Returns the sharding of one layer of a stack."""
  if not isinstance(sharding, NamedSharding):
    return sharding
  # The first axis of a stack is the layer, which is never sharded.
  spec = PartitionSpec(*sharding.spec[1:])
  return NamedSharding(sharding.mesh, spec)
