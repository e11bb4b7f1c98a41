"""Figures of results.json, counted by hand."""

import numpy as np
import pytest

from isft_jax.experiments.deployment import results


def test_shares_of_a_run():
  """Five problems: two right at once, then 1, 2 and 0 of three repaired."""
  run = {
    'first': '11000',
    'asked_again': '0100',
    'second': '--100',
    'again': '--110',
    'after_sft': '1-001',  # the first policy was right on one problem
  }
  assert results.shares(run) == {
    'first': (2, 5),
    'asked_again': (1, 4),
    'second': (3, 5),
    'repaired_second': (1, 3),
    'again': (4, 5),
    'repaired_again': (2, 3),
    'after_sft': (3, 5),
    'repaired_after_sft': (2, 4),
  }


def test_accuracies_are_in_the_order_of_the_increments():
  run = {
    'skills': ['b', 'a'],
    'test_skills': ['a', 'b', 'a', 'b'],
    'right': ['1000', '1110', '0101'],
  }
  assert results.accuracies(run).tolist() == [
    [0.0, 0.5],
    [0.5, 1.0],
    [1.0, 0.0],
  ]


def test_forgetting_is_the_drop_from_the_best_since_the_own_increment():
  """Skill 1: best 0.8 after its increment, 0.5 at the end. Skill 2: 0.1."""
  table = np.array(
    [
      [0.9, 0.1, 0.2],  # before: does not count
      [0.7, 0.1, 0.2],
      [0.8, 0.6, 0.2],
      [0.5, 0.5, 0.9],
    ]
  )
  assert results.forgetting(table) == pytest.approx((0.3 + 0.1) / 2)


def test_nothing_is_old_after_one_increment():
  assert results.forgetting(np.array([[0.9], [0.1]])) == 0
