"""Each format's row is of that format only, and says the same conversation."""

import json

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from tests.data.formats import examples, log_rows


def without_ids(message):
  """A message without the ids of calls and the names of tools."""
  message = {
    k: v for k, v in message.items() if k not in ('tool_call_id', 'name')
  }
  if 'tool_calls' in message:
    calls = message['tool_calls']
    message['tool_calls'] = [
      {k: v for k, v in call.items() if k != 'id'} for call in calls
    ]
  return message


@pytest.mark.parametrize(('name', 'row'), examples.ROWS.items())
def test_a_row_is_of_one_format(name, row):
  assert registry.matching(row) == [name]


@pytest.mark.parametrize(('name', 'row'), examples.ROWS.items())
def test_a_row_whose_lists_are_json_is_of_the_same_format(name, row):
  """Tables of text columns store lists as JSON."""
  if not isinstance(row, dict) or name == 'tokens':
    pytest.skip('the row has no columns')
  columns = {
    key: json.dumps(value) if isinstance(value, list) else value
    for key, value in row.items()
    if key != 'system'
  }
  assert registry.matching(columns) == [name]
  without = {key: value for key, value in row.items() if key != 'system'}
  again = registry.read(columns, 'x', name, Rules.default())
  # Examples of tokens have arrays, which have no single equality.
  assert repr(again) == repr(registry.read(without, 'x', name, Rules.default()))


@pytest.mark.parametrize(('name', 'row'), examples.WHOLE.items())
def test_formats_agree_on_messages_authors_and_tools(name, row):
  trajectory = registry.read(row, 'x', 'auto', Rules.default())
  first = 1 if name in examples.WITHOUT_SYSTEM else 0
  messages = [without_ids(s.message()) for s in trajectory.segments]
  assert messages == examples.MESSAGES[first:]
  authors = [segment.provenance.name for segment in trajectory.segments]
  assert authors == examples.AUTHORS[first:]
  tools = None if name in examples.WITHOUT_TOOLS else (examples.TOOL,)
  assert trajectory.tools == tools


@pytest.mark.parametrize(('name', 'row'), examples.WHOLE.items())
def test_a_row_is_not_changed(name, row):
  before = json.dumps(row)
  registry.read(row, 'x', name, Rules.default())
  assert json.dumps(row) == before


@pytest.mark.parametrize(('name', 'row'), examples.WHOLE.items())
def test_raw_messages_have_the_role_and_the_text(name, row):
  """Author rules test them."""
  for turn in registry.FORMATS[name].read(row).turns:
    assert turn.raw['role'] == turn.message['role']
    if isinstance(turn.raw.get('content'), str):
      assert turn.raw['content'] == turn.message['content']


def as_table(*values):
  """Values of a column as a table stores them: absent keys are null.

  {'a': 1}       becomes  {'a': 1,    'b': None}
  {'b': {'c': 2}}         {'a': None, 'b': {'c': 2}}
  {'b': {}}               {'a': None, 'b': {'c': None}}
  """
  rows = [value for value in values if isinstance(value, dict)]
  columns = {}
  for key in dict.fromkeys(key for row in rows for key in row):
    column = as_table(*(row[key] for row in rows if key in row))
    columns[key] = iter(column)
  items = [
    item for value in values if isinstance(value, list) for item in value
  ]
  items = iter(as_table(*items)) if items else iter(())
  table = []
  for value in values:
    if isinstance(value, dict):
      value = {k: next(c) if k in value else None for k, c in columns.items()}
    elif isinstance(value, list):
      value = [next(items) for _ in value]
    table.append(value)
  return table


def test_as_table():
  assert as_table({'a': 1}, {'b': {'c': 2}}, {'b': {}}, [{'d': 3}, {}]) == [
    {'a': 1, 'b': None},
    {'a': None, 'b': {'c': 2}},
    {'a': None, 'b': {'c': None}},
    [{'d': 3}, {'d': None}],
  ]


@pytest.mark.parametrize(
  ('name', 'row'), {**log_rows.ROWS, **examples.WHOLE}.items()
)
def test_null_is_absent(name, row):
  [table] = as_table(row)
  found = registry.read(table, 'x', 'auto', Rules.default())
  # Examples of tokens have arrays, which have no single equality.
  assert repr(found) == repr(registry.read(row, 'x', name, Rules.default()))
