"""A fire engine at a house: evidence of a fire if seen, none if sent.

Structural model fire -> engine. Its probabilities make both answers exact:

  P(fire) = 1/1000   P(engine | fire) = 999/1000   P(engine | no fire) = 1/19000

  seen   P(fire | engine)     = 19/20    by Bayes' rule
  sent   P(fire | do(engine)) = 1/1000   the prior: sending it is no evidence

`mixture.posterior` gives the same two numbers with gate 0 and gate 1.

Source: the two probabilities are those of de Freitas and Ortega (2026); the
model that yields them is ours.
"""

from fractions import Fraction

P_FIRE = Fraction(1, 1000)
# True if the house burns -> probability that an engine comes by itself.
P_ENGINE = {True: Fraction(999, 1000), False: Fraction(1, 19000)}


def joint(do_engine: bool | None = None) -> dict[tuple[bool, bool], Fraction]:
  """Returns P(fire, engine), keyed by (fire, engine).

    P(fire) P(engine | fire)       without an intervention
    P(fire) [engine = do_engine]   with an intervention

  Args:
    do_engine: None leaves the engine to its mechanism. True or False replaces
      the mechanism: the engine is sent or kept away, whether it burns or not.

  Source: Pearl's truncated factorisation.
  """
  p_fire = {True: P_FIRE, False: 1 - P_FIRE}
  if do_engine is None:
    p_engine = P_ENGINE
  else:
    # An intervention removes the arrow from fire to engine.
    p_engine = dict.fromkeys(p_fire, Fraction(int(do_engine)))
  return {
    (fire, engine): p_fire[fire]
    * (p_engine[fire] if engine else 1 - p_engine[fire])
    for fire in p_fire
    for engine in (True, False)
  }


def p_fire_given_engine(do_engine: bool | None = None) -> Fraction:
  """Returns P(fire | engine), or P(fire | do(engine)) with do_engine=True.

  Args:
    do_engine: see `joint`.

  Raises:
    ValueError: do_engine is False, so that P(engine) is 0.
  """
  p = joint(do_engine)
  p_engine = p[True, True] + p[False, True]
  if not p_engine:
    raise ValueError(
      'do_engine=False: P(engine) is 0, so P(fire | engine) is undefined'
    )
  return p[True, True] / p_engine
