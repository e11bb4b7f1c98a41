"""Verifies every file and every record of a data set.

Everything that can be computed again is compared: checksums of files, fields
of records, the index, the tokenizer's fingerprint, and the sums in the report.
"""

import tempfile
from collections.abc import Callable, Iterator, Set
from typing import Any

import numpy as np
from etils import epath

from isft_jax import files
from isft_jax.data.preparation import prepare
from isft_jax.data.records import dataset, shards
from isft_jax.data.records import index as index_lib
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.types import Provenance, Verdict

# Number of valid codes of each field.
_CODES = {'provenance': len(Provenance), 'verdict': len(Verdict)}


def damages(
  folder: str, progress: Callable[[str], None] = lambda name: None
) -> Iterator[str]:
  """Verifies a data set.

  Args:
    folder: a data set made by isft-prepare.
    progress: called with the name of each file before it is read.

  Yields:
    One line for each damage; nothing if the data set is intact.

  Raises:
    ValueError: the folder has no records.
  """
  # 1. Checksums: each listed file is there and unchanged, and no other is.
  path = dataset.find_version(folder)
  sums = shards.checksums(path)
  if sums is None:
    yield f'{path / shards.CHECKSUMS}: missing or not JSON'
    sums = {}
  broken = set()  # names of files that need no further message
  # Files that are missing or changed are reported once, here.
  for name in sorted(sums):
    file = path / name
    progress(name)
    if not file.exists():
      broken.add(name)
      yield f'{file}: missing'
    elif files.sha256(file) != sums[name]:
      broken.add(name)
      yield f'{file}: its bytes have changed'
  for file in sorted(path.iterdir()):
    if sums and file.name not in sums and file.name != shards.CHECKSUMS:
      yield f'{file}: does not belong to the data set'

  # 2. Records and index, shard by shard.
  try:
    info = shards.open_folder(path).info
    splits = dict(info.splits.items())
  except ValueError as error:
    yield str(error)
    return
  counts = {}
  for split, split_info in splits.items():
    lengths = split_info.shard_lengths
    counts[split] = sum(lengths)
    yield from _split_damages(path, split, lengths, broken, progress)

  # 3. Tokenizer and report.
  yield from _report_damages(epath.Path(folder), counts, dict(info.metadata))


def _split_damages(
  path: epath.Path,
  split: str,
  lengths: list[int],
  broken: Set[str],
  progress: Callable[[str], None],
) -> Iterator[str]:
  """Yields the damages of the records and of the index of one split."""
  # Without an index, the records are verified all the same.
  codec = shards.Codec()
  name = shards.INDEX.format(split=split)
  try:
    index = index_lib.read(path / name, sum(lengths))
  except ValueError as error:
    index = None
    if name not in broken:
      yield str(error)
  # Number of the first record of a shard, counted over the split.
  first = trajectories = 0
  for number, length in enumerate(lengths):
    shard = path / shards.name(split, number)
    slice_, first = slice(first, first + length), first + length
    # Its wrong checksum has been reported.
    if shard.name in broken:
      continue
    progress(shard.name)
    # Records: their number, and the values of their fields.
    try:
      records = [*map(codec.read, shards.read(shard))]
    except Exception as error:  # raised by C++, or by protocol buffers
      yield f'{shard}: cannot be read ({type(error).__name__})'
      continue
    if len(records) != length:
      yield f'{shard}: {len(records)} records, expected {length}'
      continue
    errors = [(i, e) for i, r in enumerate(records) if (e := _record_error(r))]
    for i, message in errors:
      yield f'{shard}: record {i}: {message}'
    if errors or index is None:
      continue
    # Index: computed again from the records. Numbers of trajectories continue
    # from the shard before.
    expected = index_lib.from_records(records, length)
    if slice_.start:
      trajectories = index.trajectory_N[slice_.start - 1]
    expected.trajectory_N[:] += trajectories
    for field, array in expected._asdict().items():
      if not np.array_equal(array, getattr(index, field)[slice_]):
        yield f'{path / name}: {field} does not match {shard.name}'


def _record_error(record: dict) -> str:
  """Returns an error in the fields of a record, or ''."""
  length = len(record['tokens'])
  for name in ('provenance', 'segment', 'verdict'):
    if len(record[name]) != length:
      return f'{length} tokens, but {len(record[name])} values of {name}'
  for name, codes in _CODES.items():
    if length and record[name].max() >= codes:
      return f'{name} has a code {record[name].max()}'
  if not 0 <= record['scored_from'] <= length:
    return f'scored from {record["scored_from"]} of {length} tokens'
  return ''


def _report_damages(
  folder: epath.Path, counts: dict[str, int], metadata: dict[str, Any]
) -> Iterator[str]:
  """Yields the damages of the tokenizer, the report and the rejected rows."""
  # The tokenizer must have the fingerprint of the records.
  try:
    with tempfile.TemporaryDirectory() as local:
      for file in (folder / 'tokenizer').iterdir():
        file.copy(f'{local}/{file.name}')
      tokenizer = tokenizer_lib.load(local)
  except Exception:  # transformers raises many kinds for damaged files
    yield f'{folder / "tokenizer"}: missing or damaged'
  else:
    try:
      tokenizer_lib.check(tokenizer, metadata, str(folder))
    except ValueError as error:
      yield str(error)
  # The report must have the sums of the records.
  path = folder / prepare.REPORT
  try:
    report = prepare.report_of(folder)
    base = report['asked']['settings'].get('extends')
    rejected = report['rows']['rejected']
    reported = {name: s['records'] for name, s in report['splits'].items()}
  except (ValueError, KeyError, TypeError):
    yield f'{path}: missing or damaged'
    return
  # The report of an extended data set counts only the added records.
  if not base and reported != counts:
    yield f'{path}: reports {reported} records, and there are {counts}'
  rows = report['rows']
  if rows['read'] != rows['written'] + rejected:
    yield f'{path}: its rows do not add up'

  # Each rejected row must have a note.
  path = folder / prepare.REJECTED
  # One line per rejected row.
  notes = len(path.read_text().splitlines()) if path.exists() else 0
  if notes != rejected:
    yield f'{path}: has {notes} rejected rows, the report has {rejected}'
