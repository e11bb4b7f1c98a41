"""Intervals and differences in words, and a section of the page."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from isft_jax.report.document import Block


class Interval(TypedDict):
  """A mean over seeds with its 95 % interval, which one seed does not have."""

  mean: float
  lo: float | None
  hi: float | None


class Difference(Interval):
  """A paired difference: that of each seed, and how many are above 0."""

  per_seed: list[float]
  positive: int


class Section(NamedTuple):
  """Charts and tables, what they show, and what they do not."""

  title: str
  blocks: Sequence[Block]
  shows: str
  not_shown: str


def text(value: Interval, form: str = '+.3f') -> str:
  """Returns 'mean [lo, hi]', or the mean alone of a single seed."""
  mean = format(value['mean'], form)
  if value['lo'] is None or value['hi'] is None:
    return mean
  return f'{mean} [{format(value["lo"], form)}, {format(value["hi"], form)}]'


def ends(value: Interval) -> tuple[float, float]:
  """Returns the ends of an interval; of a single seed, its value twice."""
  if value['lo'] is None or value['hi'] is None:
    return value['mean'], value['mean']
  return value['lo'], value['hi']


def may_be_none(value: Interval) -> bool:
  """Returns whether the interval holds 0; a single seed has none."""
  if value['lo'] is None or value['hi'] is None:
    return False
  return value['lo'] <= 0 <= value['hi']


def points(value: Interval) -> Interval:
  """Returns an interval of shares in percentage points."""
  return {
    'mean': 100 * value['mean'],
    'lo': None if value['lo'] is None else 100 * value['lo'],
    'hi': None if value['hi'] is None else 100 * value['hi'],
  }


def difference(value: Difference, shares: bool = False) -> str:
  """Returns a paired difference in words, and whether it may be 0.

  value: what `statistics.paired` returns, in nats a token, or of shares.
  """
  shown = text(points(value), '+.1f') if shares else text(value)
  unit = 'points' if shares else 'nats a token'
  doubt = ', not told apart from 0' if may_be_none(value) else ''
  return (
    f'{shown} {unit} ({value["positive"]} of {len(value["per_seed"])} seeds '
    f'above 0{doubt})'
  )


def facts_of(against: dict) -> int:
  """Returns how many facts of all seeds were compared."""
  return against['facts'] * len(against['facts_higher'])
