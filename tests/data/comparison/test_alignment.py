"""Tokens of two renderings are paired where both have them."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from isft_jax.data.comparison import alignment


def decode(id: int) -> str:
  """Returns the text of an id: a letter, where 10 is a line break."""
  return chr(id)


def align(ours: str, theirs: str) -> list[tuple[str, str]]:
  """Returns pairs of letters, with '-' for none."""
  pairs_A2 = alignment.align([*map(ord, ours)], [*map(ord, theirs)], decode)
  return [
    (ours[i] if i >= 0 else '-', theirs[j] if j >= 0 else '-')
    for i, j in pairs_A2
  ]


@pytest.mark.parametrize(
  ('ours', 'theirs', 'above', 'below'),
  [
    ('abc', 'abc', 'abc', 'abc'),
    ('abc', '', 'abc', '---'),
    ('', 'abc', '---', 'abc'),
    ('', '', '', ''),
    # One token more, inside, before or behind.
    ('ac', 'abc', 'a-c', 'abc'),
    ('bc', 'abc', '-bc', 'abc'),
    ('ab', 'abc', 'ab-', 'abc'),
    # Another token in its place: ours comes first.
    ('axc', 'ayc', 'ax-c', 'a-yc'),
    # Equal lines are paired before equal letters.
    ('q\nhi\n', 'q\nh\nhi\n', 'q\n--hi\n', 'q\nh\nhi\n'),
    ('x\nsame\n', 'yz\nsame\n', 'x--\nsame\n', '-yz\nsame\n'),
  ],
)
def test_pairs(ours, theirs, above, below):
  assert align(ours, theirs) == [*zip(above, below, strict=True)]


@hypothesis.given(*[strategies.text('ab\n', max_size=30)] * 2)
def test_every_token_is_there_once_and_pairs_are_equal(ours, theirs):
  pairs = align(ours, theirs)
  assert ''.join(a for a, _ in pairs if a != '-') == ours
  assert ''.join(b for _, b in pairs if b != '-') == theirs
  for a, b in pairs:
    assert a == b or '-' in (a, b)
    assert (a, b) != ('-', '-')


def test_both_columns_ascend():
  pairs_A2 = alignment.align([1, 2, 3, 4], [1, 3, 5, 4], decode)
  for column_A in pairs_A2.T:
    assert (np.diff(column_A[column_A >= 0]) == 1).all()


def test_large_blocks_without_a_common_line_are_not_aligned(monkeypatch):
  monkeypatch.setattr(alignment, '_MOST_PAIRS', 3)
  assert align('ab', 'ac') == [('a', '-'), ('b', '-'), ('-', 'a'), ('-', 'c')]
  # Other lines still are.
  assert align('ab\nx\n', 'ac\nx\n')[-2:] == [('x', 'x'), ('\n', '\n')]
