"""Writes files whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Literal

from etils import epath


def open_bytes(path: epath.Path, mode: Literal['rb', 'wb']) -> IO[bytes]:
  """Opens a binary file; typed, unlike `epath.Path.open`."""
  return path.open(mode)


def write_atomically(path: os.PathLike | str, content: str | bytes) -> None:
  """Writes a file so that no reader and no kill ever sees half of it.

  Args:
    path: path of the file, on a disk or in a bucket (gs://...). Its folder
      must exist.
    content: text is written as UTF-8, with its line ends unchanged.
  """
  if isinstance(content, str):
    content = content.encode()
  with replacing(path) as part:
    part.write_bytes(content)


@contextlib.contextmanager
def replacing(path: os.PathLike | str) -> Iterator[epath.Path]:
  """Yields the path of a new file that takes the place of `path` at the end.

  If an exception leaves the context, `path` stays as it was and the new file
  is removed.
  """
  path = epath.Path(path)
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    yield part
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)
