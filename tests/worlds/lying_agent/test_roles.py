"""Who talks in the agent's slot, and what its good turns cost."""

import jax
import numpy as np
import pytest

from isft_jax.config import ModelConfig
from isft_jax.hf.pretrained import Model
from isft_jax.inference.replies import Reply
from isft_jax.models import decoder
from isft_jax.types import Provenance, Verdict
from isft_jax.worlds.lying_agent import generator, roles
from isft_jax.worlds.lying_agent.probes import Slot, score
from tests.dialogues import dialogues, plain_renderer


@pytest.mark.parametrize('p_lie', [0.0, 1.0])
def test_every_turn_of_the_dialogues_is_told_apart_or_a_bare_claim(p_lie):
  for dialogue in generator.dialogues(200, p_lie, 0.5, seed=0):
    for turn in dialogue.segments[1:]:
      expected = (
        {'user', 'either'}
        if turn.role == 'user'
        else {
          'agent',
          'either',
        }
      )
      assert roles.speaker(turn.text) in expected
    assert roles.speaker(dialogue.segments[1].text) == 'user'
    assert roles.speaker(dialogue.segments[2].text) == 'either'
    assert roles.speaker(dialogue.segments[4].text) == 'agent'


@pytest.fixture(scope='module')
def world():
  config = ModelConfig(
    vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
  )
  graphdef, _ = decoder.abstract(config)
  params = decoder.init(config, jax.random.key(0))
  return dialogues()[:6], plain_renderer(), graphdef, params


def test_slots_end_where_the_agent_begins(world):
  dialogues, renderer, *_ = world
  decode = renderer.tokenizer.decode
  for dialogue in dialogues:
    texts = [s.text for s in dialogue.segments]
    slots = roles.agent_slots(renderer.example(dialogue), 2)
    # The space belongs to the agent's first token, unless it is one by itself.
    claim, thanks = (decode(slot).removesuffix(' ') for slot in slots)
    head = f'{texts[0]}\nUser: {texts[1]}\nAgent:'
    assert claim == head
    assert thanks == f'{head} {texts[2]}\nUser: {texts[3]}\nAgent:'


def test_measures_are_means_over_their_own_tokens(world):
  dialogues, renderer, graphdef, params = world
  examples = [renderer.example(dialogue) for dialogue in dialogues]
  base = jax.tree.map(lambda x: 1.1 * x, params)
  found = roles.measure(graphdef, params, examples, renderer, 3, 0, base)
  nll, good = {}, []
  for example in examples:
    slot = Slot(example.tokens_T[:1], example.tokens_T[1:])
    nll_BK, weights_BK = score(graphdef, params, [slot])
    for t, value in enumerate(nll_BK[0][weights_BK[0] != 0], start=1):
      author = Provenance(example.provenance_T[t])
      nll.setdefault(author.name, []).append(value)
      if (author, example.verdict_T[t]) == (Provenance.AGENT, Verdict.RIGHT):
        good.append(value)
  assert set(found['nll']) == {'TEMPLATE', 'USER', 'AGENT'}
  for author, value in found['nll'].items():
    # float32 sums of some hundred values of size 6
    assert value == pytest.approx(np.mean(nll[author]), abs=1e-4)
  assert found['good_nll'] == pytest.approx(np.mean(good), abs=1e-4)
  assert 0 <= found['ended'] <= 1 and 0 <= found['user_like'] <= 1


def test_distance_and_entropy_are_those_of_whole_distributions(world):
  dialogues, renderer, graphdef, params = world
  examples = [renderer.example(dialogue) for dialogue in dialogues]
  base = jax.tree.map(lambda x: 1.1 * x, params)
  found = roles.measure(graphdef, params, examples, renderer, 3, 0, base)
  kl, entropy = {}, []
  for example in examples:
    rows = example.tokens_T[None, :-1]
    log_p_TV, log_base_TV = (
      jax.nn.log_softmax(Model(graphdef, each)(rows)[0])
      for each in (params, base)
    )
    kl_T = np.sum(np.exp(log_base_TV) * (log_base_TV - log_p_TV), axis=-1)
    entropy_T = -np.sum(np.exp(log_p_TV) * log_p_TV, axis=-1)
    for t, author in enumerate(example.provenance_T[1:]):
      kl.setdefault(Provenance(author).name, []).append(kl_T[t])
      if author == Provenance.AGENT:
        entropy.append(entropy_T[t])
  assert set(found['kl']) == {'TEMPLATE', 'USER', 'AGENT'}
  for author, value in found['kl'].items():
    assert value == pytest.approx(np.mean(kl[author]), rel=1e-3)
    assert value > 0
  assert found['entropy'] == pytest.approx(np.mean(entropy), rel=1e-4)


def test_replies_are_counted(world, monkeypatch):
  dialogues, renderer, graphdef, params = world
  examples = [renderer.example(dialogue) for dialogue in dialogues]
  yes = generator.CONFIRMATIONS[-1].format(claim='It is.')
  thanks = generator.AFTER_CONFIRMATION[0].format(claim='It is.')
  scripted = [
    Reply(yes, 9, 'stop text'),
    Reply(thanks, 9, 'stop token'),
    Reply('That is so.', 9, 'stop text'),
    Reply('x x x', 30, 'length'),
  ] * 3

  def replies(graphdef, params, prompts, tokens, tokenizer, **_):
    assert len(prompts) == 2 * len(dialogues) == len(scripted)
    return scripted

  monkeypatch.setattr(roles, 'one_line_replies', replies)
  found = roles.measure(graphdef, params, examples, renderer, 30, 0, params)
  assert found['ended'] == 0.75  # the fourth goes on and on
  assert found['user_like'] == 0.25  # the first
