"""Builds the batch of any step from records.

records --objective--> rows (scored_rows.py) --weights--> batches (mixture.py)

A batch is a function of the number of its step, so that a resumed run continues
with the batch after its last one.
"""

from collections.abc import Sequence

import grain
import numpy as np

from isft_jax import config as config_lib
from isft_jax.config import RunConfig
from isft_jax.data.batching import mixture
from isft_jax.data.batching.packing import Progress
from isft_jax.data.batching.scored_rows import KnownPlans, Scored
from isft_jax.data.records.dataset import Records
from isft_jax.types import Batch


class BatchSource:
  """Random access to this host's share of each global batch, by step."""

  def __init__(
    self,
    records: Records | Sequence[Records],
    config: RunConfig,
    host_index: int = 0,
    host_count: int = 1,
    known: KnownPlans | None = None,
    progress: Progress = lambda done, total: None,
  ) -> None:
    """Plans the rows of an epoch.

    Args:
      records: the records of each mixture component of the config, in order.
      config: the config of the run.
      host_index: index of this host.
      host_count: number of hosts.
      known: plans that need no search; those of this source are added.
      progress: see `packing.make_plan`.

    Raises:
      ValueError: the rows of a batch do not divide among the hosts, or `Scored`
        refuses the records of a component.
    """
    # A run without a mixture has one component.
    if isinstance(records, Records):
      records = [records]
    components = config_lib.mixture_components(config)
    # Impossible weights are an error at once, not after minutes of packing.
    mixture.whole_numbers([weight for _, weight, _ in components])
    self.components = [
      Scored(each, objective, config, known, progress)
      for each, (_, _, objective) in zip(records, components, strict=True)
    ]
    if config.batch_size % host_count:
      raise ValueError(
        f'config.batch_size={config.batch_size} does not divide among '
        f'{host_count} hosts'
      )
    # All hosts compute the same plan, and each reads its share of every batch.
    self.plan = mixture.make_mixture(
      [component.plan for component in self.components],
      [weight for _, weight, _ in components],
      config.seed,
      config.shuffle,
    )
    # The last step of an epoch may have fewer rows.
    self.steps_per_epoch = -(-len(self.plan) // config.batch_size)
    self._config = config
    self._rows_per_host = config.batch_size // host_count
    self._first_row = host_index * self._rows_per_host

  def __len__(self) -> int:
    return self._config.steps or self._config.epochs * self.steps_per_epoch

  def host_rows(self, step: int) -> list[tuple[int, np.ndarray]]:
    """Returns this host's rows of a step: (component, plan entries) per row."""
    epoch, epoch_step = divmod(step, self.steps_per_epoch)
    start = epoch_step * self._config.batch_size + self._first_row
    # The last batch of an epoch may be smaller. Its missing rows stay empty.
    stop = min(start + self._rows_per_host, len(self.plan))
    offset = epoch * len(self.plan)
    return [self.plan.row(offset + number) for number in range(start, stop)]

  def ids(self, step: int) -> list[str]:
    """Returns the ids of the records that this host reads for a step."""
    return [
      self.components[component].records[entry[0]].id
      for component, entries in self.host_rows(step)
      for entry in entries
    ]

  def __getitem__(self, step: int) -> Batch[np.ndarray]:
    batch = _empty_batch(
      self._rows_per_host, self.plan.seq_len, self.plan.targets_per_row
    )
    # Rows beyond the plan stay zero, which means weight 0.
    for b, (component, entries) in enumerate(self.host_rows(step)):
      self.components[component].place(batch, b, entries, component)
    return batch


def _empty_batch(
  batch_size: int, seq_len: int, targets_per_row: int
) -> Batch[np.ndarray]:
  # The second dimension of each array is the last letter of its name.
  columns = {'L': seq_len, 'K': targets_per_row}
  return Batch(
    **{
      name: np.zeros(
        (batch_size, columns[name[-1]]),
        np.float32 if name == 'weights_BK' else np.int32,
      )
      for name in Batch._fields
    }
  )


def batches(source: BatchSource) -> grain.DatasetIterator:
  """Returns an iterator over steps that reads ahead; its state is one integer.

  Args:
    source: the batches by step.
  """
  # One thread reads up to 16 batches ahead.
  return iter(
    grain.MapDataset.source(source).to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)
    )
  )
