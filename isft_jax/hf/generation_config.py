"""Checks the settings of generation_config.json that generation reads."""

from collections.abc import Callable, Mapping
from typing import Any

from isft_jax import files
from isft_jax.hf import limits

# Setting -> (test of a value, what it must be). Each may be missing or null.
_SETTINGS: dict[str, tuple[Callable[[object], bool], str]] = {
  'do_sample': (lambda value: type(value) is bool, 'true or false'),
  'temperature': (
    lambda value: limits.is_number(value, 0, 1e6),
    'a number from 0 to 1,000,000',
  ),
  'top_k': (
    lambda value: limits.is_whole(value, 0, 2**31 - 1),
    'an integer from 0; 0 means all tokens',
  ),
  'top_p': (
    lambda value: limits.is_number(value, 0, 1),
    'a number from 0 to 1',
  ),
  'max_new_tokens': (
    lambda value: limits.is_whole(value, 1, 2**31 - 1),
    'an integer from 1',
  ),
  'eos_token_id': (
    lambda value: all(
      map(is_id, value if isinstance(value, list) else [value])
    ),
    'an id or a list of ids',
  ),
}


def is_id(value: object) -> bool:
  """Returns whether a value can be the id of a token."""
  return limits.is_whole(value, 0, 2**31 - 1)


def check(content: Mapping[str, Any], place: str) -> dict[str, Any]:
  """Returns the settings of a file that are not null.

  Args:
    content: content of generation_config.json. Settings that are not read here
      may have any value.
    place: path of the file, for messages.

  Raises:
    ValueError: a setting has a wrong type or is out of range. The message names
      it.
  """
  given = {name: value for name, value in content.items() if value is not None}
  for name, (is_valid, what) in _SETTINGS.items():
    if name in given and not is_valid(given[name]):
      raise ValueError(
        f'{place}: {name}={files.shorten(given[name])} must be {what}; correct '
        'it, or delete the file to use the defaults'
      )
  return given
