"""Ids with an author each, from one's own rollouts: nothing is rendered.

    {"tokens":     [1, 5, 7, 9],
     "provenance": ["context", "user", "agent", "agent"],
     "segment":    [0, 1, 2, 2],
     "verdict":    [0, 0, 2, 2]}

The last two may be left out.
"""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from isft_jax.data.formats.annotations import PROVENANCES, VERDICTS
from isft_jax.data.formats.conversation import Malformed, kind
from isft_jax.types import Example, Provenance, Verdict

WANTS = 'tokens and provenance: two lists of one length'
_LARGEST = np.iinfo(np.int32).max


def matches(value: object) -> TypeGuard[Mapping]:
  """Whether a row is of this format."""
  return isinstance(value, dict) and {'tokens', 'provenance'} <= value.keys()


def read(value: object, id: str) -> Example:
  """Returns a row as it is. id: of the example. Raises Malformed."""
  if not matches(value):
    raise Malformed(f'expected {WANTS}')
  tokens = _integers(value, 'tokens')
  n = len(tokens)
  if n < 2:
    raise Malformed(f'{n} tokens, expected 2 or more: the first is no target')
  provenance = _codes(value, 'provenance', PROVENANCES)
  if Provenance.PAD in provenance:
    at = provenance.index(Provenance.PAD)
    raise Malformed(f'provenance {at} is PAD, which no stored token is')
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
  if not isinstance(row[key], list):
    raise Malformed(f'{key} is {kind(row[key])}, expected a list')
  return row[key]


def _integers(row: Mapping, key: str) -> list[int]:
  column = _list(row, key)
  for i, x in enumerate(column):
    if type(x) is not int or not 0 <= x <= _LARGEST:
      raise Malformed(f'{key} {i} is {kind(x)}, expected 0 to {_LARGEST}')
  return column


def _codes(row: Mapping, key: str, members: Mapping[str, int]) -> list[int]:
  """A column of codes or names, as codes."""
  known = {*members.values()}
  codes = []
  for i, x in enumerate(_list(row, key)):
    code = members.get(x.upper()) if isinstance(x, str) else x
    if type(x) not in (int, str) or code not in known:
      raise Malformed(f'{key} {i}: expected one of {", ".join(members)}')
    codes.append(int(code))
  return codes


def _runs(codes: list[int]) -> list[int]:
  """Which run of equal codes each stands in: 3 3 4 3 gives 0 0 1 2."""
  changed = np.diff(np.array(codes)) != 0
  return [0, *np.cumsum(changed).tolist()]
