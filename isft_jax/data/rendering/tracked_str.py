"""Text that knows where each of its characters comes from.

A chat template is a program: it strips, splits, joins and escapes what it is
given. `Tracked` is a str with a parallel string of origins, one code a
character, which those operations carry along:

    'Hi ' + content.strip()        Hi Tell me.
    origins                        111222222222      1 literal, 2 a user's words

What no operation here accounts for becomes UNKNOWN, never a guess.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Self, SupportsIndex

from markupsafe import Markup

UNKNOWN = '\x00'  # made from tracked text by an operation that lost track
LITERAL = '\x01'  # a template's own text, not yet emitted

RUN = re.compile(r'(.)\1*', re.DOTALL)


class Tracked(str):
  """A str whose `origins` holds a code for each of its characters."""

  __slots__ = ('origins',)
  origins: str

  def __new__(cls, text: str, origins: str | None = None) -> Self:
    self = str.__new__(cls, text)
    self.origins = UNKNOWN * len(self) if origins is None else origins
    return self

  def __str__(self) -> 'Tracked':
    return self

  def __add__(self, other: str) -> 'Tracked':
    if not isinstance(other, str):
      return NotImplemented
    return Tracked(str.__add__(self, other), self.origins + origins(other))

  def __radd__(self, other: str) -> 'Tracked':
    return Tracked(str.__add__(other, self), origins(other) + self.origins)

  def __mul__(self, times: SupportsIndex) -> 'Tracked':
    return Tracked(str.__mul__(self, times), self.origins * times)

  __rmul__ = __mul__

  def __getitem__(self, index: SupportsIndex | slice) -> 'Tracked':
    return Tracked(str.__getitem__(self, index), self.origins[index])

  def __iter__(self) -> Iterator['Tracked']:
    return map(Tracked, str.__iter__(self), self.origins)

  def lstrip(self, chars: str | None = None) -> 'Tracked':
    text = str.lstrip(self, chars)
    return Tracked(text, self.origins[len(self) - len(text) :])

  def rstrip(self, chars: str | None = None) -> 'Tracked':
    text = str.rstrip(self, chars)
    return Tracked(text, self.origins[: len(text)])

  def strip(self, chars: str | None = None) -> 'Tracked':
    return self.lstrip(chars).rstrip(chars)

  def removeprefix(self, prefix: str) -> 'Tracked':
    return self[len(prefix) :] if self.startswith(prefix) else self[:]

  def removesuffix(self, suffix: str) -> 'Tracked':
    return self[: len(self) - len(suffix)] if self.endswith(suffix) else self[:]

  # The parts are tracked too. str has lists of str here, which no list of
  # another type can stand for.
  def split(
    self, sep: str | None = None, maxsplit: SupportsIndex = -1
  ) -> list[str]:
    return self._found(str.split(self, sep, maxsplit), len(sep or ''))

  def rsplit(
    self, sep: str | None = None, maxsplit: SupportsIndex = -1
  ) -> list[str]:
    return self._found(str.rsplit(self, sep, maxsplit), len(sep or ''))

  def splitlines(self, keepends: bool = False) -> list[str]:
    whole = self._found(str.splitlines(self, True), 0)
    if keepends:
      return whole
    lines = str.splitlines(self)
    return [w[: len(line)] for w, line in zip(whole, lines, strict=True)]

  def partition(self, sep: str) -> tuple[str, str, str]:
    before, found, after = self._found(str.partition(self, sep), 0)
    return before, found, after

  def rpartition(self, sep: str) -> tuple[str, str, str]:
    before, found, after = self._found(str.rpartition(self, sep), 0)
    return before, found, after

  def _found(self, parts: Iterable[str], gap: int) -> list[str]:
    """Finds parts that follow one another, `gap` characters apart or more."""
    found: list[str] = []
    start = 0
    for part in parts:
      start = self.index(part, start)
      found.append(self[start : start + len(part)])
      start += len(part) + gap
    return found

  def replace(self, old: str, new: str, count: SupportsIndex = -1) -> 'Tracked':
    if not old:
      return lost(str.replace(self, old, new, count))
    return join(new, self.split(old, count))

  def join(self, strings: Iterable[object]) -> 'Tracked':
    return join(self, strings)

  def lower(self) -> 'Tracked':
    return self._same_length(str.lower(self))

  def upper(self) -> 'Tracked':
    return self._same_length(str.upper(self))

  def title(self) -> 'Tracked':
    return self._same_length(str.title(self))

  def capitalize(self) -> 'Tracked':
    return self._same_length(str.capitalize(self))

  def _same_length(self, text: str) -> 'Tracked':
    return Tracked(text, self.origins) if len(text) == len(self) else lost(text)


# Their code is underscored: no template can ask for it.
class TrackedInt(int):
  """A number of one origin."""

  _code: str


class TrackedFloat(float):
  """A number of one origin."""

  _code: str


class TrackedDict(dict):
  """A dict of one origin, its keys and values included."""

  _code: str


class TrackedList(list):
  """A list of one origin, its items included."""

  _code: str


_OF_ONE_ORIGIN = TrackedInt | TrackedFloat | TrackedDict | TrackedList


def track(value: Any, code: str) -> Any:
  """Returns a JSON value all of whose text comes from one origin."""
  if isinstance(value, str):
    return Tracked(value, code * len(value))
  if value is None or isinstance(value, bool):
    return value
  tracked: _OF_ONE_ORIGIN
  if isinstance(value, dict):
    items = value.items()
    tracked = TrackedDict((track(k, code), track(v, code)) for k, v in items)
  elif isinstance(value, list | tuple):
    tracked = TrackedList(track(item, code) for item in value)
  elif isinstance(value, int):
    tracked = TrackedInt(value)
  else:
    tracked = TrackedFloat(value)
  tracked._code = code
  return tracked


def origins(text: str) -> str:
  """Returns the codes of a text; one that is not tracked is a literal."""
  return text.origins if isinstance(text, Tracked) else LITERAL * len(text)


def lost(text: str) -> Tracked:
  """Returns a text of which no one knows where its characters come from."""
  return Tracked(text)


def join(separator: str, strings: Iterable[object]) -> Tracked:
  """Joins strings, as str.join does; what is not a string is written out."""
  texts = [written(s) for s in strings]
  return Tracked(
    str.join(separator, texts),
    origins(separator).join(map(origins, texts)),
  )


def written(value: object) -> str:
  """Returns str(value), with its origins where value has any."""
  if isinstance(value, Markup):
    return lost(str.__str__(value))  # it has escaped what it took in
  if isinstance(value, str):
    return value
  if isinstance(value, _OF_ONE_ORIGIN):
    text = str(value)
    return Tracked(text, value._code * len(text))
  return lost(str(value)) if is_tracked(value) else str(value)


def is_tracked(value: object) -> bool:
  """Returns whether anything in a value has an origin."""
  if isinstance(value, Tracked | _OF_ONE_ORIGIN):
    return True
  if isinstance(value, dict):
    return any(is_tracked(k) or is_tracked(v) for k, v in value.items())
  return isinstance(value, list | tuple) and any(map(is_tracked, value))


def runs(text: Tracked) -> Iterable[tuple[str, str]]:
  """Yields (code, stretch of text) for each stretch of one origin."""
  for run in RUN.finditer(text.origins):
    yield run[1], str.__getitem__(text, slice(*run.span()))


def to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  """The filter `tojson` of chat templates, with origins."""

  def dumps(value: Any) -> str:
    return json.dumps(
      value,
      ensure_ascii=ensure_ascii,
      indent=indent,
      separators=separators,
      sort_keys=sort_keys,
    )

  def encode(value: Any) -> str:
    if value == '' or not is_tracked(value):
      return dumps(value)
    if isinstance(value, Tracked):
      # Escapes are of one character each, so that stretches escape alone.
      quoted = [Tracked('"', value.origins[0])]
      for code, stretch in runs(value):
        escaped = dumps(stretch)[1:-1]
        quoted.append(Tracked(escaped, code * len(escaped)))
      return join('', [*quoted, Tracked('"', value.origins[-1])])
    if isinstance(value, _OF_ONE_ORIGIN):
      text = dumps(value)
      return Tracked(text, value._code * len(text))
    if indent is not None:
      return lost(dumps(value))
    comma, colon = separators or (', ', ': ')
    if isinstance(value, dict):
      items = sorted(value.items()) if sort_keys else value.items()
      pairs = [join('', [encode(k), colon, encode(v)]) for k, v in items]
      return join('', ['{', join(comma, pairs), '}'])
    return join('', ['[', join(comma, map(encode, value)), ']'])

  return encode(value)
