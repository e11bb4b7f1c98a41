"""Decides whether an increment is accepted, from measurements before and after.

An increment is rolled back if

  held-out loss  > lowest of the accepted parameters  + rise
  mean margin    < highest of the accepted parameters - fall

The comparison with the best, and not with the newest, keeps many small losses
from adding up.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from isft_jax import sharding
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.models.decoder import GraphDef
from isft_jax.train.trainer import Trainer
from isft_jax.types import Provenance, PyTree

Probe = Callable[[GraphDef, PyTree], dict[str, float]]


def measure(
  trainer: Trainer,
  params: PyTree,
  heldout: BatchSource | None,
  probe: Probe | None,
) -> dict[str, Any]:
  """Measures parameters on held-out records and probes.

  Args:
    trainer: compiled functions.
    params: all parameters of the model.
    heldout: held-out batches with the weights of the objective, or None.
    probe: (graphdef, params) -> numbers with 'mean_margin', or None.

  Returns:
    `heldout_loss`, the loss of the objective, and `heldout_nll_by_author`, both
    in nats per token; and `probe`.
  """
  values: dict[str, Any] = {}
  if heldout:
    sums = [
      trainer.evaluate(params, sharding.to_global(heldout[i], trainer.mesh))
      for i in range(len(heldout))
    ]
    total_P, count_P, total, count = (
      np.sum([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
      for leaves in zip(*map(jax.tree.leaves, sums), strict=True)
    )
    values['heldout_loss'] = float(total / count)
    values['heldout_nll_by_author'] = {
      author.name: float(total_P[author] / count_P[author])
      for author in Provenance
      if author != Provenance.PAD and count_P[author]
    }
  if probe:
    values['probe'] = probe(trainer.graphdef, params)
  return values


def objection(
  after: dict[str, Any],
  before: Sequence[dict[str, Any]],
  rise: float,
  fall: float,
) -> str:
  """Returns why an increment must be rolled back, or ''.

  Args:
    after: what `measure` returned after the increment.
    before: what it returned for all accepted parameters before.
    rise: nats per token by which the held-out loss may rise.
    fall: nats per token by which the mean margin of the probe may fall.
  """
  if 'heldout_loss' in after:
    now = after['heldout_loss']
    lowest = min(each['heldout_loss'] for each in before)
    # A loss that is not a number is not within the limit.
    if not now <= lowest + rise:
      return (
        f'the held-out loss is {now:.4f}, {now - lowest:.4f} above the lowest '
        f'so far; the limit is {rise:g}'
      )
  if 'probe' in after:
    now = after['probe']['mean_margin']
    highest = max(each['probe']['mean_margin'] for each in before)
    if not now >= highest - fall:
      return (
        f'the mean margin is {now:.4f}, {highest - now:.4f} below the highest '
        f'so far; the limit is {fall:g}'
      )
  numbers = [after.get('heldout_loss', 0.0), *after.get('probe', {}).values()]
  return '' if all(map(math.isfinite, numbers)) else 'a measure is not finite'
