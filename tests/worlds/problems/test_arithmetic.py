"""Arithmetic: one problem per skill by hand, and all against Python."""

import re
import statistics

import pytest

from isft_jax.worlds.problems.arithmetic import ARITHMETIC


def test_the_skills_and_the_number_of_cases():
  assert [(s.name, s.domain, s.size) for s in ARITHMETIC.skills] == [
    ('addition', 'sums', 600),
    ('subtraction', 'sums', 1176),
    ('missing_addend', 'sums', 1176),
    ('three_addends', 'sums', 680),
    ('multiplication', 'products', 356),
    ('remainder', 'products', 320),
    ('larger', 'order', 1225),
    ('smaller', 'order', 1225),
    ('middle', 'order', 2430),
    ('sequence', 'order', 630),
  ]
  assert all(
    (s.unit, s.absolute, s.relative) == ('', 0, 0) for s in ARITHMETIC.skills
  )


def test_ten_problems_of_one_seed():
  assert [
    (p.question, p.solution, p.wrong_solution)
    for p in ARITHMETIC.make('train', 10, 0)
  ] == [
    ('6 + 31 = ?', 'Final answer: 37', 'Final answer: 38'),
    ('Subtract 11 from 12.', 'Final answer: 1', 'Final answer: 2'),
    ('? + 37 = 45', 'Final answer: 8', 'Final answer: 9'),
    ('Add 1, 8 and 1.', 'Final answer: 10', 'Final answer: 2'),
    ('6 * 23 = ?', 'Final answer: 138', 'Final answer: 144'),
    ('36 mod 9 = ?', 'Final answer: 0', 'Final answer: 10'),
    ('Larger: 10 or 16?', 'Final answer: 16', 'Final answer: 26'),
    ('Smaller: 39 or 20?', 'Final answer: 20', 'Final answer: 39'),
    ('Middle: 12, 20, 25?', 'Final answer: 20', 'Final answer: 19'),
    ('Next: 37, 39, 41, ?', 'Final answer: 43', 'Final answer: 42'),
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
  'three_addends': (
    [r'(\d+) \+ (\d+) \+ (\d+) = \?', r'Add (\d+), (\d+) and (\d+)\.'],
    lambda *n: sum(n),
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
  for problem in ARITHMETIC.make('train', 120, 1, [skill]):
    matches = [re.fullmatch(p, problem.question) for p in patterns]
    (which,) = [i for i, match in enumerate(matches) if match]
    used.add(which)
    answer = solve(*map(int, matches[which].groups()))
    assert problem.answer == answer, problem
    assert 0 <= answer <= 441
    assert problem.solution == f'Final answer: {answer}'
    wrong = re.fullmatch(r'Final answer: (\d+)', problem.wrong_solution)
    assert int(wrong[1]) != answer, problem
  assert used == {0, 1}


def test_operands_are_shown_in_both_orders_and_are_one_case():
  for skill in ('addition', 'multiplication', 'larger', 'smaller'):
    problems = ARITHMETIC.make('agent', 140, 0, [skill])
    pairs = [tuple(map(int, re.findall(r'\d+', p.question))) for p in problems]
    assert len({tuple(sorted(pair)) for pair in pairs}) == 140
    assert 40 < sum(a > b for a, b in pairs) < 100
