"""Shapes of JSON values, which are checked before a page or table shows them.

A shape is written like the value:

    {'seeds': [int], 'arms': {...: {'margin?': (float, None)}}}

`str`, `bool` and `int` stand for themselves, `float` for any number, `None` for
null and `object` for any value. A tuple lists alternatives. A list has items of
one shape. An object has the named keys; a name with '?' may be missing, and
`...` is the shape of the values under all other names, which otherwise are not
checked.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

# Errors of code that meets a value of an unexpected shape.
_UNEXPECTED = (LookupError, TypeError, ArithmeticError, AttributeError)
_REMEDY = 'name a file that was not edited'
_NAMES = {
  str: 'a text',
  bool: 'true or false',
  int: 'an integer',
  float: 'a number',
  None: 'null',
}
_LARGEST = 1 << 63  # larger integers cannot be drawn


def check(value: object, shape: Any, source: str) -> None:
  """Checks that a JSON value has a shape.

  Args:
    value: the value.
    shape: see the docstring of the module.
    source: name of its file, for the message.

  Raises:
    ValueError: a value has another type, or is missing. The message has its
      path, as in 'arms.base.facts[0].margin'.
  """
  error = _error(value, shape, '')
  if error:
    raise ValueError(f'{source}: {error}; {_REMEDY}')


@contextlib.contextmanager
def readable(source: str) -> Iterator[None]:
  """Turns an error of its block about a damaged file into a ValueError.

  Args:
    source: name of the file, for the message.

  Raises:
    ValueError: the block raised an error that a value of the right type can
      still cause, such as a list without items, or a ValueError.
  """
  try:
    yield
  except ValueError as error:
    # The message names the file, and has the remedy of the failed check.
    raise ValueError(f'{source}: {error}') from error
  except _UNEXPECTED as error:
    raise ValueError(
      f'{source}: its values do not fit together ({type(error).__name__}: '
      f'{error}); {_REMEDY}'
    ) from error


def _error(value: object, shape: Any, path: str) -> str:
  """Returns what is wrong with a value, or ''."""
  where = path.removeprefix('.') or 'the content'
  if shape is object:
    return ''
  # One alternative must hold. Values have one of several types.
  if isinstance(shape, tuple):
    errors = [_error(value, each, path) for each in shape]
    if '' in errors:
      return ''
    names = ' or '.join(
      # A dict cannot be looked up.
      'an object' if isinstance(each, dict) else _NAMES[each]
      for each in shape
    )
    return f'{where} is {_kind(value)}, expected {names}'
  if isinstance(shape, list):
    if not isinstance(value, list):
      return f'{where} is {_kind(value)}, expected a list'
    errors = [_error(v, shape[0], f'{path}[{i}]') for i, v in enumerate(value)]
    return next(filter(None, errors), '')
  if isinstance(shape, dict):
    return _object_error(value, shape, path, where)
  if not _is_of(value, shape):
    return f'{where} is {_kind(value)}, expected {_NAMES[shape]}'
  return ''


def _object_error(value: object, shape: dict, path: str, where: str) -> str:
  if not isinstance(value, dict):
    return f'{where} is {_kind(value)}, expected an object'
  others = dict(value)
  for key, each in shape.items():
    if key is ...:
      continue
    name = key.removesuffix('?')
    if name in others:
      error = _error(others.pop(name), each, f'{path}.{name}')
    elif key.endswith('?'):
      error = ''
    else:
      error = f'{where} has no {name!r}'
    if error:
      return error
  # Names of arms, parts and facts are data.
  for name, other in others.items():
    if error := _error(other, shape.get(..., object), f'{path}.{name[:80]}'):
      return error
  return ''


def _is_of(value: object, shape: type | None) -> bool:
  if shape is None:
    return value is None
  # Python counts a bool as an integer, and JSON does not.
  if isinstance(value, bool):
    return shape is bool
  if isinstance(value, int) and abs(value) >= _LARGEST:
    return False
  return isinstance(value, (int, float) if shape is float else shape)


def _kind(value: object) -> str:
  if value is None:
    return 'null'
  if isinstance(value, bool):
    return 'true or false'
  if isinstance(value, int):
    return 'an integer' if abs(value) < _LARGEST else 'too large an integer'
  if isinstance(value, float):
    return 'a number' if math.isfinite(value) else repr(value)
  names: dict[type, str] = {str: 'a text', list: 'a list', dict: 'an object'}
  return names[type(value)]
