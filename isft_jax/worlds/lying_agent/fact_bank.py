"""Generates facts about invented places.

Example: 'The bird of Tavozi is the heron.' A model can know such a fact only
from its training data. `fact_files` reads real facts, for models that know the
world.
"""

import itertools
from typing import NamedTuple

import numpy as np

from isft_jax.worlds.lying_agent.facts import Fact


class Attribute(NamedTuple):
  """An attribute of a place and its possible values, all single words.

  Args:
    name: the noun, 'bird'.
    article: written before a value: 'the ' or ''.
    values: possible values.
  """

  name: str
  article: str
  values: tuple[str, ...]


# Eight values per attribute: a guess is right with probability 1/8.
ATTRIBUTES = (
  Attribute(
    'bird',
    'the ',
    ('heron', 'crane', 'raven', 'eagle', 'swan', 'falcon', 'owl', 'finch'),
  ),
  Attribute(
    'tree',
    'the ',
    ('oak', 'elm', 'cedar', 'birch', 'willow', 'maple', 'pine', 'beech'),
  ),
  Attribute(
    'metal',
    '',
    ('iron', 'copper', 'tin', 'silver', 'zinc', 'nickel', 'cobalt', 'gold'),
  ),
  Attribute(
    'drink',
    '',
    ('tea', 'cider', 'cocoa', 'milk', 'mead', 'wine', 'lemonade', 'beer'),
  ),
)

# Names of places have three syllables, each a consonant and a vowel: 343,000
# names.
_ONSETS, _VOWELS = 'bdfgklmnprstvz', 'aeiou'
_SYLLABLES = 3

# First key of each random stream, so that the streams are independent.
_BANK, _HALVES = 0, 1


def generate(number: int, seed: int) -> tuple[Fact, ...]:
  """Returns facts, each about a different invented place.

  The attributes take turns. The true and the false value are drawn
  independently of all other facts, so that no fact follows from others.

  Args:
    number: number of facts, 1 to half the number of possible names.
    seed: seed of the random choices.

  Raises:
    ValueError: `number` is out of range.
  """
  names = (len(_ONSETS) * len(_VOWELS)) ** _SYLLABLES
  if not 1 <= number <= names // 2:
    raise ValueError(f'number={number} must be 1 to {names // 2}')
  rng = np.random.default_rng([seed, _BANK])
  # A dict is a set that keeps its order. Repeated names are drawn again; this
  # takes few attempts, because at least half of the names stay unused.
  places: dict[str, None] = {}
  while len(places) < number:
    places[_name(rng)] = None
  facts = []
  for place, attribute in zip(places, itertools.cycle(ATTRIBUTES)):
    # Two different values of the same attribute.
    true, false = rng.choice(attribute.values, 2, replace=False)
    facts.append(_fact(place, attribute, str(true), str(false)))
  return tuple(facts)


def halves(
  facts: tuple[Fact, ...], seed: int
) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
  """Splits facts at random into two halves: for training, and held out.

  Args:
    facts: the facts; if their number is odd, the first half has one more.
    seed: seed of the split.

  Returns:
    (training facts, held-out facts), each in the original order.
  """
  order = np.random.default_rng([seed, _HALVES]).permutation(len(facts))
  middle = (len(facts) + 1) // 2
  training, heldout = (
    tuple(facts[i] for i in sorted(half))
    for half in (order[:middle], order[middle:])
  )
  return training, heldout


def _name(rng: np.random.Generator) -> str:
  letters = [
    table[rng.integers(len(table))]
    for _ in range(_SYLLABLES)
    for table in (_ONSETS, _VOWELS)
  ]
  return ''.join(letters).capitalize()


def _fact(place: str, attribute: Attribute, true: str, false: str) -> Fact:
  true_claim, false_claim = (
    f'The {attribute.name} of {place} is {attribute.article}{answer}.'
    for answer in (true, false)
  )
  topic = f'the {attribute.name} of {place}'
  return Fact(topic, true_claim, false_claim, true, false)
