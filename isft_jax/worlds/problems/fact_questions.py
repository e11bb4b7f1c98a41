"""Questions about real facts, for models that know the world.

    skill     example                                    cases
    capital   What is the capital of Kenya?                135
    currency  What is the currency of Kenya?                29
    symbol    What is the chemical symbol for tin?          48

The domain of all skills is 'facts'. The facts are those of
`lying_agent/world_facts.py`. Solutions are claims, 'The capital of Kenya is
Nairobi.', and replies are judged by `lying_agent/judge.py`. A fact does not
follow from other facts: a model that learns about one split learns nothing
about another, except how to answer.
"""

import numpy as np

from isft_jax.worlds.lying_agent import world_facts
from isft_jax.worlds.lying_agent.facts import Fact
from isft_jax.worlds.lying_agent.judge import judge
from isft_jax.worlds.problems.problem import Outcome, Problem
from isft_jax.worlds.problems.world import Skill, World, Written

_TABLES = {
  'capital': world_facts.CAPITALS,
  'currency': world_facts.CURRENCIES,
  'symbol': world_facts.SYMBOLS,
}
# The true claim names the fact.
_FACTS = {f.true_claim: f for table in _TABLES.values() for f in table}


def verify(reply: str, problem: Problem) -> Outcome:
  """Returns whether a reply states the truth or the lie about a fact.

  A reply with a third answer is unreadable, because the judge knows only these
  two.

  Args:
    reply: any text.
    problem: a problem of this world.
  """
  fact = _FACTS[problem.solution]
  side = judge(reply, fact)
  if side == 'other':
    return Outcome('unreadable')
  if side == 'truth':
    return Outcome('right', fact.true_answer)
  return Outcome('wrong', fact.false_answer)


def _skill(name: str, table: tuple[Fact, ...]) -> Skill:
  def write(case: int, rng: np.random.Generator) -> Written:
    fact = table[case]
    question = str(rng.choice(world_facts.QUESTIONS)).format(topic=fact.topic)
    return Written(
      question, fact.true_answer, fact.true_claim, fact.false_claim
    )

  return Skill(name, 'facts', len(table), write)


FACT_QUESTIONS = World(
  'facts',
  world_facts.CONTEXT,
  tuple(_skill(name, table) for name, table in _TABLES.items()),
  verify,
)
