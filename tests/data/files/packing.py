"""Compresses data as other programs do."""

import zipfile

import pyarrow


def zstd(data):
  sink = pyarrow.BufferOutputStream()
  with pyarrow.CompressedOutputStream(sink, 'zstd') as stream:
    stream.write(data)
  return sink.getvalue().to_pybytes()


def zip_of(path, members, compression=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return path


def zip_of_zstd(path, members):
  """Writes a zip whose members are compressed by zstd, method 93."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    for name, data in members.items():
      archive.writestr(name, zstd(data))
      info = archive.getinfo(name)
      info.compress_type = 93
      info.CRC = zipfile.crc32(data)
      info.file_size = len(data)
  return path
