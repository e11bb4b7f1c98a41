"""Labels of records for trainers that mask tokens with -100, as Parquet.

A label is the token if the objective scores it, and -100 otherwise.
Labels are not shifted: a causal model of transformers compares the label at
position t with its logits at t - 1.

    input_ids   User    :    Hi  Agent   :   Hey   .   (interventional: the
    labels      -100    :    Hi  Agent   :  -100 -100   agent's turn is masked)

The first token of a record has no context, so it is never a label. Neither is
a token before `scored_from`: another window of the trajectory scores it.
"""

import json
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from etils import epath
from pyarrow import parquet

import isft_jax
from isft_jax import files, objectives
from isft_jax.data.batching.scored_rows import target_weights
from isft_jax.data.records.dataset import Records
from isft_jax.types import Example

IGNORED = -100  # the label that transformers, torch and TRL ignore
METADATA = b'isft_jax'  # the key in the schema of a file
# Tokens per row group: 8 to 12 MB in memory for records of any length.
_GROUP_TOKENS = 1 << 20


class LabelCounts(NamedTuple):
  """Counts of a file of labels."""

  records: int  # rows of the file
  tokens: int  # input ids of all rows
  targets: int  # labels that are not -100
  empty: int  # rows without any label except -100
  # Whether the file has a column `weights`, because the objective has weights
  # other than 0 and 1.
  weighted: bool


def labels_from_weights(
  tokens_T: np.ndarray, weights_T: np.ndarray
) -> np.ndarray:
  """Returns int32 labels [T]: the token if its weight is not 0, else -100."""
  return np.where(weights_T != 0, tokens_T, IGNORED).astype(np.int32)


def check_labels(objective: str) -> None:
  """Raises ValueError if labels cannot express an objective's loss."""
  if objectives.anchor(objective):
    raise ValueError(
      f'objective {objective!r} compares the model with its base at the '
      "agent's tokens, which labels cannot express; train with isft-train, or "
      'choose another objective'
    )


def is_weighted(table_PV: np.ndarray) -> bool:
  """Returns whether labels need weights: some weight is neither 0 nor 1."""
  return not np.isin(table_PV, (0, 1)).all()


def write(
  records: Records,
  path: str | os.PathLike,
  objective: str,
  group_tokens: int = _GROUP_TOKENS,
) -> LabelCounts:
  """Writes a row per record: id, window, input_ids, labels and maybe weights.

  The columns are `id` (string), `window` (int32, the number of the window of
  its trajectory), `input_ids` and `labels` (lists of int32) and, only if some
  weight of the objective is neither 0 nor 1, `weights` (list of float32; the
  weight of the label at the same position, 0 where it is -100). Rows keep the
  order of the records and are not padded. The schema's metadata has a JSON
  object under `isft_jax`.

  Args:
    records: opened records.
    path: of the file, on a disk or in a bucket. It appears when it is complete
      and replaces a file of labels that is there.
    objective: as `objectives.weight_table` takes it.
    group_tokens: tokens of a row group, which bounds the memory.

  Returns:
    The counts of the file.

  Raises:
    ValueError: the objective is unknown, is anchored or scores no token of the
      records, or the path is that of another kind of file.
  """
  # The index shows if anything is scored, before a record is read.
  table_PV = objectives.weight_table(objective)
  check_labels(objective)
  if not (records.index.counts_NPV * (table_PV != 0)).any():
    raise ValueError(
      f'objective {objective!r} gives every token of {records.folder} weight '
      '0: there is no label to write; choose another objective'
    )
  # Fail before reading the records.
  _check_replaceable(path)
  # Labels can mask a token, but not weigh it.
  weighted = is_weighted(table_PV)
  schema = _schema(records, objective, weighted)
  targets = empty = tokens = 0
  with (
    files.replacing(path) as part,
    part.open('wb') as file,
    parquet.ParquetWriter(file, schema) as writer,
  ):
    for group in _groups(records, group_tokens):
      # One row group per group of records, so that memory is bounded.
      weights = [
        target_weights(example, table_PV, objectives.turn_tokens(objective))
        for example in group
      ]
      writer.write_table(_table(group, weights, schema))
      # Counted here, so that every record is read once.
      number_of = [int(np.count_nonzero(weights_T)) for weights_T in weights]
      targets += sum(number_of)
      empty += number_of.count(0)
      tokens += sum(len(example.tokens_T) for example in group)
  return LabelCounts(len(records), tokens, targets, empty, weighted)


def _schema(records: Records, objective: str, weighted: bool) -> pa.Schema:
  fields = [
    pa.field('id', pa.string(), nullable=False),
    pa.field('window', pa.int32(), nullable=False),
    pa.field('input_ids', pa.list_(pa.int32()), nullable=False),
    pa.field('labels', pa.list_(pa.int32()), nullable=False),
  ]
  if weighted:
    fields.append(pa.field('weights', pa.list_(pa.float32()), nullable=False))
  # The file says how its labels were made.
  about = {
    'version': isft_jax.__version__,
    'objective': objective,
    'split': records.split,
    'records': len(records),
    'fingerprint': records.metadata.get('fingerprint'),
  }
  return pa.schema(fields, {METADATA: json.dumps(about).encode()})


def _groups(records: Records, group_tokens: int) -> Iterator[list[Example]]:
  """Yields the records in order, about so many tokens at a time."""
  group, tokens = [], 0
  for number in range(len(records)):
    example = records[number]
    group.append(example)
    tokens += len(example.tokens_T)
    # The record that reaches the limit ends the group.
    if tokens >= group_tokens:
      yield group
      group, tokens = [], 0
  if group:
    yield group


def _table(
  group: list[Example], weights: list[np.ndarray], schema: pa.Schema
) -> pa.Table:
  # Lists of all rows in one array, with the start of each row.
  starts = np.cumsum([0] + [len(example.tokens_T) for example in group])
  tokens_T = np.concatenate([example.tokens_T for example in group])
  weights_T = np.concatenate(weights)

  def lists(values_T: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(
      pa.array(starts, pa.int32()), pa.array(values_T)
    )

  columns = {
    'id': pa.array([example.id for example in group], pa.string()),
    'window': pa.array([example.window for example in group], pa.int32()),
    'input_ids': lists(tokens_T.astype(np.int32)),
    'labels': lists(labels_from_weights(tokens_T, weights_T)),
    # Dropped below if the schema has no weights.
    'weights': lists(weights_T.astype(np.float32)),
  }
  return pa.table([columns[name] for name in schema.names], schema=schema)


def _check_replaceable(path: str | os.PathLike) -> None:
  """Raises ValueError if a file is there that holds no labels of ours."""
  path = epath.Path(path)
  if not path.exists():
    return
  try:
    with path.open('rb') as file:
      metadata = parquet.read_schema(file).metadata or {}
  except (OSError, pa.ArrowInvalid):
    metadata = {}
  if METADATA not in metadata:
    raise ValueError(
      f'{path} exists and is not a file of labels; name another file'
    )
