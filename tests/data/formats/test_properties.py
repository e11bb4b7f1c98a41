"""What holds of any conversation, and of any JSON at all."""

import copy
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import ROLES, Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.types import Example, Provenance, Trajectory

RULES = Rules.default()
AUTHORS = {*Provenance} - {Provenance.PAD, Provenance.TEMPLATE}
quick = settings(max_examples=100, deadline=None, database=None)

text = st.text(st.characters(exclude_categories=['Cs']), max_size=20)
scalar = st.none() | st.booleans() | st.integers() | text
# Keys that adapters look for, so that chance meets them.
key = st.sampled_from(
  [
    *('messages', 'conversations', 'history', 'tools', 'system', 'id'),
    *('role', 'content', 'from', 'value', 'tool_calls', 'function'),
    *('function_call', 'name', 'arguments', 'author', 'verdict', 'spans'),
    *('message_type', 'is_demo', 'tool_call_ids', 'type', 'text'),
    *('tokens', 'provenance', 'segment'),
  ]
)
word = st.sampled_from(
  ['user', 'assistant', 'tool', 'gpt', 'function_call', 'action', 'text', '[]']
)
anything = st.recursive(
  scalar | word,
  lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(key, inner, max_size=5)
  ),
  max_leaves=25,
)
call = st.builds(
  lambda name, arguments, flat: (
    {'name': name, 'arguments': arguments}
    if flat
    else {'function': {'name': name, 'arguments': arguments}}
  ),
  text.filter(bool),
  st.dictionaries(text, scalar, max_size=2)
  | st.dictionaries(text, scalar, max_size=2).map(json.dumps),
  st.booleans(),
)
content = text | st.none() | st.lists(text, max_size=3)
message = st.fixed_dictionaries(
  {'role': st.sampled_from([*ROLES]), 'content': content},
  optional={
    'tool_calls': st.lists(call, max_size=2) | st.none(),
    'name': text,
    'author': text | st.sampled_from(['agent', 'TOOL', 'Demonstration']),
    'verdict': scalar,
    'message_type': st.sampled_from(['action', 'observation', 'user', 'x']),
    'is_demo': st.booleans(),
  },
)
turn = st.fixed_dictionaries(
  {
    'from': st.sampled_from(
      ['system', 'human', 'gpt', 'function_call', 'tool']
    ),
    'value': text | call.map(json.dumps),
  }
)
row = st.fixed_dictionaries(
  {'messages': st.lists(message, min_size=1, max_size=6)}
) | st.fixed_dictionaries(
  {'conversations': st.lists(turn, min_size=1, max_size=6)},
  optional={'system': text, 'tools': st.just('[{"name": "f"}]')},
)


def flat(content):
  return content if isinstance(content, str) else ''.join(content or [])


@quick
@given(row)
def test_every_turn_has_one_author_and_all_of_its_text(row):
  before = copy.deepcopy(row)
  trajectory = registry.read(row, 'x', 'auto', RULES)
  assert row == before
  found = row.get('messages') or row['conversations']
  if row.get('system'):
    found = [{'from': 'system', 'value': row['system']}, *found]
  assert len(trajectory.segments) == len(found)
  for segment, item in zip(trajectory.segments, found, strict=True):
    assert segment.provenance in AUTHORS
    assert isinstance(segment.provenance, Provenance)
    assert segment.message()['content'] == segment.text
    if segment.fields.get('tool_calls') and 'value' in item:
      assert segment.text == ''
      (called,) = segment.fields['tool_calls']
      call = json.loads(item['value'])
      call = call.get('function', call)
      assert called['function']['name'] == call['name']
    else:
      assert segment.text == flat(item.get('content', item.get('value')))


@quick
@given(row, st.sampled_from(registry.NAMES))
def test_reading_is_a_function_of_the_row_as_json(row, format):
  """No state, no identity: the same from a file and in memory."""

  def read(value):
    try:
      return registry.read(value, 'x', format, RULES)
    except Malformed as error:
      return str(error)

  assert read(row) == read(json.loads(json.dumps(row)))


@settings(quick, max_examples=300)
@given(anything, st.sampled_from(registry.NAMES))
def test_any_json_is_read_or_malformed_and_never_changed(value, format):
  before = copy.deepcopy(value)
  for adapter in registry.FORMATS.values():
    assert adapter.matches(value) in (True, False)
  assert isinstance(registry.id_of(value, 'x', 1), str)
  try:
    found = registry.read(value, 'x', format, RULES)
  except Malformed as error:
    assert '\n' not in str(error) and len(str(error)) < 1_000
  else:
    assert isinstance(found, (Trajectory, Example))
  assert value == before


@quick
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 7)), min_size=2))
def test_tokens_pass_untouched_and_runs_are_runs(pairs):
  ids, codes = map(list, zip(*pairs, strict=True))
  row = {'tokens': ids, 'provenance': codes}
  example = registry.read(row, 'x', 'auto', RULES)
  assert example.tokens_T.tolist() == ids
  assert example.provenance_T.tolist() == codes
  same_run = np.diff(example.segment_T) == 0
  assert (same_run == (np.diff(codes) == 0)).all()
  assert example.segment_T[0] == 0
  assert {*np.diff(example.segment_T).tolist()} <= {0, 1}


@quick
@given(values=st.lists(anything.filter(lambda v: v is not None), max_size=5))
def test_json_lines_and_arrays_hold_the_same_rows(values, tmp_path_factory):
  folder = tmp_path_factory.mktemp('rows')
  # A first element that is a message would make the array one row.
  values = [{'row': value} for value in values]
  lines, array = folder / 'x.jsonl', folder / 'x.json'
  lines.write_text('\n'.join(map(json.dumps, values)))
  array.write_text(json.dumps(values, indent=1, ensure_ascii=False))
  for path in (lines, array):
    found = [(r.number, r.value, r.error) for r in rows.read(path)]
    assert found == [(i, value, '') for i, value in enumerate(values, 1)]
