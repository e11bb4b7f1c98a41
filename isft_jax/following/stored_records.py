"""Places of the records of increments: in the workdir, also in a bucket.

Records are written and read on local disks only. Those of a workdir in a bucket
are in a cache of the user, and copied to the bucket. On another machine they
are copied back.
"""

import hashlib
import os
import pathlib
import shutil

from etils import epath

from isft_jax.data.preparation.prepare import REPORT


class StoredRecords:
  """The folders of records, by number of the increment."""

  def __init__(self, workdir: epath.Path) -> None:
    self._remote = workdir / 'records'
    self._is_remote = '://' in str(workdir)
    self._local = self._remote
    if self._is_remote:
      # A stable place: the config of a run names its records.
      cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
      name = hashlib.sha256(str(workdir).encode()).hexdigest()[:16]
      self._local = epath.Path(pathlib.Path(cache, 'isft_jax', 'follow', name))

  def folder(self, number: int) -> epath.Path:
    """Returns the local folder of the records of an increment."""
    return self._local / f'{number:04d}'

  def fetch(self, number: int) -> None:
    """Copies records from a bucket, if they are complete there and not here."""
    remote, local = self._remote / f'{number:04d}', self.folder(number)
    if not self._is_remote or (local / REPORT).exists():
      return
    if (remote / REPORT).exists():
      if local.exists():
        shutil.rmtree(local)
      _copy(remote, local)

  def push(self, number: int) -> None:
    """Copies records to a bucket, unless they are complete there."""
    remote, local = self._remote / f'{number:04d}', self.folder(number)
    if self._is_remote and not (remote / REPORT).exists():
      _copy(local, remote)


def _copy(source: epath.Path, target: epath.Path) -> None:
  """Copies a folder; its report is the last file, and tells it is complete."""
  target.mkdir(parents=True, exist_ok=True)
  for path in sorted(source.iterdir(), key=lambda path: path.name == REPORT):
    if path.is_dir():
      _copy(path, target / path.name)
    else:
      path.copy(target / path.name, overwrite=True)
