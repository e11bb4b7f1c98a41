"""From records to batches: any step's batch, from the number of the step.

records --objective--> rows (scored.py) --weights--> turns (mixture.py)
"""

from collections.abc import Sequence

import grain
import numpy as np

from isft_jax import config as config_lib
from isft_jax.config import RunConfig
from isft_jax.data.batching import mixture
from isft_jax.data.batching.scored_rows import Scored
from isft_jax.data.records.dataset import Records
from isft_jax.types import Batch


class BatchSource:
  """Random access from a step to this host's part of the global batch.

  records: of each of the config's sources, in their order.

  Raises ValueError as Scored does, or if the rows of a batch do not divide
  among the hosts.
  """

  def __init__(
    self,
    records: Records | Sequence[Records],
    config: RunConfig,
    host_index: int = 0,
    host_count: int = 1,
  ) -> None:
    if isinstance(records, Records):
      records = [records]
    sources = config_lib.sources_of(config)
    self.sources = [
      Scored(each, objective, config)
      for each, (_, _, objective) in zip(records, sources, strict=True)
    ]
    if config.rows % host_count:
      raise ValueError(
        f'config.rows={config.rows} does not divide among {host_count} hosts'
      )
    self.plan = mixture.make_mixture(
      [source.plan for source in self.sources],
      [weight for _, weight, _ in sources],
      config.seed,
      config.shuffle,
    )
    self.steps_per_epoch = -(-len(self.plan) // config.rows)
    self._config = config
    self._host_rows = config.rows // host_count
    self._first_row = host_index * self._host_rows

  def __len__(self) -> int:
    return self._config.steps or self._config.epochs * self.steps_per_epoch

  def rows_of(self, step: int) -> list[tuple[int, np.ndarray]]:
    """Returns (source, plan entries) of this host's rows of a step."""
    epoch, in_epoch = divmod(step, self.steps_per_epoch)
    start = in_epoch * self._config.rows + self._first_row
    stop = min(start + self._host_rows, len(self.plan))
    before = epoch * len(self.plan)
    return [self.plan.row(before + number) for number in range(start, stop)]

  def ids(self, step: int) -> list[str]:
    """Returns the ids of the records that this host reads for a step."""
    return [
      self.sources[source].records[entry[0]].id
      for source, entries in self.rows_of(step)
      for entry in entries
    ]

  def __getitem__(self, step: int) -> Batch[np.ndarray]:
    batch = _empty_batch(
      self._host_rows, self.plan.row_length, self.plan.row_targets
    )
    for b, (source, entries) in enumerate(self.rows_of(step)):
      self.sources[source].place(batch, b, entries, source)
    return batch


def _empty_batch(
  rows: int, row_length: int, row_targets: int
) -> Batch[np.ndarray]:
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
