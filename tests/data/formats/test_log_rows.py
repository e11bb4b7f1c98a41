"""Logs of many scaffolds: each is of one format, whole or broken."""

import copy
import json
import random

import pytest

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.log_rows import ROWS
from tests.data.formats.test_mutations import mutate, outcome


@pytest.mark.parametrize('name', ROWS)
def test_a_row_is_of_one_format(name):
  row = ROWS[name]
  before = copy.deepcopy(row)
  assert registry.matching(row) == [name]
  found = registry.read(row, 'x', 'auto', Rules.default())
  by_name = registry.read(row, 'x', name, Rules.default())
  assert repr(found) == repr(by_name)
  assert row == before


@pytest.mark.parametrize('name', ROWS)
def test_broken_rows_are_read_or_malformed(name, tmp_path):
  rng = random.Random(name)
  lines = [mutate(ROWS[name], rng) for _ in range(300)]
  path = tmp_path / 'x.jsonl'
  path.write_bytes(b'\n'.join(lines))
  outcomes = [outcome(row) for row in rows.read(path)]
  assert len(outcomes) == 300
  assert {*outcomes} == {'valid', 'malformed', 'error'}


@pytest.mark.parametrize('name', ROWS)
def test_any_value_at_any_place_is_read_or_malformed(name):
  """Each key and item of the row, in turn, is every kind of JSON."""
  whole = json.dumps(ROWS[name])
  for path in _places(ROWS[name]):
    for value in (None, True, -1, 2.5, '', 'a', [], [1], [[]], {}, {'a': 1}):
      row = json.loads(whole)
      holder = row
      for key in path[:-1]:
        holder = holder[key]
      holder[path[-1]] = value
      for format in ('auto', name):
        _read(row, format)


def _places(value, path=()):
  items = value.items() if isinstance(value, dict) else enumerate(value)
  for key, child in items:
    yield (*path, key)
    if isinstance(child, (dict, list)):
      yield from _places(child, (*path, key))


def _read(row, format):
  try:
    registry.read(row, 'x', format, Rules.default())
  except Malformed as error:
    assert '\n' not in str(error) and len(str(error)) < 1_000
