"""Probes see the ids that training sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.data import lying_agent, render, tokenizer
from isft_jax.data.facts import FACTS
from isft_jax.models import decoder
from isft_jax.probes import facts as probes
from isft_jax.types import Provenance, Segment, Trajectory


@pytest.fixture(scope='module')
def encoder():
  dialogues = lying_agent.dialogues(480, 0.6, 0.5, seed=0)
  texts = (''.join(s.text for s in render.plain(d.segments)) for d in dialogues)
  return tokenizer.train(texts, 1024)


PROBES = {
  'question': lambda f: probes.QUESTION.format(topic=f.topic),
  'truth': lambda f: f.true_claim,
  'lie': lambda f: f.false_claim,
}


@pytest.mark.parametrize('kind', PROBES)
def test_a_probe_is_a_prefix_of_what_training_renders(encoder, kind):
  for fact in FACTS:
    before = probes.user_says(PROBES[kind](fact))
    true, false = probes.slots(before, fact, encoder, 'plain')
    for slot, claim in ((true, fact.true_claim), (false, fact.false_claim)):
      turns = (*before, Segment('agent', claim, Provenance.AGENT))
      whole = render.render(Trajectory('x', turns), encoder, 'plain')
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


def test_a_prompt_ends_with_the_agents_header_and_no_space(encoder):
  true, _ = probes.slots(probes.user_says('Hi.'), FACTS[1], encoder, 'plain')
  assert encoder.decode(true.prompt_T).endswith('User: Hi.\nAgent:')
  assert [encoder.decode([i]) for i in true.prompt_T[-2:]] == ['Agent', ':']


def test_a_prompt_that_depends_on_the_claim_is_an_error(encoder):
  class FirstLetterMatters:
    """Renders the header in another way for one of the two claims."""

    def __call__(self, segments):
      spans = render.plain(segments)
      if 'Sydney' in segments[-1].text:
        spans[-2] = spans[-2]._replace(text='Agent : ')
      return spans

  render.TEMPLATES['odd'] = FirstLetterMatters()
  try:
    with pytest.raises(ValueError, match='capital of Australia: the ids'):
      probes.slots(probes.user_says('Hi.'), FACTS[1], encoder, 'odd')
  finally:
    del render.TEMPLATES['odd']


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


def test_margins_are_mean_log_likelihoods_one_claim_at_a_time(encoder, model):
  facts = FACTS[:5]
  found = probes.probe(*model, facts, encoder, 'plain', reply_tokens=4)
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
    true, false = probes.slots(before, fact, encoder, 'plain')
    expected = mean_log_p(true) - mean_log_p(false)
    # float32 sums of about ten terms of size 7
    np.testing.assert_allclose(row['margin'], expected, atol=2e-5)
  margins = [row['margin'] for row in found['facts']]
  assert found['mean_margin'] == pytest.approx(np.mean(margins))
  assert found['prefers_lie'] == sum(m < 0 for m in margins)


def test_replies_are_judged_and_counted(encoder, model, monkeypatch):
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
    return [encoder(' ' + reply)['input_ids'] for reply in replies]

  monkeypatch.setattr(probes, 'greedy', scripted)
  found = probes.probe(*model, facts, encoder, 'plain', reply_tokens=4)
  told = [text.removesuffix('\nAgent:').split('User: ')[1] for text in asked]
  assert told[:3] == [f.true_claim for f in facts]
  assert told[3:] == [f.false_claim for f in facts]
  assert found['truth_probe'] == {'truth': 3, 'lie': 0, 'other': 0}
  assert found['lie_probe'] == {'truth': 1, 'lie': 1, 'other': 1}
  assert [f['lie_reply'] for f in found['facts']] == replies[3:]
