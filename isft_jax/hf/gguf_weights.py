"""Maps a GGUF file of llama.cpp to our decoder: its config and its tensors.

Tensors are dequantised a few rows at a time, so no second copy of the weights
is made on disk or in memory. A key or a tensor that is not known raises: a
model that is silently another would train, and be wrong.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from isft_jax.config import ModelConfig
from isft_jax.gguf_file import GGUFFile, Tensor
from isft_jax.hf import config_json, tensor_files, tensor_names
from isft_jax.models import attention

# Path of a parameter here -> its name there.
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
# Llama 3's factors, by which the speed of each pair of a head is divided.
_ROPE_FACTORS = 'rope_freqs.weight'
# Types of tensors that the package gguf dequantises as llama.cpp does.
_TYPES = (
  *('F32', 'F16', 'BF16', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0'),
  *('Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K'),
)
_ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
# Keys after the name of the architecture: those read, and those that change
# nothing here.
_KEYS = {
  *('vocab_size', 'context_length', 'embedding_length', 'block_count'),
  *('feed_forward_length', 'attention.head_count', 'attention.head_count_kv'),
  *('attention.key_length', 'attention.value_length', 'rope.freq_base'),
  *('attention.layer_norm_rms_epsilon', 'rope.dimension_count'),
  *('rope.scaling.original_context_length', 'rope.scaling.finetuned'),
}
# Key -> the values it may have.
_REQUIRED = {
  'expert_count': (0,),
  'expert_used_count': (0,),
  'rope.scaling.type': ('none',),
  'rope.scaling.factor': (1.0, 0.0),
}


def model_config(file: GGUFFile) -> ModelConfig:
  """Returns the decoder that a GGUF file holds.

  Args:
    file: its metadata and its table of tensors.

  Raises:
    ValueError: it holds another model. The message names the key.
  """
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
        f'{file.path}: {key}={keys.get(key)!r} must be one of '
        f'{", ".join(map(str, values))}{remedy}'
      )
  family = keys['general.architecture']
  own = {
    key.removeprefix(f'{family}.'): value
    for key, value in keys.items()
    if key.startswith(f'{family}.')
  }
  for key, value in own.items():
    why = ''
    if value not in _REQUIRED.get(key, (value,)):
      why = 'is not supported'
    elif key not in _KEYS | _REQUIRED.keys():
      why = 'is neither supported nor known to be harmless'
    if why:
      raise ValueError(f'{file.path}: {family}.{key}={value!r} {why}')

  def number(key: str, default: float | None = None) -> Any:
    value = own.get(key, default)
    if isinstance(value, list) and len(set(value)) == 1:
      value = value[0]  # one for each layer, and all are the same
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(
        f'{file.path}: {family}.{key}={value!r} must be one number'
      )
    return value

  def decimal(key: str, default: float | None = None) -> float:
    """Returns the shortest decimal that is the float32 in the file."""
    return float(str(np.float32(number(key, default))))

  width, heads = number('embedding_length'), number('attention.head_count')
  head_size = number('attention.key_length', width // max(heads, 1))
  for key in ('attention.value_length', 'rope.dimension_count'):
    if number(key, head_size) != head_size:
      raise ValueError(
        f'{file.path}: {family}.{key}={own[key]} differs from the size of a '
        f'head, {head_size}; this is not supported'
      )
  embedding = file.tensors.get(_NAMES['embedding'])
  if embedding is None:
    raise ValueError(f'{file.path}: no tensor {_NAMES["embedding"]}')
  theta = decimal('rope.freq_base', 10_000.0)
  qkv_bias, qk_norm = config_json.FAMILIES[family]
  return ModelConfig(
    vocab_size=embedding.shape[0],
    width=width,
    layers=number('block_count'),
    heads=heads,
    kv_heads=number('attention.head_count_kv', heads),
    head_size=head_size,
    hidden=number('feed_forward_length'),
    rope_theta=theta,
    rope_scaling=_rope_scaling(file, head_size // 2, theta),
    norm_eps=decimal('attention.layer_norm_rms_epsilon'),
    tie_embeddings=_NAMES['head'] not in file.tensors,
    qkv_bias=qkv_bias,
    qk_norm=qk_norm,
  )


def _rope_scaling(file: GGUFFile, half: int, theta: float) -> tuple[float, ...]:
  """Returns Llama 3's (factor, low, high, original length), or ().

  A file has not these numbers but what follows from them: a factor for each
  pair of a head. All Llamas 3.1 to 3.3 have low 1, high 4 and length 8,192,
  and the slowest pair is slowed by the whole factor.
  """
  if _ROPE_FACTORS not in file.tensors:
    return ()
  tensor = _Stored(file, _ROPE_FACTORS, file.tensors[_ROPE_FACTORS])
  factors = tensor[(slice(None),)]
  scaling = (float(factors[-1]), 1.0, 4.0, 8192.0)
  expected = attention.rope_speeds(half, theta) / attention.rope_speeds(
    half, theta, scaling
  )
  if factors.shape != (half,) or not np.allclose(factors, expected, rtol=1e-4):
    raise ValueError(
      f"{file.path}: {_ROPE_FACTORS} does not hold Llama 3's factors "
      f'for positions beyond {scaling[-1]:.0f}; this is not supported'
    )
  return scaling


class Tensors(tensor_files.Tensors):
  """The tensors of a GGUF file, by their names in Hugging Face folders.

  Raises ValueError if one is of an unknown type or reaches past the file's end.
  """

  def __init__(self, file: GGUFFile, config: ModelConfig) -> None:
    super().__init__(file.path)
    # For llama alone, llama.cpp turns the pairs of a head.
    heads = {}
    if file.metadata['general.architecture'] == 'llama':
      heads = {
        'blocks/attention/q': config.heads,
        'blocks/attention/k': config.kv_heads,
      }
    paths = {name: path for path, name in _NAMES.items()}
    self._stored = {}
    for name, tensor in file.tensors.items():
      layer = re.fullmatch(r'blk\.(\d+)\.(.*)', name)
      path = paths.get(_LAYER + layer[2] if layer else name, '')
      stored = _Stored(file, name, tensor, heads.get(path, 0))
      if path:
        name = tensor_names.name(path, int(layer[1]) if layer else 0)
      if name != _ROPE_FACTORS:  # they are part of the config
        self._stored[name] = stored

  def names(self) -> set[str]:
    return set(self._stored)

  @contextlib.contextmanager
  def open(self, name: str) -> Iterator['_Stored']:
    yield self._stored[name]


class _Stored:
  """A tensor of a file: [rows, columns] gives float32 and reads no more.

  heads: how many the rows are of, if llama.cpp made neighbours of the pairs
    that are half a head apart here; else 0.
  """

  def __init__(
    self, file: GGUFFile, name: str, tensor: Tensor, heads: int = 0
  ) -> None:
    import gguf  # slow to import, and wanted here alone

    known = {kind.value: kind for kind in gguf.GGMLQuantizationType}
    kind = known.get(tensor.type)
    if kind is None or kind.name not in _TYPES:
      raise ValueError(
        f'{file.path}: {name} is of type {kind.name if kind else tensor.type}, '
        f'which is not supported, only {", ".join(_TYPES)}'
      )
    self._path, self._start, self._heads = file.path, tensor.start, heads
    self._kind, self._shape = kind, tensor.shape
    # Rows are made of blocks of so many values in so many bytes.
    self._block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    *axes, columns = tensor.shape or (0,)
    rows = math.prod(axes)
    if columns % self._block or (heads and rows % (2 * heads)):
      raise ValueError(f'{file.path}: {name} has shape {list(tensor.shape)}')
    self._bytes = rows, columns // self._block, block_bytes
    if tensor.start + math.prod(self._bytes) > file.path.stat().st_size:
      raise ValueError(f'{file.path}: cut off in {name}; download it again')

  def get_shape(self) -> list[int]:
    return list(self._shape)

  def __getitem__(self, index: tuple[slice, ...] | slice) -> np.ndarray:
    import gguf

    index = index if isinstance(index, tuple) else (index,)
    every = slice(None)
    if len(self._shape) == 1:  # one row
      index = (every, *index)
    row_slice, column_slice = (*index, every)[:2]
    rows = np.arange(self._bytes[0])[row_slice]
    columns = range(self._shape[-1])[column_slice]
    if self._heads:
      # Row (head, half, pair) here is row (head, pair, half) there.
      size = self._shape[0] // self._heads
      head, place = np.divmod(rows, size)
      half, pair = np.divmod(place, size // 2)
      rows = head * size + 2 * pair + half
    first = columns.start // self._block
    last = -(-columns.stop // self._block)
    raw = np.memmap(self._path, np.uint8, 'r', self._start, self._bytes)
    blocks = np.ascontiguousarray(raw[rows, first:last])
    values = gguf.dequantize(blocks.reshape(len(rows), -1), self._kind)
    skipped = first * self._block
    values = values[:, columns.start - skipped : columns.stop - skipped]
    values = values.astype(np.float32, copy=False)
    return values if len(self._shape) > 1 else values[0]
