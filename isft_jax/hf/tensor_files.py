"""Reads slices of a folder's safetensors files, and writes such folders."""

import contextlib
import itertools
import json
import math
import os
import pathlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from isft_jax import files, places
from isft_jax.hf import tensor_names

INDEX = 'model.safetensors.index.json'
# Files that are downloaded from the hub.
_WANTED = ('config.json', 'generation_config.json', '*.safetensors', INDEX)
# Bytes of a tensor that are read at once. Reading a tensor then takes little
# more memory than its result.
CHUNK = 2**24
# Beginnings of the names of tensors that read images.
_OF_IMAGES = tuple(
  prefix + part
  for prefix in ('', 'model.')
  for part in ('vision_tower.', 'multi_modal_projector.')
)
# Types of weights in safetensors files. Integers are quantised weights, which
# mean nothing without their scales.
_DTYPES = ('F64', 'F32', 'F16', 'BF16')


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
      step = max(1, CHUNK // (4 * math.prod(shape[1:]) or 1))
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
    ValueError: a file is damaged or outside of the folder, or a tensor has an
      unsupported type, is in two files, or is not in the file of the index.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    super().__init__(folder)
    self._files: dict[str, pathlib.Path] = {}
    wanted = _read_index(folder)
    for path in _files_of(folder, wanted):
      if not path.exists():
        why = 'a link to nothing' if wanted is None else f'{INDEX} names it'
        raise ValueError(f'{path}: missing, and {why}; download it again')
      with opened(path) as tensors:
        for name in tensors.keys():  # noqa: SIM118 (not a dict)
          # Two files with one tensor are two versions of the model, or a
          # mistake.
          if name in self._files:
            raise ValueError(f'{folder}: {files.shown(name)} is in two files')
          self._files[name] = path
          check_dtype(path, name, tensors.get_slice(name).get_dtype())
    # The files must hold exactly the tensors that the index lists.
    if wanted is not None:
      actual = {name: path.name for name, path in self._files.items()}
      for name in sorted(actual | wanted):
        if actual.get(name) != wanted.get(name):
          raise ValueError(
            f'{folder}: {files.shown(name)} is not where {INDEX} says'
          )

  def names(self) -> set[str]:
    return set(self._files)

  @contextlib.contextmanager
  def open(self, name: str) -> Iterator[StoredTensor]:
    with opened(self._files[name]) as tensors:
      yield tensors.get_slice(name)


class TextTensors(Tensors):
  """The tensors of a model's text part, by the names of a model of text only.

  Args:
    tensors: those of the whole model, which also reads images.
  """

  def __init__(self, tensors: Tensors) -> None:
    super().__init__(tensors.place)
    self._whole = tensors
    self._names: dict[str, str] = {}
    for name in tensors.names():
      if name.startswith(_OF_IMAGES):
        continue
      # Older and newer files have the part's prefix in different places.
      short = name.removeprefix('language_model.')
      self._names[short.replace('model.language_model.', 'model.', 1)] = name

  def names(self) -> set[str]:
    return set(self._names)

  def open(self, name: str) -> AbstractContextManager[StoredTensor]:
    return self._whole.open(self._names[name])


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the safetensors files of a model's folder, sorted by name."""
  return _files_of(folder, _read_index(folder))


def _files_of(
  folder: pathlib.Path, weight_map: dict[str, str] | None
) -> list[pathlib.Path]:
  # If there is an index, files that it does not list are not the model's.
  if weight_map is None:
    return sorted(folder.glob('*.safetensors'))
  return [folder / name for name in sorted(set(weight_map.values()))]


def check_dtype(path: pathlib.Path, name: str, dtype: str) -> None:
  """Raises ValueError unless a tensor's type in a file is a float."""
  if dtype not in _DTYPES:
    raise ValueError(
      f'{path}: the type of {files.shown(name)} must be one of '
      f'{", ".join(_DTYPES)} (got {dtype})'
    )


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Any]:
  """Opens a safetensors file. Raises ValueError if it is damaged."""
  files.check_whole(path)
  try:
    with safetensors.safe_open(path, 'np') as tensors:
      yield tensors
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path}: cut off or damaged ({files.one_line(error)}); download it again'
    ) from error


def _read_index(folder: pathlib.Path) -> dict[str, str] | None:
  """Returns {name of a tensor: name of its file}; None without an index."""
  path = folder / INDEX
  # A link to nothing is a damaged folder, and no folder without an index.
  if not path.exists() and not path.is_symlink():
    return None
  if not path.exists():
    raise ValueError(f'{path}: a link to a file that does not exist')
  weight_map = files.read_json(path).get('weight_map')
  if not isinstance(weight_map, dict) or not weight_map:
    raise ValueError(
      f'{path}: weight_map must be an object with the file of each tensor (got '
      f'{files.shorten(weight_map)})'
    )
  for name, file in weight_map.items():
    # Only names: a path could lead to any file of this machine.
    is_name = isinstance(file, str) and file.endswith('.safetensors')
    if not is_name or pathlib.PureWindowsPath(file).name != file:
      raise ValueError(
        f'{path}: the file of {files.shown(name)} must be a *.safetensors '
        f'file in this folder (got {files.shorten(file)})'
      )
  for file in sorted(set(weight_map.values())):
    _check_inside(folder, folder / file)
  return weight_map


def _check_inside(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Raises ValueError if a file is a link to somewhere outside of its folder.

  A cache of the hub has folders of links to its own files:

      models--ORG--NAME/snapshots/REVISION/model.safetensors -> ../../blobs/HASH
  """
  real, home = path.resolve(), folder.resolve()
  blobs = home.parent.parent / 'blobs'
  is_cache = home.parent.name == 'snapshots' and real.parent == blobs
  if real.parent != home and not is_cache:
    raise ValueError(
      f'{path}: a link to {real}, outside of the folder; copy or move the file '
      'into it'
    )


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
    with files.replacing(folder / file) as part:
      # safetensors replaces the file by one that only its owner may read. The
      # mode of a new file follows the umask.
      part.touch()
      mode = os.stat(part).st_mode
      safetensors.numpy.save_file(arrays, part, metadata=metadata)
      os.chmod(part, stat.S_IMODE(mode))
    weight_map |= dict.fromkeys(names, file)
  if len(set(weight_map.values())) > 1:
    # transformers finds the file of each tensor in this map.
    index = {
      'metadata': {'total_size': sum(sizes.values())},
      'weight_map': weight_map,
    }
    files.write_atomically(folder / INDEX, json.dumps(index, indent=2) + '\n')
