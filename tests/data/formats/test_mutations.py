"""Broken rows: each is read, or malformed, or an error; none is lost."""

import copy
import json
import random

import pytest

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.types import Example, Trajectory

CALL = {
  'id': 'c',
  'type': 'function',
  'function': {'name': 'f', 'arguments': '{"x": [1, "y"]}'},
}
VALID = [
  {
    'id': 'a',
    'messages': [
      {'role': 'system', 'content': 's'},
      {'role': 'user', 'content': [{'type': 'text', 'text': 'u'}]},
      {'role': 'assistant', 'content': None, 'tool_calls': [CALL, CALL]},
      {'role': 'tool', 'content': '[[1, 2]]', 'tool_call_id': 'c'},
      {'role': 'assistant', 'content': 'é\n😀', 'spans': [[0, 1, 'tool']]},
    ],
    'tools': [{'type': 'function', 'function': {'name': 'f'}}],
  },
  {
    'conversations': [
      {'from': 'human', 'value': 'u'},
      {'from': 'function_call', 'value': '{"name": "f", "arguments": {}}'},
      {'from': 'observation', 'value': '4'},
      {'from': 'gpt', 'value': 'It is 4.', 'verdict': True},
    ],
    'system': 's',
    'tools': '[{"name": "f", "parameters": {}}]',
  },
  {
    'history': [
      {'role': 'system', 'content': 's', 'message_type': 'system_prompt'},
      {'role': 'user', 'content': 't', 'message_type': 'observation'},
      {
        'role': 'assistant',
        'content': 'a',
        'message_type': 'action',
        'tool_calls': [CALL],
      },
      {
        'role': 'tool',
        'content': 'o',
        'message_type': 'observation',
        'tool_call_ids': ['c'],
      },
    ],
    'info': {},
  },
  {
    'tokens': [1, 2, 3],
    'provenance': ['user', 'agent', 5],
    'segment': [0, 1, 1],
    'verdict': [0, 'right', 2],
  },
  # Keys and names of other loggers and trainers.
  {
    'history': [
      {'role': 'Human', 'content': [{'text': 'u', 'image': None}]},
      {'role': 'ai', 'content': 'a', 'reasoning_details': [{'text': 'w'}]},
      {'role': 'tool_call', 'content': '{"name": "f", "arguments": {}}'},
      {'role': 'tool_response', 'content': '4', 'images': []},
      {'role': 'gpt', 'content': None, 'refusal': 'No.', 'weight': 0},
    ],
    'system_prompt': 's',
    'tool_defs': {'f': {'parameters': {}}},
    'chat_template_kwargs': {'enable_thinking': False},
    'images': [],
    'reward': 1.5,
  },
]
ODD = [None, True, 0, -1, 1.5, '', '\0', 'assistant', [], [[]], {}, {'a': 1}]


def places(value, path=()):
  """The path of everything in a value that stands in something."""
  items = value.items() if isinstance(value, dict) else enumerate(value)
  for key, child in items:
    yield (*path, key)
    if isinstance(child, (dict, list)):
      yield from places(child, (*path, key))


def with_change(row, change, rng):
  """A copy in which one place is changed: change(holder, key)."""
  row = copy.deepcopy(row)
  *above, key = rng.choice([*places(row)])
  holder = row
  for step in above:
    holder = holder[step]
  change(holder, key)
  return json.dumps(row)


def mutate(row, rng):
  """One row of a file, as bytes without a newline."""

  def put(value):
    return lambda holder, key: holder.__setitem__(key, value)

  whole = json.dumps(row)
  at = rng.randrange(1, len(whole))
  kind = rng.randrange(10)
  if kind == 0:
    text = with_change(row, lambda holder, key: holder.pop(key), rng)
  elif kind <= 3:
    text = with_change(row, put(rng.choice(ODD)), rng)
  elif kind == 4:
    text = whole[:at]
  elif kind == 5:
    text = whole[:at] + rng.choice(['\0', '"', ',', '}', 'NaN']) + whole[at:]
  elif kind == 6:
    text = with_change(row, put('half \ud83d'), rng)
  elif kind == 7:
    # Deeper than any stack, or just too deep, or just not.
    deep = rng.choice([10_000, 300, 200])
    text = with_change(row, put('HERE'), rng)
    text = text.replace('"HERE"', '{"a":' * deep + '1' + '}' * deep)
  elif kind == 8:
    text = with_change(row, put('x' * rng.choice([10, 100_000])), rng)
  else:
    return whole[:at].encode() + b'\xff\xfe' + whole[at:].encode()
  return text.encode()


def outcome(row):
  if row.error:
    assert row.value is None and '\n' not in row.error
    return 'error'
  try:
    found = registry.read(row.value, 'x', 'auto', Rules.default())
  except Malformed as error:
    assert '\n' not in str(error) and len(str(error)) < 1_000
    return 'malformed'
  assert isinstance(found, (Trajectory, Example))
  if isinstance(found, Trajectory):
    # What is valid can be written: as text, and within a template's stack.
    messages = [segment.message() for segment in found.segments]
    json.dumps([messages, found.tools], ensure_ascii=False).encode()
  return 'valid'


def test_the_rows_that_are_mutated_are_valid(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text('\n'.join(map(json.dumps, VALID)))
  assert [outcome(row) for row in rows.read(path)] == ['valid'] * len(VALID)


def test_a_thousand_mutated_lines(tmp_path):
  rng = random.Random(0)
  lines = [mutate(rng.choice(VALID), rng) for _ in range(1_000)]
  path = tmp_path / 'x.jsonl'
  path.write_bytes(b'\n'.join(lines))
  found = [*rows.read(path)]
  assert [row.number for row in found] == [*range(1, 1_001)]
  outcomes = [outcome(row) for row in found]
  counts = {name: outcomes.count(name) for name in {*outcomes}}
  assert counts.keys() == {'valid', 'malformed', 'error'}
  assert min(counts.values()) > 100
  # A line that Python itself cannot read is an error, never a row.
  for row, line in zip(found, lines, strict=True):
    try:
      json.loads(line)
    except (ValueError, RecursionError):
      assert row.error


@pytest.mark.parametrize('seed', range(100))
def test_mutated_arrays_account_for_every_row(seed, tmp_path):
  """Rows before the broken one are read; the rest is one error."""
  rng = random.Random(seed)
  good = json.dumps(VALID[0]).encode()
  path = tmp_path / 'x.json'
  path.write_bytes(b'[%b,\n%b,\n%b]' % (good, mutate(VALID[1], rng), good))
  found = [*rows.read(path)]
  outcomes = [outcome(row) for row in found]
  assert [row.number for row in found] == [*range(1, len(found) + 1)]
  assert outcomes[0] == 'valid'
  assert len(found) == 3 or outcomes[-1] == 'error'


@pytest.mark.parametrize('seed', range(100))
def test_a_mutated_file_of_one_row(seed, tmp_path):
  rng = random.Random(seed)
  path = tmp_path / 'x.traj'
  path.write_bytes(mutate(VALID[2], rng))
  found = [outcome(row) for row in rows.read(path)]
  assert len(found) == 1 or found[-1] == 'error'
