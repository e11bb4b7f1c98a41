"""Rows of tables: Parquet, Arrow, and data sets of the hub, as JSON values.

A table's cells become what JSON has: dates are text, and JSON that a column
holds as text is read. What has no such form, as bytes, is an error of its row.
A field that is null is left out: a column gives all its rows the fields that
any has, and a call would be shown with arguments that nobody wrote.
"""

import datetime
import decimal
import math
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from isft_jax.data.files import strict_json

if TYPE_CHECKING:
  import pyarrow

SUFFIXES = ('.parquet', '.arrow')
_BATCH = 64  # rows that are made Python's at once
_PARQUET, _ARROW = b'PAR1', b'ARROW1'


def of_file(file: IO[bytes]) -> Iterator[tuple[int, object, str]]:
  """Yields number, value and error of each row of an opened table.

  Where the table is broken the last error stands for all that would follow.
  """
  import pyarrow  # late: most runs are text

  number = 0
  try:
    for batch in _batches(file):
      types = _types(batch.schema)
      for row in batch.to_pylist():
        number += 1
        yield (number, *_as_json(row, types))
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    said = str(error).strip().split('\n')[0]
    yield number + 1, None, f'{said}; nothing is read from there on'


def of_hub(name: str, split: str) -> Iterator[tuple[int, object, str]]:
  """Yields the same of a data set of the hub, as it is streamed.

  name: org/name, or org/name/config.

  Raises ValueError if there is no such data set, config or split, and where the
  stream breaks off.
  """
  import datasets  # late: it brings pandas

  place, config = name, None
  if name.count('/') > 1:
    org, repository, config = name.split('/', 2)
    place = f'{org}/{repository}'
  number = 0
  theirs = datasets.exceptions.DatasetsError
  try:
    rows = datasets.load_dataset(place, config, split=split, streaming=True)
    types = None
    if rows.features:
      types = _types(rows.features.arrow_schema)
      rows = rows.decode(False)  # as it is in the files
    for row in rows:
      number += 1
      yield (number, *_as_json(row, types))
  except (OSError, ValueError, RuntimeError, theirs) as error:
    said = ' '.join(str(error).split())
    after = f', after row {number}' if number else ''
    raise ValueError(f'hf://{name}, --split={split}{after}: {said}') from error


def _batches(file: IO[bytes]) -> 'Iterator[pyarrow.RecordBatch]':
  import pyarrow.ipc
  import pyarrow.parquet

  magic = file.read(len(_ARROW))
  file.seek(0)
  if magic.startswith(_PARQUET):
    return pyarrow.parquet.ParquetFile(file).iter_batches(_BATCH)
  if magic == _ARROW:
    reader = pyarrow.ipc.open_file(file)
    batches = map(reader.get_batch, range(reader.num_record_batches))
  else:  # as the datasets library writes it
    batches = iter(pyarrow.ipc.open_stream(file))
  return (
    batch.slice(start, _BATCH)
    for batch in batches
    for start in range(0, batch.num_rows, _BATCH)
  )


def _types(schema: 'pyarrow.Schema') -> 'pyarrow.StructType':
  """Returns the type of a row."""
  import pyarrow

  return pyarrow.struct([*schema])


def _as_json(value: object, type: 'pyarrow.DataType') -> tuple[object, str]:
  """Returns a row as JSON values, and why it has no such form."""
  try:
    return _plain(value, type), ''
  except (TypeError, ValueError) as error:
    return None, str(error)


def _plain(value: object, type: 'pyarrow.DataType | None') -> object:
  """type: Arrow's, if it is known."""
  if isinstance(value, str):
    is_json = getattr(type, 'extension_name', '') == 'arrow.json'
    return strict_json.parse(value) if is_json else value
  if value is None or isinstance(value, (bool, int)):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, dict):
    fields = ((k, _plain(v, _field(type, k))) for k, v in value.items())
    return {key: child for key, child in fields if child is not None}
  if isinstance(value, (list, tuple)):
    item = getattr(type, 'value_type', None)
    return [_plain(child, item) for child in value]
  if isinstance(value, (datetime.date, datetime.time)):
    return value.isoformat()
  if isinstance(value, (decimal.Decimal, datetime.timedelta)):
    return str(value)
  raise TypeError(
    f'a cell of type {value.__class__.__name__} is no text or number'
  )


def _field(
  type: 'pyarrow.DataType | None', name: str
) -> 'pyarrow.DataType | None':
  """Returns the type of a struct's field, if it is known."""
  names = getattr(type, 'names', ())
  return type.field(name).type if type is not None and name in names else None
