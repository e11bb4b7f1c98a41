"""Problems with exact answers, and the outcome of a reply to one."""

import dataclasses
from decimal import Decimal
from typing import NamedTuple

from isft_jax.types import Verdict


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question with an exact answer, and two texts that answer it.

  Attributes:
    id: name of the problem: world, skill and number of the case. A case that is
      asked again in other words keeps its id.
    domain: group of skills.
    skill: name of the skill.
    question: text of the question, one line.
    answer: exact value in `unit`, or the words of a fact's answer.
    unit: unit of the answer, '' for none.
    absolute: tolerance in `unit`.
    relative: tolerance as a share of the answer's absolute value.
    solution: a correct reply (y*), one line.
    wrong_solution: a reply with a plausible error, one line.
  """

  id: str
  domain: str
  skill: str
  question: str
  answer: Decimal | str
  unit: str
  absolute: Decimal
  relative: Decimal
  solution: str
  wrong_solution: str


class Outcome(NamedTuple):
  """What a verifier found in a reply.

  Attributes:
    kind: 'right', 'wrong' or 'unreadable'.
    value: the answer that was read, in `unit`; None if unreadable.
    unit: unit in the reply, '' for none.
  """

  kind: str
  value: Decimal | str | None = None
  unit: str = ''

  @property
  def is_right(self) -> bool:
    return self.kind == 'right'

  @property
  def verdict(self) -> Verdict:
    """Returns WRONG for unreadable replies too: they solve nothing."""
    return Verdict.RIGHT if self.is_right else Verdict.WRONG
