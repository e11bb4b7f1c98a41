"""Integer arithmetic for tiny models: ten skills with short texts.

    domain    skill           example            answer  cases
    sums      addition        14 + 3 = ?             17    600
              subtraction     17 - 3 = ?             14   1176
              missing_addend  3 + ? = 17             14   1176
              three_addends   3 + 9 + 2 = ?          14    680
    products  multiplication  3 * 14 = ?             42    356
              remainder       17 mod 3 = ?            2    320
    order     larger          Larger: 3 or 14?       14   1225
              smaller         Smaller: 3 or 14?       3   1225
              middle          Middle: 14, 3, 9?       9   2430
              sequence        3, 5, 7, ?              9    630

All answers are integers from 0 to 441, and only an equal number is right. A
wrong solution has a typical slip: one or ten too many, or another number of the
question.
"""

import itertools
from collections.abc import Callable, Iterable
from decimal import Decimal

import numpy as np

from isft_jax.worlds.problems import final_answer
from isft_jax.worlds.problems.world import Skill, World, Written

CONTEXT = 'Give the final answer.'


def _skill(
  name: str,
  domain: str,
  cases: Iterable[tuple[int, ...]],
  phrases: tuple[str, ...],
  solve: Callable[..., int],
  wrong: Callable[..., tuple[int, ...]] = lambda *_: (),
  shuffled: bool = False,
) -> Skill:
  """Returns the skill of a list of cases.

  Args:
    name, domain: see `Skill`.
    cases: numbers of each problem.
    phrases: questions with the fields {0}, {1}, ...
    solve: numbers -> answer.
    wrong: numbers -> wrong answers, in addition to slips by one and by ten.
    shuffled: whether the numbers are shown in a random order.
  """
  table = tuple(cases)

  def write(case: int, rng: np.random.Generator) -> Written:
    numbers = table[case]
    answer = solve(*numbers)
    shown = rng.permutation(numbers) if shuffled else numbers
    question = str(rng.choice(phrases)).format(*shown)
    near = (answer - 10, answer - 1, answer + 1, answer + 10)
    others = [n for n in (*near, *wrong(*numbers)) if n != answer and n >= 0]
    return Written(
      question,
      Decimal(answer),
      f'{final_answer.MARK} {answer}',
      f'{final_answer.MARK} {others[rng.integers(len(others))]}',
    )

  return Skill(name, domain, len(table), write)


# All numbers in questions are below this one, so that each is a single token of
# a small vocabulary.
LIMIT = 50

# Each pair and triple of numbers is a single case, in whichever order it is
# shown: 3 + 14 and 14 + 3 are in the same split.
_PAIRS = tuple(itertools.combinations(range(LIMIT), 2))

ARITHMETIC = World(
  'arithmetic',
  CONTEXT,
  (
    _skill(
      'addition',
      'sums',
      [(a, b) for a in range(1, LIMIT) for b in range(a, LIMIT - a)],
      ('{0} + {1} = ?', 'Add {0} and {1}.'),
      lambda a, b: a + b,
      lambda a, b: (b - a,),
      shuffled=True,
    ),
    _skill(
      'subtraction',
      'sums',
      [(a, b) for b, a in _PAIRS if b],
      ('{0} - {1} = ?', 'Subtract {1} from {0}.'),
      lambda a, b: a - b,
      lambda a, b: (a + b,),
    ),
    _skill(
      'missing_addend',
      'sums',
      [(a, c) for a, c in _PAIRS if a],
      ('{0} + ? = {1}', '? + {0} = {1}'),
      lambda a, c: c - a,
      lambda a, c: (a + c,),
    ),
    _skill(
      'three_addends',
      'sums',
      itertools.combinations_with_replacement(range(1, 16), 3),
      ('{0} + {1} + {2} = ?', 'Add {0}, {1} and {2}.'),
      lambda a, b, c: a + b + c,
      lambda a, b, c: (a + b, b + c),
      shuffled=True,
    ),
    _skill(
      'multiplication',
      'products',
      [(a, b) for a in range(2, 10) for b in range(a, LIMIT)],
      ('{0} * {1} = ?', 'Multiply {0} by {1}.'),
      lambda a, b: a * b,
      lambda a, b: (a * b - a, a * b + a, a + b),
      shuffled=True,
    ),
    _skill(
      'remainder',
      'products',
      [(a, b) for a in range(10, LIMIT) for b in range(2, 10)],
      ('{0} mod {1} = ?', 'Remainder of {0} by {1} = ?'),
      lambda a, b: a % b,
      lambda a, b: (a // b,),
    ),
    _skill(
      'larger',
      'order',
      _PAIRS,
      ('Larger: {0} or {1}?', 'Max of {0} and {1} = ?'),
      max,
      lambda a, b: (min(a, b),) * 4,
      shuffled=True,
    ),
    _skill(
      'smaller',
      'order',
      _PAIRS,
      ('Smaller: {0} or {1}?', 'Min of {0} and {1} = ?'),
      min,
      lambda a, b: (max(a, b),) * 4,
      shuffled=True,
    ),
    _skill(
      'middle',
      'order',
      [
        (b - below, b, b + above)
        for b in range(10, LIMIT - 10)
        for below in range(1, 10)
        for above in range(1, 10)
      ],
      ('Middle: {0}, {1}, {2}?', 'Median of {0}, {1}, {2} = ?'),
      lambda a, b, c: b,
      lambda a, b, c: (a, c) * 2,
      shuffled=True,
    ),
    _skill(
      'sequence',
      'order',
      [
        (a, a + step, a + 2 * step, a + 3 * step)
        for step in (*range(-9, 0), *range(1, 10))
        for a in range(LIMIT)
        if 0 <= a + 3 * step < LIMIT
      ],
      ('{0}, {1}, {2}, ?', 'Next: {0}, {1}, {2}, ?'),
      lambda a, b, c, d: d,
      lambda a, b, c, d: (b, 2 * d - c),
    ),
  ),
  final_answer.verify,
)
