"""Several sources in one plan: exact shares of the rows, whoever reads them.

    weights 3, 1, in order of their turns:  a a b a | a a b a | ...

A round holds as many rows of each source as its weight says, evenly spread, and
an epoch is a whole number of rounds. A source that has fewer rows than its
share begins again, in a new order; none is read again before all of it has been
read. So a row is a pure function of its number, and there is nothing to sample.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from isft_jax.data.batching import packing
from isft_jax.data.batching.packing import Plan

# A million rows have an order of 8 MB.
_order = functools.lru_cache(maxsize=16)(packing.row_order)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Rows of several plans, in turns.

  plans: of each source. Its rows are those that it has by itself.
  turns_W: whose row is next, for each of the W rows of a round.
  rounds: of an epoch: as few as read every source at least once.
  seed: of the order in which the rows of a plan are read.
  shuffle: False reads them as they lie in the plan.
  """

  plans: tuple[Plan, ...]
  turns_W: np.ndarray
  rounds: int
  seed: int
  shuffle: bool = True

  def __len__(self) -> int:
    """Returns the rows of an epoch."""
    return self.rounds * len(self.turns_W)

  @property
  def row_length(self) -> int:
    """L, tokens of a row: as many as the plan that has the most."""
    return max(plan.row_length for plan in self.plans)

  @property
  def row_targets(self) -> int:
    """K, scored targets of a row: as many as the plan that has the most."""
    return max(plan.row_targets for plan in self.plans)

  def rows_of(self, source: int) -> int:
    """Returns how many rows of an epoch are a source's."""
    return self.rounds * int((self.turns_W == source).sum())

  def row(self, number: int) -> tuple[int, np.ndarray]:
    """Returns (source, entries) of a row, counted from the first epoch on."""
    in_round, turn = divmod(number, len(self.turns_W))
    source = int(self.turns_W[turn])
    mine_W = self.turns_W == source
    visit = in_round * int(mine_W.sum()) + int(mine_W[:turn].sum())
    plan = self.plans[source]
    again, place = divmod(visit, len(plan))
    order = _order(len(plan), self.seed, again, self.shuffle)
    return source, plan.row(order[place])

  def describe(self, names: Sequence[str]) -> str:
    """Returns what an epoch has of each source; of one, a line."""
    if len(self.plans) == 1:
      return self.plans[0].describe()
    targets = [
      self.rows_of(source) / len(plan) * plan.targets
      for source, plan in enumerate(self.plans)
    ]
    lines = [f'{len(self):,} rows an epoch']
    for source, plan in enumerate(self.plans):
      rows = self.rows_of(source)
      lines.append(
        f'    {names[source]}: {rows:,} rows ({rows / len(self):.1%}), '
        f'{rows / len(plan):.2f} times its {plan.describe()}; of all targets '
        f'{targets[source] / sum(targets):.1%}'
      )
    return '\n'.join(lines)


def make_mixture(
  plans: Sequence[Plan],
  weights: Sequence[float],
  seed: int,
  shuffle: bool = True,
) -> Mixture:
  """Mixes plans: a source's share of the rows of an epoch is its weight's.

    rows of s / rows of all = weight of s / sum of weights      exactly

  Of rows, and so of what is read and computed: a source whose rows hold fewer
  targets has a smaller share of the loss.

  Raises ValueError if weights are not positive.
  """
  whole = whole_numbers(weights)
  # Its j-th row of w stands at (j + 1/2) / w of the round; ties as listed.
  places = [((j + 0.5) / w, s) for s, w in enumerate(whole) for j in range(w)]
  turns = [source for _, source in sorted(places)]
  rounds = max(-(-len(plan) // w) for plan, w in zip(plans, whole, strict=True))
  return Mixture(tuple(plans), np.array(turns), rounds, seed, shuffle)


def whole_numbers(weights: Sequence[float]) -> list[int]:
  """Returns the smallest whole numbers in proportion to weights.

  [0.7, 0.3] -> [7, 3]. A weight is taken as the nearest fraction whose
  denominator is 1,000 at most: 0.3333 is a third.

  Raises ValueError if one is not positive, or less than that.
  """
  fractions = [Fraction(weight).limit_denominator(1000) for weight in weights]
  if min(fractions) <= 0:
    raise ValueError(f'weights of sources must be positive: {list(weights)}')
  scale = math.lcm(*(fraction.denominator for fraction in fractions))
  numbers = [int(fraction * scale) for fraction in fractions]
  return [number // math.gcd(*numbers) for number in numbers]
