"""Detects our own output among input files: workdirs and records.

Records that an interrupted isft-prepare left count, too.

A folder of agent runs may also contain runs of isft-train, whose metrics are
JSON lines too, and records that isft-prepare made of the same trajectories.
"""

import os
from collections.abc import Iterable, Set

from etils import epath

from isft_jax.data.files import strict_json

_REPORT = 'prepare_report.json'  # isft-prepare writes it beside the records
_PART, _REJECTED = '.part', 'rejected.jsonl'  # of records that are not complete
# Keys that config.json has in each workdir, and in no model folder.
_KEYS = {'seed', 'model', 'mesh'}
_LARGEST = 1 << 20  # bytes of a config.json that is read


def folders(files: Iterable[os.PathLike]) -> set[str]:
  """Returns the folders of files that are workdirs or records of ours.

  Args:
    files: paths of files, of which a config.json may be read.
  """
  found = set()
  for path in map(os.fspath, files):
    folder, name = os.path.split(path)
    is_part = name == _REJECTED and folder.endswith(_PART)
    if name == _REPORT or is_part or (name == 'config.json' and _is_ours(path)):
      found.add(folder)
  return found


def is_below(path: os.PathLike, above: Set[str]) -> bool:
  """Returns whether a file is in one of some folders, at any depth."""
  folder = os.path.dirname(os.fspath(path))
  while above and folder not in above:
    parent = os.path.dirname(folder)
    if parent == folder:
      return False
    folder = parent
  return bool(above)


def _is_ours(config: str) -> bool:
  """Returns whether a config.json has the settings of one of our runs."""
  path = epath.Path(config)
  try:
    if path.stat().length > _LARGEST:
      return False
    content = strict_json.parse(path.read_text())
  except (OSError, ValueError):
    return False
  return isinstance(content, dict) and content.keys() >= _KEYS
