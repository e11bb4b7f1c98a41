"""Worlds: deterministic, different problems in disjoint splits."""

from decimal import Decimal

import pytest

from isft_jax.worlds.problems import final_answer
from isft_jax.worlds.problems.arithmetic import ARITHMETIC
from isft_jax.worlds.problems.fact_questions import FACT_QUESTIONS
from isft_jax.worlds.problems.physics import PHYSICS
from isft_jax.worlds.problems.problem import Problem
from isft_jax.worlds.problems.world import SPLITS, Skill, World, Written

WORLDS = (PHYSICS, ARITHMETIC, FACT_QUESTIONS)
each_world = pytest.mark.parametrize('world', WORLDS, ids=lambda w: w.name)


def skill(name, size):
  """A skill with a single wording: case 3 of skill 'a' asks 'a3?'."""
  return Skill(
    name,
    'domain',
    size,
    lambda case, rng: Written(f'{name}{case}?', Decimal(case), 'yes', 'no'),
    'V',
    Decimal('0.1'),
    Decimal('0.2'),
  )


SMALL = World(
  'small', 'context', (skill('a', 10), skill('b', 5)), final_answer.verify
)


def names(problems):
  return [p.question.rstrip('?') for p in problems]


def test_a_problem_field_by_field():
  assert [p for p in SMALL.make('test', 3, 0) if p.skill == 'b'] == [
    Problem(
      id='small-b-0002',
      domain='domain',
      skill='b',
      question='b2?',
      answer=Decimal(2),
      unit='V',
      absolute=Decimal('0.1'),
      relative=Decimal('0.2'),
      solution='yes',
      wrong_solution='no',
    )
  ]


def test_every_case_is_in_one_split():
  sizes = {split: SMALL.size(split) for split in SPLITS}
  assert sizes == {'train': 6, 'agent': 6, 'test': 3}
  cases = [n for s in SPLITS for n in names(SMALL.make(s, sizes[s], 0))]
  assert sorted(cases) == sorted(
    [f'a{i}' for i in range(10)] + [f'b{i}' for i in range(5)]
  )


def test_the_seed_changes_the_order_and_not_the_split():
  orders = {tuple(names(SMALL.make('train', 6, seed))) for seed in range(9)}
  assert len(orders) > 1
  assert len({frozenset(order) for order in orders}) == 1


def test_skills_take_turns_until_they_have_no_more_cases():
  skills = [p.skill for p in SMALL.make('train', 6, 0)]
  assert skills == ['a', 'b', 'a', 'b', 'a', 'a']
  skills = [p.skill for p in SMALL.make('train', 6, 0, ('b', 'a'))]
  assert skills == ['b', 'a', 'b', 'a', 'a', 'a']


def test_a_skill_has_the_same_problems_with_and_without_others():
  both = [p for p in SMALL.make('train', 6, 4) if p.skill == 'a']
  assert SMALL.make('train', 4, 4, ('a',)) == both
  assert SMALL.size('train', ('a',)) == 4


@each_world
def test_fewer_problems_are_the_first_ones(world):
  problems = world.make('agent', 40, 2)
  assert world.make('agent', 7, 2) == problems[:7]
  assert world.make('agent', 0, 2) == []
  assert world.make('agent', 40, 2) == problems
  assert world.make('agent', 40, 3) != problems


@each_world
def test_no_question_of_a_split_is_in_another(world):
  """The same holds for cases, whatever their wording."""
  questions, ids = {}, {}
  for split in SPLITS:
    number = min(1500, world.size(split))
    problems = [p for seed in (0, 1) for p in world.make(split, number, seed)]
    questions[split] = {p.question for p in problems}
    ids[split] = {p.id for p in problems}
    for seed in (0, 1):
      questions_of_seed = [
        p.question for p in problems[seed * number : (seed + 1) * number]
      ]
      assert len({*questions_of_seed}) == number
  for one, other in (('train', 'agent'), ('train', 'test'), ('agent', 'test')):
    assert questions[one] & questions[other] == set()
    assert ids[one] & ids[other] == set()


@each_world
def test_solutions_are_right_and_wrong_solutions_are_wrong(world):
  for split in SPLITS:
    for problem in world.make(split, min(1000, world.size(split)), 5):
      assert world.verify(problem.solution, problem).kind == 'right', problem
      wrong = world.verify(problem.wrong_solution, problem)
      assert wrong.kind == 'wrong', problem


@each_world
def test_questions_and_solutions_are_single_lines_of_ascii(world):
  texts = [world.context]
  for problem in world.make('train', 80, 0):
    texts += [problem.question, problem.solution, problem.wrong_solution]
  for text in texts:
    assert text.isascii() and text.isprintable(), text
    assert text == text.strip() and '{' not in text and '  ' not in text, text


@each_world
def test_a_question_does_not_give_its_answer_away(world):
  """No verifier reads an answer in a question."""
  for problem in world.make('train', 80, 0):
    assert world.verify(problem.question, problem).kind == 'unreadable'


@pytest.mark.parametrize(
  ('split', 'number', 'skills', 'message'),
  [
    ('dev', 1, None, r"split must be one of train, agent, test \(got 'dev'\)"),
    ('test', 4, None, r'number must be 0 to 3, .*split test.*small.*\(got 4\)'),
    ('test', -1, None, r'number must be 0 to 3, .*\(got -1\)'),
    ('test', 2, ['b'], r'number must be 0 to 1, .*\(got 2\)'),
    ('test', 1, ['c'], r'skills must be different names of a, b \(got c\)'),
    ('test', 1, ['a', 'a'], r'skills must be .* \(got a, a\)'),
    ('test', 1, [], r'skills must be .* \(got none\)'),
  ],
)
def test_what_cannot_be_made_is_refused(split, number, skills, message):
  with pytest.raises(ValueError, match=message):
    SMALL.make(split, number, 0, skills)
