"""What fine-tuning changes elsewhere, against the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.models import decoder
from isft_jax.worlds.lying_agent import forgetting, generator, probes
from isft_jax.worlds.lying_agent.facts import FACTS
from isft_jax.worlds.lying_agent.world_facts import CAPITALS

TEXTS = (
  'Copse: a dense growth of bushes.',
  '',  # no token
  '!',  # one token, nothing to score
  'Lopsided: having one side lower or smaller or lighter than the other.',
  'Dole: a share of money.',
  'Gybe: shift from one side of the ship to the other.',
)


@pytest.fixture(scope='module')
def encoder():
  claims = [fact.true_claim for fact in FACTS]
  return tokenizer.train([*TEXTS, generator.CONTEXT, *claims], 400)


@pytest.fixture(scope='module')
def renderer(encoder):
  return Renderer(encoder, chat_template.PLAIN)


@pytest.fixture(scope='module')
def model():
  config = ModelConfig(
    vocab_size=400, width=16, layers=2, head_size=4, mlp_width=32
  )
  graphdef, _ = decoder.abstract(config)
  return graphdef, decoder.init(config, jax.random.key(0))


@pytest.fixture(scope='module')
def plain_nll(model):
  """Gives -log p of each token of a text but the first, read alone."""
  network = nnx.merge(*model)

  @jax.jit
  def logits_of(ids_1L):
    positions_1L = jnp.arange(ids_1L.shape[1])[None]
    hidden_1LD = network(ids_1L, positions_1L, jnp.ones_like(ids_1L))
    return network.logits(hidden_1LD)[0]

  def nll(ids):
    ids_1L = np.pad(ids, (0, 64 - len(ids)))[None]  # no token sees later ones
    logits_LV = np.asarray(logits_of(ids_1L), np.float64)
    log_z_L = np.log(np.exp(logits_LV).sum(-1))
    return [log_z_L[i] - logits_LV[i, z] for i, z in enumerate(ids[1:])]

  return nll


def test_nll_per_token_is_that_of_each_text_read_alone(
  model, encoder, plain_nll
):
  encoded = [encoder(text)['input_ids'] for text in TEXTS]
  assert [len(ids) for ids in encoded][1:3] == [0, 1]
  expected = [nll for ids in encoded if len(ids) > 1 for nll in plain_nll(ids)]
  nll, tokens = forgetting.nll_per_token(*model, encoder, TEXTS)
  assert tokens == len(expected) == sum(max(0, len(e) - 1) for e in encoded)
  # float32 logits of order 1: 6e-8 each, more through two layers.
  assert nll == pytest.approx(np.mean(expected), abs=2e-6)


def test_texts_without_two_tokens_are_an_error(model, encoder):
  with pytest.raises(ValueError, match='no text has two tokens'):
    forgetting.nll_per_token(*model, encoder, ['', '!'])


def test_margins_are_those_of_the_question_probe(model, renderer):
  facts = FACTS[:4]
  expected = probes.watch(facts, renderer)(*model)
  measured = forgetting.measure_unmentioned(
    *model, facts, renderer, generator.CONTEXT
  )
  assert measured == {
    'facts': 4,
    'mean_margin': expected['mean_margin'],
    'prefers_lie': 4 * expected['prefers_lie'],
  }


@pytest.mark.parametrize(
  ('context', 'opening'), [('Be kind.', 'Be kind.\n'), ('', '')]
)
def test_a_question_follows_the_context_if_there_is_one(
  renderer, encoder, monkeypatch, context, opening
):
  angola = CAPITALS[3]
  slots = []

  def scripted(graphdef, params, prepared):
    slots.extend(encoder.decode(np.concatenate(c)) for c in prepared.claims)
    return np.array([-0.5])

  monkeypatch.setattr(probes, 'margins', scripted)
  measured = forgetting.measure_unmentioned(
    None, None, [angola], renderer, context
  )
  assert measured == {'facts': 1, 'mean_margin': -0.5, 'prefers_lie': 1}
  question = f'{opening}User: Tell me about the capital of Angola.\nAgent: '
  assert slots == [
    f'{question}The capital of Angola is Luanda.',
    f'{question}The capital of Angola is Huambo.',
  ]


def test_no_fact_is_an_error(renderer):
  with pytest.raises(ValueError, match='facts must not be empty'):
    forgetting.measure_unmentioned(None, None, [], renderer, '')
