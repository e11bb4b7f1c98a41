"""Predicates of author rules: a path into a message, and a test of its value.

"name": "expert"                    equal
"name": ["expert", "teacher"]       any of these
"content": {"matches": "^Error"}    a regular expression, searched in the text
"row.reward": {"exists": true}      present and not null
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from isft_jax.data.messages.conversation import kind

_SCALARS = (str, int, float, bool, type(None))


class Predicate(NamedTuple):
  """A test of one value of a message."""

  path: str  # keys and indices of lists, joined with dots
  test: object  # as in a rules file

  def holds(self, message: Mapping) -> bool:
    """Returns whether the predicate holds.

    Args:
      message: the message; its key `row` has the other fields of the row.
    """
    value = value_at(message, self.path)
    if not isinstance(self.test, dict):
      options = self.test if isinstance(self.test, list) else [self.test]
      return any(_same(value, option) for option in options)
    if 'exists' in self.test:
      return (value is not None) == self.test['exists']
    # A regular expression never matches a value that is not text.
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
  """Returns a predicate, after checking its test.

  Args:
    path: path into a message.
    test: a scalar, a list of scalars, {"matches": regex} or {"exists": bool}.

  Raises:
    ValueError: the test has another form.
  """
  # A list of options: the value must equal one of them.
  if isinstance(test, list):
    if not test or not all(isinstance(option, _SCALARS) for option in test):
      raise ValueError(f'{path}: expected a list of strings or numbers')
  elif isinstance(test, dict):
    if test.keys() == {'exists'}:
      if not isinstance(test['exists'], bool):
        raise ValueError(f'{path}: exists is either true or false')
    elif test.keys() == {'matches'} and isinstance(test['matches'], str):
      # Compile it once, so that errors appear before any row is read.
      try:
        re.compile(test['matches'])
      except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
          f'{path}: {test["matches"]!r} is not a regular expression: {error}'
        ) from None
    else:
      raise ValueError(
        f'{path}: expected {{"matches": "a regular expression"}} or '
        '{"exists": true}'
      )
  elif not isinstance(test, _SCALARS):
    raise ValueError(f'{path}: is {kind(test)}')
  return Predicate(path, test)


def value_at(value: object, path: str) -> object:
  """Returns the value at a path, or None.

  Null and absent are the same, because tables store absent fields as null.
  """
  for key in path.split('.'):
    if isinstance(value, Mapping):
      value = value.get(key)
    elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
      value = value[int(key)]
    else:
      return None
  return value


def _same(value: object, option: object) -> bool:
  # True equals 1 in Python, but not in JSON.
  return value == option and isinstance(value, bool) == isinstance(option, bool)
