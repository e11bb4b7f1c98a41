"""Digest of a model's weights, from the files that hold them."""

import functools
import hashlib
import pathlib

from etils import epath

from isft_jax import files, places
from isft_jax.hf import tensor_files


def digest(place: str) -> str:
  """Returns the SHA-256 of the files with a model's weights.

  Args:
    place: a folder, a GGUF file, a hub id or a preset.

  Returns:
    The SHA-256 of the file. If there are several files, it is that of the lines
    that sha256sum prints for them, 'SHA-256  NAME', sorted by name.

  Raises:
    ValueError: no model is there.
  """
  if places.is_gguf(place):
    return _of_file(places.gguf_path(place))
  weights = tensor_files.weight_files(tensor_files.fetch(place))
  if len(weights) == 1:
    return _of_file(weights[0])
  lines = [f'{_of_file(path)}  {path.name}\n' for path in weights]
  return hashlib.sha256(''.join(lines).encode()).hexdigest()


def _of_file(path: pathlib.Path) -> str:
  status = path.stat()
  return _read(str(path), status.st_size, status.st_mtime_ns)


# The arms of an experiment share a base. A changed file is read again.
@functools.lru_cache(maxsize=64)
def _read(path: str, size: int, changed: int) -> str:
  del size, changed  # part of the key
  return files.sha256(epath.Path(path))
