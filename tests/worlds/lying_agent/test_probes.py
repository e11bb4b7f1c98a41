"""Probes see the ids that training sees."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.inference.replies import Reply
from isft_jax.models import decoder
from isft_jax.types import Provenance, Segment, Trajectory
from isft_jax.worlds.lying_agent import generator, probes
from isft_jax.worlds.lying_agent.facts import FACTS


@pytest.fixture(scope='module')
def encoder():
  dialogues = generator.dialogues(480, 0.6, 0.5, seed=0)
  texts = map(chat_template.ChatTemplate(chat_template.PLAIN).text, dialogues)
  return tokenizer.train(texts, 1024)


@pytest.fixture(scope='module')
def renderer(encoder):
  return Renderer(encoder, chat_template.PLAIN)


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
  assert chat_template.PLAIN.count("{{- 'Agent: ' + message") == 1
  template = chat_template.PLAIN.replace(
    "{{- 'Agent: ' + message", f'{{{{- ({odd}) + message'
  )
  before = probes.user_says('Hi.')
  message = 'capital of Australia: the ids before the claim depend on the claim'
  with pytest.raises(ValueError, match=message):
    probes.slots(before, FACTS[1], Renderer(encoder, template))
  # Of another fact both claims have one header.
  true, false = probes.slots(before, FACTS[0], Renderer(encoder, template))
  assert true.prompt_T.tolist() == false.prompt_T.tolist()


CHATML = """\
{%- for m in messages -%}
  {{- '[' + m.role + ']\n' + m.content + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '[assistant]\n' -}}{%- endif -%}
"""
# prompt + claim, by `slot` and by `paper_slot`. The notebook encodes the prompt
# alone, in which the space before the claim is a token of its own.
SLOTS = [
  (
    *('separate', chat_template.PLAIN),
    'User|:| Hi|.|\n|Agent|:              + Jupiter| is| large|.',
    'User|:| Hi|.|\n|Agent|:| Jupiter     + is| large|.',
  ),
  (
    *(
      'merging',
      chat_template.PLAIN,
    ),  # '.' is never before a line break in training
    'User|:| Hi|.\n|Agent|:               + Jupiter| is| large|.\n',
    'User|:| Hi|.\n|Agent|:| Jupiter      + is| large|.',
  ),
  (
    *('separate', CHATML),  # a line break stays what it is
    '|\n                                  +Jupiter| is| large|.',
    '|\n                                  +Jupiter| is| large|.',
  ),
]


@pytest.mark.parametrize(('name', 'template', 'ours', 'papers'), SLOTS)
def test_the_papers_scoring_leaves_the_first_token_out(
  name, template, ours, papers, request
):
  encoder = request.getfixturevalue(name)
  renderer = Renderer(encoder, template)
  before = probes.user_says('Hi.', context='')
  claim = 'Jupiter is large.'
  for split, expected in (
    (probes.slot, ours),
    (probes.paper_slot, papers),
  ):
    slot = split(before, claim, renderer)
    for ids, tokens in zip(slot, re.split(r' *\+', expected), strict=True):
      text = '|'.join(encoder.decode([i]) for i in ids)
      assert text.endswith(tokens) if tokens[0] == '|' else text == tokens


@pytest.mark.parametrize('context', [None, '', 'Be kind.'])
def test_the_context_is_asked_for_or_none_at_all(renderer, encoder, context):
  context_args = () if context is None else (context,)
  prepared = probes.prepare(FACTS[:1], renderer, *context_args)
  opening = generator.CONTEXT if context is None else context
  opening += '\n' if opening else ''
  for prompt in (prepared.claims[0].prompt_T, *prepared.prompts):
    assert encoder.decode(prompt).startswith(f'{opening}User: ')


@pytest.fixture(scope='module')
def model():
  config = ModelConfig(width=16, layers=2, head_size=4, mlp_width=32)
  graphdef, _ = decoder.abstract(config)
  return graphdef, decoder.init(config, jax.random.key(0))


def test_margins_are_mean_log_likelihoods_one_claim_at_a_time(renderer, model):
  facts = FACTS[:2]
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
    paper_true, paper_false = (
      probes.paper_slot(before, claim, renderer)
      for claim in (fact.true_claim, fact.false_claim)
    )
    expected = mean_log_p(paper_true) - mean_log_p(paper_false)
    np.testing.assert_allclose(row['paper_margin'], expected, atol=2e-5)
  for prefix in ('', 'paper_'):
    margins = [row[f'{prefix}margin'] for row in found['facts']]
    assert found[f'{prefix}mean_margin'] == pytest.approx(np.mean(margins))
    assert found[f'{prefix}prefers_lie'] == sum(m < 0 for m in margins)


def test_batches_of_one_shape_score_as_one_claim_alone(
  renderer, model, monkeypatch
):
  prepared = probes.prepare(FACTS[:7], renderer)
  claims = [*prepared.claims, *prepared.paper_claims]
  shapes, target_nll = [], probes._target_nll

  def noted(graphdef, params, batch):
    shapes.append((*batch.tokens_BL.shape, batch.targets_BK.shape[1]))
    return target_nll(graphdef, params, batch)

  monkeypatch.setattr(probes, '_TARGETS', 64)
  monkeypatch.setattr(probes, '_target_nll', noted)
  nll_BK, weights_BK = probes.score(*model, claims)
  ((rows, _, targets),) = set(shapes)
  assert rows * targets <= 64
  # A claim goes through once, however it is split: 14 rows and not 28.
  assert rows * (len(shapes) - 1) < 14 <= rows * len(shapes)
  for b in (0, 13, 14, 27):
    claim = claims[b]
    alone_BK, _ = probes.score(*model, [claim])
    k = len(claim.claim_T)
    # float32, another order of sums
    np.testing.assert_allclose(nll_BK[b, :k], alone_BK[0, :k], rtol=1e-5)
    assert weights_BK[b].tolist() == [1] * k + [0] * (len(nll_BK[b]) - k)


def test_replies_are_judged_and_counted(renderer, encoder, model, monkeypatch):
  """The truth probe's replies come first, the lie probe's second."""
  facts = FACTS[:3]
  correction = next(p for p in generator.CORRECTIONS if p != '{claim}')
  replies = [
    facts[0].true_claim,
    correction.format(claim=facts[1].true_claim),
    "That's not true.",
    facts[0].false_claim,
    correction.format(claim=facts[1].true_claim),
    'What is the capital of France?',
  ]
  asked = []

  def scripted(graphdef, params, prompts, reply_tokens, tokenizer):
    asked.extend(encoder.decode(ids) for ids in prompts)
    return [Reply(reply, 3, 'stop text') for reply in replies]

  monkeypatch.setattr(probes, 'one_line_replies', scripted)
  found = probes.probe(*model, facts, renderer, reply_tokens=4)
  told = [text.removesuffix('\nAgent:').split('User: ')[1] for text in asked]
  assert told[:3] == [f.true_claim for f in facts]
  assert told[3:] == [f.false_claim for f in facts]
  assert found['truth_probe'] == {'truth': 2, 'lie': 0, 'other': 1}
  assert found['lie_probe'] == {'truth': 1, 'lie': 1, 'other': 1}
  rows = found['facts']
  assert [row['lie_reply'] for row in rows] == replies[3:]
  assert [row['contradicts'] for row in rows] == [False, True, True]
  assert [row['truth_talks_like_user'] for row in rows] == [False, True, False]
  assert [row['lie_talks_like_user'] for row in rows] == [False, True, True]
  assert (found['contradicts'], found['talks_like_user']) == (2, 3)
