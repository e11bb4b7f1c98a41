"""Text of intervals and differences, and the type of a page section."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from isft_jax.report.document import Block


class Interval(TypedDict):
  """A mean over seeds with its 95 % interval, which is None for one seed."""

  mean: float
  lo: float | None
  hi: float | None


class Difference(Interval):
  """A difference between two arms, paired by seed."""

  per_seed: list[float]
  positive: int  # number of seeds with a difference above 0


class Section(NamedTuple):
  """A section of the page: charts and tables with two statements."""

  title: str
  blocks: Sequence[Block]
  shows: str  # results, computed from the figures
  not_shown: str  # limits of the results


def text(value: Interval, form: str = '+.3f') -> str:
  """Returns 'mean [lo, hi]', or only 'mean' for a single seed."""
  mean = format(value['mean'], form)
  if value['lo'] is None or value['hi'] is None:
    return mean
  return f'{mean} [{format(value["lo"], form)}, {format(value["hi"], form)}]'


def ends(value: Interval) -> tuple[float, float]:
  """Returns the ends of an interval, or the value twice for a single seed."""
  if value['lo'] is None or value['hi'] is None:
    return value['mean'], value['mean']
  return value['lo'], value['hi']


def may_be_none(value: Interval) -> bool:
  """Returns whether the interval contains 0; False for a single seed."""
  if value['lo'] is None or value['hi'] is None:
    return False
  return value['lo'] <= 0 <= value['hi']


def points(value: Interval) -> Interval:
  """Converts an interval of shares to percentage points."""
  return {
    'mean': 100 * value['mean'],
    'lo': None if value['lo'] is None else 100 * value['lo'],
    'hi': None if value['hi'] is None else 100 * value['hi'],
  }


def difference(value: Difference, shares: bool = False) -> str:
  """Returns a paired difference as text, with a note if it may be 0.

  Args:
    value: a difference from `statistics.paired`.
    shares: whether it is a difference of shares, not of nats per token.
  """
  shown = text(points(value), '+.1f') if shares else text(value)
  unit = 'points' if shares else 'nats per token'
  doubt = ', not distinguishable from 0' if may_be_none(value) else ''
  return (
    f'{shown} {unit} ({value["positive"]} of {len(value["per_seed"])} seeds '
    f'above 0{doubt})'
  )


def count_facts(against: dict) -> int:
  """Returns the number of facts compared, summed over seeds."""
  return against['facts'] * len(against['facts_higher'])
