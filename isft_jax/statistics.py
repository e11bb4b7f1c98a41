"""Means over seeds and shares of trials, with confidence intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> dict[str, float | None]:
  """Returns Student's 95 % confidence interval of the mean.

    mean +- t(0.975, n - 1) s / sqrt(n),   s^2 = sum_i (x_i - mean)^2 / (n - 1)

  It assumes that seeds are independent and that the mean is roughly normal. For
  n = 5 seeds the factor t is 2.776.

  Args:
    values: one value per seed.

  Returns:
    {'mean', 'lo', 'hi'}; lo and hi are None for a single value.

  Raises:
    ValueError: there are no values.
  """
  if not len(values):
    raise ValueError('the mean needs at least one value (got none)')
  # float64, because the values may be differences of nearly equal numbers.
  x_N = np.asarray(values, np.float64)
  mean = float(x_N.mean())
  if len(x_N) == 1:
    return {'mean': mean, 'lo': None, 'hi': None}
  t = stats.t.ppf((1 + CONFIDENCE) / 2, len(x_N) - 1)
  half = float(t * x_N.std(ddof=1) / np.sqrt(len(x_N)))
  return {'mean': mean, 'lo': mean - half, 'hi': mean + half}


def summary(values: Sequence[float]) -> dict[str, Any]:
  """Returns the interval, and the value of each seed under 'per_seed'."""
  return interval(values) | {'per_seed': [float(value) for value in values]}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
  """Returns a summary of the differences ours - theirs, paired by seed.

  Two arms of a seed share data, initialisation and order, so that the variation
  between seeds cancels.

  Args:
    ours, theirs: one value per seed, in the same order.

  Returns:
    The summary, with the number of differences above 0 under 'positive'.

  Raises:
    ValueError: the numbers of seeds differ.
  """
  pairs = zip(ours, theirs, strict=True)
  differences = [float(a - b) for a, b in pairs]
  return summary(differences) | {'positive': sum(d > 0 for d in differences)}


def wilson(successes: int, number: int) -> dict[str, float]:
  """Returns Wilson's 95 % confidence interval of a share.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

  It assumes independent trials with one probability, and lies within 0 and 1.

  Args:
    successes: number of successes.
    number: number of trials n, at least 1.

  Returns:
    {'lo', 'hi'}.

  Raises:
    ValueError: there are no trials, or more successes than trials.

  Source: Wilson 1927, "Probable inference, the law of succession, and
  statistical inference".
  """
  if not 0 <= successes <= number or not number:
    raise ValueError(
      f'a share needs at least one trial and at most as many successes (got '
      f'{successes} of {number})'
    )
  p, z = successes / number, float(stats.norm.ppf((1 + CONFIDENCE) / 2))
  middle = p + z**2 / (2 * number)
  half = z * np.sqrt(p * (1 - p) / number + z**2 / (4 * number**2))
  scale = 1 + z**2 / number
  return {
    'lo': max(0.0, float((middle - half) / scale)),
    'hi': min(1.0, float((middle + half) / scale)),
  }
