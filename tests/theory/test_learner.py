"""The decoder as a learner: its columns, and that it plays as it predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax.models import decoder
from isft_jax.theory import learner
from isft_jax.theory.bandit import Bandit, pick
from isft_jax.theory.learner import Episodes

PROCESS = Bandit()
STEPS = 4


@pytest.fixture(scope='module')
def model():
  config = learner.model_config(PROCESS, 16, 1)
  graphdef, _ = decoder.abstract(config)
  params = decoder.init(config, jax.random.key(0))
  # Far from uniform: as it starts, all predictions are nearly alike.
  params['embedding'] *= 50
  return graphdef, params


@pytest.fixture(scope='module')
def seen(model):
  key, theta = jax.random.key(1), jnp.arange(200) % 5
  return jax.jit(learner.play, static_argnums=(0, 2, 5))(
    model[0], model[1], PROCESS, key, theta, STEPS
  )


@pytest.fixture(scope='module')
def predict(model):
  run = jax.jit(learner.predict, static_argnums=(0, 2))
  return lambda seen: run(model[0], model[1], PROCESS, seen)


def test_a_slot_holds_what_belongs_there(seen, predict):
  predicted = predict(seen)
  assert predicted.action_BTA.shape == (200, STEPS, 5)
  assert predicted.reward_BTO.shape == (200, STEPS, 2)
  for log_p in predicted:
    np.testing.assert_allclose(jnp.exp(log_p).sum(axis=-1), 1, rtol=1e-5)


def test_it_plays_as_it_predicts(seen, predict):
  """One by one through a cache, or all at once: the same probabilities."""
  predicted = predict(seen)
  assert np.ptp(np.exp(predicted.action_BTA), axis=(0, 2)).min() > 0.5
  keys = jax.random.split(jax.random.key(1), STEPS)
  for t in range(STEPS):
    drawn = jax.random.uniform(keys[t], (2, 200))
    actions = pick(jnp.exp(predicted.action_BTA[:, t]), drawn[0])
    np.testing.assert_array_equal(seen.actions_BT[:, t], actions)
    pays = jnp.where(seen.theta_B == actions, 0.75, 0.25)
    np.testing.assert_array_equal(seen.rewards_BT[:, t], drawn[1] < pays)


@pytest.mark.parametrize('t', range(STEPS))
def test_a_prediction_knows_what_was_before_it_and_no_more(seen, predict, t):
  """Slots that change where step t's action or reward does."""
  before = predict(seen)

  def changed(after):
    return [
      (np.asarray(a) != np.asarray(b)).any(axis=(0, 2)).tolist()
      for a, b in zip(before, after, strict=True)
    ]

  later, now_and_later = (
    [s > t for s in range(STEPS)],
    [s >= t for s in range(STEPS)],
  )
  other = seen.actions_BT.at[:, t].set((seen.actions_BT[:, t] + 1) % 5)
  assert changed(predict(seen._replace(actions_BT=other))) == [
    later,
    now_and_later,
  ]
  other = seen.rewards_BT.at[:, t].set(1 - seen.rewards_BT[:, t])
  assert changed(predict(seen._replace(rewards_BT=other))) == [later, later]


def test_it_does_not_see_theta(seen, predict):
  blind = Episodes((seen.theta_B + 1) % 5, seen.actions_BT, seen.rewards_BT)
  for a, b in zip(predict(seen), predict(blind), strict=True):
    np.testing.assert_array_equal(a, b)
