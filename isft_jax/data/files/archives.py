"""Opens compressed files and the members of zip archives as streams.

    runs.jsonl.gz, runs.jsonl.zst    one compressed file
    runs.zip/day_1/a.jsonl           a member of runs.zip

A place is the path of a file or of a member, local or remote. Everything is
decompressed while it is read, so that memory does not depend on its size.
"""

import copy
import errno
import functools
import gzip
import hashlib
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, NoReturn, TextIO

from etils import epath

from isft_jax.files import open_bytes

if TYPE_CHECKING:
  from _typeshed import WriteableBuffer

ZIP = '.zip'
# Suffix -> name of the compression.
COMPRESSIONS = {'.gz': 'gzip', '.zst': 'zstd'}
_CHUNK = 1 << 16  # bytes per read
_ZSTD = 93  # the number of zstd in zip archives; Python 3.14 knows it
_MEMBER = re.compile(r'(?i)\.(zip|eval)(?=/)')
# What decompressors raise for damaged data. OSError may mean something else.
_FAULTS = (
  *(EOFError, OSError, ValueError, OverflowError, struct.error, zlib.error),
  *(lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError),
)


class Damaged(Exception):
  """Raised while a damaged archive is read. The message is one line."""


def bare(name: str) -> str:
  """Returns a file name without the suffix of its compression."""
  root, suffix = os.path.splitext(name)
  return root if suffix.lower() in COMPRESSIONS else name


def open_place(place: str) -> IO[bytes]:
  """Opens a file or a member of a zip archive, and decompresses it.

  Args:
    place: its place.

  Returns:
    A stream. Reading it raises `Damaged` if the data is damaged.

  Raises:
    Damaged: the archive is damaged, or it has no such member.
    OSError: the file cannot be opened.
  """
  archive, member = split(place)
  if member:
    stream = _open_member(archive, member)
  else:
    stream = open_bytes(epath.Path(place), 'rb')
  compression = COMPRESSIONS.get(os.path.splitext(place)[1].lower())
  return _decompressed(stream, compression) if compression else stream


def open_text(place: str, newline: str = '\n') -> TextIO:
  """Opens UTF-8 text; see `open_place`.

  Args:
    place: place of the file.
    newline: as for `open`.
  """
  # A byte that is not UTF-8 must not end the file. `strict_json` reports it.
  return io.TextIOWrapper(
    open_place(place),
    encoding='utf-8-sig',
    errors='surrogateescape',
    newline=newline,
  )


def split(place: str) -> tuple[str, str]:
  """Splits the place of a member into archive and name; the name may be ''."""
  for match in _MEMBER.finditer(place):
    archive = place[: match.end()]
    # A folder may be called runs.zip, too.
    if epath.Path(archive).is_file():
      return archive, place[match.end() + 1 :]
  return place, ''


def members(archive: str) -> list[zipfile.ZipInfo]:
  """Returns the members of a zip archive in its order, without folders.

  Args:
    archive: path of the archive.

  Raises:
    Damaged: the archive is damaged.
    OSError: the file cannot be opened.
  """
  try:
    opened = _archive(archive)
  except _FAULTS as error:
    _reraise('the zip archive is damaged', error)
  # The last member of a name replaces the others.
  return [
    info
    for info in opened.infolist()
    if not info.is_dir() and opened.NameToInfo[info.filename] is info
  ]


def has(place: str) -> bool:
  """Returns whether a place is that of a member of an archive."""
  archive, member = split(place)
  try:
    return bool(member) and member in {i.filename for i in members(archive)}
  except (Damaged, OSError):
    return False


def size(place: str) -> int:
  """Returns the bytes of a file, or of a member when it is decompressed."""
  archive, member = split(place)
  if member:
    return _archive(archive).getinfo(member).file_size
  return epath.Path(place).stat().length


def digest(place: str) -> str:
  """Returns a digest of the contents of a file or of a member.

  A member has the CRC-32 of its archive. A remote file has only the time of its
  last change, because it is slow to read.

  Args:
    place: its place.
  """
  archive, member = split(place)
  if member:
    return f'crc32:{_archive(archive).getinfo(member).CRC:08x}'
  if '://' in place:
    return f'mtime:{epath.Path(place).stat().mtime}'
  with open(place, 'rb') as file:
    return f'sha256:{hashlib.file_digest(file, "sha256").hexdigest()}'


def _open_member(archive: str, member: str) -> IO[bytes]:
  try:
    opened = _archive(archive)
    info = opened.getinfo(member)
    if info.compress_type != _ZSTD:
      return _reader(opened.open(info), 'zip')
    # Python before 3.14 cannot decompress it, but can return it as it is.
    raw = copy.copy(info)
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, info.compress_size
    del raw.CRC  # of the decompressed data, which is checked here
    return _decompressed(_reader(opened.open(raw), 'zip'), 'zstd', info.CRC)
  except KeyError:
    raise Damaged(f'the archive has no member {member!r}') from None
  except _FAULTS as error:
    _reraise('the zip archive is damaged', error)


def _archive(path: str) -> zipfile.ZipFile:
  if '://' in path:
    status = epath.Path(path).stat()
    return _opened(path, status.length, status.mtime)
  local = os.stat(path)
  return _opened(path, local.st_size, local.st_mtime_ns, local.st_ctime_ns)


# Files of one archive are read one after the other, and the list of its members
# may be long. Length and times detect an archive that was replaced.
@functools.lru_cache(maxsize=1)
def _opened(path: str, length: int, *times: float) -> zipfile.ZipFile:
  return zipfile.ZipFile(open_bytes(epath.Path(path), 'rb'))


def _decompressed(
  source: IO[bytes], compression: str, crc: int | None = None
) -> IO[bytes]:
  if compression == 'gzip':
    return _reader(gzip.GzipFile(fileobj=source), compression, source)
  import pyarrow  # a slow import; all its packages can read zstd

  stream = pyarrow.CompressedInputStream(
    pyarrow.PythonFile(source, 'r'), compression
  )
  return _reader(stream, compression, source, crc)


def _reader(
  stream: IO[bytes] | gzip.GzipFile,
  compression: str,
  source: IO[bytes] | None = None,
  crc: int | None = None,
) -> IO[bytes]:
  return io.BufferedReader(_Checked(stream, compression, source, crc), _CHUNK)


class _Checked(io.RawIOBase):
  """Reads a decompressor, and raises `Damaged` for its various errors."""

  def __init__(
    self,
    stream: IO[bytes] | gzip.GzipFile,
    compression: str,
    source: IO[bytes] | None,
    crc: int | None,
  ) -> None:
    self._stream = stream
    self._compression = compression
    self._source = source  # the compressed data, if it is to be closed, too
    self._expected = crc
    self._crc = self._done = 0  # of the bytes that were read, and their number

  def readable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._done

  def readinto(self, buffer: 'WriteableBuffer') -> int:
    view = memoryview(buffer)
    try:
      data = self._stream.read(len(view))
    except _FAULTS as error:
      self._reraise(error)
    # Checksums are compared at the end of the stream.
    if self._expected is not None:
      self._crc = zlib.crc32(data, self._crc)
      if not data and self._crc != self._expected:
        self._reraise(EOFError('wrong checksum'))
    # An empty file is no archive, but decompressors take it for one.
    if self._source and not data and not self._source.tell():
      self._reraise(EOFError('the file is empty'))
    view[: len(data)] = data
    self._done += len(data)
    return len(data)

  def close(self) -> None:
    if not self.closed:
      self._stream.close()
      if self._source:
        self._source.close()
    super().close()

  def _reraise(self, error: Exception) -> NoReturn:
    where = f'after the first {self._done:,} decompressed bytes'
    _reraise(f'the {self._compression} data is damaged {where}', error)


def _reraise(where: str, error: Exception) -> NoReturn:
  """Raises `Damaged`, or the error itself if the data is not its cause."""
  # pyarrow has no class of its own for damaged data, and positions that are out
  # of range are invalid arguments. Errors of disks and connections are other
  # subclasses of OSError, or have another number.
  if (
    isinstance(error, OSError)
    and not isinstance(error, gzip.BadGzipFile)
    and (type(error) is not OSError or error.errno not in (None, errno.EINVAL))
  ):
    raise error
  reason = ' '.join(str(error).split()) or type(error).__name__
  raise Damaged(f'{where}: {reason}') from error
