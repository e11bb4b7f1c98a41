"""Whether a data set is what was once written: every byte, every record.

Nothing is trusted that can be counted again: checksums of files, the fields of
records, the index, the tokenizer's fingerprint, and the report's sums.
"""

import tempfile
from collections.abc import Callable, Iterator, Set
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from isft_jax.data.preparation import prepare
from isft_jax.data.records import dataset, shards
from isft_jax.data.records import index as index_lib
from isft_jax.data.rendering import tokenizer
from isft_jax.types import Provenance, Verdict

_CODES = {'provenance': len(Provenance), 'verdict': len(Verdict)}


def damages(
  folder: str, progress: Callable[[str], None] = lambda name: None
) -> Iterator[str]:
  """Yields a line for each thing that is damaged; none if all is whole.

  folder: what isft-prepare made.
  progress: called with the name of each file that is about to be read.

  Raises ValueError if there are no records.
  """
  path = dataset.where(folder)
  sums = shards.checksums(path)
  if sums is None:
    yield f'{path / shards.CHECKSUMS}: missing or no JSON'
    sums = {}
  broken = set()
  for name in sorted(sums):
    file = path / name
    progress(name)
    if not file.exists():
      broken.add(name)
      yield f'{file}: missing'
    elif shards.sha256(file) != sums[name]:
      broken.add(name)
      yield f'{file}: its bytes have changed'
  for file in sorted(path.iterdir()):
    if sums and file.name not in sums and file.name != shards.CHECKSUMS:
      yield f'{file}: is none of the data set'
  try:
    info = tfds.builder_from_directory(path).info
    splits = dict(info.splits.items())
  except Exception as error:  # whatever a broken file makes of TFDS
    yield f'{path}: does not open ({type(error).__name__})'
    return
  counts = {}
  for split, about in splits.items():
    counts[split] = sum(about.shard_lengths)
    yield from _of_split(path, split, about.shard_lengths, broken, progress)
  yield from _of_report(epath.Path(folder), counts, dict(info.metadata))


def _of_split(
  path: epath.Path,
  split: str,
  lengths: list[int],
  broken: Set[str],
  progress: Callable[[str], None],
) -> Iterator[str]:
  codec = shards.Codec()
  name = shards.INDEX.format(split=split)
  try:
    index = index_lib.read(path / name, sum(lengths))
  except ValueError as error:
    index = None
    if name not in broken:
      yield str(error)
  first = trajectories = 0
  for number, length in enumerate(lengths):
    shard = path / shards.name(split, number)
    slice_, first = slice(first, first + length), first + length
    if shard.name in broken:
      continue
    progress(shard.name)
    try:
      found = [*map(codec.read, shards.read(shard))]
    except Exception as error:  # of C++, or of protocol buffers
      yield f'{shard}: does not read ({type(error).__name__})'
      continue
    if len(found) != length:
      yield f'{shard}: {len(found)} records, expected {length}'
      continue
    wrong = [(i, said) for i, r in enumerate(found) if (said := _wrong(r))]
    for i, said in wrong:
      yield f'{shard}: record {i}: {said}'
    if wrong or index is None:
      continue
    expected = index_lib.of(found, length)
    if slice_.start:
      trajectories = index.trajectory_N[slice_.start - 1]
    expected.trajectory_N[:] += trajectories
    for field, array in expected._asdict().items():
      if not np.array_equal(array, getattr(index, field)[slice_]):
        yield f'{path / name}: {field} is not that of {shard.name}'


def _wrong(record: dict) -> str:
  """What a record cannot have; '' if it has none of it."""
  length = len(record['tokens'])
  for name in ('provenance', 'segment', 'verdict'):
    if len(record[name]) != length:
      return f'{length} tokens, but {len(record[name])} of {name}'
  for name, codes in _CODES.items():
    if length and record[name].max() >= codes:
      return f'{name} has a code {record[name].max()}'
  if not 0 <= record['scored_from'] <= length:
    return f'scored from {record["scored_from"]} of {length} tokens'
  return ''


def _of_report(
  folder: epath.Path, counts: dict[str, int], metadata: dict[str, Any]
) -> Iterator[str]:
  try:
    with tempfile.TemporaryDirectory() as local:
      for file in (folder / 'tokenizer').iterdir():
        file.copy(f'{local}/{file.name}')
      encoder = tokenizer.load(local)
  except Exception:  # whatever a broken file makes of transformers
    yield f'{folder / "tokenizer"}: missing or damaged'
  else:
    try:
      tokenizer.check(encoder, metadata, str(folder))
    except ValueError as error:
      yield str(error)
  path = folder / prepare.REPORT
  try:
    report = prepare.report_of(folder)
    base = report['asked']['settings'].get('extends')
    rejected = report['rows']['rejected']
    told = {name: about['records'] for name, about in report['splits'].items()}
  except (ValueError, KeyError, TypeError):
    yield f'{path}: missing or damaged'
    return
  # A report counts what was read for it, not what its data set begins with.
  if not base and told != counts:
    yield f'{path}: tells of {told} records, and there are {counts}'
  rows = report['rows']
  if rows['read'] != rows['written'] + rejected:
    yield f'{path}: its rows do not add up'
  path = folder / prepare.REJECTED
  notes = len(path.read_text().splitlines()) if path.exists() else 0
  if notes != rejected:
    yield f'{path}: {notes} rows are set aside, the report tells of {rejected}'
