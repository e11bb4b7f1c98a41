"""Maps a GGUF file of llama.cpp to our decoder: config and tensors.

Tensors are dequantised a few rows at a time, so no second copy of the weights
is made on disk or in memory. An unknown key or tensor raises an error:
otherwise a different model would train, and be wrong silently.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from isft_jax import files
from isft_jax.config import ModelConfig
from isft_jax.gguf_file import GGUFFile, Tensor
from isft_jax.hf import limits, tensor_files, tensor_names
from isft_jax.hf.families import FAMILIES
from isft_jax.models import attention
from isft_jax.models.layer_kinds import Rope

# Path of our parameter -> name of the tensor in a GGUF file.
_LAYER = 'blk.{layer}.'
_NAMES = {
  'embedding': 'token_embd.weight',
  'norm': 'output_norm.weight',
  'head': 'output.weight',
  'blocks/attention_norm': _LAYER + 'attn_norm.weight',
  'blocks/mlp_norm': _LAYER + 'ffn_norm.weight',
  'blocks/attention/q': _LAYER + 'attn_q.weight',
  'blocks/attention/k': _LAYER + 'attn_k.weight',
  'blocks/attention/v': _LAYER + 'attn_v.weight',
  'blocks/attention/o': _LAYER + 'attn_output.weight',
  'blocks/attention/q_bias': _LAYER + 'attn_q.bias',
  'blocks/attention/k_bias': _LAYER + 'attn_k.bias',
  'blocks/attention/v_bias': _LAYER + 'attn_v.bias',
  'blocks/attention/q_norm': _LAYER + 'attn_q_norm.weight',
  'blocks/attention/k_norm': _LAYER + 'attn_k_norm.weight',
  'blocks/mlp/gate': _LAYER + 'ffn_gate.weight',
  'blocks/mlp/up': _LAYER + 'ffn_up.weight',
  'blocks/mlp/down': _LAYER + 'ffn_down.weight',
}
# Llama 3's divisors of the rotary speeds, one per pair of a head.
_ROPE_FACTORS = 'rope_freqs.weight'
# Tensor types that the package gguf dequantises exactly like llama.cpp.
_TYPES = (
  *('F32', 'F16', 'BF16', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0'),
  *('Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K'),
)
_ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
# Keys (after the prefix of the architecture) that are read or harmless.
_KEYS = {
  *('vocab_size', 'context_length', 'embedding_length', 'block_count'),
  *('feed_forward_length', 'attention.head_count', 'attention.head_count_kv'),
  *('attention.key_length', 'attention.value_length', 'rope.freq_base'),
  *('attention.layer_norm_rms_epsilon', 'rope.dimension_count'),
  *('rope.scaling.original_context_length', 'rope.scaling.finetuned'),
}
# Key -> allowed values. It may also be missing.
_REQUIRED = {
  'expert_count': (0,),
  'expert_used_count': (0,),
  'rope.scaling.type': ('none',),
  'rope.scaling.factor': (1.0, 0.0),
}


def model_config(file: GGUFFile) -> ModelConfig:
  """Returns the config of the decoder in a GGUF file.

  Args:
    file: header of the file.

  Returns:
    The config of the model.

  Raises:
    ValueError: our decoder does not support the model. The message names the
      key.
  """
  # Architecture, and a file that is whole.
  keys: dict[str, Any] = {'general.type': 'model', 'split.count': 1}
  keys |= file.metadata
  allowed: dict[str, tuple[object, ...]] = {
    'general.type': ('model',),
    'general.architecture': _ARCHITECTURES,
    'split.count': (0, 1),
  }
  for key, values in allowed.items():
    if keys.get(key) not in values:
      remedy = '; join them with llama-gguf-split' if 'split' in key else ''
      raise ValueError(
        f'{file.path}: {key}={files.shorten(keys.get(key))} must be one of '
        f'{", ".join(map(str, values))}{remedy}'
      )

  # Keys of the architecture: each must be read, allowed or harmless.
  family = keys['general.architecture']
  # Keys of the architecture, such as llama.block_count, without their prefix.
  own = {
    key.removeprefix(f'{family}.'): value
    for key, value in keys.items()
    if key.startswith(f'{family}.')
  }
  for key, value in own.items():
    why = ''
    # A key without a list of allowed values passes this check.
    if value not in _REQUIRED.get(key, (value,)):
      why = 'is not supported'
    elif key not in _KEYS | _REQUIRED.keys():
      why = 'is neither supported nor known to be harmless'
    if why:
      raise ValueError(
        f'{file.path}: {files.shown(f"{family}.{key}")}={files.shorten(value)} '
        f'{why}'
      )

  def number(field: str, key: str, default: float | None = None) -> Any:
    """Returns the value of a key, checked as a field of ModelConfig."""
    value = own.get(key, default)
    # One per layer, all equal.
    if isinstance(value, list) and value == value[:1] * len(value) != []:
      value = value[0]
    if why := limits.problem(field, value):
      raise ValueError(
        f'{file.path}: {family}.{key}={files.shorten(value)} {why}'
      )
    return value

  def decimal(field: str, key: str, default: float | None = None) -> float:
    """Returns the shortest decimal that rounds to the float32 in the file."""
    # The file has 9.999999747378752e-06 for 1e-5; results should match
    # config.json's.
    return float(str(np.float32(number(field, key, default))))

  # Sizes. Our decoder has one head size, for keys, values and rotation.
  width = number('width', 'embedding_length')
  heads = number('heads', 'attention.head_count')
  head_size = number('head_size', 'attention.key_length', width // heads)
  for key in ('attention.value_length', 'rope.dimension_count'):
    if number('head_size', key, head_size) != head_size:
      raise ValueError(
        f'{file.path}: {family}.{key}={own[key]} differs from the head size '
        f'{head_size}; this is not supported'
      )
  # The vocabulary is as large as the embedding: vocab_size may be missing.
  embedding = file.tensors.get(_NAMES['embedding'])
  if embedding is None or len(embedding.shape) != 2:
    raise ValueError(
      f'{file.path}: the tensor {_NAMES["embedding"]} is missing, or no matrix'
    )
  if why := limits.problem('vocab_size', embedding.shape[0]):
    raise ValueError(
      f'{file.path}: the number of rows of {_NAMES["embedding"]} {why}'
    )
  # 10,000 is llama.cpp's default, too.
  theta = decimal('rope_theta', 'rope.freq_base', 10_000.0)
  config = ModelConfig(
    vocab_size=embedding.shape[0],
    width=width,
    layers=number('layers', 'block_count'),
    heads=heads,
    kv_heads=number('kv_heads', 'attention.head_count_kv', heads),
    head_size=head_size,
    mlp_width=number('mlp_width', 'feed_forward_length'),
    rope_theta=theta,
    norm_eps=decimal('norm_eps', 'attention.layer_norm_rms_epsilon'),
    tie_embeddings=_NAMES['head'] not in file.tensors,
    **FAMILIES[family].fields,
  )
  if why := limits.mismatch(config):
    raise ValueError(f'{file.path}: {why}')
  scaling = _rope_scaling(file, head_size // 2, theta)
  return dataclasses.replace(config, rope_scaling=scaling)


def _rope_scaling(file: GGUFFile, half: int, theta: float) -> tuple[float, ...]:
  """Returns Llama 3's (factor, low, high, original length), or ().

  A GGUF file does not store these numbers, but one divisor per pair of a head.
  """
  if _ROPE_FACTORS not in file.tensors:
    return ()
  # Llama 3.1 to 3.3 all have low 1, high 4 and length 8,192, and the slowest
  # pair (the last) is divided by the whole factor. Check this guess below.
  tensor = _Stored(file, _ROPE_FACTORS, file.tensors[_ROPE_FACTORS])
  is_expected = False
  if tensor.get_shape() == [half]:
    factors = tensor[(slice(None),)]
    scaling = (float(factors[-1]), 1.0, 4.0, 8192.0)
    if not limits.problem('factor', scaling[0]):
      plain, _ = attention.rope_speeds(half, Rope(theta))
      scaled, _ = attention.rope_speeds(half, Rope(theta, 'llama3', scaling))
      expected = plain / scaled
      is_expected = np.allclose(factors, expected, rtol=1e-4)
  if not is_expected:
    raise ValueError(
      f"{file.path}: {_ROPE_FACTORS} does not hold Llama 3's factors "
      'for positions beyond 8192; this is not supported'
    )
  return scaling


class Tensors(tensor_files.Tensors):
  """The tensors of a GGUF file, by their names in Hugging Face folders.

  Args:
    file: header of the file.
    config: config of the model.

  Raises:
    ValueError: a tensor has an unsupported type, or extends past the end of the
      file.
  """

  def __init__(self, file: GGUFFile, config: ModelConfig) -> None:
    super().__init__(file.path)
    # Only for llama, llama.cpp stores the two elements of a rotary pair next to
    # each other.
    heads = {}
    if file.metadata['general.architecture'] == 'llama':
      heads = {
        'blocks/attention/q': config.heads,
        'blocks/attention/k': config.kv_heads,
      }
    paths = {name: path for path, name in _NAMES.items()}
    self._stored: dict[str, _Stored] = {}
    for name, tensor in file.tensors.items():
      # llama.cpp writes layers without zeros before them, and in ASCII.
      layer = re.fullmatch(r'blk\.(0|[1-9][0-9]{0,4})\.(.*)', name)
      path = paths.get(_LAYER + layer[2] if layer else name, '')
      stored = _Stored(file, name, tensor, heads.get(path, 0))
      if path:
        name = tensor_names.name(path, config, int(layer[1]) if layer else 0)
      # The rotary factors are part of the config, and no parameter.
      if name == _ROPE_FACTORS:
        continue
      # A file could have the names of both formats for one parameter.
      if name in self._stored:
        raise ValueError(f'{file.path}: two tensors are {name}')
      self._stored[name] = stored

  def names(self) -> set[str]:
    return set(self._stored)

  @contextlib.contextmanager
  def open(self, name: str) -> Iterator['_Stored']:
    yield self._stored[name]


class _Stored:
  """A stored tensor. Indexing reads and dequantises only the slice.

  `tensor[rows, columns]` returns float32.

  Args:
    file: header of the file.
    name: name of the tensor, for messages.
    tensor: its table entry.
    heads: number of heads in the rows, if llama.cpp stores rotary pairs as
      adjacent rows. (We store them half a head apart.) Otherwise 0.
  """

  def __init__(
    self, file: GGUFFile, name: str, tensor: Tensor, heads: int = 0
  ) -> None:
    import gguf  # slow to import, and needed only here

    known = {kind.value: kind for kind in gguf.GGMLQuantizationType}
    kind = known.get(tensor.type)
    if kind is None or kind.name not in _TYPES:
      raise ValueError(
        f'{file.path}: the type of {files.shown(name)} must be one of '
        f'{", ".join(_TYPES)} (got {kind.name if kind else tensor.type})'
      )
    self._path, self._start, self._heads = file.path, tensor.start, heads
    self._kind, self._shape = kind, tensor.shape
    # A row is a sequence of blocks, each with `_block` values in `block_bytes`
    # bytes.
    self._block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    *axes, columns = tensor.shape or (0,)
    rows = math.prod(axes)
    if columns % self._block or (heads and rows % (2 * heads)):
      raise ValueError(
        f'{file.path}: {files.shown(name)} has shape {list(tensor.shape)}, '
        'which is not a whole number of blocks or heads'
      )
    self._bytes = rows, columns // self._block, block_bytes
    if tensor.start + math.prod(self._bytes) > file.path.stat().st_size:
      raise ValueError(
        f'{file.path}: cut off in {files.shown(name)}; download it again'
      )

  def get_shape(self) -> list[int]:
    return list(self._shape)

  def __getitem__(self, index: tuple[slice, ...] | slice) -> np.ndarray:
    import gguf

    # Rows and columns of the slice. A vector is one row.
    index = index if isinstance(index, tuple) else (index,)
    every = slice(None)
    if len(self._shape) == 1:
      index = (every, *index)
    row_slice, column_slice = (*index, every)[:2]
    rows = np.arange(self._bytes[0])[row_slice]
    columns = range(self._shape[-1])[column_slice]
    if self._heads:
      # Our row (head, half, pair) is stored as row (head, pair, half).
      size = self._shape[0] // self._heads
      head, place = np.divmod(rows, size)
      half, pair = np.divmod(place, size // 2)
      rows = head * size + 2 * pair + half

    # Dequantise whole blocks, then cut the columns out of them.
    first = columns.start // self._block
    last = -(-columns.stop // self._block)
    raw = np.memmap(self._path, np.uint8, 'r', self._start, self._bytes)
    blocks = np.ascontiguousarray(raw[rows, first:last])
    values = gguf.dequantize(blocks.reshape(len(rows), -1), self._kind)
    skipped = first * self._block
    values = values[:, columns.start - skipped : columns.stop - skipped]
    values = values.astype(np.float32, copy=False)
    return values if len(self._shape) > 1 else values[0]
