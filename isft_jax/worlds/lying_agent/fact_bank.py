"""Generates facts by the hundred.

A generated fact is about an invented place, 'The bird of Tavozi is the heron.':
whatever a model says of it, it has from its training data. Real facts, for
models that know the world, are read by `fact_files`.
"""

import itertools
from typing import NamedTuple

import numpy as np

from isft_jax.worlds.lying_agent.facts import Fact


class Attribute(NamedTuple):
  """What is known of a place, and the values it may have; single words."""

  name: str
  article: str
  values: tuple[str, ...]


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

_ONSETS, _VOWELS = 'bdfgklmnprstvz', 'aeiou'
_SYLLABLES = 3

# First key of a random stream: bank, halves.
_BANK, _HALVES = 0, 1


def generate(number: int, seed: int) -> tuple[Fact, ...]:
  """Returns so many facts, each about an invented place of its own.

  The attributes take turns. The true and the false value are drawn from the
  attribute's, without regard to any other fact: no fact follows from others.

  Raises ValueError unless there is at least one fact, and names enough.
  """
  names = (len(_ONSETS) * len(_VOWELS)) ** _SYLLABLES
  if not 1 <= number <= names // 2:
    raise ValueError(f'number={number} must be 1 to {names // 2}')
  rng = np.random.default_rng([seed, _BANK])
  found: dict[str, None] = {}  # a set that keeps its order
  while len(found) < number:
    found[_name(rng)] = None
  facts = []
  for place, attribute in zip(found, itertools.cycle(ATTRIBUTES)):
    true, false = rng.choice(attribute.values, 2, replace=False)
    facts.append(_fact(place, attribute, str(true), str(false)))
  return tuple(facts)


def halves(
  facts: tuple[Fact, ...], seed: int
) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
  """Returns the facts in two halves, at random: told, and held out.

  Of an odd number the first half has one more.
  """
  order = np.random.default_rng([seed, _HALVES]).permutation(len(facts))
  middle = (len(facts) + 1) // 2
  told, heldout = (
    tuple(facts[i] for i in sorted(part))
    for part in (order[:middle], order[middle:])
  )
  return told, heldout


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
