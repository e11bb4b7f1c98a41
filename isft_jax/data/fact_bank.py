"""Facts by the hundred: generated ones, or a CSV of real ones.

A generated fact is about an invented place, 'The bird of Tavozi is the heron.':
whatever a model says of it, it has from its training data. A CSV of true and
false statements serves models that know the world.
"""

import csv
import itertools
import pathlib
from typing import NamedTuple

import numpy as np

from isft_jax.data.facts import Fact


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


def read(path: str) -> tuple[tuple[Fact, ...], int]:
  """Returns the facts of a CSV, and how many were left out.

  A file with a header and one of two layouts:

    subject,relation,true,false          the relation is a noun ('capital'), or
                                         a clause with {} for the subject
    statement,label,relation,subject,target,true_target
                                         a row a statement, as `counterfact`

  Left out is what words alone could not judge: an answer that stands in the
  other one or in the rest of the sentence ('Apple A5 was created by Apple');
  of the second layout also a subject without a false statement.

  Raises ValueError for another layout, or if no fact is left.

  Source: Marks and Tegmark 2023, "The Geometry of Truth"; their data sets have
  the second layout.
  """
  with pathlib.Path(path).open(encoding='utf-8', newline='') as file:
    table = csv.DictReader(file)
    columns = set(table.fieldnames or ())
    if columns >= {'subject', 'relation', 'true', 'false'}:
      names = 'subject', 'relation', 'true', 'false'
      rows = [tuple(row[name] for name in names) for row in table]
    elif columns >= {'subject', 'relation', 'target', 'true_target', 'label'}:
      rows = _paired(table)
    else:
      raise ValueError(
        f'{path}: columns {", ".join(sorted(columns))}; wanted are subject, '
        'relation, true, false, or those of counterfact: subject, relation, '
        'label, target, true_target'
      )
  facts = tuple(fact for row in rows if (fact := _stated(*row)))
  if not facts:
    raise ValueError(f'{path}: no fact there that words alone can judge')
  return facts, len(rows) - len(facts)


def _name(rng) -> str:
  letters = [
    table[rng.integers(len(table))]
    for _ in range(_SYLLABLES)
    for table in (_ONSETS, _VOWELS)
  ]
  return ''.join(letters).capitalize()


def _fact(place: str, attribute: Attribute, true: str, false: str) -> Fact:
  claims = (
    f'The {attribute.name} of {place} is {attribute.article}{answer}.'
    for answer in (true, false)
  )
  return Fact(f'the {attribute.name} of {place}', *claims, true, false)


def _paired(table) -> list[tuple[str, str, str, str]]:
  """Returns a row a subject and relation, with the first false target."""
  false: dict[tuple, str] = {}
  for row in table:
    key = row['subject'], row['relation'], row['true_target']
    false.setdefault(key, '')
    if row['label'].strip() == '0' and not false[key]:
      false[key] = row['target']
  return [(*key, lie) for key, lie in false.items()]


def _stated(subject: str, relation: str, true: str, false: str) -> Fact | None:
  """Returns the fact, or None if it cannot be judged by its words."""
  if '{}' in relation:
    opening = relation.replace('{}', subject)
    topic = f'the end of the sentence "{opening} ..."'
  else:
    opening = f'The {relation} of {subject} is'
    topic = f'the {relation} of {subject}'
  rest = opening.lower()
  fold = true.lower(), false.lower()
  told_apart = fold[0] not in fold[1] and fold[1] not in fold[0]
  if not (true and false and told_apart) or any(a in rest for a in fold):
    return None
  return Fact(topic, f'{opening} {true}.', f'{opening} {false}.', true, false)
