"""Trained on the same masked labels, our decoder stays transformers' model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isft_jax.config import OptimConfig
from isft_jax.hf import pretrained
from isft_jax.train.optim import make_optimizer
from tests.fixtures import import_or_skip
from tests.hf.random_folders import TOKENS_BL, folder_of

torch = import_or_skip('torch')

STEPS = 10
# One target in three is masked, as an agent's tokens are under L_do.
SCORED_L = np.arange(TOKENS_BL.shape[1]) % 3 != 0
OPTIM = OptimConfig(learning_rate=1e-3, weight_decay=0.1, clip_norm=0.5)


def loss_of(graphdef, params):
  logits_BLV = pretrained.Model(graphdef, params)(TOKENS_BL)[:, :-1]
  nll_BL = optax.softmax_cross_entropy_with_integer_labels(
    logits_BLV, jnp.asarray(TOKENS_BL[:, 1:])
  )
  return jnp.mean(nll_BL[:, SCORED_L[1:]])


@pytest.fixture(scope='module', params=['qwen2, tied', 'llama'])
def pair(request, tmp_path_factory):
  """Torch's model, and ours with its graph, from one folder."""
  folder = tmp_path_factory.mktemp('pair')
  theirs = folder_of(request.param, folder)
  return theirs, pretrained.load(folder)[0]


def test_ten_steps_of_adamw_are_those_of_torch(pair, tmp_path):
  """The same order: clip, moments, decay. Parameters within 1e-3 of the way."""
  theirs, ours = pair
  optimizer = torch.optim.AdamW(
    theirs.parameters(),
    lr=OPTIM.learning_rate,
    betas=(OPTIM.b1, OPTIM.b2),
    eps=OPTIM.eps,
    weight_decay=OPTIM.weight_decay,
  )
  tokens = torch.asarray(TOKENS_BL)
  labels = torch.asarray(np.where(SCORED_L, TOKENS_BL, -100))
  update = make_optimizer(OPTIM, STEPS)

  @jax.jit
  def step(params, state):
    loss, grads = jax.value_and_grad(lambda p: loss_of(ours.graphdef, p))(
      params
    )
    changes, state = update.update(grads, state, params)
    return optax.apply_updates(params, changes), state, loss

  params, state = ours.params, update.init(ours.params)
  for _ in range(STEPS):
    optimizer.zero_grad()
    expected = theirs(tokens, labels=labels).loss
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), OPTIM.clip_norm)
    assert norm > OPTIM.clip_norm  # the clip is at work
    optimizer.step()
    params, state, loss = step(params, state)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)

  theirs.save_pretrained(tmp_path)
  end, _ = pretrained.load(tmp_path)

  def compare(start, ours, theirs):
    way = np.linalg.norm(np.asarray(theirs) - np.asarray(start))
    apart = np.linalg.norm(np.asarray(ours) - np.asarray(theirs))
    assert apart < 1e-3 * way

  jax.tree.map(compare, ours.params, params, end.params)
