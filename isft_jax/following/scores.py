"""Measures the loss of transcripts before they are learned, by author.

Source: Dawid 1984, the prequential approach: each observation is predicted
from those before it.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isft_jax import sharding
from isft_jax.config import RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records.dataset import Records
from isft_jax.train.trainer import Trainer
from isft_jax.types import Provenance, PyTree

_EVERYTHING = 'observational'  # the objective that scores every author


class Sums(NamedTuple):
  """Sum of -log p in nats, and number of targets, by author [P]."""

  total_P: np.ndarray
  count_P: np.ndarray

  def named(self) -> dict[str, list[float]]:
    """Returns author -> [sum, number], for the authors with a target."""
    return {
      author.name: [float(self.total_P[author]), int(self.count_P[author])]
      for author in Provenance
      if self.count_P[author]
    }


def measuring_config(config: RunConfig, objective: str = '') -> RunConfig:
  """Returns a config that reads records once, in order, with every author.

  Args:
    config: config of a run. Batches have its shape.
    objective: objective of the weights; '' weighs all tokens equally.
  """
  return dataclasses.replace(
    config,
    mixture=(),
    objective=objective or _EVERYTHING,
    plan_objective=_EVERYTHING,
    shuffle=False,
    epochs=1,
    steps=0,
  )


def measure_transcripts(
  trainer: Trainer,
  params: PyTree,
  records: Records,
  config: RunConfig,
  lengths: Sequence[int],
) -> list[Sums]:
  """Returns the sums of each transcript.

  Each token but the first of a transcript is a target once, also if the
  transcript is cut into windows.

  Args:
    trainer: compiled functions.
    params: all parameters of the model.
    records: records of the transcripts, one transcript after the other.
    config: config of the run, which has the shape of batches.
    lengths: number of records of each transcript.
  """
  source = pipeline.BatchSource(records, measuring_config(config))
  transcript_N = np.repeat(np.arange(len(lengths)), lengths)
  total_SP = np.zeros((len(lengths), len(Provenance)))
  count_SP = np.zeros_like(total_SP)
  for step in range(len(source)):
    batch = source[step]
    nll_BK = sharding.fetch(
      trainer.nll(params, sharding.to_global(batch, trainer.mesh))
    )
    for b, (_, entries) in enumerate(source.host_rows(step)):
      # The slots of a row belong to its entries, one after the other.
      records_K = np.repeat(entries[:, 0], entries[:, 2] - entries[:, 1])
      K = len(records_K)
      cell_K = transcript_N[records_K], batch.authors_BK[b, :K]
      np.add.at(total_SP, cell_K, nll_BK[b, :K].astype(np.float64))
      np.add.at(count_SP, cell_K, 1)
  return [*map(Sums, total_SP, count_SP)]
