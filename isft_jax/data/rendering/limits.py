"""Limits of the time, memory and output of a chat template.

A chat template is a program that anyone wrote. It may loop for years, or make a
text of any length in one operation. Work is counted in steps, not in seconds,
so that the same rows are set aside on every machine. A step takes a microsecond
or two: an iteration has one for each four expressions in its body, and calls,
filters, long texts and lists have more. Operations that can make large values
are checked before they run.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

# A conversation of a thousand turns takes about fifty thousand steps, and a
# million if the template looks at all other turns in each turn.
MOST_STEPS = 5_000_000
CALL = 8  # steps of a call
_FILTER = 2  # steps of a filter
# Characters of a text. The longest row has half as many.
LONGEST_TEXT = 1 << 25
# Items of a list, with the items of its items.
MOST_ITEMS = 1 << 20
_MOST_BITS = 1 << 17  # of an integer
_MOST_DIGITS = 1_000  # of a rounded number, and columns of an indent of JSON
_PER_STEP = 64  # characters that are copied in a step
ITEMS_PER_STEP = 8  # items that are copied, compared or counted in a step

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
# Filters that print the items of items.
_DEEP = frozenset(('format', 'join', 'pprint', 'string', 'tojson', 'urlencode'))
_SPLITS = frozenset(('split', 'rsplit', 'splitlines'))
_CONTAINERS = (list, tuple, dict)
_SIZED = (*_CONTAINERS, range)


class OverLimitError(Exception):
  """Raised when a template exceeds a limit; the message says which."""


class Limits:
  """Counts the work of one rendering, and checks operations before they run."""

  def __init__(self) -> None:
    self.steps_left = MOST_STEPS
    # The limit that was exceeded, if any: Jinja hides errors in constants.
    self.exceeded: OverLimitError | None = None

  def spend(self, steps: int) -> None:
    """Counts steps; raises OverLimitError if there were too many."""
    self.steps_left -= steps
    if self.steps_left < 0:
      self.fail(f'takes more than {MOST_STEPS:,} steps')

  def fail(self, words: str) -> NoReturn:
    """Raises OverLimitError with the words."""
    self.exceeded = OverLimitError(words)
    raise self.exceeded

  def check_length(self, length: int) -> None:
    """Checks the length of a text that an operation makes."""
    if length > LONGEST_TEXT:
      self.fail(f'makes a text of more than {LONGEST_TEXT:,} characters')
    if length > _PER_STEP:
      self.spend(length // _PER_STEP)

  def check_items(self, number: int) -> None:
    """Checks the number of items of a list that an operation makes."""
    if number > MOST_ITEMS:
      self.fail(f'makes a list of more than {MOST_ITEMS:,} items')
    self.spend(number // ITEMS_PER_STEP)

  def check_value(self, value: object) -> None:
    """Checks the size of a value, and counts a step per _PER_STEP of it.

    Args:
      value: any value. Lists that hold a list several times count it as often,
        because they are printed so.
    """
    if isinstance(value, (str, bytes)):
      self.check_length(len(value))
    elif isinstance(value, _CONTAINERS):
      self.check_items(_count_items(value))

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
        self.check_items(_count_items(some) * times)

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
    if name in _SPLITS:
      self.spend(len(owner) // 8)
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
      if name not in _WHOLE:
        self.spend(len(value))
    elif name in _DEEP:
      self.check_value(value)
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
    self.spend(number)

  def _check_join(self, separator: str | bytes, values: Any) -> None:
    if not isinstance(values, (list, tuple, dict, range)):
      return
    length = len(separator) * len(values)
    if not isinstance(values, range):
      length += sum(len(v) for v in values if isinstance(v, (str, bytes)))
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
    self.check_value(value)
    return 16


def _count_items(value: object) -> int:
  """Returns the number of items at all depths; above the limit any one."""
  number, waiting = 0, [value]
  while waiting and number <= MOST_ITEMS:
    some = waiting.pop()
    number += len(some)  # type: ignore
    if isinstance(some, dict):
      some = [*some, *some.values()]
    waiting += [item for item in some if isinstance(item, _CONTAINERS)]  # type: ignore
  return number


def _integers(values: Sequence[Any]) -> list[int]:
  return [value for value in values if isinstance(value, int)]


def _numbers(text: str) -> list[int]:
  """Returns the numbers in a format; a longer one than any limit is cut."""
  return [int(number[:12]) for number in _NUMBER.findall(text)]
