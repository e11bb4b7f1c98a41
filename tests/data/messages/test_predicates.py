"""When a rule's condition holds of a message, and which are none."""

import pytest

from isft_jax.data.messages import predicates

MESSAGE = {
  'role': 'assistant',
  'name': None,
  'weight': 1,
  'final': True,
  'content': 'one\nFormat error: two',
  'extra': {'model': 'm-1', 'tags': ['a', 'b']},
  'row': {'reward': 0.0, 'source': 'human'},
}


@pytest.mark.parametrize(
  ('path', 'test', 'holds'),
  [
    ('role', 'assistant', True),
    ('role', 'Assistant', False),
    ('role', ['user', 'assistant'], True),
    ('role', ['user', 'tool'], False),
    ('weight', 1, True),
    ('weight', 1.0, True),
    ('weight', True, False),
    ('weight', '1', False),
    ('final', True, True),
    ('final', 1, False),
    ('row.reward', 0, True),
    ('row.reward', False, False),
    ('row.source', 'human', True),
    ('source', 'human', False),
    # Null and absent are one.
    ('name', None, True),
    ('absent', None, True),
    ('name', ['x', None], True),
    ('role', None, False),
    ('name', {'exists': False}, True),
    ('name', {'exists': True}, False),
    ('absent.more', {'exists': False}, True),
    ('row.reward', {'exists': True}, True),
    # Paths.
    ('extra.model', 'm-1', True),
    ('extra.tags.1', 'b', True),
    ('extra.tags.2', None, True),
    ('extra.tags.x', None, True),
    ('extra.tags', 'a', False),
    ('role.length', None, True),
    # Regular expressions are found anywhere, in strings alone.
    ('content', {'matches': 'error: t'}, True),
    ('content', {'matches': '^Format'}, False),
    ('content', {'matches': '(?m)^Format'}, True),
    ('weight', {'matches': '1'}, False),
    ('absent', {'matches': ''}, False),
  ],
)
def test_holds(path, test, holds):
  assert predicates.check(path, test).holds(MESSAGE) == holds


@pytest.mark.parametrize(
  ('path', 'test', 'text'),
  [
    ('role', 'tool', "role = 'tool'"),
    ('role', ['tool', 7], "role = 'tool' or 7"),
    ('row.x', {'matches': '^a'}, "row.x matches '^a'"),
    ('name', {'exists': True}, 'name is there'),
    ('name', {'exists': False}, 'name is absent'),
  ],
)
def test_a_predicate_reads_as_a_phrase(path, test, text):
  assert str(predicates.check(path, test)) == text


SHAPE = 'x: expected {"matches": "a regular expression"} or {"exists": true}'


@pytest.mark.parametrize(
  ('test', 'error'),
  [
    ([], 'x: expected a list of strings or numbers'),
    (['a', {}], 'x: expected a list of strings or numbers'),
    ({}, SHAPE),
    ({'matches': 7}, SHAPE),
    ({'equals': 'a'}, SHAPE),
    ({'matches': 'a', 'exists': True}, SHAPE),
    ({'exists': 1}, 'x: exists is either true or false'),
    (
      {'matches': '(a'},
      "x: '(a' is not a regular expression: missing ), unterminated subpattern "
      'at position 0',
    ),
  ],
)
def test_tests_that_are_none(test, error):
  with pytest.raises(ValueError) as raised:
    predicates.check('x', test)
  assert str(raised.value) == error
