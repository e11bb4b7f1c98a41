"""What a message may say of its own authors, and what is not ours to read."""

import pytest

from isft_jax.data.messages import annotations
from isft_jax.data.messages.conversation import Malformed
from isft_jax.types import Part, Provenance, Verdict

P, V = Provenance, Verdict
TEXT = '0123456789'


@pytest.mark.parametrize(
  ('key', 'value', 'is_mark'),
  [
    ('author', 'agent', True),
    ('author', 'Demonstration', True),
    ('author', 'PAD', True),
    ('author', 'expert', False),
    ('author', 5, False),
    ('author', {'role': 'tool'}, False),
    ('verdict', 'Right', True),
    ('verdict', 0, True),
    ('verdict', False, True),
    ('verdict', 'good', False),
    ('verdict', 3, False),
    ('verdict', 1.0, False),
    ('verdict', [1], False),
    ('spans', 'anything', True),
    ('name', 'agent', False),
  ],
)
def test_a_field_is_ours_only_if_its_value_is(key, value, is_mark):
  assert annotations.is_mark(key, value) == is_mark


@pytest.mark.parametrize(
  ('value', 'verdict'),
  [
    ('right', V.RIGHT),
    ('WRONG', V.WRONG),
    ('unknown', V.UNKNOWN),
    (0, V.UNKNOWN),
    (1, V.RIGHT),
    (2, V.WRONG),
    (True, V.RIGHT),
    (False, V.WRONG),
    (None, None),
    ('', None),
    (2.0, None),
  ],
)
def test_verdicts(value, verdict):
  assert annotations.verdict(value) is verdict


@pytest.mark.parametrize('name', ['PAD', 'template'])
def test_no_message_is_written_by_padding_or_by_a_template(name):
  with pytest.raises(Malformed) as raised:
    annotations.author({'author': name}, 3)
  assert str(raised.value) == (
    'turn 3: author must be one of CONTEXT, USER, TOOL, AGENT, DEMONSTRATION, '
    f"HARNESS (got '{name.upper()}')"
  )


@pytest.mark.parametrize(
  ('spans', 'parts'),
  [
    (None, ()),
    ([], ()),
    ([[0, 10, 'tool']], (Part(0, 10, P.TOOL),)),
    ([[2, 3, 'USER', False]], (Part(2, 3, P.USER, V.WRONG),)),
    (
      [
        {'start': 5, 'stop': 6, 'author': 'agent', 'verdict': 1},
        [0, 5, 'tool'],
      ],
      (Part(0, 5, P.TOOL), Part(5, 6, P.AGENT, V.RIGHT)),
    ),
  ],
)
def test_spans_are_parts_in_order(spans, parts):
  assert annotations.parts({'spans': spans}, TEXT, 0) == parts


SHAPE = (
  'turn 3: span 0 must be [start, stop, author] or [start, stop, author, '
  'verdict]'
)
ORDER = 'turn 3: span 0: expected 0 <= start < stop, counted in characters'
AUTHOR = (
  'turn 3: span 0: author must be one of CONTEXT, USER, TOOL, AGENT, '
  'DEMONSTRATION, HARNESS'
)


@pytest.mark.parametrize(
  ('spans', 'error'),
  [
    ('0-5', 'turn 3: spans is a string, expected a list'),
    ({}, 'turn 3: spans is an object, expected a list'),
    ([5], SHAPE),
    ([[0, 5]], SHAPE),
    ([[0, 5, 'tool', 'right', 1]], SHAPE),
    ([{'start': 0, 'stop': 5}], SHAPE),
    ([{'start': 0, 'stop': 5, 'author': 'tool', 'by': 1}], SHAPE),
    ([[-1, 5, 'tool']], ORDER),
    ([[5, 5, 'tool']], ORDER),
    ([[6, 5, 'tool']], ORDER),
    ([[False, True, 'tool']], ORDER),
    ([[0, 5.0, 'tool']], ORDER),
    ([['0', '5', 'tool']], ORDER),
    ([[0, 5, 'expert']], AUTHOR),
    ([[0, 5, 'pad']], AUTHOR),
    ([[0, 5, 4]], AUTHOR),
    (
      [[0, 5, 'tool', 'good']],
      'turn 3: span 0: verdict must be one of UNKNOWN, RIGHT, WRONG',
    ),
    (
      [[4, 6, 'tool'], [0, 5, 'user']],
      'turn 3: spans overlap at character 4',
    ),
    (
      [[0, 11, 'tool']],
      'turn 3: a span ends at 11, the text is 10 characters',
    ),
  ],
)
def test_spans_that_are_none_are_malformed(spans, error):
  with pytest.raises(Malformed) as raised:
    annotations.parts({'spans': spans}, TEXT, 3)
  assert str(raised.value) == error
