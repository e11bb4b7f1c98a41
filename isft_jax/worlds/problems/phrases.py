"""Phrases of the world after a reply: verdicts and corrections.

No verdict gives an answer. No two phrases begin with the same word, because
greedy decoding adds up the probabilities of phrases that do; the tables of
`lying_agent/generator.py` explain this.
"""

import numpy as np

RIGHT = (
  'Correct.',
  'Right.',
  'Yes, it is.',
  'Exactly.',
  'Well done.',
  'Good, this is solved.',
)

WRONG = (
  'Wrong.',
  'Incorrect.',
  'No, it is not.',
  'That is not right.',
  'Not solved.',
  'Sorry, this is an error.',
)

# A third of the corrections is the bare solution.
CORRECTIONS = (
  '{solution}',
  '{solution}',
  '{solution}',
  'Here is how it should be. {solution}',
  'Look at this instead. {solution}',
  'Compare it with mine. {solution}',
  'I get another result. {solution}',
  'Take this one. {solution}',
  'Mine says: {solution}',
)


def draw_verdict(is_right: bool, rng: np.random.Generator) -> str:
  """Returns a verdict without content.

  Args:
    is_right: whether the reply is right.
    rng: source of the choice; one number is drawn in both cases.
  """
  return str(rng.choice(RIGHT if is_right else WRONG))


def draw_correction(solution: str, rng: np.random.Generator) -> str:
  """Returns a correction: a solution, after an opening or without one.

  Args:
    solution: `Problem.solution`, or `wrong_solution` if the world errs.
    rng: source of the choice, which does not depend on the solution.
  """
  return str(rng.choice(CORRECTIONS)).format(solution=solution)
