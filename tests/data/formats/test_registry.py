"""Which format a row is of, and what its id is."""

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.types import Example, Provenance, Segment, Trajectory

RULES = Rules.default()
OPENAI = {'role': 'user', 'content': 'a'}
SHAREGPT = {'from': 'human', 'value': 'a'}
SWE_AGENT = {'role': 'user', 'content': 'a', 'message_type': 'observation'}
BLOCKS = {'role': 'user', 'content': [{'type': 'text', 'text': 'a'}]}
THOUGHT = {
  'role': 'assistant',
  'content': [{'type': 'thinking', 'thinking': 'b'}],
}
SAID = {'role': 'user', 'text': 'a'}
STEP = {'source': 'user', 'message': 'a'}
REACT = 'Question: a\nThought: b\nAction: c\nObservation: d\n'
TURN = (Segment('user', 'a', Provenance.USER),)
TASK = (Segment('user', 'a', Provenance.CONTEXT),)


@pytest.mark.parametrize(
  ('row', 'format', 'segments'),
  [
    ({'messages': [OPENAI]}, 'openai', TURN),
    ({'traj': [OPENAI]}, 'openai', TURN),
    ({'conversation': [OPENAI]}, 'openai', TURN),
    ({'conversations': [OPENAI]}, 'openai', TURN),
    ([OPENAI], 'openai', TURN),
    ({'trajectory': [OPENAI]}, 'openai', TURN),
    ({'history': [OPENAI]}, 'openai', TURN),
    ({'turns': [OPENAI]}, 'openai', TURN),
    ({'prompt': [OPENAI]}, 'openai', TURN),
    ({'prompt': [OPENAI], 'completion': 'b'}, 'prompt_completion', ...),
    ({'conversations': [SHAREGPT]}, 'sharegpt', TURN),
    ({'conversation': [SHAREGPT]}, 'sharegpt', TURN),
    ({'messages': [SHAREGPT]}, 'sharegpt', TURN),
    ([SHAREGPT], 'sharegpt', TURN),
    ({'turns': [SAID]}, 'turns', TURN),
    ({'history': [SWE_AGENT]}, 'swe_agent', TASK),
    ({'messages': [SWE_AGENT]}, 'swe_agent', TASK),
    ([SWE_AGENT], 'swe_agent', TASK),
    ({'messages': [BLOCKS], 'system': []}, 'anthropic', TURN),
    ({'messages': [OPENAI], 'tools': [{'input_schema': {}}]}, 'anthropic', ...),
    ([OPENAI, THOUGHT], 'anthropic', ...),
    ({'steps': [STEP]}, 'atif', TURN),
    ({'schema_version': 'ATIF-v1.6', 'steps': [STEP]}, 'atif', TURN),
    (REACT, 'react', ...),
    ({'text': REACT}, 'react', ...),
    ({'trajectory': REACT}, 'react', ...),
  ],
)
def test_auto_reads_what_the_format_by_name_reads(row, format, segments):
  """And it is of that format alone."""
  assert registry.matching(row) == [format]
  found = registry.read(row, 'x', 'auto', RULES)
  assert found == registry.read(row, 'x', format, RULES)
  if segments is not ...:
    assert found == Trajectory('x', segments)


def test_a_row_of_two_formats_is_of_the_one_that_is_named():
  row = {'messages': [SHAREGPT], 'steps': [STEP]}
  with pytest.raises(Malformed) as raised:
    registry.read(row, 'x', 'auto', RULES)
  both = ' and '.join(n for n in registry.FORMATS if n in ('atif', 'sharegpt'))
  assert str(raised.value) == (
    f'the row fits {both}; name one of them with --format'
  )
  for format in ('sharegpt', 'atif'):
    assert registry.read(row, 'x', format, RULES) == Trajectory('x', TURN)


@pytest.mark.parametrize('format', ['auto', 'tokens'])
def test_tokens_are_an_example(format):
  row = {'tokens': [1, 2], 'provenance': [3, 5], 'messages': [OPENAI]}
  example = registry.read(row, 'x', format, RULES)
  assert isinstance(example, Example)
  assert (example.id, example.provenance_T.tolist()) == ('x', [3, 5])


def test_a_format_by_name_takes_no_other():
  with pytest.raises(Malformed, match=r'^no turns: '):
    registry.read({'messages': [OPENAI]}, 'x', 'sharegpt', RULES)


@pytest.mark.parametrize(
  ('row', 'has'),
  [
    (
      {'id': 7, 'text': 'a', 'x': []},
      "'id' (a number), 'text' (a string), 'x' (an empty list)",
    ),
    ({'messages': []}, "'messages' (an empty list)"),
    ({}, 'an empty object'),
    ([1], 'a list'),
    (None, 'null'),
    (
      {str(i): None for i in range(10)},
      ', '.join(f"'{i}' (null)" for i in range(8)) + ', ...',
    ),
  ],
)
def test_a_row_of_no_format_names_them(row, has):
  with pytest.raises(Malformed) as raised:
    registry.read(row, 'x', 'auto', RULES)
  assert str(raised.value) == (
    f'no format fits: the row has {has}. The formats are '
    f'{", ".join(registry.FORMATS)}; name one with --format to see what it '
    'wants'
  )


@pytest.mark.parametrize('name', registry.FORMATS)
def test_a_format_by_name_says_what_it_wants(name):
  with pytest.raises(Malformed, match=r'^(expected|no turns: expected) '):
    registry.read({'a': 1}, 'x', name, RULES)


def test_a_format_that_there_is_not():
  assert ('auto', *registry.FORMATS) == registry.NAMES
  names = ', '.join(registry.NAMES)
  with pytest.raises(ValueError) as raised:
    registry.read({}, 'x', 'chatml', RULES)
  assert not isinstance(raised.value, Malformed)
  assert str(raised.value) == f"format must be one of {names} (got 'chatml')"


@pytest.mark.parametrize(
  ('row', 'id'),
  [
    ({'id': 'a'}, 'a'),
    ({'id': 0}, '0'),
    ({'instance_id': 'a', 'uuid': 'b'}, 'a'),
    ({'trajectory_id': 'a'}, 'a'),
    ({'traj_id': 'a'}, 'a'),
    ({'uuid': 'a', 'id': None}, 'a'),
    ({'id': ''}, 'runs:3'),
    ({'id': True}, 'runs:3'),
    ({'id': 1.5}, 'runs:3'),
    ({'id': ['a']}, 'runs:3'),
    ({'task_id': 'a'}, 'runs:3'),
    ([OPENAI], 'runs:3'),
    (None, 'runs:3'),
  ],
)
def test_id_of_a_row(row, id):
  assert registry.id_of(row, 'runs', 3) == id
