"""Finds the keys of a row that nothing used.

A key is used if the format reads it, an author rule tests it, it is the row's
id, or the chat template names it and gets it. Everything else is counted, so
that no part of the data is ignored in silence. Paths are those of author rules
with `message.` before keys of messages: `row.reward`, `message.timestamp`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from isft_jax.data.messages.annotations import (
  FLAGS,
  is_flag,
  is_mark,
  is_misread,
)
from isft_jax.data.messages.conversation import Turn, quoted
from isft_jax.data.messages.media import is_empty
from isft_jax.types import Provenance

# Keys of a normalised tool call that every template shows.
_CALL = frozenset(('type', 'function', 'name', 'arguments'))
_LONGEST = 80  # characters of a path
_MARKS = frozenset(('author', 'verdict', *FLAGS))


class Used(NamedTuple):
  """Keys that are used."""

  row: Set[str]  # keys of a row: of rules, and its id
  message: Set[str] = frozenset()  # of a message: of the format and of rules
  part: Set[str] = frozenset()  # of a part of a content; empty: none is counted
  template: Set[str] = frozenset()  # names in the chat template


def unused(
  metadata: Mapping, turns: Iterable[tuple[Turn, Provenance]], used: Used
) -> frozenset[str]:
  """Returns the paths of keys of a row that nothing used.

  Args:
    metadata: fields of the row that its format does not use.
    turns: its turns, and their authors.
    used: keys that are used.
  """
  # Keys of the row that no format and no rule reads.
  paths = {
    f'row.{key}'
    for key, value in metadata.items()
    if key not in used.row and not is_empty(value)
  }
  known = used.message
  for turn, author in turns:
    # Most messages have no other keys, or those of the messages before.
    others = turn.raw.keys() - known
    if others:
      unused_keys = _of_message(turn, author, others, used.template)
      paths.update(f'message.{key}' for key in unused_keys)
      known = known | unused_keys
    # Keys inside of parts and of calls.
    if used.part and isinstance(turn.raw.get('content'), list):
      paths.update(_of_parts(turn.raw['content'], used.part))
    if 'tool_calls' in turn.message:
      paths.update(_of_calls(turn.message['tool_calls'], used.template))
  return frozenset(path[:_LONGEST] for path in paths)


def misread(
  turns: Iterable[tuple[Turn, Provenance]], known: Set[str]
) -> frozenset[str]:
  """Returns marks with values that have no meaning, as "verdict 'incorrect'".

  Such a mark has no effect, although someone may have written it for one.

  Args:
    turns: turns and their authors.
    known: keys of a message that the format reads or a rule tests. They are no
      marks.
  """
  marks = _MARKS - known
  return frozenset(
    f'{key} {_shown(turn.raw[key])}'
    for turn, author in turns
    # Most messages have no mark.
    if not marks.isdisjoint(turn.raw)
    for key in marks.intersection(turn.raw)
    if not is_empty(turn.raw[key]) and is_misread(key, turn.raw[key], author)
  )


def _shown(value: object) -> str:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return f'{value:g}' if is_number else quoted(value)


def _of_message(
  turn: Turn, author: Provenance, keys: Collection[str], template: Set[str]
) -> set[str]:
  """Returns those of a message's keys that nothing used."""
  unused_keys = set()
  for key in keys:
    value = turn.raw[key]
    if is_empty(value) or is_mark(key, value):
      continue
    # The template shows it, or it is a flag, which decides the verdict of an
    # agent's turn.
    is_shown = key in template and key in turn.message
    is_verdict = author == Provenance.AGENT and is_flag(key, value)
    if not (is_shown or is_verdict):
      unused_keys.add(key)
  return unused_keys


def _of_parts(parts: Iterable[object], used: Set[str]) -> Iterator[str]:
  for part in parts:
    if isinstance(part, dict):
      for key in part.keys() - used:
        if not is_empty(part[key]):
          yield f'message.content[].{key}'


def _of_calls(calls: object, template: Set[str]) -> Iterator[str]:
  for call in calls if isinstance(calls, list) else ():
    if not isinstance(call, dict):
      continue
    function = call.get('function')
    fields = {**call, **function} if isinstance(function, dict) else call
    for key in fields.keys() - _CALL - template:
      if not is_empty(fields[key]):
        yield f'message.tool_calls[].{key}'
