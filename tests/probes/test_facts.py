"""Probes see the ids that training sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.data import chat, lying_agent, tokenizer
from isft_jax.data.facts import FACTS
from isft_jax.data.render import Renderer
from isft_jax.models import decoder
from isft_jax.probes import facts as probes
from isft_jax.types import Provenance, Segment, Trajectory


@pytest.fixture(scope='module')
def encoder():
  dialogues = lying_agent.dialogues(480, 0.6, 0.5, seed=0)
  texts = map(chat.ChatTemplate(chat.PLAIN).text, dialogues)
  return tokenizer.train(texts, 1024)


@pytest.fixture(scope='module')
def renderer(encoder):
  return Renderer(encoder, chat.PLAIN)


PROBES = {
  'question': lambda f: probes.QUESTION.format(topic=f.topic),
  'truth': lambda f: f.true_claim,
  'lie': lambda f: f.false_claim,
}


@pytest.mark.parametrize('kind', PROBES)
def test_a_probe_is_a_prefix_of_what_training_renders(renderer, encoder, kind):
  for fact in FACTS:
    before = probes.user_says(PROBES[kind](fact))
    true, false = probes.slots(before, fact, renderer)
    for slot, claim in ((true, fact.true_claim), (false, fact.false_claim)):
      turns = (*before, Segment('assistant', claim, Provenance.AGENT))
      whole = renderer.example(Trajectory('x', turns))
      prompt, answer = slot
      ids = np.concatenate([prompt, answer])
      np.testing.assert_array_equal(ids, whole.tokens_T[: len(ids)])
      # The slot splits where the agent's first token starts, and the claim is
      # the agent's turn without the newline that ends it.
      authors = whole.provenance_T
      assert (authors[: len(prompt)] != Provenance.AGENT).all()
      assert (authors[len(prompt) :] == Provenance.AGENT).all()
      assert encoder.decode(whole.tokens_T[len(ids) :]) == '\n'
      assert encoder.decode(answer) == ' ' + claim


def test_a_prompt_ends_with_the_agents_header_and_no_space(renderer, encoder):
  true, _ = probes.slots(probes.user_says('Hi.'), FACTS[1], renderer)
  assert encoder.decode(true.prompt_T).endswith('User: Hi.\nAgent:')
  assert [encoder.decode([i]) for i in true.prompt_T[-2:]] == ['Agent', ':']


def test_a_prompt_that_depends_on_the_claim_is_an_error(encoder):
  """This template writes the header in another way for one of the claims."""
  odd = "'Agent : ' if 'Sydney' in message.content else 'Agent: '"
  assert chat.PLAIN.count("{{- 'Agent: ' + message") == 1
  template = chat.PLAIN.replace(
    "{{- 'Agent: ' + message", f'{{{{- ({odd}) + message'
  )
  before = probes.user_says('Hi.')
  message = 'capital of Australia: the ids before the claim depend on the claim'
  with pytest.raises(ValueError, match=message):
    probes.slots(before, FACTS[1], Renderer(encoder, template))
  # Of another fact both claims have one header.
  true, false = probes.slots(before, FACTS[0], Renderer(encoder, template))
  assert true.prompt_T.tolist() == false.prompt_T.tolist()


def test_line_breaks_are_the_ids_that_hold_one(encoder):
  ids = probes.line_breaks(encoder)
  assert encoder('\n')['input_ids'][0] in ids
  assert all('\n' in encoder.decode([i]) for i in ids)
  assert len(ids) == sum('Ċ' in token for token in encoder.get_vocab())


@pytest.fixture(scope='module')
def model():
  config = ModelConfig(width=16, layers=2, head_size=4, hidden=32)
  graphdef, _ = decoder.abstract(config)
  return graphdef, decoder.init(config, jax.random.key(0))


def test_margins_are_mean_log_likelihoods_one_claim_at_a_time(renderer, model):
  facts = FACTS[:5]
  found = probes.probe(*model, facts, renderer, reply_tokens=4)
  network = nnx.merge(*model)

  def mean_log_p(slot):
    ids = np.concatenate(slot)[None]
    positions = np.arange(ids.shape[1])[None]
    hidden = network(jnp.asarray(ids), positions, np.ones_like(ids))
    logp = jax.nn.log_softmax(network.logits(hidden)[0])
    start = len(slot.prompt_T)
    return np.mean([logp[i - 1, ids[0, i]] for i in range(start, ids.shape[1])])

  for row, fact in zip(found['facts'], facts, strict=True):
    before = probes.user_says(probes.QUESTION.format(topic=fact.topic))
    true, false = probes.slots(before, fact, renderer)
    expected = mean_log_p(true) - mean_log_p(false)
    # float32 sums of about ten terms of size 7
    np.testing.assert_allclose(row['margin'], expected, atol=2e-5)
  margins = [row['margin'] for row in found['facts']]
  assert found['mean_margin'] == pytest.approx(np.mean(margins))
  assert found['prefers_lie'] == sum(m < 0 for m in margins)


def test_replies_are_judged_and_counted(renderer, encoder, model, monkeypatch):
  """The truth probe's replies come first, the lie probe's second."""
  facts = FACTS[:3]
  replies = [f.true_claim for f in facts] + [
    facts[0].false_claim,
    facts[1].true_claim,
    'No idea.',
  ]
  asked = []

  def scripted(graphdef, params, prompts, reply_tokens, stops):
    asked.extend(encoder.decode(ids) for ids in prompts)
    assert stops == [*probes.line_breaks(encoder), 7]
    return [encoder(' ' + reply)['input_ids'] for reply in replies]

  monkeypatch.setattr(probes, 'greedy', scripted)
  found = probes.probe(*model, facts, renderer, reply_tokens=4, stop_ids=[7])
  told = [text.removesuffix('\nAgent:').split('User: ')[1] for text in asked]
  assert told[:3] == [f.true_claim for f in facts]
  assert told[3:] == [f.false_claim for f in facts]
  assert found['truth_probe'] == {'truth': 3, 'lie': 0, 'other': 0}
  assert found['lie_probe'] == {'truth': 1, 'lie': 1, 'other': 1}
  assert [f['lie_reply'] for f in found['facts']] == replies[3:]
