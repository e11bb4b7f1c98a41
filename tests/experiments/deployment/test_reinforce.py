"""REINFORCE: advantages by hand, and its gradient in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from isft_jax.config import ModelConfig
from isft_jax.experiments.deployment import reinforce
from isft_jax.models import decoder

SHAPE = ModelConfig(
  vocab_size=24, width=16, layers=1, head_size=8, tie_embeddings=False
)


def test_the_baseline_is_the_mean_of_the_other_samples():
  found = reinforce.advantages(np.array([[1, 0, 0, 1], [1, 1, 1, 1]]))
  expected = [[1 - 1 / 3, -2 / 3, -2 / 3, 1 - 1 / 3], [0, 0, 0, 0]]
  np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_two_samples_are_compared_with_each_other():
  found = reinforce.advantages(np.array([[1, 0], [0, 0], [0, 1]]))
  assert found.tolist() == [[1, -1], [0, 0], [-1, 1]]


PROMPTS = [[1, 2, 3], [1, 2, 3], [4, 5], [4, 5]]
REPLIES = [[6, 7], [8], [9, 10, 11], [12, 7]]


def batch(advantages):
  prompts, replies = (
    [np.array(ids, np.int32) for ids in rows] for rows in (PROMPTS, REPLIES)
  )
  return reinforce.rollout_batch(
    prompts, replies, np.array(advantages), shape=(4, 8, 3)
  )


def test_each_token_of_an_answer_has_its_advantage():
  made = batch([0.5, -0.5, 1.0, 0.0])
  assert made.weights_BK.tolist() == [
    [0.5, 0.5, 0.0],
    [-0.5, 0.0, 0.0],
    [1.0, 1.0, 1.0],
    [0.0, 0.0, 0.0],
  ]
  assert made.targets_BK.tolist() == [
    [6, 7, 0],
    [8, 0, 0],
    [9, 10, 11],
    [12, 7, 0],
  ]
  assert made.tokens_BL[2].tolist() == [4, 5, 9, 10, 0, 0, 0, 0]


@pytest.fixture(scope='module')
def model():
  graphdef, _ = decoder.abstract(SHAPE)
  return graphdef, decoder.init(SHAPE, jax.random.key(0))


def test_the_gradient_of_the_head_is_the_textbook_one(model):
  """1 / N sum_i A_i (p_i - onehot(y_i)) h_i^T, in float64."""
  graphdef, params = model
  advantages = [0.5, -0.5, 1.0, -1.0]
  made = batch(advantages)
  value, gradient = jax.value_and_grad(
    lambda p: reinforce.policy_loss(graphdef, p, made)
  )(params)
  # Hidden states of the model, and then everything by hand.
  from flax import nnx

  network = nnx.merge(graphdef, params)
  hidden_BLD = np.asarray(
    network(made.tokens_BL, made.positions_BL, made.segment_ids_BL), np.float64
  )
  head_VD = np.asarray(network.head_VD, np.float64)
  expected_VD, loss = np.zeros_like(head_VD), 0.0
  for b, (prompt, reply, a) in enumerate(
    zip(PROMPTS, REPLIES, advantages, strict=True)
  ):
    for k, token in enumerate(reply):
      h_D = hidden_BLD[b, len(prompt) - 1 + k]
      logits_V = head_VD @ h_D
      p_V = np.exp(logits_V - logits_V.max())
      p_V /= p_V.sum()
      loss -= a * np.log(p_V[token]) / len(REPLIES)
      p_V[token] -= 1
      expected_VD += a * np.outer(p_V, h_D) / len(REPLIES)
  # float32 against float64.
  np.testing.assert_allclose(value, loss, rtol=1e-5, atol=1e-6)
  found = np.asarray(gradient['head'])
  found = found if found.shape == expected_VD.shape else found.T
  np.testing.assert_allclose(found, expected_VD, rtol=2e-4, atol=2e-6)


def test_equal_rewards_have_a_gradient_of_exactly_zero(model):
  graphdef, params = model
  rewards = np.ones((2, 2))
  made = batch(reinforce.advantages(rewards).reshape(-1))
  gradient = jax.grad(lambda p: reinforce.policy_loss(graphdef, p, made))(
    params
  )
  for leaf in jax.tree.leaves(gradient):
    assert not np.any(leaf)


def test_steps_raise_the_reward(config, renderer):
  """Of a policy without training, whose right answer is any of some ids."""
  del renderer
  graphdef, _ = decoder.abstract(SHAPE)
  params = decoder.init(SHAPE, jax.random.key(1))
  init, step = reinforce._make_step(
    graphdef, dataclasses.replace(config.reinforce.optim), 40, 'float32'
  )
  state, rng = init(params), np.random.default_rng(0)

  def share(params):
    """Probability of an even token after the prompt."""
    from flax import nnx

    made = batch([1.0, 1.0, 1.0, 1.0])
    network = nnx.merge(graphdef, params)
    hidden_BLD = network(made.tokens_BL, made.positions_BL, made.segment_ids_BL)
    logits_V = network.logits(hidden_BLD[:1, 2])[0]
    return np.asarray(jax.nn.softmax(logits_V), np.float64)

  before = share(params)[::2].sum()
  for _ in range(40):
    p_V = share(params)
    draws = rng.choice(24, 4, p=p_V / p_V.sum())
    made = reinforce.rollout_batch(
      [np.array(PROMPTS[0], np.int32)] * 4,
      [np.array([d], np.int32) for d in draws],
      reinforce.advantages((draws % 2 == 0)[None]).reshape(-1),
      (4, 8, 3),
    )
    params, state, _ = step(params, state, (), made)
  assert share(params)[::2].sum() > before + 0.2
