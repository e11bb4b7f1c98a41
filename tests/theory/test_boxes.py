"""Two boxes: closed forms, and what a masked loss comes to."""

import numpy as np
import pytest

from isft_jax.theory import boxes

ACCURACIES = (0.5, 0.6, 0.9)


def test_what_an_opener_writes():
  #                       no prize  prize
  np.testing.assert_allclose(
    boxes.joint(0.9), [[0.05, 0.45], [0.05, 0.45]], rtol=1e-15
  )


@pytest.mark.parametrize('accuracy', ACCURACIES)
def test_an_expert_makes_the_prize_follow_the_action(accuracy):
  np.testing.assert_allclose(boxes.conditional(accuracy), [accuracy] * 2)
  np.testing.assert_allclose(boxes.interventional(), [0.5, 0.5])


@pytest.mark.parametrize('accuracy', ACCURACIES)
def test_masking_actions_learns_the_conditional(accuracy):
  """The two agree where the opener is blind, and nowhere else."""
  learned = boxes.learned(accuracy)
  np.testing.assert_allclose(learned, boxes.conditional(accuracy), atol=1e-5)
  gap = np.abs(learned - boxes.interventional())
  np.testing.assert_allclose(gap, accuracy - 0.5, atol=1e-5)
