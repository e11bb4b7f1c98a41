"""Rows of tables: Parquet, Arrow, and data sets of the hub, as JSON values.

A table's cells become what JSON has: dates are text, a number that is none is
null. What has no such form, as bytes, is an error of its row.
"""

import datetime
import decimal
import itertools
import math
from collections.abc import Iterator
from typing import BinaryIO

SUFFIXES = ('.parquet', '.arrow')
_BATCH = 64  # rows that are made Python's at once
_PARQUET, _ARROW = b'PAR1', b'ARROW1'


def of_file(file: BinaryIO) -> Iterator[tuple[int, object, str]]:
  """Yields number, value and error of each row of an opened table.

  Where the table is broken the last error stands for all that would follow.
  """
  import pyarrow  # late: most runs are text

  number = 0
  try:
    for batch in _batches(file):
      for row in batch.to_pylist():
        number += 1
        yield (number, *_as_json(row))
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    said = str(error).strip().split('\n')[0]
    yield number + 1, None, f'{said}; nothing is read from there on'


def of_hub(name: str, split: str) -> Iterator[tuple[int, object, str]]:
  """Yields the same of a data set of the hub, as it is streamed.

  name: org/name, or org/name/config.

  Raises ValueError if there is no such data set, config or split.
  """
  import datasets  # late: it brings pandas

  place, config = name, None
  if name.count('/') > 1:
    org, repository, config = name.split('/', 2)
    place = f'{org}/{repository}'
  try:
    rows = iter(
      datasets.load_dataset(place, config, split=split, streaming=True)
    )
    first = list(itertools.islice(rows, 1))
  except (OSError, ValueError, RuntimeError) as error:
    said = ' '.join(str(error).split())
    raise ValueError(f'hf://{name}, --split={split}: {said}') from error
  for number, row in enumerate(itertools.chain(first, rows), 1):
    yield (number, *_as_json(row))


def _batches(file: BinaryIO):
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


def _as_json(value: object) -> tuple[object, str]:
  """Returns a row as JSON values, and why it has no such form."""
  try:
    return _plain(value), ''
  except TypeError as error:
    return None, str(error)


def _plain(value: object) -> object:
  if value is None or isinstance(value, (str, bool, int)):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, dict):
    return {key: _plain(child) for key, child in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(child) for child in value]
  if isinstance(value, (datetime.date, datetime.time)):
    return value.isoformat()
  if isinstance(value, (decimal.Decimal, datetime.timedelta)):
    return str(value)
  raise TypeError(f'a cell of type {type(value).__name__} is no text or number')
