"""Writes shards, the files of records, and assembles them to a data set.

    bytes of records --Shard--> shard + its section of the index
    all shards --assemble--> metadata, index, checksums: a data set

The bytes of a record depend only on its example, and the bytes of a shard only
on its records. The files are therefore the same for any number of processes or
machines.
"""

import functools
import json
import os
import tempfile
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core.utils.lazy_imports_utils import (
  array_record_module,
)

from isft_jax import files
from isft_jax.data.records import index as index_lib
from isft_jax.data.records import shard_reader
from isft_jax.types import Example

SPLITS = ('train', 'heldout')
CHECKSUMS = 'checksums.json'
FEATURES = 'features.json'
INDEX = 'index-{split}.npz'
# The names that TFDS gives to files, without the number of shards, which is not
# known while a shard is written.
_NAME = 'trajectories-{split}.array_record-{number:05d}'
_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}'
# Entry of `rendering` in the metadata -> its types; see `Renderer.rendering`.
_RENDERING: dict[str, Any] = {
  'template': (str, dict),
  'values': (dict, types.NoneType),
  'special_text': str,
  'piecewise': bool,
  'call_id_digits': int,
}
_BATCH = 256  # records per read

tfds.disable_progress_bar()


def _int_array(dtype: type[np.integer]) -> 'tfds.features.Tensor':
  # Raw bytes are read 7 times as fast as a list of integers in a tf.Example.
  return tfds.features.Tensor(
    shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
  )


class Trajectories(tfds.core.GeneratorBasedBuilder):
  """The TFDS schema of records.

  A change of the schema needs another version. The last number of the version
  counts how often a data set was extended.
  """

  VERSION = tfds.core.Version('1.0.0')

  def __init__(
    self,
    *,
    metadata: Mapping[str, Any] | None = None,
    version: str = '',
    **kwargs: Any,
  ) -> None:
    self._metadata = metadata
    if version:
      self.VERSION = tfds.core.Version(version)
    super().__init__(file_format='array_record', **kwargs)

  def _info(self) -> 'tfds.core.DatasetInfo':
    return tfds.core.DatasetInfo(
      builder=self,
      description='Agent trajectories as tokens with their authors.',
      features=tfds.features.FeaturesDict(
        {
          'tokens': _int_array(np.int32),
          'provenance': _int_array(np.uint8),
          'segment': _int_array(np.int32),
          'verdict': _int_array(np.uint8),
          'scored_from': np.int32,
          'window': np.int32,
          'id': tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(self._metadata or {}),
      disable_shuffling=True,  # records keep the order of writing
    )

  def _split_generators(
    self, dl_manager: 'tfds.download.DownloadManager'
  ) -> NoReturn:
    raise NotImplementedError('shards are written by `Shard`')

  def _generate_examples(self) -> NoReturn:
    raise NotImplementedError('shards are written by `Shard`')


@functools.cache
def _known_features() -> object:
  """Returns the JSON value of features.json, which all records share."""
  with tempfile.TemporaryDirectory() as folder:
    Trajectories(data_dir=folder).info.features.save_config(folder)
    return json.loads((epath.Path(folder) / FEATURES).read_text())


def open_folder(path: epath.Path) -> 'tfds.core.DatasetBuilder':
  """Opens a data set without trusting the names in its files.

  TFDS imports the modules that features.json names, and reads the paths in
  dataset_info.json. Records may come from anywhere, so both are compared with
  what this package writes.

  Args:
    path: the folder of the files.

  Raises:
    ValueError: the data set is damaged, or is no data set of this package.
  """
  try:
    is_known = json.loads((path / FEATURES).read_text()) == _known_features()
  except (OSError, ValueError, RecursionError):
    is_known = False
  if not is_known:
    raise ValueError(
      f'{path / FEATURES}: not the schema of records; prepare them again'
    )
  try:
    builder = tfds.builder_from_directory(path)
    paths = {
      split_name: [os.fspath(file) for file in split.filepaths]
      for split_name, split in builder.info.splits.items()
    }
  except Exception as error:  # TFDS raises many kinds for damaged files
    raise ValueError(
      f'{path}: cannot be opened ({type(error).__name__}); prepare the records '
      'again'
    ) from error
  _check_metadata(builder, path)
  for split, files_ in paths.items():
    # The builder's own path of the folder, which may be absolute.
    folder = epath.Path(builder.data_path)
    own = [os.fspath(folder / name(split, i)) for i in range(len(files_))]
    if split not in SPLITS or files_ != own:
      raise ValueError(
        f'{path / "dataset_info.json"}: names other files than the shards in '
        'this folder; prepare the records again'
      )
  return builder


def reader(
  builder: 'tfds.core.DatasetBuilder', split: str
) -> shard_reader.ShardReader:
  """Returns a reader of the records of a split, as bytes."""
  info = builder.info.splits[split]
  return shard_reader.ShardReader(
    [os.fspath(path) for path in info.filepaths], info.shard_lengths
  )


def _check_metadata(
  builder: 'tfds.core.DatasetBuilder', path: epath.Path
) -> None:
  """Checks the types of the metadata of records.

  Raises:
    ValueError: the file is damaged, or of something else than records.
  """
  try:
    metadata = dict(builder.info.metadata)  # TFDS reads the file now
    rendering = metadata.get('rendering', {})
    # Records of older versions lack some of the entries.
    is_known = (
      isinstance(rendering, dict)
      and isinstance(metadata.get('fingerprint', ''), str)
      and all(
        isinstance(rendering[name], kinds)
        for name, kinds in _RENDERING.items()
        if name in rendering
      )
    )
  except (OSError, ValueError, TypeError, RecursionError):
    is_known = False
  if not is_known:
    raise ValueError(
      f'{path / "metadata.json"}: not the metadata of records; prepare them '
      'again'
    )


class Info(NamedTuple):
  """Description of a finished shard."""

  split: str
  number: int  # within its split, from 0
  records: int  # number of records
  bytes: int  # of all records, without the framing of the file
  sha256: str  # of the file


class Codec:
  """Converts examples to the bytes of records, and back."""

  def __init__(self) -> None:
    # A TFDS builder needs a folder, even if only its schema is used.
    with tempfile.TemporaryDirectory() as nowhere:
      self._features = Trajectories(data_dir=nowhere).info.features
    self._serializer = example_serializer.ExampleSerializer(
      self._features.get_serialized_info()
    )

  def write(self, example: Example) -> bytes:
    """Returns an example as bytes, which are the same in every process."""
    record = self._features.encode_example(
      {
        'tokens': example.tokens_T,
        'provenance': example.provenance_T,
        'segment': example.segment_T,
        'verdict': example.verdict_T,
        'scored_from': example.scored_from,
        'window': example.window,
        'id': example.id,
      }
    )
    # The fields of a protocol buffer's map have no fixed order by default.
    return self._serializer.get_tf_example(record).SerializeToString(
      deterministic=True
    )

  def read(self, record: bytes) -> dict[str, Any]:
    """Returns the fields of a record."""
    return self._features.deserialize_example_np(record)


class Shard:
  """Writes one file of records."""

  def __init__(self, folder: epath.Path, split: str, number: int) -> None:
    self._path = folder / _NAME.format(split=split, number=number)
    self._split, self._number = split, number
    self._records = self._bytes = 0
    # ArrayRecord writes only local files. A remote one is written locally first
    # and copied in `close`.
    self._scratch = None
    local = os.fspath(self._path)
    if '://' in local:
      self._scratch = tempfile.TemporaryDirectory()
      local = os.path.join(self._scratch.name, self._path.name)
    self._local = epath.Path(local)
    self._writer = array_record_module.ArrayRecordWriter(local, 'group_size:1')

  def add(self, record: bytes) -> None:
    """Appends a record."""
    self._writer.write(record)
    self._records += 1
    self._bytes += len(record)

  def close(self, codec: Codec) -> Info:
    """Finishes the file and writes its section of the index beside it.

    Args:
      codec: decodes the records, for the index.

    Returns:
      The description of the shard.
    """
    self._writer.close()
    part = index_lib.from_records(
      map(codec.read, read(self._local)), self._records
    )
    index_lib.save(index_section(self._path), part)
    # The checksum of the local file shows whether the copy is correct.
    digest = files.sha256(self._local)
    if self._scratch:
      # Beam may run a step twice; the second copy replaces the first.
      self._local.copy(self._path, overwrite=True)
      self._scratch.cleanup()
    return Info(self._split, self._number, self._records, self._bytes, digest)


def read(path: epath.Path) -> Iterable[bytes]:
  """Yields the records of a local or remote shard."""
  # ArrayRecord reads only local files.
  if '://' in os.fspath(path):
    with tempfile.TemporaryDirectory() as scratch:
      yield from read(path.copy(os.path.join(scratch, path.name)))
    return
  reader = array_record_module.ArrayRecordReader(os.fspath(path))
  try:
    # A batch at a time, so that memory is bounded.
    for start in range(0, reader.num_records(), _BATCH):
      stop = min(start + _BATCH, reader.num_records())
      yield from reader.read(start, stop)
  finally:
    reader.close()


def checksums(folder: epath.Path) -> dict[str, str] | None:
  """Returns the checksum of each file of a data set.

  Args:
    folder: the folder of the files.

  Returns:
    {file name: SHA-256}, or None if the list is missing or damaged.
  """
  try:
    sums = json.loads((folder / CHECKSUMS).read_text())
  except (OSError, ValueError, RecursionError):
    return None
  # A damaged file may still be JSON. Every data set has files.
  return sums if sums and isinstance(sums, dict) else None


def index_section(path: epath.Path) -> epath.Path:
  """Returns the path of a shard's section of the index."""
  return path.parent / f'{path.name}.npz'


def name(split: str, number: int) -> str:
  """Returns the name of a shard's file."""
  return _NAME.format(split=split, number=number)


def is_shard(file_name: str, split: str) -> bool:
  """Returns whether a file is a shard of a split, by its name."""
  return file_name.startswith(_NAME.partition('{number')[0].format(split=split))


def assemble(
  builder: Trajectories,
  folder: epath.Path,
  infos: Sequence[Info],
  bases: Mapping[str, epath.Path] | None = None,
) -> None:
  """Makes a data set from the shards in a folder.

  Args:
    builder: the TFDS builder of the folder.
    folder: the folder of the shards and their sections of the index.
    infos: the shards. Gaps between their numbers are closed.
    bases: for each split of an extended data set, the index of its old shards,
      which have no sections in the folder.
  """
  sums, splits = {}, []
  for split in SPLITS:
    # Shards of the split, sorted by number.
    own = sorted(info for info in infos if info.split == split)
    if not own:
      # Without held-out rows there is only one split.
      continue  # TFDS has no empty splits

    # Number the shards without gaps: no record may have a key in some shard.
    base = (bases or {}).get(split)
    parts = [base] if base else []
    for number, info in enumerate(own):
      path = folder / name(split, number)
      if number != info.number:
        old_path = folder / name(split, info.number)
        index_section(old_path).rename(index_section(path))
        old_path.rename(path)
      sums[path.name] = info.sha256
      if index_section(path).exists():
        parts.append(index_section(path))

    # Join the index, and delete its sections except that of the old data set.
    index = folder / INDEX.format(split=split)
    index_lib.join(index, parts)
    for part in parts[bool(base) :]:
      part.unlink()

    # Describe the split to TFDS.
    template = tfds.core.ShardedFileTemplate(
      dataset_name=builder.name,
      data_dir=folder,
      split=split,
      filetype_suffix='array_record',
      template=_TEMPLATE,
    )
    splits.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[info.records for info in own],
        num_bytes=sum(info.bytes for info in own),
        filename_template=template,
      )
    )
  builder.info.set_splits(tfds.core.splits.SplitDict(splits))
  builder.info.write_to_directory(folder)

  # Checksums of the shards are known; add those of all other files.
  others = sorted(p for p in folder.iterdir() if p.name not in sums)
  sums |= {path.name: files.sha256(path) for path in others}
  text = json.dumps(dict(sorted(sums.items())), indent=2)
  (folder / CHECKSUMS).write_text(text + '\n')
