"""Format of token ids with authors, for rollouts that need no rendering.

    {"tokens":     [1, 5, 7, 9],
     "provenance": ["context", "user", "agent", "agent"],
     "segment":    [0, 1, 2, 2],
     "verdict":    [0, 0, 2, 2]}

`segment` and `verdict` are optional.
"""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from isft_jax.data.formats.annotations import PROVENANCES, VERDICTS
from isft_jax.data.formats.conversation import Malformed, kind
from isft_jax.types import Example, Provenance, Verdict

WANTS = 'tokens and provenance: two lists of one length'
USES = frozenset(('tokens', 'provenance', 'segment', 'verdict'))  # of a row
_LARGEST = np.iinfo(np.int32).max  # records store ids as int32


def matches(value: object) -> TypeGuard[Mapping]:
  """Returns whether a row has this format."""
  return isinstance(value, dict) and {'tokens', 'provenance'} <= value.keys()


def read(value: object, id: str) -> Example:
  """Reads a row.

  Args:
    value: the JSON value of the row.
    id: id of the example.

  Raises:
    Malformed: the row does not follow the format.
  """
  # Ids.
  if not matches(value):
    raise Malformed(f'expected {WANTS}')
  tokens = _integers(value, 'tokens')
  n = len(tokens)
  if n < 2:
    raise Malformed(f'{n} tokens, expected 2 or more: the first is no target')

  # Authors.
  provenance = _codes(value, 'provenance', PROVENANCES)
  if Provenance.PAD in provenance:
    position = provenance.index(Provenance.PAD)
    raise Malformed(
      f'provenance {position} is PAD, which a stored token cannot have'
    )

  # Optional columns. By default a turn is a run of one author.
  segment = (
    _runs(provenance)
    if value.get('segment') is None
    else _integers(value, 'segment')
  )
  verdict = (
    [Verdict.UNKNOWN] * n
    if value.get('verdict') is None
    else _codes(value, 'verdict', VERDICTS)
  )
  # All columns must have a value for each token.
  columns = {'provenance': provenance, 'segment': segment, 'verdict': verdict}
  for key, column in columns.items():
    if len(column) != n:
      raise Malformed(f'{n} tokens, but {len(column)} of {key}')
  return Example(
    id,
    np.array(tokens, np.int32),
    np.array(provenance, np.uint8),
    np.array(segment, np.int32),
    np.array(verdict, np.uint8),
  )


def _list(row: Mapping, key: str) -> list:
  """Returns a column of the row."""
  if not isinstance(row[key], list):
    raise Malformed(f'{key} is {kind(row[key])}, expected a list')
  return row[key]


def _integers(row: Mapping, key: str) -> list[int]:
  """Returns a column of integers from 0 to the largest int32."""
  # `type(x)` excludes booleans, which isinstance counts as int.
  column = _list(row, key)
  for i, x in enumerate(column):
    if type(x) is not int or not 0 <= x <= _LARGEST:
      raise Malformed(f'{key} {i} is {kind(x)}, expected 0 to {_LARGEST}')
  return column


def _codes(row: Mapping, key: str, members: Mapping[str, int]) -> list[int]:
  """Returns a column of codes or names as codes."""
  known = {*members.values()}
  codes = []
  for i, x in enumerate(_list(row, key)):
    # Names are accepted in upper or lower case.
    code = members.get(x.upper()) if isinstance(x, str) else x
    # `type(x)` excludes booleans, and floats that equal a code.
    if type(x) not in (int, str) or code not in known:
      raise Malformed(f'{key} {i}: expected one of {", ".join(members)}')
    codes.append(int(code))
  return codes


def _runs(codes: list[int]) -> list[int]:
  """Returns the index of the run of equal codes: 3 3 4 3 gives 0 0 1 2."""
  # A new run begins where neighbours differ.
  changed = np.diff(np.array(codes)) != 0
  return [0, *np.cumsum(changed).tolist()]
