"""Refuses a workdir that is a folder of records or of trajectories."""

import os
import pathlib
from collections.abc import Iterable

from isft_jax.data.files import rows

# What a run that failed before its first step leaves in its workdir.
_OWN = ('plans.json', 'rendering.json', 'metrics.jsonl', 'tokenizer')


def check(workdir: os.PathLike | str, folders: Iterable[str]) -> None:
  """Checks that a run does not write among records or trajectories.

  isft-prepare skips the folders of runs. It would skip trajectories in them.

  Args:
    workdir: folder of the run.
    folders: of the records, with those that are held out.

  Raises:
    ValueError: the workdir is a folder of records or inside of one, or it is a
      folder of trajectories and of no run.
  """
  place = os.fspath(workdir)
  if '://' in place:
    return
  path = pathlib.Path(place).resolve()
  for folder in folders:
    records = pathlib.Path(folder).resolve()
    if records in (path, *path.parents):
      where = 'is' if records == path else 'lies in'
      raise ValueError(
        f'{place} {where} the folder of the records {folder}; name another '
        '--workdir'
      )
  # A run that is there already was checked when it began.
  if not path.is_dir() or any(
    (path / name).exists() for name in ('config.json', 'checkpoints')
  ):
    return
  try:
    names = [os.path.relpath(file, path) for file in rows.files(str(path))]
  except ValueError:
    return  # no file that isft-prepare would read
  theirs = [n for n in names if pathlib.Path(n).parts[0] not in _OWN]
  if theirs:
    raise ValueError(
      f'{place} has files that isft-prepare reads, such as {theirs[0]}; name '
      'another --workdir, because it skips the folders of runs'
    )
