"""Mixes several data sets with exact shares of rows, without sampling.

    weights 3 and 1:  a a b a | a a b a | ...

A round holds as many rows of each mixture component as its weight, evenly
spread. An epoch is a whole number of rounds. A component with fewer rows than
its share is read again in a new order, but only after all of its rows have been
read. Each row is a pure function of its number.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from isft_jax.data.batching import packing
from isft_jax.data.batching.packing import Plan

_LONGEST_ROUND = 1_000_000  # rows


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Rows of several plans, interleaved."""

  plans: tuple[Plan, ...]  # one per component, packed independently
  turns_W: np.ndarray  # index of the component, for each of W rows per round
  rounds: int  # per epoch; the fewest that read every component at least once
  seed: int  # of the order of the rows within each plan
  shuffle: bool = True  # False reads rows in the order of the plan

  def __len__(self) -> int:
    """Returns the number of rows per epoch."""
    return self.rounds * len(self.turns_W)

  @property
  def seq_len(self) -> int:
    """L, tokens per row: the maximum over the plans."""
    return max(plan.seq_len for plan in self.plans)

  @property
  def targets_per_row(self) -> int:
    """K, scored targets per row: the maximum over the plans."""
    return max(plan.targets_per_row for plan in self.plans)

  def rows_per_epoch(self, component: int) -> int:
    """Returns the number of rows per epoch of one component."""
    return self.rounds * int((self.turns_W == component).sum())

  @functools.cached_property
  def _own_rows(self) -> tuple[np.ndarray, np.ndarray]:
    """Rows per round of each component; of the same one before each row."""
    count_S = np.bincount(self.turns_W, minlength=len(self.plans))
    # Sorted by component, the rows of each are numbered from 0.
    before_W = np.empty_like(self.turns_W)
    before_W[np.argsort(self.turns_W, kind='stable')] = np.concatenate(
      [np.arange(count) for count in count_S]
    )
    return count_S, before_W

  @functools.cached_property
  def _order(self) -> Callable[..., np.ndarray]:
    # Reading rows one by one must not shuffle a plan each time. The order of a
    # million rows takes 4 MB. Components repeat at different rows, and reading
    # ahead goes back by some steps.
    return functools.lru_cache(2 * len(self.plans))(packing.row_order)

  def row(self, number: int) -> tuple[int, np.ndarray]:
    """Returns one row.

    Args:
      number: number of the row, counted from the beginning of the first epoch.

    Returns:
      The index of the component, and the entries of the row in its plan.
    """
    # Component of the row, and the number of its rows before this one.
    full_rounds, turn = divmod(number, len(self.turns_W))
    component = int(self.turns_W[turn])
    count_S, before_W = self._own_rows
    # Rows of this component in earlier rounds, and earlier in this round.
    visit = full_rounds * int(count_S[component]) + int(before_W[turn])

    # Each pass over a component has another order. Plans of equal size
    # share theirs.
    plan = self.plans[component]
    repeat, position = divmod(visit, len(plan))
    order = self._order(len(plan), self.seed, repeat, self.shuffle)
    return component, plan.row(order[position])

  def describe(self, names: Sequence[str]) -> str:
    """Describes an epoch in words, with a line for each component.

    Args:
      names: names of the components.
    """
    if len(self.plans) == 1:
      return self.plans[0].describe()
    # Targets per epoch: a component may be read more or less than once.
    targets = [
      self.rows_per_epoch(component) / len(plan) * plan.targets
      for component, plan in enumerate(self.plans)
    ]
    lines = [f'{len(self):,} rows per epoch']
    for component, plan in enumerate(self.plans):
      rows = self.rows_per_epoch(component)
      lines.append(
        f'    {names[component]}: {rows:,} rows ({rows / len(self):.1%}), '
        f'{rows / len(plan):.2f} times its {plan.describe()}; '
        f'{targets[component] / sum(targets):.1%} of all targets'
      )
    return '\n'.join(lines)


def make_mixture(
  plans: Sequence[Plan],
  weights: Sequence[float],
  seed: int,
  shuffle: bool = True,
) -> Mixture:
  """Mixes plans so that their shares of rows are exactly their weights.

    rows of component s / all rows = weight of s / sum of weights

  The shares count rows, and therefore time. A component with fewer targets per
  row has a smaller share of the loss.

  Args:
    plans: the plan of each component.
    weights: their weights; positive.
    seed: of the order of the rows within each plan.
    shuffle: False reads rows in the order of the plan.

  Raises:
    ValueError: a weight is not positive.
  """
  counts = whole_numbers(weights)
  # Row j of a component with w rows per round goes to position (j + 1/2) / w;
  # ties keep the order of the components.
  positions = [
    ((j + 0.5) / w, s) for s, w in enumerate(counts) for j in range(w)
  ]
  # Pairs sort by position and then by component.
  turns = [component for _, component in sorted(positions)]
  # Enough rounds that every component is read at least once.
  rounds = max(
    -(-len(plan) // w) for plan, w in zip(plans, counts, strict=True)
  )
  return Mixture(tuple(plans), np.array(turns), rounds, seed, shuffle)


def whole_numbers(weights: Sequence[float]) -> list[int]:
  """Returns the smallest whole numbers in proportion to weights.

  [0.7, 0.3] -> [7, 3]. Each weight is rounded to the nearest fraction with a
  denominator of at most 1,000: 0.3333 counts as 1/3.

  Args:
    weights: positive numbers.

  Raises:
    ValueError: a weight is not positive or not finite, is rounded to 0, or the
      sum of the whole numbers is above a million.
  """
  if not all(map(math.isfinite, weights)):
    raise ValueError(
      f'weights of mixture components must be finite: {list(weights)}'
    )
  # Denominators up to 1,000, so that 0.333 gives 333 of 1,000 rows.
  fractions = [Fraction(weight).limit_denominator(1000) for weight in weights]
  if min(fractions) <= 0:
    raise ValueError(
      f'weights of mixture components must be positive: {list(weights)}'
    )
  # Multiply by the common denominator, then divide by the common factor.
  scale = math.lcm(*(fraction.denominator for fraction in fractions))
  numbers = [int(fraction * scale) for fraction in fractions]
  numbers = [number // math.gcd(*numbers) for number in numbers]
  # A round of as many rows is in memory.
  if sum(numbers) > _LONGEST_ROUND:
    raise ValueError(
      f'weights of mixture components {list(weights)} need a round of more '
      f'than {_LONGEST_ROUND:,} rows; use simpler weights, such as 3 and 1'
    )
  return numbers
