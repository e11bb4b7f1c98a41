"""Strings that track the origin of each of their characters.

A chat template is a program that strips, splits, joins and escapes text.
`Tracked` is a str with a parallel string of origins, one code per character.
These operations update the origins:

    'Hi ' + content.strip()        Hi Tell me.
    origins                        111222222222      1 literal, 2 a user's words

The result of any other operation has origin UNKNOWN; nothing is guessed.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, SupportsIndex

import jinja2.filters
import markupsafe
from markupsafe import Markup

UNKNOWN = '\x00'  # result of an operation that does not keep origins
LITERAL = '\x01'  # a template's own text, before it is emitted in some turn

# Longest stretches of one code; group 1 is the code.
RUN = re.compile(r'(.)\1*', re.DOTALL)


class Tracked(str):
  """A str with an attribute `origins` that holds one code per character."""

  __slots__ = ('origins',)
  origins: str

  def __new__(cls, text: str, origins: str | None = None) -> Self:
    self = str.__new__(cls, text)
    self.origins = UNKNOWN * len(self) if origins is None else origins
    return self

  # str(x) must not drop the origins: Jinja calls it on each value.
  def __str__(self) -> 'Tracked':
    return self

  def __add__(self, other: str) -> 'Tracked':
    if not isinstance(other, str):
      return NotImplemented
    return Tracked(str.__add__(self, other), self.origins + origins(other))

  def __radd__(self, other: str) -> 'Tracked':
    return Tracked(str.__add__(other, self), origins(other) + self.origins)

  def __mul__(self, times: SupportsIndex) -> 'Tracked':
    # Python repeats a string no times if the number is negative; so it does its
    # origins.
    return Tracked(str.__mul__(self, times), self.origins * times)

  __rmul__ = __mul__

  def __getitem__(self, index: SupportsIndex | slice) -> 'Tracked':
    return Tracked(str.__getitem__(self, index), self.origins[index])

  def __iter__(self) -> Iterator['Tracked']:
    return map(Tracked, str.__iter__(self), self.origins)

  def lstrip(self, chars: str | None = None) -> 'Tracked':
    text = str.lstrip(self, chars)
    # The stripped text is a suffix, so that the difference in length is the
    # start.
    return Tracked(text, self.origins[len(self) - len(text) :])

  def rstrip(self, chars: str | None = None) -> 'Tracked':
    text = str.rstrip(self, chars)
    return Tracked(text, self.origins[: len(text)])

  def strip(self, chars: str | None = None) -> 'Tracked':
    return self.lstrip(chars).rstrip(chars)

  def removeprefix(self, prefix: str) -> 'Tracked':
    return self[len(prefix) :] if self.startswith(prefix) else self[:]

  def removesuffix(self, suffix: str) -> 'Tracked':
    # Not self[:-len(suffix)], which would be empty for an empty suffix.
    return self[: len(self) - len(suffix)] if self.endswith(suffix) else self[:]

  # The parts are tracked too. The annotations say list[str] because list is
  # invariant, and `str` declares these methods so.
  def split(
    self, sep: str | None = None, maxsplit: SupportsIndex = -1
  ) -> list[str]:
    # Without a separator, the white space between parts has unknown length, and
    # `index` skips it.
    return self._slices(str.split(self, sep, maxsplit), len(sep or ''))

  def rsplit(
    self, sep: str | None = None, maxsplit: SupportsIndex = -1
  ) -> list[str]:
    return self._slices(str.rsplit(self, sep, maxsplit), len(sep or ''))

  def splitlines(self, keepends: bool = False) -> list[str]:
    # Lines with their ends are contiguous, so that an empty line has a place.
    with_ends = self._slices(str.splitlines(self, True), 0)
    if keepends:
      return with_ends
    lines = str.splitlines(self)
    return [w[: len(line)] for w, line in zip(with_ends, lines, strict=True)]

  def partition(self, sep: str) -> tuple[str, str, str]:
    before, middle, after = self._slices(str.partition(self, sep), 0)
    return before, middle, after

  def rpartition(self, sep: str) -> tuple[str, str, str]:
    before, middle, after = self._slices(str.rpartition(self, sep), 0)
    return before, middle, after

  def _slices(self, parts: Iterable[str], gap: int) -> list[str]:
    """Returns the tracked slices for parts at least `gap` characters apart."""
    slices: list[str] = []
    start = 0
    for part in parts:
      # Parts come in order, so that a search from the end of the last one finds
      # the right occurrence.
      start = self.index(part, start)
      slices.append(self[start : start + len(part)])
      start += len(part) + gap
    return slices

  def replace(self, old: str, new: str, count: SupportsIndex = -1) -> 'Tracked':
    # An empty pattern inserts `new` between all characters.
    if not old:
      return lost(str.replace(self, old, new, count))
    # The new text has its own origins, or is a literal of the template.
    return join(new, self.split(old, count))

  def join(self, strings: Iterable[object]) -> 'Tracked':
    return join(self, strings)

  def lower(self) -> 'Tracked':
    # Changes of case keep each character in its place, so that origins stay
    # too.
    return self._same_length(str.lower(self))

  def upper(self) -> 'Tracked':
    return self._same_length(str.upper(self))

  def title(self) -> 'Tracked':
    return self._same_length(str.title(self))

  def capitalize(self) -> 'Tracked':
    return self._same_length(str.capitalize(self))

  def _same_length(self, text: str) -> 'Tracked':
    # A change of case can change the length: 'ß'.upper() is 'SS'.
    return Tracked(text, self.origins) if len(text) == len(self) else lost(text)


class TrackedMarkup(Tracked):
  """The result of the filter `safe`: text that is added to it is escaped."""

  __slots__ = ()

  def __add__(self, other: str) -> 'TrackedMarkup':
    return _as_markup(join('', [self, escape(other)]))

  def __radd__(self, other: str) -> 'TrackedMarkup':
    return _as_markup(join('', [escape(other), self]))


def safe(value: object) -> str:
  """Returns a value as text that is not escaped: the filter `safe`."""
  text = written(value)
  return TrackedMarkup(text, origins(text))


def escape(text: str) -> str:
  """Returns a text with &, <, >, ' and " as HTML entities, with origins."""
  if isinstance(text, TrackedMarkup) or not isinstance(text, str):
    return text
  entities = [str(markupsafe.escape(character)) for character in str(text)]
  codes = (
    code * len(entity)
    for code, entity in zip(origins(text), entities, strict=True)
  )
  return Tracked(''.join(entities), ''.join(codes))


def _as_markup(text: Tracked) -> TrackedMarkup:
  return TrackedMarkup(text, text.origins)


# The sandbox refuses names with an underscore, so that templates cannot read
# the code.
class TrackedInt(int):
  """An integer of one origin."""

  _code: str


class TrackedFloat(float):
  """A float of one origin."""

  _code: str


class TrackedDict(dict):
  """A dict of one origin, including its keys and values."""

  _code: str


class TrackedList(list):
  """A list of one origin, including its items."""

  _code: str


# Values that carry one code for all of their text.
_OF_ONE_ORIGIN = TrackedInt | TrackedFloat | TrackedDict | TrackedList


def track(value: Any, code: str) -> Any:
  """Returns a copy of a JSON value with one origin for all of its text.

  Args:
    value: the JSON value.
    code: the code of the origin, one character.
  """
  if isinstance(value, str):
    # A string has one code per character.
    return Tracked(value, code * len(value))
  # Neither type can be subclassed. Templates spell them as they like.
  if value is None or isinstance(value, bool):
    return value
  # A container has one code for all of its text: its brackets, commas and
  # quotes too.
  tracked: _OF_ONE_ORIGIN
  # Keys are tracked too, because templates print the names of arguments.
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
  """Returns the codes of a text; a text without codes is a literal."""
  return text.origins if isinstance(text, Tracked) else LITERAL * len(text)


def lost(text: str) -> Tracked:
  """Returns a text with UNKNOWN origin for all of its characters."""
  return Tracked(text)


def join(separator: str, strings: Iterable[object]) -> Tracked:
  """Joins values like str.join, after converting them with `written`."""
  texts = [written(s) for s in strings]
  return Tracked(
    # The separator's origins are joined like the separator itself, so that both
    # strings stay aligned.
    str.join(separator, texts),
    origins(separator).join(map(origins, texts)),
  )


def written(value: object) -> str:
  """Returns str(value), with the origins of the value if it has any."""
  if isinstance(value, Markup):
    return lost(str.__str__(value))  # markup escapes its arguments untracked
  if isinstance(value, str):
    return value
  # Numbers and containers print as one text of one origin.
  if isinstance(value, _OF_ONE_ORIGIN):
    text = str(value)
    return Tracked(text, value._code * len(text))
  return lost(str(value)) if is_tracked(value) else str(value)


def is_tracked(value: object) -> bool:
  """Returns whether a value, or anything inside it, has an origin."""
  if isinstance(value, Tracked | _OF_ONE_ORIGIN):
    return True
  if isinstance(value, dict):
    return any(is_tracked(k) or is_tracked(v) for k, v in value.items())
  return isinstance(value, list | tuple) and any(map(is_tracked, value))


def runs(text: Tracked) -> Iterable[tuple[str, str]]:
  # Groups of equal codes; the text is cut at the same positions.
  """Yields (code, text) for each stretch of one origin."""
  for run in RUN.finditer(text.origins):
    yield run[1], str.__getitem__(text, slice(*run.span()))


def to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  """Serializes a value as the filter `tojson` of chat templates, with origins.

  Args:
    value: a JSON value, tracked or not.
    ensure_ascii: as in `json.dumps`.
    indent: as in `json.dumps`.
    separators: as in `json.dumps`.
    sort_keys: as in `json.dumps`.

  Returns:
    The text that `json.dumps` returns.
  """

  # The defaults of json.dumps. With an indent, a comma ends its line.
  comma, colon = separators or (', ' if indent is None else ',', ': ')

  def dumps(value: Any) -> str:
    return json.dumps(
      value,
      ensure_ascii=ensure_ascii,
      indent=indent,
      separators=separators,
      sort_keys=sort_keys,
    )

  def encode(value: Any, depth: int) -> str:
    children: list[str]
    # An empty string has no character from which its quotes could take an
    # origin.
    if value == '' or not is_tracked(value):
      return indented(dumps(value), depth)
    if isinstance(value, Tracked):
      # JSON escapes each character on its own, so that stretches can be
      # escaped one by one. The quotes belong to the nearest character.
      quoted = [Tracked('"', value.origins[0])]
      for code, stretch in runs(value):
        escaped = dumps(stretch)[1:-1]
        quoted.append(Tracked(escaped, code * len(escaped)))
      return join('', [*quoted, Tracked('"', value.origins[-1])])
    # Numbers, and containers from one message: all of their text has one
    # origin.
    if isinstance(value, _OF_ONE_ORIGIN):
      text = indented(dumps(value), depth)
      return Tracked(text, value._code * len(text))
    # A mixed container: join its children.
    if isinstance(value, dict):
      items = sorted(value.items()) if sort_keys else value.items()
      children = [
        join('', [encode(k, depth), colon, encode(v, depth + 1)])
        for k, v in items
      ]
      opening, closing = '{}'
    else:
      children = [encode(item, depth + 1) for item in value]
      opening, closing = '[]'
    if indent is None:
      return join('', [opening, join(comma, children), closing])
    inside, outside = ('\n' + ' ' * (indent * d) for d in (depth + 1, depth))
    body = join(comma + inside, children)
    return join('', [opening, inside, body, outside, closing])

  def indented(text: str, depth: int) -> str:
    # JSON escapes the line breaks of its strings, so that all others separate
    # items.
    return text.replace('\n', '\n' + ' ' * ((indent or 0) * depth))

  return encode(value, 0)


def percent_format(text: str, values: Any) -> str:
  """Returns text % values, with origins.

  Args:
    text: the format. Its conversions %s, %d and %(name)s keep origins.
    values: a tuple of values, a dict of named values, or one value.

  Returns:
    The text that Python returns; UNKNOWN if it has other conversions.
  """
  ordered = values if isinstance(values, tuple) else (values,)
  rest = iter(ordered)

  def value_of(match: re.Match) -> Any:
    if match[0] == '%%':
      return '%'
    return values[match[1]] if match[1] else next(rest)

  pattern = r'%%|%(?:\((\w+)\))?[sd]'
  return _formatted(str.__mod__(text, values), text, pattern, value_of, ordered)


def brace_format(
  text: str, plain: str, values: Sequence[Any], named: Mapping[str, Any]
) -> str:
  """Returns the result of str.format with origins.

  Args:
    text: the format. Its fields {}, {0} and {name} keep origins.
    plain: the result of str.format.
    values: its positional arguments.
    named: its arguments by name.
  """
  rest = iter(values)

  def value_of(match: re.Match) -> Any:
    name = match[1]
    if name is None:  # {{ or }}
      return match[0][0]
    if not name:
      return next(rest)
    return values[int(name)] if name.isdigit() else named[name]

  pattern = r'\{\{|\}\}|\{(\w*)\}'
  return _formatted(plain, text, pattern, value_of, (*values, *named.values()))


def indent(
  text: str, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
  """Indents the lines of a text like the filter `indent`, with origins.

  Args:
    text: the text.
    width: number of spaces, or the text that each line begins with.
    first: whether the first line is indented too.
    blank: whether empty lines are indented too.

  Returns:
    The text that Jinja returns; UNKNOWN if line breaks other than a line feed
    are in it.
  """
  plain = str(jinja2.filters.do_indent(str.__str__(text), width, first, blank))
  margin = width if isinstance(width, str) else ' ' * width
  pieces: list[str] = []
  for i, line in enumerate(text.splitlines(True)):
    is_indented = first if i == 0 else blank or line != '\n'
    pieces += [margin, line] if is_indented else [line]
  return _if_equal(join('', pieces), plain)


def _if_equal(tracked: Tracked, plain: str) -> Tracked:
  """Returns `tracked`, or `plain` with UNKNOWN origin if they differ."""
  return tracked if str.__eq__(tracked, plain) else lost(plain)


def _formatted(
  plain: str,
  text: str,
  pattern: str,
  value_of: Callable[[re.Match], Any],
  values: Sequence[Any],
) -> str:
  """Returns `plain` with origins, UNKNOWN if this cannot reproduce it."""
  if not is_tracked([text, *values]):
    return plain
  pieces, done = [], 0
  try:
    for match in re.finditer(pattern, text):
      pieces += [text[done : match.start()], value_of(match)]
      done = match.end()
  except (LookupError, StopIteration):
    return lost(plain)
  return _if_equal(join('', [*pieces, text[done:]]), plain)
