"""Strict JSON parser whose values any chat template and tokenizer can process.

Python's json module accepts NaN and 1e999, accepts lone surrogates (half a
character), and raises RecursionError for deep nesting. Each of these would
appear later as a traceback of a template or a tokenizer. Here each becomes an
error message about its row. Files are read with `lenient`: a reward of NaN must
not cost a run, so that only messages and tools must be without such numbers.
"""

import itertools
import json
import math
import re
from collections.abc import Callable

# Maximum nesting. Templates recurse over values, and Python's stack has 1,000
# levels.
DEEPEST = 256

# A byte that is not UTF-8, in text decoded with errors='surrogateescape'.
_BYTE = re.compile('[\ud800-\udfff]')
_SURROGATE = re.compile(r'\\u[dD][89abcdefABCDEF]')
# Any escape. A surrogate pair matches as a whole, so that group 1 matches only
# half a pair.
_ESCAPE = re.compile(
  r'\\u[dD][89abAB]..\\u[dD][cdefCDEF]|\\(u)[dD][89abcdefABCDEF]|\\.'
)
# A string, or in group 1 a number or a name outside of strings.
_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|([-\w.+]+)')
_BLANK = ' \t\r\n'


class NoJson(float):
  """A value that JSON cannot hold, such as NaN or bytes, in a row.

  Formats and templates take it for a number. `first_no_json` finds it.
  """

  what: str  # a description, such as 'NaN is not a JSON number'

  def __new__(cls, what: str) -> 'NoJson':
    value = super().__new__(cls, math.nan)
    value.what = what
    return value

  def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
    return (self.what,)  # for pickle

  def __eq__(self, other: object) -> bool:
    return isinstance(other, NoJson) and self.what == other.what

  def __hash__(self) -> int:
    return hash(self.what)


def first_no_json(value: object) -> str:
  """Returns what the first `NoJson` in a value is; '' if there is none."""
  if isinstance(value, str):
    return ''
  if isinstance(value, dict):
    return next(filter(None, map(first_no_json, value.values())), '')
  if isinstance(value, list):
    return next(filter(None, map(first_no_json, value)), '')
  return value.what if isinstance(value, NoJson) else ''


def parse(text: str, lenient: bool = False) -> object:
  """Parses a text with one JSON value.

  Args:
    text: the text.
    lenient: as for `scan`.

  Raises:
    ValueError: the text is not valid. The message is one line with the problem
      and the number of the character, counted from 1.
  """
  start = len(text) - len(text.lstrip(_BLANK))
  try:
    value, end, flaw = scan(text, start, lenient=lenient)
    if text[end:].strip(_BLANK):
      raise json.JSONDecodeError('More text after the value', text, end)
  except json.JSONDecodeError as error:
    raise ValueError(describe_error(error)) from None
  if flaw:
    raise ValueError(flaw)
  return value


def scan(
  text: str, start: int, before: int = 0, lenient: bool = False
) -> tuple[object, int, str]:
  """Parses the value that begins at a character of a text.

  Args:
    text: the text.
    start: first character of the value.
    before: number of characters before the text, for positions in messages.
    lenient: NaN, Infinity and numbers such as 1e999 become `NoJson`. Otherwise
      they are an error.

  Returns:
    The value, the position of its end, and an error message. The message is ''
    if the value can be used.

  Raises:
    json.JSONDecodeError: the value has a syntax error, so that its end is
      unknown.
  """
  # Reading continues after NaN, because the end of the value is needed.
  odd: list[str] = []
  decoder = _LENIENT if lenient else _decoder(odd.append)
  try:
    value, end = decoder.raw_decode(text, start)
  except json.JSONDecodeError:
    raise
  # From here on: errors that the json module does not report as its own.
  except RecursionError:
    raise json.JSONDecodeError(_TOO_DEEP, text, start) from None
  except ValueError:  # more than the 4,300 digits that Python converts to int
    raise json.JSONDecodeError('Too long a number', text, start) from None
  flaw, position = _flaw(text, start, end, value, odd)
  return value, end, flaw and f'{flaw} at character {before + position + 1}'


def describe_error(error: json.JSONDecodeError, before: int = 0) -> str:
  """Returns a syntax error as a message of one line.

  Args:
    error: the error.
    before: number of characters before its text, for the position.
  """
  byte = _BYTE.match(error.doc, error.pos)
  message = _not_utf8(byte) if byte else error.msg.strip(' :')
  return f'{message.removesuffix(" at")} at character {before + error.pos + 1}'


def _decoder(constant: Callable[[str], object]) -> json.JSONDecoder:
  """Returns a decoder that calls back for NaN, Infinity, and 1e999."""

  def number(digits: str) -> object:
    value = float(digits)
    return value if math.isfinite(value) else constant(digits)

  return json.JSONDecoder(parse_constant=constant, parse_float=number)


_LENIENT = _decoder(lambda digits: NoJson(digits[:40]))


def not_utf8(text: str) -> str:
  """Returns where a text has a byte that is not UTF-8; '' if it has none."""
  byte = None if text.isascii() else _BYTE.search(text)
  return f'{_not_utf8(byte)} at character {byte.start() + 1}' if byte else ''


_TOO_DEEP = f'Nested deeper than {DEEPEST} levels'


def _flaw(
  text: str, start: int, end: int, value: object, odd: list[str]
) -> tuple[str, int]:
  """Returns why a value cannot be used, and the position; '' if it can."""
  # 1. NaN, Infinity, or a float that is too large.
  if odd:
    bare = _BARE.finditer(text, start, end)
    position = next(word.start() for word in bare if word[1] == odd[0])
    return f'{odd[0][:40]} is not a JSON number', position
  # 2. Bytes that are not UTF-8.
  if not text.isascii() and (byte := _BYTE.search(text, start, end)):
    return _not_utf8(byte), byte.start()
  # 3. Half a surrogate pair, written as an escape. The first search is fast and
  # rules out most texts.
  if _SURROGATE.search(text, start, end):
    for escape in _ESCAPE.finditer(text, start, end):
      if escape[1]:
        flaw = 'Not text that can be encoded: a lone surrogate'
        return flaw, escape.start()
  # 4. Deep nesting.
  return (_TOO_DEEP if _deep(value) else ''), start


def _not_utf8(byte: re.Match) -> str:
  return f'Byte 0x{ord(byte[0]) & 0xFF:02x} is not UTF-8'


def _deep(value: object) -> bool:
  """Returns whether a value is nested deeper than DEEPEST, level by level."""
  level = [value] if isinstance(value, (dict, list)) else []
  for _ in range(DEEPEST):
    children = (n.values() if isinstance(n, dict) else n for n in level)
    level = [
      child
      for child in itertools.chain.from_iterable(children)
      if isinstance(child, (dict, list))
    ]
    if not level:
      return False
  return True
