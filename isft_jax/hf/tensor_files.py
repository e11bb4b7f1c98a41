"""The safetensors files of a folder, read by part and written by shard."""

import contextlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from isft_jax import places
from isft_jax.hf import tensor_names

INDEX = 'model.safetensors.index.json'
_WANTED = ('config.json', 'generation_config.json', '*.safetensors', INDEX)
# Bytes of a tensor that are looked at together, so that reading one takes
# little more memory than its result.
CHUNK = 2**24


def is_folder(place: str | pathlib.Path) -> bool:
  """Returns whether a model of Hugging Face's kind is there."""
  folder = pathlib.Path(place)
  return bool(place) and any(folder.glob('*.safetensors'))


def fetch(place: str) -> pathlib.Path:
  """Returns the folder of a model: a local one, or the hub's, downloaded.

  Of the hub's files only configs and safetensors come: nothing that could run.

  Raises ValueError if there is none.
  """
  if is_folder(place):
    return pathlib.Path(place)
  if not places.is_hub_id(place):
    raise ValueError(
      f'{place}: no *.safetensors there (other formats run code as they load); '
      f'name {places.KINDS}'
    )
  import huggingface_hub  # slow to import, and wanted here alone

  try:
    folder = huggingface_hub.snapshot_download(
      place,
      allow_patterns=list(_WANTED),
      ignore_patterns=['*/*', 'consolidated*'],
    )
  except Exception as error:  # of the network, of its client, of the hub
    first_line = str(error).strip().split('\n')[0]
    raise ValueError(
      f'{place}: no such folder, and not to be had from the hub ({first_line})'
    ) from error
  return fetch(folder)


class StoredTensor(Protocol):
  """A tensor of a file, of which only what is asked for is read."""

  def get_shape(self) -> list[int]: ...

  def __getitem__(self, index: tuple[slice, ...] | slice) -> np.ndarray: ...


class Tensors:
  """The tensors of a model by their names in Hugging Face folders.

  A class for a kind of file defines `names` and `open`.

  place: for messages.
  """

  def __init__(self, place: pathlib.Path) -> None:
    self.place = place

  def names(self) -> set[str]:
    """Returns the names of all tensors."""
    raise NotImplementedError

  def open(self, name: str) -> AbstractContextManager[StoredTensor]:
    """Opens a tensor: get_shape() and [rows, columns] read no more of it."""
    raise NotImplementedError

  def check_shape(self, name: str, wanted: Sequence[int]) -> None:
    """Raises ValueError if a tensor has another shape."""
    with self.open(name) as tensor:
      stored = tensor.get_shape()
    if list(stored) != list(wanted):
      raise ValueError(
        f'{self.place}: {name} is {list(stored)}; the config asks for '
        f'{list(wanted)}'
      )

  def check_equal(self, name: str, other: str) -> None:
    """Raises ValueError if two tensors differ."""
    with self.open(name) as one, self.open(other) as two:
      shape = one.get_shape()
      is_equal = shape == two.get_shape()
      step = max(1, CHUNK // (4 * math.prod(shape[1:])))
      for start in range(0, shape[0] if is_equal else 0, step):
        place = slice(start, min(start + step, shape[0]))
        is_equal &= np.array_equal(one[place], two[place])
    if not is_equal:
      raise ValueError(
        f'{self.place}: {name} is not {other}, and the config ties them'
      )

  def part(
    self,
    name: str,
    path: str,
    shape: Sequence[int],
    index: Sequence[slice],
    dtype: np.dtype,
  ) -> np.ndarray:
    """Returns a part of a tensor in the axes it has here, and reads no more.

    path, shape: of the parameter, or of the layer of it, that it holds.
    index: a slice for each axis of shape.

    Raises ValueError if a value of it is not finite.
    """
    ranges = [range(n)[s] for s, n in zip(index, shape, strict=True)]
    rows, columns = (
      _merged([shape[axis] for axis in axes], [ranges[axis] for axis in axes])
      for axes in tensor_names.groups(path, len(shape))
    )
    is_turned = tensor_names.is_turned(path)
    extents = (columns, rows) if is_turned else (rows, columns)
    here = np.empty([len(group.range) for group in extents], dtype)
    there = here.T if is_turned else here
    with self.open(name) as stored:
      step = max(1, CHUNK // (4 * len(columns.range)))
      for start in range(0, len(rows.range), step):
        place = slice(start, start + step)
        block = [_slice(rows.range[place]), _slice(columns.range)]
        piece = stored[tuple(block[: len(stored.get_shape())])]
        # The extremes of what holds a NaN are NaN.
        if not (np.isfinite(piece.min()) and np.isfinite(piece.max())):
          raise ValueError(f'{self.place}: {name} is not finite')
        there[place] = piece.reshape(there[place].shape)
    here = here.reshape([n for group in extents for n in group.shape])
    return here[tuple(s for group in extents for s in group.rest)]


class FolderTensors(Tensors):
  """The tensors of a folder of safetensors.

  Raises ValueError if one is in two files, or not where the index says.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    super().__init__(folder)
    self._files: dict[str, pathlib.Path] = {}
    index = folder / INDEX
    paths = sorted(folder.glob('*.safetensors'))
    wanted = None
    if index.is_file():  # then other files are not the model's
      wanted = json.loads(index.read_text())['weight_map']
      paths = [folder / name for name in sorted(set(wanted.values()))]
    for path in paths:
      if not path.is_file():
        raise ValueError(f'{path}: missing, and {INDEX} names it')
      with safetensors.safe_open(path, 'np') as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no dict)
          if name in self._files:
            raise ValueError(f'{folder}: {name} is in two files')
          self._files[name] = path
    if wanted is not None:
      found = {name: path.name for name, path in self._files.items()}
      for name in sorted(found | wanted):
        if found.get(name) != wanted.get(name):
          raise ValueError(f'{folder}: {name} is not where {INDEX} says')

  def names(self) -> set[str]:
    return set(self._files)

  @contextlib.contextmanager
  def open(self, name: str) -> Iterator[StoredTensor]:
    with safetensors.safe_open(self._files[name], 'np') as tensors:
      yield tensors.get_slice(name)


class _Merged(NamedTuple):
  """Some axes as the one that a tensor has of them."""

  range: range  # of the merged axis, what is wanted and perhaps a little more
  shape: tuple[int, ...]  # of that range, with its axes apart again
  rest: tuple[slice, ...]  # what is wanted of it


def _merged(shape: Sequence[int], ranges: Sequence[range]) -> _Merged:
  if not shape:  # the columns of a vector
    return _Merged(range(1), (), ())
  inner = math.prod(shape[1:])
  first = ranges[0]
  return _Merged(
    range(first.start * inner, first.stop * inner),
    (len(first), *shape[1:]),
    (slice(None), *map(_slice, ranges[1:])),
  )


def _slice(wanted: range) -> slice:
  return slice(wanted.start, wanted.stop)


def shards(sizes: Mapping[str, int], most: int) -> list[tuple[str, list[str]]]:
  """Returns (file, names of its tensors): in order, at most `most` bytes each.

  sizes: bytes of each tensor. A larger one than `most` has its own file.
  """
  held: list[list[str]] = [[]]
  size = 0
  for name, nbytes in sizes.items():
    if held[-1] and size + nbytes > most:
      held.append([])
      size = 0
    held[-1].append(name)
    size += nbytes
  if len(held) == 1:
    return [('model.safetensors', held[0])]
  return [
    (f'model-{number:05}-of-{len(held):05}.safetensors', names)
    for number, names in enumerate(held, start=1)
  ]


def write(
  folder: pathlib.Path,
  sizes: Mapping[str, int],
  tensors: Iterable[tuple[str, np.ndarray]],
  most: int,
) -> None:
  """Writes tensors, a file at a time, and then the index if there are more.

  sizes: bytes of each. tensors: (name, tensor), in the same order.
  """
  tensors = iter(tensors)
  weight_map: dict[str, str] = {}
  for file, names in shards(sizes, most):
    held = dict(itertools.islice(tensors, len(names)))
    safetensors.numpy.save_file(held, folder / file, metadata={'format': 'pt'})
    weight_map |= dict.fromkeys(names, file)
  if len(set(weight_map.values())) > 1:
    index = {
      'metadata': {'total_size': sum(sizes.values())},
      'weight_map': weight_map,
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n')
