"""Limits of the time, memory and output of a chat template.

A chat template is a program that anyone wrote. It may loop for years, or make a
text of any length in one operation. Work is counted in steps, not in seconds,
so that the same rows are set aside on every machine. A step takes a microsecond
or two: an iteration has one for each four expressions in its body, and calls,
filters, long texts and lists have more. Operations that can make large values
are checked before they run.

What a template may do grows with the row that it renders, so that a small row
takes no more than about 100 MB of memory and a second:

    steps                200,000 + 40 x characters of the row + 6,000 x messages
                         + 130 x messages^2, at most 5,000,000
    longest text         2^19 + 8 x characters of the row, at most 2^25
    items of a list      2^17 + characters of the row, at most 2^20
    characters copied    2^23 + 8 x (messages + 8) x characters of the row
"""

import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any, NoReturn

from jinja2.utils import Namespace

# Steps of any row, of one without messages, and what a character, a message and
# a pair of messages add: ten times what 108 public templates take at most.
# They take up to 113,000 steps for rows of 36,000 characters, 3.3 million for a
# conversation of 200,000 tokens in two turns, and 1.1 million in 4,000 turns;
# four look at all other turns in each turn.
MOST_STEPS, _LEAST_STEPS = 5_000_000, 200_000
_PER_CHARACTER, _PER_MESSAGE, _PER_PAIR = 40, 6_000, 130
CALL = 8  # steps of a call
_FILTER = 2  # steps of a filter
# Characters of a text: of any, and for a row without any. The longest row has
# half as many as any text.
LONGEST_TEXT, _LEAST_TEXT = 1 << 25, 1 << 19
# Items of a list, with the items of its items: the same.
MOST_ITEMS, _LEAST_ITEMS = 1 << 20, 1 << 17
# A template may copy and escape a row several times, and if it collects the
# turns in one text, once for each turn.
_TIMES, _LEAST_COPIES = 8, 1 << 23
_MOST_BITS = 1 << 17  # of an integer
_MOST_DIGITS = 1_000  # of a rounded number, and columns of an indent of JSON
_PER_STEP = 64  # characters that are copied in a step
ITEMS_PER_STEP = 8  # items that are copied, compared or counted in a step

_PER_ITEM = 4  # characters of brackets, commas, quotes and numbers

_NUMBER = re.compile(r'\d+')
# Methods and filters whose result is as long as an argument says.
_WIDTHS = frozenset(('center', 'ljust', 'rjust', 'zfill', 'to_bytes'))
# Filters that take a text as a whole; others take its characters apart.
_WHOLE = frozenset(
  (
    *('attr', 'capitalize', 'center', 'count', 'd', 'default', 'e', 'escape'),
    *('first', 'float', 'forceescape', 'format', 'indent', 'int', 'last'),
    *('length', 'lower', 'replace', 'reverse', 'safe', 'string', 'striptags'),
    *('title', 'tojson', 'trim', 'truncate', 'upper', 'urlencode', 'urlize'),
    *('wordcount', 'wordwrap'),
  )
)
# Filters that do not print the items of a list or an object.
_SHALLOW = frozenset(
  (
    *('attr', 'batch', 'count', 'd', 'default', 'dictsort', 'first'),
    *('groupby', 'items', 'last', 'length', 'list', 'map', 'max', 'min'),
    *('random', 'reject', 'rejectattr', 'reverse', 'select', 'selectattr'),
    *('slice', 'sort', 'unique'),
  )
)
_SPLITS = frozenset(('split', 'rsplit', 'splitlines'))
_SPACES = ''.join(filter(str.isspace, map(chr, range(0x3001))))
# Filters and methods whose result can be this many times as long. A text that
# is no longer than the row may grow so.
_GROWTH = {
  'tojson': 6,  # \\u0000
  **dict.fromkeys(('e', 'escape', 'forceescape'), 6),  # &quot;
  **dict.fromkeys(('pprint', 'xmlattr', 'urlencode'), 12),  # %F0%9F%98%80
  'urlize': 24,  # a link for every few characters
  'encode': 10,  # \\U0001f600
}
# Values that print what is in them.
_VIEWS: tuple[type, ...] = (
  type({}.keys()),
  type({}.values()),
  type({}.items()),
)
CONTAINERS = (list, tuple, dict, Namespace, *_VIEWS)
_SIZED: tuple[type[Sized], ...] = (list, tuple, dict, range, *_VIEWS)


class OverLimitError(Exception):
  """Raised when a template exceeds a limit; the message says which."""


class Limits:
  """Counts the work of one rendering, and checks operations before they run.

  Attributes:
    most_steps: steps that the rendering may take.
    steps_left: those that are left.
    exceeded: the limit that was exceeded, if any: Jinja hides errors in
      constants.
  """

  def __init__(self, characters: int = 0, messages: int = 0) -> None:
    """Sets the limits for a row.

    Args:
      characters: of all values that the template gets.
      messages: number of messages.
    """
    self.most_steps = min(
      _LEAST_STEPS
      + _PER_CHARACTER * characters
      + _PER_MESSAGE * messages
      + _PER_PAIR * messages**2,
      MOST_STEPS,
    )
    self.steps_left = self.most_steps
    self._row = characters
    self._longest = min(_LEAST_TEXT + _TIMES * characters, LONGEST_TEXT)
    self._most_items = min(_LEAST_ITEMS + characters, MOST_ITEMS)
    self._most_copies = (
      _LEAST_COPIES + _TIMES * (messages + _TIMES) * characters
    )
    self._copied = 0
    self.exceeded: OverLimitError | None = None

  def spend(self, steps: int) -> None:
    """Counts steps; raises OverLimitError if there were too many."""
    self.steps_left -= steps
    if self.steps_left < 0:
      self.fail(f'takes more than {self.most_steps:,} steps')

  def fail(self, words: str) -> NoReturn:
    """Raises OverLimitError with the words."""
    self.exceeded = OverLimitError(words)
    raise self.exceeded

  def check_length(self, length: int) -> None:
    """Checks the length of a text that an operation makes."""
    if length > self._longest:
      self.fail(f'makes a text of more than {self._longest:,} characters')
    if length > _PER_STEP:
      self.spend(length // _PER_STEP)
    self._copied += length
    if self._copied > self._most_copies:
      self.fail(f'copies more than {self._most_copies:,} characters')

  def check_whole(self, length: int) -> None:
    """Checks the length of all text that a template has printed so far."""
    if length > self._longest:
      self.fail(f'makes a text of more than {self._longest:,} characters')

  def check_growth(self, name: str, length: int) -> None:
    """Checks a text before a filter or a method that can make it longer."""
    if length > self._row and length * _GROWTH.get(name, 1) > self._longest:
      self.fail(f'makes a text of more than {self._longest:,} characters')

  def check_items(self, number: int) -> None:
    """Checks the number of items of a list that an operation makes."""
    if number > self._most_items:
      self.fail(f'makes a list of more than {self._most_items:,} items')
    self.spend(number // ITEMS_PER_STEP)

  def check_stretches(self, number: int) -> None:
    """Checks the number of stretches of one origin in the rendered text."""
    if number > self._most_items:
      self.fail(
        f'makes a text of more than {self._most_items:,} pieces of different '
        'origins'
      )

  def check_value(self, value: object) -> None:
    """Checks the size of a value, and counts a step per _PER_STEP of it.

    Args:
      value: any value. Lists that hold a list several times count it as often,
        because they are printed so.
    """
    if isinstance(value, (str, bytes)):
      self.check_length(len(value))
    elif isinstance(value, CONTAINERS):
      self.check_items(self._size(value, is_printed=False)[0])

  def check_read(self, value: object) -> None:
    """Counts the work of reading a value, which copies nothing."""
    if isinstance(value, (str, bytes)):
      self.spend(len(value) // _PER_STEP)
    else:
      self.check_value(value)

  def check_printed(self, name: str, value: object) -> None:
    """Checks a value that is printed, with all that is in it.

    Args:
      name: the filter that prints it.
      value: any value.
    """
    if isinstance(value, CONTAINERS):
      items, length = self._size(value)
      self.check_items(items)
      self.check_length(length)
      self.check_growth(name, length)
    else:
      self.check_value(value)

  def _size(self, value: Any, is_printed: bool = True) -> tuple[int, int]:
    """Returns the items of a container and their characters, at all depths.

    Above the limit of either, both are what has been counted until then.
    """
    items, length, waiting = 0, 0, [value]
    while waiting and items <= self._most_items:
      if is_printed and length > self._longest:
        break
      some = waiting.pop()
      if isinstance(some, Namespace):
        some = object.__getattribute__(some, '_Namespace__attrs')
      items += len(some)
      length += _PER_ITEM * len(some)
      if isinstance(some, dict):
        some = [*some, *some.values()]
      for item in some:
        if isinstance(item, (str, bytes)):
          length += len(item)
        elif isinstance(item, CONTAINERS):
          waiting.append(item)
    return items, length

  def check_binop(self, operator: str, left: Any, right: Any) -> None:
    """Checks `left * right`, `left ** right` or `left % right`."""
    if operator == '%':
      if isinstance(left, (str, bytes)):
        self._check_percent(left, right)
      return
    if isinstance(left, int) and isinstance(right, int):
      bits = left.bit_length() + right.bit_length()
      if operator == '**':
        bits = left.bit_length() * max(right, 0)
      if bits > _MOST_BITS:
        self.fail(f'computes a number of more than {_MOST_BITS:,} bits')
      return
    if operator != '*':
      return
    for some, times in ((left, right), (right, left)):
      if not isinstance(times, int):
        continue
      if isinstance(some, (str, bytes)):
        self.check_length(len(some) * times)
      elif isinstance(some, (list, tuple)):
        items, _ = self._size(some, is_printed=False)
        self.check_items(items * times)

  def check_call(
    self, owner: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
  ) -> None:
    """Checks a method of a text, of bytes or of a number.

    Args:
      owner: the object of the method.
      name: the name of the method.
      args, kwargs: its arguments.
    """
    values = (*args, *kwargs.values())
    if name in _WIDTHS:
      self._check_widths(values)
    if not isinstance(owner, (str, bytes)):
      return
    self.check_length(len(owner))
    self.check_growth(name, len(owner))
    if name in _SPLITS:
      self.spend(len(owner) // 8)
      self._check_split(owner, name, values)
    elif name == 'replace':
      self._check_replace(owner, values)
    elif name == 'expandtabs':
      tabs = owner.count('\t') if isinstance(owner, str) else owner.count(b'\t')
      self.check_length(tabs * max([8, *_integers(values)]))
    elif name == 'translate':
      table = values[0] if values else None
      longest = 1
      if isinstance(table, dict):
        texts = [len(v) for v in table.values() if isinstance(v, str)]
        longest = max(texts, default=1)
      self.check_length(len(owner) * longest)
    elif name in ('format', 'format_map') and isinstance(owner, str):
      self._check_braces(owner, values)
    elif name == 'join' and values:
      self._check_join(owner, values[0])

  def check_filter(
    self, name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
  ) -> None:
    """Checks a filter.

    Args:
      name: the name of the filter.
      value: the value that it filters.
      args, kwargs: its other arguments.
    """
    self.spend(_FILTER)
    values = (*args, *kwargs.values())
    if isinstance(value, (str, bytes)):
      self.check_length(len(value))
      self.check_growth(name, len(value))
      if name not in _WHOLE:
        self.spend(len(value))
        self.check_items(len(value))
    elif name not in _SHALLOW:
      self.check_printed(name, value)
    elif isinstance(value, _SIZED):
      self.spend(len(value) // ITEMS_PER_STEP)
    if name in _WIDTHS:
      self._check_widths(values)
    elif name in ('batch', 'slice'):
      for number in _integers(values):
        self.check_items(number)
    elif name in ('round', 'tojson'):
      if any(abs(number) > _MOST_DIGITS for number in _integers(values)):
        self.fail(f'asks the filter {name} for more than {_MOST_DIGITS} digits')
    elif name == 'replace' and isinstance(value, str):
      self._check_replace(value, values)
    elif name == 'format' and isinstance(value, str):
      self._check_percent(value, kwargs or tuple(args))
    elif name == 'join':
      separator = next((v for v in values if isinstance(v, str)), '')
      self._check_join(separator, value)
    elif name in ('indent', 'wordwrap') and isinstance(value, str):
      widths = [len(v) for v in values if isinstance(v, str)]
      widths += _integers(values) if name == 'indent' else []
      # Each character may be a separate line.
      lines = len(value) if name == 'wordwrap' else value.count('\n') + 2
      self.check_length(lines * max(widths, default=1))

  def _check_split(
    self, text: str | bytes, name: str, values: Sequence[Any]
  ) -> None:
    """Checks the number of pieces of a text."""
    separator: Any = next((v for v in values if isinstance(v, type(text))), '')
    if separator and name != 'splitlines':
      number = text.count(separator)
    elif isinstance(text, bytes):
      number = len(text)
    else:
      # Short texts have few pieces.
      number = len(text)
      if number > ITEMS_PER_STEP * _PER_STEP:
        number = sum(map(text.count, _SPACES))
    self.check_items(number)

  def _check_widths(self, values: Sequence[Any]) -> None:
    for number in _integers(values):
      self.check_length(number)

  def _check_replace(self, text: str | bytes, values: Sequence[Any]) -> None:
    if len(values) < 2:
      return
    # Filters turn other values into text.
    old, new = (
      v if isinstance(v, (str, bytes)) else str(v) for v in values[:2]
    )
    number = text.count(old) if old else len(text) + 1  # type: ignore
    self.check_length(len(text) + number * len(new))
    self.check_items(number)
    self.spend(number)

  def _check_join(self, separator: str | bytes, values: Any) -> None:
    is_known = isinstance(values, (str, bytes, *_SIZED))
    if not is_known:
      return
    self.check_items(len(values))
    length = (len(separator) + 1) * len(values)
    if not isinstance(values, (str, bytes, range)):
      length += self._size(values)[1]
    self.check_length(length)

  def _check_percent(self, text: str | bytes, values: Any) -> None:
    """Checks text % values."""
    plain = text if isinstance(text, str) else text.decode('latin-1')
    named = isinstance(values, Mapping)
    each = [*values.values()] if named else values
    each = list(each) if isinstance(each, (list, tuple)) else [each]
    conversions = plain.count('%')
    lengths = [self._length(value) for value in each]
    # A width of its own, a name that is used several times, or one use each.
    length = sum(_numbers(plain))
    length += sum(lengths) if not named else conversions * max([0, *lengths])
    if '*' in plain:
      length += conversions * max([0, *map(abs, _integers(each))])
    self.check_length(length)

  def _check_braces(self, text: str, values: Sequence[Any]) -> None:
    """Checks text.format(*values)."""
    fields = text.count('{')
    lengths = [self._length(value) for value in values]
    length = sum(_numbers(text)) + fields * max([0, *lengths])
    # {:{}} takes its width from an argument.
    if re.search(r':[^{}]*\{', text):
      length += fields * max([0, *map(abs, _integers(values))])
    self.check_length(length)

  def _length(self, value: object) -> int:
    """Returns about how long a value is as text."""
    if isinstance(value, (str, bytes)):
      return len(value)
    if not isinstance(value, CONTAINERS):
      return 16
    # Printed as Python writes it.
    items, length = self._size(value)
    self.check_length(length)
    self.check_items(items)
    return length


def size(values: Mapping[str, Any]) -> int:
  """Returns the characters of values at any depth, as `Limits` counts them."""
  length, waiting = 0, [*values.values()]
  while waiting:
    value = waiting.pop()
    if isinstance(value, str):
      length += len(value)
    elif isinstance(value, Mapping):
      length += _PER_ITEM * len(value)
      waiting += [*value, *value.values()]
    elif isinstance(value, (list, tuple)):
      length += _PER_ITEM * len(value)
      waiting += value
  return length


def _integers(values: Sequence[Any]) -> list[int]:
  return [value for value in values if isinstance(value, int)]


def _numbers(text: str) -> list[int]:
  """Returns the numbers in a format; a longer one than any limit is cut."""
  return [int(number[:12]) for number in _NUMBER.findall(text)]
