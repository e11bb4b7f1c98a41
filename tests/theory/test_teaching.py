"""What each loss has for its minimum, in a table and in a small decoder.

A table of logits, one row for each beginning of an episode of two steps, stands
for a model that can represent anything. The expected loss is a sum over all
episodes; at its minimum the gradient is zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax.theory import lessons, teaching
from isft_jax.theory.bandit import Bandit
from isft_jax.theory.learner import Episodes, Prediction
from isft_jax.theory.lessons import LOSSES
from isft_jax.theory.teaching import Lesson

PROCESS = Bandit()


def every_episode():
  """All of two steps, for every theta: 5 x 10 x 10."""
  theta, a, o, b, u = np.indices((5, 5, 2, 5, 2)).reshape(5, -1)
  return Episodes(theta, np.stack([a, b], axis=1), np.stack([o, u], axis=1))


def probability(seen, behaviour, exact):
  """Of each episode. exact: by whose predictions the learner plays."""
  pays = np.asarray(lessons.reward_law(PROCESS, seen))
  weight = np.full(len(seen.theta_B), 0.2)
  for t in range(2):
    action = seen.actions_BT[:, t]
    weight = (
      weight
      * np.take_along_axis(pays[:, t], seen.rewards_BT[:, t, None], axis=1)[
        :, 0
      ]
    )
    weight *= {
      'random': np.full(len(action), 0.2),
      'expert': np.where(action == seen.theta_B, 0.6, 0.1),
      'own': np.exp(exact.action_BTA[np.arange(len(action)), t, action]),
    }[behaviour]
  return weight


def gradient_at(exact, seen, behaviour, loss):
  """The expected loss's gradient by beginnings: for actions, for rewards."""
  (a, b), (o, _) = seen.actions_BT.T, seen.rewards_BT.T
  first = 2 * a + o
  rows = Prediction(
    # The beginning that each slot of each episode continues.
    np.stack([np.zeros_like(first), 1 + first], axis=1),
    np.stack([a, 5 + 5 * first + b], axis=1),
  )
  sizes = Prediction((11, 5), (55, 2))

  def of_row(logits, one):
    predicted = jax.tree.map(lambda x: jax.nn.log_softmax(x)[None], logits)
    one = jax.tree.map(lambda x: x[None], one)
    return lessons.objective(predicted, PROCESS, one, behaviour, LOSSES[loss])

  weight = probability(seen, behaviour, exact)
  by_row = jax.vmap(jax.grad(of_row))(exact, seen)
  return [
    np.asarray(
      jnp.zeros(size)
      .at[where.ravel()]
      .add((weight[:, None, None] * slope).reshape(-1, size[1]))
    )
    for size, where, slope in zip(sizes, rows, by_row, strict=True)
  ]


# The oracle at which each cell's expected loss is flat, and nowhere else.
MINIMA = {
  ('expert', 'actions'): 'conditional',
  ('expert', 'all'): 'conditional',
  ('expert', 'counterfactual'): 'conditional',
  ('expert', 'observations'): 'conditional',
  ('random', 'counterfactual'): 'interventional',
  ('random', 'observations'): 'interventional',
  ('own', 'counterfactual'): 'interventional',
  ('own', 'observations'): 'interventional',
}


@pytest.mark.parametrize(('behaviour', 'loss'), MINIMA)
def test_the_minimum_of_a_loss(behaviour, loss):
  with jax.enable_x64(True):
    seen = every_episode()
    for name in ('interventional', 'conditional'):
      exact = lessons.oracle(PROCESS, seen, name == 'conditional')
      slopes = gradient_at(exact, seen, behaviour, loss)
      steepest = max(np.abs(slope).max() for slope in slopes)
      if name == MINIMA[behaviour, loss]:
        assert steepest < 1e-15
      else:
        assert steepest > 1e-4


def test_every_episode_has_a_probability():
  seen = every_episode()
  exact = lessons.oracle(PROCESS, seen, False)
  for behaviour in lessons.BEHAVIOURS:
    total = probability(seen, behaviour, exact).sum()
    assert total == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize('behaviour', lessons.BEHAVIOURS)
def test_a_masked_slot_has_no_gradient(behaviour):
  seen = every_episode()
  exact = lessons.oracle(PROCESS, seen, True)

  def slopes(loss):
    return jax.grad(lessons.objective)(
      exact, PROCESS, seen, behaviour, LOSSES[loss]
    )

  assert not slopes('observations').action_BTA.any()
  assert slopes('observations').reward_BTO.all()
  for loss in ('actions', 'counterfactual'):
    assert not slopes(loss).reward_BTO.any()
    assert slopes(loss).action_BTA.all()


def test_a_learner_has_nothing_to_learn_from_its_own_actions():
  """Its target is its own prediction: p - p, up to rounding."""
  with jax.enable_x64(True):
    seen = every_episode()
    exact = lessons.oracle(PROCESS, seen, True)

    def loss(logits):
      predicted = Prediction(jax.nn.log_softmax(logits), exact.reward_BTO)
      return lessons.objective(
        predicted, PROCESS, seen, 'own', LOSSES['actions']
      )

    slope = jax.grad(loss)(2 * exact.action_BTA)
  np.testing.assert_allclose(slope, np.zeros_like(slope), atol=1e-17)


def test_the_distance_of_an_oracle_to_itself_is_zero():
  seen = every_episode()
  oracles = [lessons.oracle(PROCESS, seen, each) for each in (False, True)]
  for loss in LOSSES.values():
    for exact in oracles:
      np.testing.assert_array_equal(lessons.kl(exact, exact, loss), 0)
    assert (lessons.kl(*oracles, loss) > -1e-6).all()
    assert lessons.kl(*oracles, loss).max() > 0.01


def test_who_opens_an_arm_is_evidence_for_the_conditional_oracle():
  """Before anything paid, a first action: P(theta = a) is 0.6, or still 0.2."""
  seen = Episodes(np.array([0]), np.array([[3]]), np.array([[1]]))
  for conditional, belief in (True, 0.6), (False, 0.2):
    exact = lessons.oracle(PROCESS, seen, conditional)
    pays = float(jnp.exp(exact.reward_BTO)[0, 0, 1])
    assert pays == pytest.approx(0.25 + 0.5 * belief)


@pytest.fixture(scope='module')
def taught():
  """Four cells by a decoder of one layer: episodes of three steps.

  To compile is nearly all of the time, and is shared by behaviour.
  """
  lesson = Lesson(
    horizon=3, width=32, layers=1, rows=64, steps=400, measured=2000
  )
  learner = teaching.Learner(PROCESS, lesson)
  return {
    key: teaching.cell(learner, *key, seeds=[0])
    for key in (
      ('own', 'counterfactual'),
      ('expert', 'actions'),
      ('expert', 'observations'),
      ('own', 'actions'),
    )
  }


@pytest.mark.parametrize(
  ('behaviour', 'loss', 'near', 'far'),
  [
    ('own', 'counterfactual', 'interventional', 'conditional'),
    ('expert', 'actions', 'conditional', 'interventional'),
    ('expert', 'observations', 'conditional', 'interventional'),
  ],
)
def test_a_decoder_comes_to_the_minimum(taught, behaviour, loss, near, far):
  cell = taught[behaviour, loss]
  assert cell[f'kl_to_{near}']['hi'] < 0.01
  assert cell[f'kl_to_{far}']['lo'] > 0.03
  for name in ('kl_to_interventional', 'kl_to_conditional', 'reward'):
    assert cell[name]['lo'] < cell[name]['mean'] < cell[name]['hi']
  assert len(cell['p_best']) == 3


def test_a_decoder_that_has_nothing_to_learn_comes_to_neither(taught):
  """So that what is near above is near because it was taught."""
  cell = taught['own', 'actions']
  assert cell['kl_to_interventional']['lo'] > 0.02
  assert cell['kl_to_conditional']['lo'] > 0.02
