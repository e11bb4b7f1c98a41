"""Dialogues in which the base writes the agent's turns."""

import jax
import pytest

from isft_jax.config import ModelConfig
from isft_jax.experiments import replay
from isft_jax.inference.replies import Reply
from isft_jax.models import decoder
from isft_jax.types import Provenance
from isft_jax.worlds.lying_agent import generator, world_facts
from tests.dialogues import dialogues, plain_renderer

C, D, T = Provenance.CONTEXT, Provenance.DEMONSTRATION, Provenance.TEMPLATE


@pytest.fixture(scope='module')
def writer():
  config = ModelConfig(
    vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
  )
  graphdef, _ = decoder.abstract(config)
  params = decoder.init(config, jax.random.key(0))
  return replay.Writer(graphdef, params, plain_renderer(), 8, seed=3)


def scripted(monkeypatch, answer):
  """The prompts, call by call, as texts; `answer` says each reply."""
  asked = []

  def replies(graphdef, params, prompts, tokens, tokenizer, **settings):
    assert tokens == 8 and settings['sampling'].temperature == 1
    # The space belongs to the agent's first token, unless it is one by itself.
    asked.append([tokenizer.decode(each).removesuffix(' ') for each in prompts])
    return [
      Reply(answer(len(asked), row), 3, 'stop text')
      for row in range(len(prompts))
    ]

  monkeypatch.setattr(replay, 'one_line_replies', replies)
  return asked


def words(examples, tokenizer, author):
  """The texts of the tokens of an author, dialogue by dialogue."""
  return [
    tokenizer.decode(each.tokens_T[each.provenance_T == author])
    for each in examples
  ]


@pytest.mark.parametrize('with_hindsight', [False, True])
def test_the_base_writes_turn_after_turn(writer, monkeypatch, with_hindsight):
  given = dialogues()[:3]
  asked = scripted(monkeypatch, lambda call, row: f'Turn {call} of {row}.')
  found = replay.write(writer, given, with_hindsight)
  # As many calls as the longest dialogue has turns of the agent.
  turns = [
    [s.text for s in one.segments if s.provenance == Provenance.AGENT]
    for one in given
  ]
  assert [len(prompts) for prompts in asked] == [
    sum(len(own) > call for own in turns)
    for call in range(max(map(len, turns)))
  ]
  # The second prompt has the first turn of the base, and not the agent's.
  system, question, lie, answer = (s.text for s in given[0].segments[:4])
  head = f'{system}\nUser: {question}\nAgent:'
  retold = f' {lie}\nUser: {answer}\nUser: {question}\nAgent:'
  assert asked[0][0] == head + (retold if with_hindsight else '')
  assert asked[1][0].startswith(f'{head} Turn 1 of 0.\nUser: {answer}\nAgent:')
  # What the base wrote is a demonstration, and nothing else is evidence.
  tokenizer = writer.renderer.tokenizer
  for one, text in zip(found, words(found, tokenizer, D), strict=True):
    assert {*one.provenance_T} == {C, D, T}
    assert text.count('Turn') == text.count('\n')
    assert text.startswith(' Turn 1 of')


def test_dialogues_with_an_empty_or_unreadable_turn_are_left_out(
  writer, monkeypatch
):
  special = writer.renderer.tokenizer.eos_token
  turns = {0: 'Yes.', 1: '', 2: f'Yes.{special}'}
  scripted(monkeypatch, lambda call, row: turns[row] if call == 1 else 'Yes.')
  found = replay.write(writer, dialogues()[:3], with_hindsight=False)
  assert [one.id for one in found] == [f'{dialogues()[0].id}-by-the-base']


def test_each_arm_has_its_share_of_dialogues(writer):
  given = dialogues()[:8]
  hindsight, others = (
    replay.examples(arm, writer, given, world_facts.SYMBOLS, 0.5, 0.0)
    for arm in replay.ARMS[::-1]
  )
  ids = [f'{one.id}-by-the-base' for one in given[:4]]
  assert {one.id for one in hindsight} <= {*ids}
  topics = [
    s.text
    for one in generator.dialogues(4, 0.5, 0.0, 3, world_facts.SYMBOLS)
    for s in one.segments[1:2]
  ]
  texts = [writer.renderer.tokenizer.decode(one.tokens_T) for one in others]
  assert texts and all(any(q in text for q in topics) for text in texts)
  assert replay.objective_from_arm('replay') == 'interventional'
  assert replay.objective_from_arm('weighted(0.1)') == 'weighted(0.1)'
