"""What a rule asks of a message: a path into it, and a test of what is there.

"name": "expert"                    equal
"name": ["expert", "teacher"]       any of these
"content": {"matches": "^Error"}    a regular expression, found anywhere
"row.reward": {"exists": true}      there, and not null
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from isft_jax.data.formats.conversation import kind

_SCALARS = (str, int, float, bool, type(None))


class Predicate(NamedTuple):
  """path: dotted keys, and places in lists. test: as in a rules file."""

  path: str
  test: object

  def holds(self, message: Mapping) -> bool:
    """Whether it is true of a message. `row` is a key as any other."""
    value = _at(message, self.path)
    if not isinstance(self.test, dict):
      options = self.test if isinstance(self.test, list) else [self.test]
      return any(_same(value, option) for option in options)
    if 'exists' in self.test:
      return (value is not None) == self.test['exists']
    pattern = self.test['matches']
    return isinstance(value, str) and re.search(pattern, value) is not None

  def __str__(self) -> str:
    if not isinstance(self.test, dict):
      options = self.test if isinstance(self.test, list) else [self.test]
      return f'{self.path} = {" or ".join(map(repr, options))}'
    if 'exists' in self.test:
      return f'{self.path} {"is there" if self.test["exists"] else "is absent"}'
    return f'{self.path} matches {self.test["matches"]!r}'


def check(path: str, test: object) -> Predicate:
  """Returns the predicate. Raises ValueError where a test is none."""
  if isinstance(test, list):
    if not test or not all(isinstance(option, _SCALARS) for option in test):
      raise ValueError(f'{path}: expected a list of strings or numbers')
  elif isinstance(test, dict):
    if test.keys() == {'exists'}:
      if not isinstance(test['exists'], bool):
        raise ValueError(f'{path}: exists is either true or false')
    elif test.keys() == {'matches'} and isinstance(test['matches'], str):
      try:
        re.compile(test['matches'])
      except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
          f'{path}: {test["matches"]!r} is no regular expression: {error}'
        ) from None
    else:
      raise ValueError(
        f'{path}: expected {{"matches": "a regular expression"}} or '
        '{"exists": true}'
      )
  elif not isinstance(test, _SCALARS):
    raise ValueError(f'{path}: is {kind(test)}')
  return Predicate(path, test)


def _at(value: object, path: str) -> object:
  """What stands at a path; null and absent are one: tables fill in nulls."""
  for key in path.split('.'):
    if isinstance(value, Mapping):
      value = value.get(key)
    elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
      value = value[int(key)]
    else:
      return None
  return value


def _same(value: object, option: object) -> bool:
  # To Python true is 1; to JSON it is not.
  return value == option and isinstance(value, bool) == isinstance(option, bool)
