"""What every adapter makes of a row: turns, tools, and the rest of it."""

from collections.abc import Mapping
from typing import NamedTuple

from isft_jax.types import Provenance


class Malformed(ValueError):
  """A row that cannot be read without guessing: which turn, and why."""


class Turn(NamedTuple):
  """One message.

  message: as a chat template gets it, normalised.
  author: what the format itself knows of it; None leaves it to the role.
  found: the message as it stood in the row, for rules.
  """

  message: dict
  author: Provenance | None
  found: Mapping


class Chat(NamedTuple):
  """One row. metadata: what it holds besides its turns and tools."""

  turns: list[Turn]
  tools: list[dict] | None
  metadata: dict


def kind(value: object) -> str:
  """Returns what a JSON value is, for a message: 'a number'."""
  if value is None:
    return 'null'
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
  """Returns a string's beginning, or what else a value is, for a message."""
  if not isinstance(value, str):
    return kind(value)
  return repr(value[:most]) + ('...' if len(value) > most else '')


def outline(row: object, most: int = 8) -> str:
  """Returns what a row holds, for a message: "'id' (a number)"."""
  if not isinstance(row, dict):
    return kind(row)
  keys = [f'{quoted(key)} ({kind(value)})' for key, value in row.items()]
  more = ['...'] if len(keys) > most else []
  return ', '.join(keys[:most] + more) or 'an empty object'
