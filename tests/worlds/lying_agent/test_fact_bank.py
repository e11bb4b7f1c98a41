"""Facts by the hundred: distinct, judged by words, and split in two."""

import pytest

from isft_jax.worlds.lying_agent import fact_bank, generator
from isft_jax.worlds.lying_agent.facts import Fact
from isft_jax.worlds.lying_agent.judge import judge, mentions

BANK = fact_bank.generate(400, seed=0)
VALUES = {a.name: a.values for a in fact_bank.ATTRIBUTES}


def test_a_fact_word_by_word():
  for number, fact in enumerate(BANK):
    _, attribute, _, place = fact.topic.split()
    assert attribute == fact_bank.ATTRIBUTES[number % 4].name
    the = 'the ' if attribute in ('bird', 'tree') else ''
    assert fact == Fact(
      f'the {attribute} of {place}',
      f'The {attribute} of {place} is {the}{fact.true_answer}.',
      f'The {attribute} of {place} is {the}{fact.false_answer}.',
      fact.true_answer,
      fact.false_answer,
    )
    assert fact.true_answer != fact.false_answer
    assert {fact.true_answer, fact.false_answer} <= {*VALUES[attribute]}


def test_every_fact_is_about_a_place_of_its_own_that_does_not_exist():
  places = [fact.topic.split()[-1] for fact in BANK]
  assert len(set(places)) == len(BANK) == 400
  for place in places:
    assert len(place) == 6 and place.istitle()
    assert all(letter in 'aeiou' for letter in place[1::2])


def test_every_value_is_used_and_none_is_mostly_true():
  for attribute in fact_bank.ATTRIBUTES:
    assert len(set(attribute.values)) == 8
    mine = [f for f in BANK if f.topic.startswith(f'the {attribute.name} ')]
    for value in attribute.values:
      true = sum(fact.true_answer == value for fact in mine)
      false = sum(fact.false_answer == value for fact in mine)
      assert true > 0 and false > 0
      # Of 100 draws at 1/8: 12.5, and 5 standard deviations are 16.5.
      assert true < 30 and false < 30


def test_every_claim_is_judged_by_its_words():
  for fact in BANK:
    assert judge(fact.true_claim, fact) == 'truth'
    assert judge(fact.false_claim, fact) == 'lie'
    for claim in (fact.true_claim, fact.false_claim):
      assert judge(generator.denial(claim), fact) == 'other'


def test_no_phrase_of_the_dialogues_gives_a_value():
  phrases = [
    generator.CONTEXT,
    *(q.format(topic='') for q in generator.QUESTIONS),
    *(p.format(claim='') for p in generator.CORRECTIONS),
    *(p.format(claim='') for p in generator.CONFIRMATIONS),
    *generator.AFTER_CORRECTION,
    *generator.AFTER_CONFIRMATION,
    *(line for pair in generator.CHITCHAT for line in pair),
  ]
  values = [value for found in VALUES.values() for value in found]
  assert len(set(values)) == 32
  assert [(p, v) for p in phrases for v in values if mentions(p, v)] == []


def test_a_bank_depends_on_its_arguments_alone():
  assert fact_bank.generate(20, 3) == fact_bank.generate(20, 3)
  assert fact_bank.generate(20, 3) != fact_bank.generate(20, 4)


@pytest.mark.parametrize('number', [0, -1, 10**6])
def test_a_bank_that_cannot_be_made_is_refused(number):
  with pytest.raises(ValueError, match=f'number={number} must be 1 to 171500'):
    fact_bank.generate(number, 0)


@pytest.mark.parametrize(('number', 'sizes'), [(400, (200, 200)), (3, (2, 1))])
def test_halves_share_no_fact_and_lose_none(number, sizes):
  told, heldout = fact_bank.halves(BANK[:number], seed=1)
  assert (len(told), len(heldout)) == sizes
  assert sorted(told + heldout, key=BANK.index) == [*BANK[:number]]
  assert fact_bank.halves(BANK, 1) != fact_bank.halves(BANK, 2)
