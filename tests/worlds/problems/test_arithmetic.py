"""Arithmetic: one problem per skill by hand, and all against Python."""

import re
import statistics

import pytest

from isft_jax.worlds.problems.arithmetic import ARITHMETIC


def test_the_skills_and_the_number_of_cases():
  assert [(s.name, s.domain, s.size) for s in ARITHMETIC.skills] == [
    ('addition', 'sums', 2450),
    ('subtraction', 'sums', 4851),
    ('missing_addend', 'sums', 4851),
    ('digit_sum', 'sums', 900),
    ('multiplication', 'products', 784),
    ('remainder', 'products', 720),
    ('larger', 'order', 4950),
    ('smaller', 'order', 4950),
    ('middle', 'order', 6480),
    ('sequence', 'order', 1530),
  ]
  assert all(
    (s.unit, s.absolute, s.relative) == ('', 0, 0) for s in ARITHMETIC.skills
  )


def test_ten_problems_of_one_seed():
  assert [
    (p.question, p.solution, p.wrong_solution)
    for p in ARITHMETIC.make('train', 10, 0)
  ] == [
    ('Add 22 and 33.', 'Final answer: 55', 'Final answer: 56'),
    ('87 - 43 = ?', 'Final answer: 44', 'Final answer: 43'),
    ('? + 32 = 74', 'Final answer: 42', 'Final answer: 32'),
    ('Sum the digits of 817.', 'Final answer: 16', 'Final answer: 15'),
    ('Multiply 8 by 15.', 'Final answer: 120', 'Final answer: 112'),
    ('Remainder of 37 by 8 = ?', 'Final answer: 5', 'Final answer: 4'),
    ('Larger: 36 or 39?', 'Final answer: 39', 'Final answer: 36'),
    ('Smaller: 69 or 70?', 'Final answer: 69', 'Final answer: 79'),
    ('Median of 83, 78, 75 = ?', 'Final answer: 78', 'Final answer: 83'),
    ('42, 40, 38, ?', 'Final answer: 36', 'Final answer: 34'),
  ]


# The phrases of a skill, and its answer from the numbers in a question.
_SKILLS = {
  'addition': ([r'(\d+) \+ (\d+) = \?', r'Add (\d+) and (\d+)\.'], int.__add__),
  'subtraction': (
    [r'(\d+) - (\d+) = \?', r'Subtract (\d+) from (\d+)\.'],
    lambda a, b: abs(a - b),
  ),
  'missing_addend': (
    [r'(\d+) \+ \? = (\d+)', r'\? \+ (\d+) = (\d+)'],
    lambda a, c: c - a,
  ),
  'digit_sum': (
    [r'Sum the digits of (\d+)\.', r'Digit sum of (\d+) = \?'],
    lambda n: n // 100 + n // 10 % 10 + n % 10,
  ),
  'multiplication': (
    [r'(\d+) \* (\d+) = \?', r'Multiply (\d+) by (\d+)\.'],
    int.__mul__,
  ),
  'remainder': (
    [r'(\d+) mod (\d+) = \?', r'Remainder of (\d+) by (\d+) = \?'],
    lambda a, b: divmod(a, b)[1],
  ),
  'larger': (
    [r'Larger: (\d+) or (\d+)\?', r'Max of (\d+) and (\d+) = \?'],
    lambda *n: sorted(n)[1],
  ),
  'smaller': (
    [r'Smaller: (\d+) or (\d+)\?', r'Min of (\d+) and (\d+) = \?'],
    lambda *n: sorted(n)[0],
  ),
  'middle': (
    [
      r'Middle: (\d+), (\d+), (\d+)\?',
      r'Median of (\d+), (\d+), (\d+) = \?',
    ],
    lambda *n: statistics.median(n),
  ),
  'sequence': (
    [r'(\d+), (\d+), (\d+), \?', r'Next: (\d+), (\d+), (\d+), \?'],
    lambda a, b, c: c + (c - b) if c - b == b - a else None,
  ),
}


@pytest.mark.parametrize('skill', _SKILLS)
def test_answers_follow_from_the_numbers_in_the_questions(skill):
  patterns, solve = _SKILLS[skill]
  used = set()
  for problem in ARITHMETIC.make('train', 280, 1, [skill]):
    matches = [re.fullmatch(p, problem.question) for p in patterns]
    (which,) = [i for i, match in enumerate(matches) if match]
    used.add(which)
    answer = solve(*map(int, matches[which].groups()))
    assert problem.answer == answer, problem
    assert 0 <= answer <= 891
    assert problem.solution == f'Final answer: {answer}'
    wrong = re.fullmatch(r'Final answer: (\d+)', problem.wrong_solution)
    assert int(wrong[1]) != answer, problem
  assert used == {0, 1}


def test_operands_are_shown_in_both_orders_and_are_one_case():
  for skill in ('addition', 'larger', 'smaller'):
    problems = ARITHMETIC.make('agent', 200, 0, [skill])
    pairs = [tuple(map(int, re.findall(r'\d+', p.question))) for p in problems]
    assert len({tuple(sorted(pair)) for pair in pairs}) == 200
    assert 60 < sum(a > b for a, b in pairs) < 140
