"""Verdicts and corrections: no content, and no shared first words."""

import numpy as np

from isft_jax.worlds.problems import final_answer, phrases
from isft_jax.worlds.problems.physics import PHYSICS


def test_no_two_phrases_begin_with_the_same_word():
  openings = [p for p in phrases.CORRECTIONS if not p.startswith('{')]
  words = [
    phrase.split()[0].strip('.,')
    for phrase in (*phrases.RIGHT, *phrases.WRONG, *openings)
  ]
  assert len(words) == 18 and len({*words}) == 18


def test_no_verdict_has_a_number_or_a_solution():
  for phrase in phrases.RIGHT + phrases.WRONG:
    assert final_answer.read(phrase) is None
    assert not any(c.isdigit() for c in phrase) and '{' not in phrase


def test_every_phrase_is_drawn():
  rng = np.random.default_rng(0)
  drawn = {phrases.draw_verdict(True, rng) for _ in range(200)}
  assert drawn == {*phrases.RIGHT}
  drawn = {phrases.draw_verdict(False, rng) for _ in range(200)}
  assert drawn == {*phrases.WRONG}
  drawn = {phrases.draw_correction('x', rng) for _ in range(200)}
  assert drawn == {p.format(solution='x') for p in phrases.CORRECTIONS}


def test_a_verdict_and_a_correction_draw_one_number_whatever_they_say():
  """So that controls with wrong corrections keep all other choices."""
  after = set()
  for is_right in (True, False):
    for solution in ('right', 'wrong'):
      rng = np.random.default_rng(7)
      phrases.draw_verdict(is_right, rng)
      phrases.draw_correction(solution, rng)
      after.add(rng.random())
  assert len(after) == 1


def test_a_correction_is_verified_as_its_solution_is():
  rng = np.random.default_rng(0)
  for problem in PHYSICS.make('agent', 200, 0):
    right = phrases.draw_correction(problem.solution, rng)
    wrong = phrases.draw_correction(problem.wrong_solution, rng)
    assert PHYSICS.verify(right, problem).kind == 'right', right
    assert PHYSICS.verify(wrong, problem).kind == 'wrong', wrong
