"""Blocks of any length: whose they are decides what they say."""

import itertools
import math

import jax
import numpy as np
import pytest

from isft_jax.theory import blocks
from isft_jax.theory.blocks import END, TRUE, A, B

BOUND = math.log(1 / 0.35)


def test_a_block_is_drawn_until_its_end():
  # p_B: A 0.1, B 0.4, END 0.5; p_A: A 0.675, B 0.075, END 0.25.
  p = blocks.likelihood([B, A, END])
  np.testing.assert_allclose(p, [0.4 * 0.1 * 0.5, 0.075 * 0.675 * 0.25])
  np.testing.assert_allclose(blocks.likelihood([END]), [0.5, 0.25])


def test_blocks_of_all_lengths_sum_to_one():
  total = np.zeros(2)
  for length in range(8):
    for symbols in itertools.product((A, B), repeat=length):
      total += blocks.likelihood([*symbols, END])
  # The rest are blocks of 8 symbols or more.
  np.testing.assert_allclose(total, [1 - 0.5**8, 1 - 0.75**8], rtol=1e-12)


@pytest.mark.parametrize('block', [[], [A], [A, END, B], [END, END]])
def test_a_block_ends_once(block):
  with pytest.raises(ValueError, match='END'):
    blocks.likelihood(block)


def test_the_same_block_moves_the_belief_only_if_the_world_wrote_it():
  """Moving the middle block from the agent to the world moves the belief."""
  wrote = [[B, END], [A, A, END], [B, END]]
  own = blocks.history(wrote, [0, 1, 0])[:, TRUE]
  third_party = blocks.history(wrote, [0, 0, 0])[:, TRUE]
  odds = 0.35 / 0.65 * (0.4 * 0.5) / (0.075 * 0.25)
  block = 0.1**2 * 0.5 / (0.675**2 * 0.25)
  np.testing.assert_allclose(own[:2], odds / (1 + odds), rtol=1e-12)
  assert third_party[0] == own[0]
  odds *= block
  assert third_party[1] == pytest.approx(odds / (1 + odds))
  # And for good: the same last block leaves them apart.
  assert third_party[2] < own[2]


def test_the_length_of_a_block_is_evidence():
  """Empty blocks have no symbol to tell by; p_B writes them twice as often."""
  belief = blocks.history([[END], [END]], [0, 0])[:, TRUE]
  odds = 0.35 / 0.65 * np.array([2, 4])
  np.testing.assert_allclose(belief, odds / (1 + odds), rtol=1e-12)


def test_counts_stand_for_all_blocks_that_have_them():
  count_C2, p_CH = blocks.counts()
  found = {tuple(count): p_H for count, p_H in zip(count_C2, p_CH, strict=True)}
  assert len(found) == len(count_C2) == 24 * 25 / 2
  for length in range(6):
    by_count = dict.fromkeys(((a, length - a) for a in range(length + 1)), 0)
    for symbols in itertools.product((A, B), repeat=length):
      by_count[symbols.count(A), symbols.count(B)] += blocks.likelihood(
        [*symbols, END]
      )
    for count, p_H in by_count.items():
      np.testing.assert_allclose(found[count], p_H, rtol=1e-12)
  # What is left are blocks of 25 symbols and more.
  np.testing.assert_allclose(
    1 - p_CH.sum(axis=0), [0.5**24, 0.75**24], rtol=1e-6
  )


def test_counterfactual_lessons_bound_the_cost_of_the_agents_slots():
  """They make every slot evidence: rho of ln 1/w, not rho / (1 - rho)."""
  number, rho = 2000, 0.6
  key = jax.random.key(0)
  for taught, agent, world in (
    (False, rho / (1 - rho) * BOUND, BOUND),
    (True, rho * BOUND, (1 - rho) * BOUND),
  ):
    agent_E, world_E = blocks.costs(key, rho, number, 60, taught)
    # Of 24 blocks of the world, what is left of ln 1/w is below 1e-6; rounding
    # of 60 sums in float32 is below 1e-5.
    for found, value in (agent_E, agent), (world_E, world):
      error = np.std(found) / math.sqrt(number)
      assert abs(np.mean(found) - value) < 4 * error + 1e-5
