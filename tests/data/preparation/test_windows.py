"""Long trajectories as windows: tables, then laws over all lengths.

In the tables `.` is context only, before `scored_from`, and `#` is scored.
"""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from isft_jax.data.preparation import windows
from isft_jax.data.records import dataset
from isft_jax.objectives import weight_table
from isft_jax.types import Example, Provenance, Verdict


def example(length, id='x'):
  """Token t is 100 + t, and so on: each value tells its place."""
  places_T = np.arange(length)
  return Example(
    id=id,
    tokens_T=(100 + places_T).astype(np.int32),
    provenance_T=(1 + places_T % 7).astype(np.uint8),
    segment_T=(places_T // 3).astype(np.int32),
    verdict_T=(places_T % len(Verdict)).astype(np.uint8),
  )


def drawn(parts, length):
  """One line a window, under the tokens that it holds."""
  lines = []
  for part in parts:
    start = int(part.tokens_T[0]) - 100 if len(part.tokens_T) else 0
    held = len(part.tokens_T)
    marks = '.' * part.scored_from + '#' * (held - part.scored_from)
    lines.append((' ' * start + marks).ljust(length))
  return [line.rstrip() for line in lines]


#        length, max_length, overlap
TABLES = {
  (10, 6, 2): [
    '######',
    '    ..####',
  ],
  # The last window starts as early as it may.
  (9, 6, 2): [
    '######',
    '   ...###',
  ],
  (7, 6, 2): [
    '######',
    ' .....#',
  ],
  (11, 6, 2): [
    '######',
    '    ..####',
    '     .....#',
  ],
  (6, 6, 2): ['######'],
  (5, 6, 2): ['#####'],
  (1, 6, 2): ['#'],
  (0, 6, 2): [''],
  (8, 4, 3): [
    '####',
    ' ...#',
    '  ...#',
    '   ...#',
    '    ...#',
  ],
  (7, 4, 1): [
    '####',
    '   .###',
  ],
  (3, 2, 1): [
    '##',
    ' .#',
  ],
}


@pytest.mark.parametrize('case', TABLES)
def test_the_windows_of(case):
  length, max_length, overlap = case
  parts = windows.split(example(length), max_length, overlap)
  assert drawn(parts, length) == TABLES[case]


def test_a_window_carries_all_that_its_tokens_carry():
  whole = example(10, id='run-7')
  first, second = windows.split(whole, 6, 2)
  assert second.id == first.id == 'run-7'
  assert (first.window, second.window) == (0, 1)
  assert (first.scored_from, second.scored_from) == (0, 2)
  for name in ('tokens_T', 'provenance_T', 'segment_T', 'verdict_T'):
    values_T = getattr(whole, name)
    assert getattr(first, name).tolist() == values_T[:6].tolist()
    assert getattr(second, name).tolist() == values_T[4:].tolist()
    assert getattr(second, name).dtype == values_T.dtype


def test_what_fits_is_left_as_it_is():
  whole = example(6)
  (part,) = windows.split(whole, 6, 5)
  for field in dataclasses.fields(whole):
    ours, theirs = getattr(part, field.name), getattr(whole, field.name)
    np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


@pytest.mark.parametrize(
  ('max_length', 'overlap'),
  [(6, 0), (6, -1), (6, 6), (6, 7), (1, 1), (0, 0), (1, 0), (-1, -2)],
)
def test_a_window_without_context_or_without_anything_new_is_refused(
  max_length, overlap
):
  message = (
    f'--overlap={overlap} must be at least 1, and less than '
    f'--max_length={max_length}'
  )
  for refused in (
    lambda: windows.check(max_length, overlap),
    lambda: windows.split(example(3), max_length, overlap),
  ):
    with pytest.raises(ValueError) as caught:
      refused()
    assert str(caught.value) == message


sizes = st.tuples(
  st.integers(0, 200), st.integers(2, 60), st.integers(1, 59)
).filter(lambda size: size[2] < size[1])
often = hypothesis.settings(
  deadline=None, derandomize=True, max_examples=300, database=None
)


@often
@hypothesis.given(sizes)
def test_every_token_is_scored_in_one_window_after_enough_context(size):
  length, max_length, overlap = size
  parts = windows.split(example(length), max_length, overlap)
  scored = [t for p in parts for t in p.tokens_T[p.scored_from :].tolist()]
  assert scored == [*range(100, 100 + length)]
  for number, part in enumerate(parts):
    held = part.tokens_T.tolist()
    assert part.window == number
    assert held == [*range(held[0], held[-1] + 1)] if held else length == 0
    assert len(held) <= max_length
    assert part.scored_from < len(held) or length == 0
    before = held[part.scored_from] - 100 if held else 0
    assert part.scored_from >= min(overlap, before)
  # No shorter than it must be: the last one has all the context that fits.
  assert len(parts[-1].tokens_T) == min(length, max_length)


@often
@hypothesis.given(sizes)
def test_there_are_as_few_windows_as_the_overlap_allows(size):
  length, max_length, overlap = size
  parts = windows.split(example(length), max_length, overlap)
  rest = max(0, length - max_length)
  assert len(parts) == 1 + -(-rest // (max_length - overlap))


@pytest.mark.parametrize('objective', ['interventional', 'agent_only'])
def test_the_targets_of_the_windows_are_those_of_the_whole(tmp_path, objective):
  """Counted as the index counts them; the first token of all is no target."""
  whole = example(100)
  weights_PV = weight_table(objective) != 0
  counts = []
  for name, parts in {
    'whole': [whole],
    'windows': windows.split(whole, 16, 5),
  }.items():
    data = dataset.write(str(tmp_path / name), lambda p=parts: p, {})
    counts.append(int((data.index.counts_NPV * weights_PV).sum()))
  places = weights_PV[whole.provenance_T, whole.verdict_T][1:]
  assert counts == [places.sum()] * 2 and places.sum() > 0
  assert Provenance.AGENT in whole.provenance_T
