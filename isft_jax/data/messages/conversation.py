"""Types that every format returns for a row, and helpers for its messages."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from isft_jax.data.files import strict_json
from isft_jax.types import Provenance


class Malformed(ValueError):
  """Raised for a row that cannot be read without guessing."""


class Turn(NamedTuple):
  """One message."""

  message: dict  # normalised, for chat templates
  author: Provenance | None  # if the format decides it; otherwise None
  raw: Mapping  # the message as it is in the row, for author rules


class Chat(NamedTuple):
  """One row."""

  turns: list[Turn]
  tools: list[dict] | None  # schemas
  metadata: dict  # fields of the row that the format does not use
  # Turns that the format leaves out on purpose, by kind: the number of each.
  left_out: Mapping[str, int] = MappingProxyType({})


def kind(value: object) -> str:
  """Returns the type of a JSON value for an error message, as 'a number'."""
  if value is None:
    return 'null'
  if isinstance(value, strict_json.NoJson):
    return value.what
  # Before numbers, because bool is a subclass of int.
  if isinstance(value, bool):
    return 'true or false'
  if isinstance(value, (int, float)):
    return 'a number'
  if isinstance(value, str):
    return 'a string' if value else 'an empty string'
  if isinstance(value, list):
    return 'a list' if value else 'an empty list'
  return 'an object' if isinstance(value, dict) else type(value).__name__


def quoted(value: object, most: int = 40) -> str:
  """Returns the beginning of a string, or the type of another value.

  Args:
    value: a JSON value.
    most: maximum number of characters.
  """
  if not isinstance(value, str):
    return kind(value)
  # repr shows line breaks as escapes, so that messages stay on one line.
  return repr(value[:most]) + ('...' if len(value) > most else '')


def outline(row: object, most: int = 8) -> str:
  """Returns the keys and types of a row for an error message.

  Args:
    row: a JSON value; {'id': 1} gives "'id' (a number)".
    most: maximum number of keys.
  """
  if not isinstance(row, dict):
    return kind(row)
  keys = [f'{quoted(key)} ({kind(value)})' for key, value in row.items()]
  # Rows of tables may have hundreds of columns.
  more = ['...'] if len(keys) > most else []
  return ', '.join(keys[:most] + more) or 'an empty object'
