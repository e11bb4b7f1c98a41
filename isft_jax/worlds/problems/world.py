"""Worlds: named sets of problems with disjoint splits and a verifier."""

import dataclasses
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from isft_jax.worlds.problems.problem import Outcome, Problem

# Fifths of each skill's cases: 200 problems to learn the format from, 200 for
# the agent's deployment and 100 for the test have these shares too.
SPLITS = {'train': (0, 2), 'agent': (2, 4), 'test': (4, 5)}

# First key of each random stream.
_SPLIT, _ORDER, _WORDS = 0, 1, 2


class Written(NamedTuple):
  """A case in words; see `Problem` for the fields."""

  question: str
  answer: Decimal | str
  solution: str
  wrong_solution: str


@dataclasses.dataclass(frozen=True)
class Skill:
  """A kind of problem.

  Attributes:
    name: the name.
    domain: group of skills.
    size: number of cases. A case is all that makes up a problem except its
      wording, such as the numbers in it.
    write: (case, random generator) -> the case in words.
    unit, absolute, relative: see `Problem`.
  """

  name: str
  domain: str
  size: int
  write: Callable[[int, np.random.Generator], Written]
  unit: str = ''
  absolute: Decimal = Decimal(0)
  relative: Decimal = Decimal(0)


@dataclasses.dataclass(frozen=True)
class World:
  """Problems of several skills, and their verifier.

  Attributes:
    name: the name.
    context: system prompt, which says how to answer.
    skills: the skills.
    verify: (reply, problem) -> what is found in the reply.
  """

  name: str
  context: str
  skills: tuple[Skill, ...]
  verify: Callable[[str, Problem], Outcome]

  @property
  def skill_names(self) -> tuple[str, ...]:
    return tuple(skill.name for skill in self.skills)

  def size(self, split: str, skills: Sequence[str] | None = None) -> int:
    """Returns the number of cases of a split.

    Args:
      split, skills: see `make`.
    """
    return sum(len(self._cases(split, i)) for i in self._indices(skills))

  def make(
    self,
    split: str,
    number: int,
    seed: int,
    skills: Sequence[str] | None = None,
  ) -> list[Problem]:
    """Returns different problems of a split, deterministically.

    The skills take turns; a skill without further cases drops out. Problem i
    does not depend on `number`. The splits share no case, whatever the seeds:
    the numbers of a problem in 'test' never occur in 'train', in any wording.

    Args:
      split: 'train', 'agent' or 'test', which have 2/5, 2/5 and 1/5 of the
        cases of each skill.
      number: number of problems.
      seed: seed of the choice of cases and of words, 0 or more.
      skills: names of skills, or None for all. Their order is kept.

    Raises:
      ValueError: the split or a skill does not exist, or `number` is negative
        or more than the split has.
    """
    indices = self._indices(skills)
    available = self.size(split, skills)
    if not 0 <= number <= available:
      raise ValueError(
        f'number must be 0 to {available}, the problems that split {split} of '
        f'world {self.name} has for these skills (got {number})'
      )
    # The cases of each skill, in a random order, are a queue.
    queues = {
      i: list(
        np.random.default_rng([_ORDER, seed, i]).permutation(
          self._cases(split, i)
        )
      )
      for i in indices
    }
    problems: list[Problem] = []
    turn = 0
    while len(problems) < number:
      # In each turn, every skill that has another case gives it.
      for i, queue in queues.items():
        if turn < len(queue) and len(problems) < number:
          problems.append(self._problem(i, int(queue[turn]), seed))
      turn += 1
    return problems

  def _indices(self, skills: Sequence[str] | None) -> list[int]:
    names = self.skill_names
    chosen = names if skills is None else tuple(skills)
    unknown = [name for name in chosen if name not in names]
    if unknown or len({*chosen}) < len(chosen) or not chosen:
      raise ValueError(
        f'skills must be different names of {", ".join(names)} (got '
        f'{", ".join(chosen) or "none"})'
      )
    return [names.index(name) for name in chosen]

  def _cases(self, split: str, index: int) -> np.ndarray:
    """Returns the cases of a skill in a split, which depend on no seed."""
    if split not in SPLITS:
      raise ValueError(
        f'split must be one of {", ".join(SPLITS)} (got {split!r})'
      )
    size = self.skills[index].size
    order = np.random.default_rng([_SPLIT, index]).permutation(size)
    start, stop = (size * fifth // 5 for fifth in SPLITS[split])
    return order[start:stop]

  def _problem(self, index: int, case: int, seed: int) -> Problem:
    skill = self.skills[index]
    # A stream per problem: its words do not depend on other problems.
    rng = np.random.default_rng([_WORDS, seed, index, case])
    written = skill.write(case, rng)
    return Problem(
      id=f'{self.name}-{skill.name}-{case:04d}',
      domain=skill.domain,
      skill=skill.name,
      question=written.question,
      answer=written.answer,
      unit=skill.unit,
      absolute=skill.absolute,
      relative=skill.relative,
      solution=written.solution,
      wrong_solution=written.wrong_solution,
    )
