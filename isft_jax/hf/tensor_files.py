"""Reads slices of a folder's safetensors files, and writes such folders."""

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
# Files that are downloaded from the hub.
_WANTED = ('config.json', 'generation_config.json', '*.safetensors', INDEX)
# Bytes of a tensor that are read at once. Reading a tensor then takes little
# more memory than its result.
CHUNK = 2**24


def is_folder(place: str | pathlib.Path) -> bool:
  """Returns whether a place is a folder with safetensors files."""
  folder = pathlib.Path(place)
  return bool(place) and any(folder.glob('*.safetensors'))


def fetch(place: str) -> pathlib.Path:
  """Returns the local folder of a model, downloaded if the place is a hub id.

  Only configs and safetensors are downloaded, so no code can run.

  Args:
    place: folder or hub id.

  Returns:
    The path of a local folder.

  Raises:
    ValueError: neither the folder nor the model on the hub exists.
  """
  # A local folder needs no network.
  if is_folder(place):
    return pathlib.Path(place)
  if not places.is_hub_id(place):
    raise ValueError(
      f'{place}: no *.safetensors there (other formats run code as they load); '
      f'name {places.KINDS}'
    )
  import huggingface_hub  # slow to import, and needed only here

  # Downloads into the cache of huggingface_hub, or returns the cached folder.
  try:
    folder = huggingface_hub.snapshot_download(
      place,
      allow_patterns=list(_WANTED),
      # Subfolders and consolidated files repeat the weights in other formats.
      ignore_patterns=['*/*', 'consolidated*'],
    )
  except Exception as error:  # from the network, its client or the hub
    first_line = str(error).strip().split('\n')[0]
    raise ValueError(
      f'{place}: the folder does not exist, and the download from the hub '
      f'failed ({first_line})'
    ) from error
  return fetch(folder)


class StoredTensor(Protocol):
  """A tensor in a file. Indexing reads only the slice."""

  def get_shape(self) -> list[int]: ...

  def __getitem__(self, index: tuple[slice, ...] | slice) -> np.ndarray: ...


class Tensors:
  """The tensors of a model, by their names in Hugging Face folders.

  A subclass for a file format defines `names` and `open`.

  Args:
    place: folder or file, for messages.
  """

  def __init__(self, place: pathlib.Path) -> None:
    self.place = place

  def names(self) -> set[str]:
    """Returns the names of all tensors."""
    raise NotImplementedError

  def open(self, name: str) -> AbstractContextManager[StoredTensor]:
    """Opens a tensor, whose `[rows, columns]` reads only that slice."""
    raise NotImplementedError

  def check_shape(self, name: str, wanted: Sequence[int]) -> None:
    """Raises ValueError if a tensor has another shape."""
    with self.open(name) as tensor:
      stored = tensor.get_shape()
    if list(stored) != list(wanted):
      raise ValueError(
        f'{self.place}: {name} has shape {list(stored)}, but the config gives '
        f'{list(wanted)}'
      )

  def check_equal(self, name: str, other: str) -> None:
    """Raises ValueError if two tensors differ."""
    # Tied tables become one parameter, so they must be equal.
    with self.open(name) as one, self.open(other) as two:
      shape = one.get_shape()
      # Compare a few rows at a time, to save memory.
      is_equal = shape == two.get_shape()
      # 4 bytes per element: CHUNK bytes if the tensor is float32.
      step = max(1, CHUNK // (4 * math.prod(shape[1:])))
      for start in range(0, shape[0] if is_equal else 0, step):
        place = slice(start, min(start + step, shape[0]))
        is_equal &= np.array_equal(one[place], two[place])
    if not is_equal:
      raise ValueError(
        f'{self.place}: {name} differs from {other}, and the config ties them'
      )

  def part(
    self,
    name: str,
    path: str,
    shape: Sequence[int],
    index: Sequence[slice],
    dtype: np.dtype,
  ) -> np.ndarray:
    """Reads a slice of a parameter from its stored tensor.

    Args:
      name: name of the tensor.
      path: path of our parameter.
      shape: shape of our parameter, or of one layer of it.
      index: a slice per axis of `shape`.
      dtype: data type of the result.

    Returns:
      The slice, with the axes of our parameter.

    Raises:
      ValueError: a value is not finite.
    """
    # The rows and columns of the stored tensor that hold the slice.
    ranges = [range(n)[s] for s, n in zip(index, shape, strict=True)]
    rows, columns = (
      _merged([shape[axis] for axis in axes], [ranges[axis] for axis in axes])
      for axes in tensor_names.groups(path, len(shape))
    )

    # Copy blocks of rows into an array, transposed if the tensor is.
    is_turned = tensor_names.is_turned(path)
    extents = (columns, rows) if is_turned else (rows, columns)
    # The result is allocated once, in its final data type.
    here = np.empty([len(group.range) for group in extents], dtype)
    there = here.T if is_turned else here
    with self.open(name) as stored:
      # 4 bytes per element: a block has about CHUNK bytes.
      step = max(1, CHUNK // (4 * len(columns.range)))
      for start in range(0, len(rows.range), step):
        place = slice(start, start + step)
        # A vector has rows only.
        block = [_slice(rows.range[place]), _slice(columns.range)]
        piece = stored[tuple(block[: len(stored.get_shape())])]
        # If a value is NaN, so are the minimum and the maximum.
        if not (np.isfinite(piece.min()) and np.isfinite(piece.max())):
          # One bad value would spoil every loss, with no hint at the file.
          raise ValueError(f'{self.place}: {name} is not finite')
        there[place] = piece.reshape(there[place].shape)

    # Separate the merged axes, and drop the rows and columns too many.
    here = here.reshape([n for group in extents for n in group.shape])
    return here[tuple(s for group in extents for s in group.rest)]


class FolderTensors(Tensors):
  """The tensors of a folder of safetensors files.

  Args:
    folder: the folder.

  Raises:
    ValueError: a tensor is in two files, or not in the file of the index.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    super().__init__(folder)
    self._files: dict[str, pathlib.Path] = {}
    index = folder / INDEX
    paths = sorted(folder.glob('*.safetensors'))
    wanted = None
    # If there is an index, files that it does not list are not the model's.
    if index.is_file():
      wanted = json.loads(index.read_text())['weight_map']
      paths = [folder / name for name in sorted(set(wanted.values()))]
    for path in paths:
      if not path.is_file():
        raise ValueError(f'{path}: missing, and {INDEX} names it')
      with safetensors.safe_open(path, 'np') as tensors:
        for name in tensors.keys():  # noqa: SIM118 (not a dict)
          # Two files with one tensor are two versions of the model, or a
          # mistake.
          if name in self._files:
            raise ValueError(f'{folder}: {name} is in two files')
          self._files[name] = path
    # The files must hold exactly the tensors that the index lists.
    if wanted is not None:
      actual = {name: path.name for name, path in self._files.items()}
      for name in sorted(actual | wanted):
        if actual.get(name) != wanted.get(name):
          raise ValueError(f'{folder}: {name} is not where {INDEX} says')

  def names(self) -> set[str]:
    return set(self._files)

  @contextlib.contextmanager
  def open(self, name: str) -> Iterator[StoredTensor]:
    with safetensors.safe_open(self._files[name], 'np') as tensors:
      yield tensors.get_slice(name)


class _Merged(NamedTuple):
  """Several axes of a parameter as one axis of its stored tensor.

  Attributes:
    range: range of the merged axis to read. It holds the slice, and whole inner
      axes around it.
    shape: shape of that range with separate axes.
    rest: slices that cut the result out of that shape.
  """

  range: range
  shape: tuple[int, ...]
  rest: tuple[slice, ...]


def _merged(shape: Sequence[int], ranges: Sequence[range]) -> _Merged:
  if not shape:  # a vector has no columns
    return _Merged(range(1), (), ())
  # Read whole inner axes: only the first axis can be sliced while merged.
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
  """Distributes tensors over files, in order.

  Args:
    sizes: bytes of each tensor, by name.
    most: maximum bytes per file. A larger tensor gets its own file.

  Returns:
    [(file name, names of its tensors), ...].
  """
  groups: list[list[str]] = [[]]
  size = 0
  for name, nbytes in sizes.items():
    # A tensor larger than `most` gets a file of its own.
    if groups[-1] and size + nbytes > most:
      groups.append([])
      size = 0
    groups[-1].append(name)
    size += nbytes
  # A model in one file has no index.
  if len(groups) == 1:
    return [('model.safetensors', groups[0])]
  return [
    (f'model-{number:05}-of-{len(groups):05}.safetensors', names)
    for number, names in enumerate(groups, start=1)
  ]


def write(
  folder: pathlib.Path,
  sizes: Mapping[str, int],
  tensors: Iterable[tuple[str, np.ndarray]],
  most: int,
) -> None:
  """Writes safetensors files, and an index if there are several.

  Args:
    folder: existing folder.
    sizes: bytes of each tensor, by name.
    tensors: (name, tensor), in the order of `sizes`. They are consumed one file
      at a time.
    most: maximum bytes per file.
  """
  tensors = iter(tensors)
  weight_map: dict[str, str] = {}
  for file, names in shards(sizes, most):
    # The tensors come in the order of `sizes`, and only one file's are in
    # memory.
    arrays = dict(itertools.islice(tensors, len(names)))
    # transformers refuses files without this entry.
    metadata = {'format': 'pt'}
    safetensors.numpy.save_file(arrays, folder / file, metadata=metadata)
    weight_map |= dict.fromkeys(names, file)
  if len(set(weight_map.values())) > 1:
    # transformers finds the file of each tensor in this map.
    index = {
      'metadata': {'total_size': sum(sizes.values())},
      'weight_map': weight_map,
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n')
