"""Reads rows of Parquet, Arrow and Hugging Face data sets as JSON values.

Dates become text, and columns of type arrow.json are parsed. A cell without a
JSON form, such as bytes, becomes `strict_json.NoJson`: it spoils its row only
if a message holds it. Fields that are null are left out: a column of structs
gives every row the fields of all rows, so that a tool call would otherwise get
arguments that nobody wrote.
"""

import datetime
import decimal
import itertools
import math
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from isft_jax.data.files import strict_json

if TYPE_CHECKING:
  import pyarrow

SUFFIXES = ('.parquet', '.arrow')
_BATCH = 64  # rows that are converted to Python values at a time
# A column that is larger when it is decompressed, and by a larger
# factor than text ever is, is made to fill the memory.
_LARGEST_COLUMN = 1 << 28  # bytes
_MOST_PACKED = 200
# First bytes of the two kinds of files.
_PARQUET, _ARROW = b'PAR1', b'ARROW1'


def read_file(file: IO[bytes]) -> Iterator[tuple[int, object, str]]:
  """Reads a Parquet or Arrow file.

  Args:
    file: the opened file.

  Yields:
    (number, value, error) of each row. If the file is damaged, the last row has
    the error, and the rest is not read.
  """
  import pyarrow  # a slow import that text files do not need

  # Rows before a damage are kept.
  number = 0
  try:
    for batch in _batches(file):
      types = _types(batch.schema)
      for row in batch.to_pylist():
        number += 1
        yield (number, *_as_json(row, types))
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    message = str(error).strip().split('\n')[0]
    yield number + 1, None, f'{message}; the rest of the file is not read'


def read_hub(name: str, split: str) -> Iterator[tuple[int, object, str]]:
  """Streams a data set of the Hugging Face hub.

  Args:
    name: org/name, or org/name/config.
    split: its split.

  Yields:
    (number, value, error) of each row.

  Raises:
    ValueError: the data set, config or split does not exist, or the connection
      breaks.
  """
  import datasets  # a slow import: it brings pandas

  # The hub's names have one slash. Anything after the second is a config.
  place, config = name, None
  if name.count('/') > 1:
    org, repository, config = name.split('/', 2)
    place = f'{org}/{repository}'
  number = 0
  hub_error = datasets.exceptions.DatasetsError
  try:
    rows = datasets.load_dataset(place, config, split=split, streaming=True)
    types = None
    if rows.features:
      types = _types(rows.features.arrow_schema)
      rows = rows.decode(False)  # no decoding of images and audio
    for row in rows:
      number += 1
      yield (number, *_as_json(row, types))
  except (OSError, ValueError, RuntimeError, hub_error) as error:
    message = ' '.join(str(error).split())
    after = f', after row {number}' if number else ''
    raise ValueError(
      f'hf://{name}, --split={split}{after}: {message}'
    ) from error


def _batches(file: IO[bytes]) -> 'Iterator[pyarrow.RecordBatch]':
  """Yields batches of at most `_BATCH` rows, for any kind of file."""
  import pyarrow.ipc
  import pyarrow.parquet

  # The suffix does not decide: both kinds of Arrow end in .arrow.
  magic = file.read(len(_ARROW))
  file.seek(0)
  if magic.startswith(_PARQUET):
    table = pyarrow.parquet.ParquetFile(file)
    _check_sizes(table.metadata)
    return table.iter_batches(_BATCH)
  if magic == _ARROW:
    reader = pyarrow.ipc.open_file(file)
    batches = map(reader.get_batch, range(reader.num_record_batches))
  else:  # Arrow's stream format, which the datasets library writes
    batches = iter(pyarrow.ipc.open_stream(file))
  return itertools.chain.from_iterable(map(_sliced, batches))


def _check_sizes(metadata: 'pyarrow.parquet.FileMetaData') -> None:
  """Raises OSError if a column would fill the memory when it is read."""
  # A small file may decompress to more than the memory holds.
  for group in range(metadata.num_row_groups):
    columns = metadata.row_group(group)
    for number in range(columns.num_columns):
      column = columns.column(number)
      size, packed = (
        column.total_uncompressed_size,
        column.total_compressed_size,
      )
      if size > _LARGEST_COLUMN and size > _MOST_PACKED * packed:
        raise OSError(
          f'column {column.path_in_schema} has {packed:,} bytes that would be '
          f'{size:,} when they are decompressed'
        )


def _sliced(batch: 'pyarrow.RecordBatch') -> 'Iterator[pyarrow.RecordBatch]':
  # Damaged offsets or indices would end the process with SIGSEGV.
  batch.validate(full=True)
  for start in range(0, batch.num_rows, _BATCH):
    yield batch.slice(start, _BATCH)


def _types(schema: 'pyarrow.Schema') -> 'pyarrow.StructType':
  """Returns the type of a row as a struct of its columns."""
  import pyarrow

  return pyarrow.struct([*schema])


def _as_json(value: object, type: 'pyarrow.DataType') -> tuple[object, str]:
  """Returns (value, '') for a row, or (None, error)."""
  try:
    return _plain(value, type), ''
  except ValueError as error:  # JSON with an error, in a column of JSON
    return None, str(error)


def _plain(value: object, type: 'pyarrow.DataType | None') -> object:
  """Returns a cell as a JSON value; `type` is its Arrow type, if known."""
  if isinstance(value, str):
    is_json = getattr(type, 'extension_name', '') == 'arrow.json'
    return strict_json.parse(value, lenient=True) if is_json else value
  if value is None or isinstance(value, (bool, int)):
    return value
  # JSON has neither NaN nor infinity.
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  # A struct: nulls are left out, at any depth.
  if isinstance(value, dict):
    fields = ((k, _plain(v, _field(type, k))) for k, v in value.items())
    return {key: child for key, child in fields if child is not None}
  if isinstance(value, (list, tuple)):
    item = getattr(type, 'value_type', None)
    return [_plain(child, item) for child in value]
  # Dates, times and decimals become text, because JSON has no such types.
  if isinstance(value, (datetime.date, datetime.time)):
    return value.isoformat()
  if isinstance(value, (decimal.Decimal, datetime.timedelta)):
    return str(value)
  return strict_json.NoJson(f'a cell of type {value.__class__.__name__}')


def _field(
  type: 'pyarrow.DataType | None', name: str
) -> 'pyarrow.DataType | None':
  """Returns the type of a struct's field, if it is known."""
  names = getattr(type, 'names', ())
  return type.field(name).type if type is not None and name in names else None
