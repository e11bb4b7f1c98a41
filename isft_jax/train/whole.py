"""Whether a checkpoint is whole: the files it was finished with, and no less.

Orbax moves a checkpoint into its place when all of it is written. What a disk
or a person does to its files later, it only notices where it reads them, if at
all: some that are missing it takes for zeros.
"""

import json
from collections.abc import Iterator

from etils import epath

SEAL = 'files.json'


def seal(folder: epath.Path) -> None:
  """Writes down the bytes of every file of a checkpoint that is all there."""
  (folder / SEAL).write_text(json.dumps(_sizes(folder), indent=1) + '\n')


def is_sealed(folder: epath.Path) -> bool:
  """Returns whether it can be told of a checkpoint that it is whole."""
  return (folder / SEAL).exists()


def damage(folder: epath.Path) -> str:
  """Returns what is missing of a checkpoint; '' if nothing is.

  Its files must have their sizes: what they hold is not read. Of a checkpoint
  without a seal nothing can be told.
  """
  path = folder / SEAL
  if not is_sealed(folder):
    return ''
  try:
    expected = json.loads(path.read_text())
  except ValueError:
    return f'{path} is damaged'
  found = _sizes(folder)
  for name, size in expected.items():
    if name not in found:
      return f'{folder / name} is missing'
    if found[name] < size:
      return f'{folder / name} has {found[name]:,} of {size:,} bytes'
  return ''


def _sizes(folder: epath.Path) -> dict[str, int]:
  """Returns the bytes of the files in the folders of a checkpoint's items."""
  items = (path for path in folder.iterdir() if path.is_dir())
  return {
    str(path.relative_to(folder)): path.stat().length
    for item in items
    for path in sorted(_files(item))
  }


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    else:
      yield path
