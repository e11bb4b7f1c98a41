"""Means over seeds, and how far to trust them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> dict[str, float | None]:
  """Returns mean, lo and hi: Student's 95 % interval of the mean.

  mean +- t(0.975, n - 1) s / sqrt(n),   s^2 = sum_i (x_i - mean)^2 / (n - 1)

  It takes the seeds for independent and the mean for roughly normal. For n = 5
  seeds the factor t is 2.776. Of a single value lo and hi are None.

  Raises ValueError if there is no value.
  """
  if not len(values):
    raise ValueError('no value: a mean of nothing')
  x_N = np.asarray(values, np.float64)
  mean = float(x_N.mean())
  if len(x_N) == 1:
    return {'mean': mean, 'lo': None, 'hi': None}
  t = stats.t.ppf((1 + CONFIDENCE) / 2, len(x_N) - 1)
  half = float(t * x_N.std(ddof=1) / np.sqrt(len(x_N)))
  return {'mean': mean, 'lo': mean - half, 'hi': mean + half}


def summary(values: Sequence[float]) -> dict[str, Any]:
  """Returns the interval, and the values of the seeds."""
  return interval(values) | {'per_seed': [float(value) for value in values]}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
  """Returns the summary of ours minus theirs, seed by seed, and `positive`.

  Two arms of a seed share data, initialisation and order: what differs between
  seeds cancels. positive: seeds whose difference is above 0.

  Raises ValueError if the two are of different numbers of seeds.
  """
  pairs = zip(ours, theirs, strict=True)
  differences = [float(a - b) for a, b in pairs]
  return summary(differences) | {'positive': sum(d > 0 for d in differences)}
