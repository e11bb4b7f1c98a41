"""From records to batches: any step's batch, from the number of the step.

    records --objective--> weights, shifted once, tail trimmed --plan--> rows

A token's input and its target, for a document in a row (L_do, agent's turn A):

    column      0     1     2     3     4     5
    input     User    :    Hi   Agent   :    Hey       (then ' there', ...)
    target      :    Hi   Agent   :    Hey   there
    weight      1     1     1     1     0     0

The shift happens before packing, so that no target lies in another document,
and the first token of a document is never a target.
"""

import grain
import numpy as np

from isft_jax import objectives
from isft_jax.config import RunConfig
from isft_jax.data import packing
from isft_jax.data.records import Records
from isft_jax.types import Batch


class BatchSource:
  """Random access from a step to this host's part of the global batch.

  Raises ValueError if the plan's objective leaves out a token that the run's
  own objective scores, if that scores no token at all, or if the rows of a
  batch do not divide among the hosts.
  """

  def __init__(
    self,
    records: Records,
    config: RunConfig,
    host_index: int = 0,
    host_count: int = 1,
  ):
    plan_objective = config.plan_objective or config.objective
    self._planned_PV = objectives.weight_table(plan_objective)
    self._weights_PV = objectives.weight_table(config.objective)
    if np.any((self._weights_PV != 0) & (self._planned_PV == 0)):
      raise ValueError(
        f'rows are planned for {plan_objective!r}, which leaves out tokens '
        f'that {config.objective!r} scores; plan for the latter'
      )
    if not packing.targets_of_records(records.index, self._weights_PV).any():
      raise ValueError(
        f'objective {config.objective!r} gives every token of '
        f'{records.folder} weight 0: there is nothing to learn from'
      )
    if config.rows % host_count:
      raise ValueError(
        f'config.rows={config.rows} does not divide among {host_count} hosts'
      )
    self.plan = packing.make_plan(
      records.index,
      self._planned_PV,
      config.row_length,
      config.row_targets,
      config.seed,
      config.row_documents,
    )
    self.steps_per_epoch = -(-len(self.plan) // config.rows)
    self._records = records
    self._config = config
    self._host_rows = config.rows // host_count
    self._first_row = host_index * self._host_rows
    # 'trajectory': a trajectory's weights sum to one, whatever its length.
    self._scale_N = np.ones(len(records))
    if config.normalize == 'trajectory':
      total_N = (records.index.counts_NPV * self._weights_PV).sum(axis=(1, 2))
      # Of all windows of a trajectory together.
      total_N = np.bincount(records.index.trajectory_N, total_N)[
        records.index.trajectory_N
      ]
      self._scale_N = 1 / np.where(total_N > 0, total_N, 1)

  def __len__(self) -> int:
    return self._config.steps or self._config.epochs * self.steps_per_epoch

  def rows_of(self, step: int) -> list[np.ndarray]:
    """Returns this host's rows of a step, each a list of plan entries."""
    epoch, in_epoch = divmod(step, self.steps_per_epoch)
    order = packing.row_order(len(self.plan), self._config.seed, epoch)
    start = in_epoch * self._config.rows + self._first_row
    return [self.plan.row(r) for r in order[start : start + self._host_rows]]

  def ids(self, step: int) -> list[str]:
    """Returns the ids of the records that this host reads for a step."""
    rows = self.rows_of(step)
    return [self._records[entry[0]].id for row in rows for entry in row]

  def __getitem__(self, step: int) -> Batch:
    batch = _empty_batch(
      self._host_rows, self.plan.row_length, self.plan.row_targets
    )
    for b, entries in enumerate(self.rows_of(step)):
      column = slot = 0
      for document, entry in enumerate(entries, start=1):
        column, slot = self._place(batch, b, column, slot, document, entry)
    return batch

  def _place(self, batch, b, column, slot, document, entry):
    """Writes one document into row b; returns the next free column and slot."""
    record, first, stop = entry
    example = self._records[record]
    planned_T = self._planned_PV[example.provenance_T, example.verdict_T]
    planned_T[: max(1, example.scored_from)] = 0
    positions_K = np.flatnonzero(planned_T)[first:stop]
    length = positions_K[-1]  # inputs end before the last target

    columns = slice(column, column + length)
    batch.tokens_BL[b, columns] = example.tokens_T[:length]
    batch.positions_BL[b, columns] = np.arange(length)
    batch.segment_ids_BL[b, columns] = document

    slots = slice(slot, slot + len(positions_K))
    authors_K = example.provenance_T[positions_K]
    weights_K = self._weights_PV[authors_K, example.verdict_T[positions_K]]
    batch.columns_BK[b, slots] = column + positions_K - 1
    batch.targets_BK[b, slots] = example.tokens_T[positions_K]
    batch.weights_BK[b, slots] = weights_K * self._scale_N[record]
    batch.authors_BK[b, slots] = authors_K
    return columns.stop, slots.stop


def _empty_batch(rows: int, row_length: int, row_targets: int) -> Batch:
  length = {'L': row_length, 'K': row_targets}
  return Batch(
    **{
      name: np.zeros(
        (rows, length[name[-1]]),
        np.float32 if name == 'weights_BK' else np.int32,
      )
      for name in Batch._fields
    }
  )


def batches(source: BatchSource) -> grain.DatasetIterator:
  """Iterates over the steps, reading ahead; its state is one integer."""
  return iter(
    grain.MapDataset.source(source).to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)
    )
  )
