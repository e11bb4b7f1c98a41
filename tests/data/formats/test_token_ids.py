"""Tokens pass as they are, or not at all."""

import numpy as np
import pytest

from isft_jax.data.formats import token_ids
from isft_jax.data.messages.conversation import Malformed

COLUMNS = {
  'tokens_T': np.int32,
  'provenance_T': np.uint8,
  'segment_T': np.int32,
  'verdict_T': np.uint8,
}
NAMES = ['context', 'User', 'AGENT', 'agent', 'tool', 'agent']
CODES = [2, 3, 5, 5, 4, 5]
RUNS = [0, 1, 2, 2, 3, 4]
IDS = [0, 9, 8, 9, 2**31 - 1, 0]


@pytest.mark.parametrize(
  ('row', 'segment', 'verdict'),
  [
    ({'provenance': NAMES}, RUNS, [0] * 6),
    ({'provenance': CODES, 'segment': None, 'verdict': None}, RUNS, [0] * 6),
    (
      {
        'provenance': [*NAMES[:3], *CODES[3:]],
        'segment': [0, 0, 1, 1, 1, 7],
        'verdict': [0, 'unknown', 'Right', 1, 'WRONG', 2],
      },
      [0, 0, 1, 1, 1, 7],
      [0, 0, 1, 1, 2, 2],
    ),
  ],
)
def test_a_row(row, segment, verdict):
  row = {'tokens': IDS, 'reward': 1, **row}
  assert token_ids.matches(row)
  example = token_ids.read(row, 'a')
  found = {name: getattr(example, name) for name in COLUMNS}
  assert {name: x.tolist() for name, x in found.items()} == {
    'tokens_T': IDS,
    'provenance_T': CODES,
    'segment_T': segment,
    'verdict_T': verdict,
  }
  assert {name: x.dtype for name, x in found.items()} == COLUMNS
  assert (example.id, example.scored_from, example.window) == ('a', 0, 0)


ONE_OF = 'PAD, TEMPLATE, CONTEXT, USER, TOOL, AGENT, DEMONSTRATION, HARNESS'


@pytest.mark.parametrize(
  ('fields', 'error'),
  [
    ({'tokens': 'ab'}, 'tokens is a string, expected a list'),
    ({'tokens': [1]}, '1 tokens, expected 2 or more: the first is no target'),
    ({'tokens': []}, '0 tokens, expected 2 or more: the first is no target'),
    (
      {'tokens': [1, True]},
      'tokens 1 is true or false, expected 0 to 2147483647',
    ),
    ({'tokens': [1, 2.0]}, 'tokens 1 is a number, expected 0 to 2147483647'),
    ({'tokens': [-1, 2]}, 'tokens 0 is a number, expected 0 to 2147483647'),
    ({'tokens': [1, 2**31]}, 'tokens 1 is a number, expected 0 to 2147483647'),
    ({'tokens': [1, None]}, 'tokens 1 is null, expected 0 to 2147483647'),
    ({'tokens': [1, 2, 3]}, '3 tokens, but 2 of provenance'),
    ({'provenance': None}, 'provenance is null, expected a list'),
    ({'provenance': [3, 8]}, f'provenance 1: expected one of {ONE_OF}'),
    ({'provenance': [3, 'me']}, f'provenance 1: expected one of {ONE_OF}'),
    ({'provenance': [3, True]}, f'provenance 1: expected one of {ONE_OF}'),
    ({'provenance': [3, 5.0]}, f'provenance 1: expected one of {ONE_OF}'),
    ({'provenance': [[], 3]}, f'provenance 0: expected one of {ONE_OF}'),
    (
      {'provenance': [3, 0]},
      'provenance 1 is PAD, which a stored token cannot have',
    ),
    (
      {'provenance': ['pad', 3]},
      'provenance 0 is PAD, which a stored token cannot have',
    ),
    ({'segment': [0]}, '2 tokens, but 1 of segment'),
    ({'segment': [0, -1]}, 'segment 1 is a number, expected 0 to 2147483647'),
    ({'segment': 0}, 'segment is a number, expected a list'),
    ({'verdict': [0, 0, 0]}, '2 tokens, but 3 of verdict'),
    ({'verdict': [0, 3]}, 'verdict 1: expected one of UNKNOWN, RIGHT, WRONG'),
    (
      {'verdict': [True, 0]},
      'verdict 0: expected one of UNKNOWN, RIGHT, WRONG',
    ),
  ],
)
def test_malformed_rows(fields, error):
  with pytest.raises(Malformed) as raised:
    token_ids.read({'tokens': [1, 2], 'provenance': [3, 5], **fields}, 'a')
  assert str(raised.value) == error


@pytest.mark.parametrize('row', [None, [1, 2], {'tokens': [1, 2]}])
def test_rows_of_no_such_format(row):
  assert not token_ids.matches(row)
  with pytest.raises(Malformed, match=r'^expected tokens and provenance: '):
    token_ids.read(row, 'a')
