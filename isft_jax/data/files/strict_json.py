"""Strict JSON parser whose values any chat template and tokenizer can process.

Python's json module accepts NaN and 1e999, accepts lone surrogates (half a
character), and raises RecursionError for deep nesting. Each of these would
appear later as a traceback of a template or a tokenizer. Here each becomes an
error message about its row.
"""

import itertools
import json
import math
import re

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


def parse(text: str) -> object:
  """Parses a text with one JSON value.

  Args:
    text: the text.

  Raises:
    ValueError: the text is not valid. The message is one line with the problem
      and the number of the character, counted from 1.
  """
  start = len(text) - len(text.lstrip(_BLANK))
  try:
    value, end, flaw = scan(text, start)
    if text[end:].strip(_BLANK):
      raise json.JSONDecodeError('More text after the value', text, end)
  except json.JSONDecodeError as error:
    raise ValueError(said(error)) from None
  if flaw:
    raise ValueError(flaw)
  return value


def scan(text: str, start: int, before: int = 0) -> tuple[object, int, str]:
  """Parses the value that begins at a character of a text.

  Args:
    text: the text.
    start: first character of the value.
    before: number of characters before the text, for positions in messages.

  Returns:
    The value, the position of its end, and an error message. The message is ''
    if the value can be used.

  Raises:
    json.JSONDecodeError: the value has a syntax error, so that its end is
      unknown.
  """
  # The decoder calls back for NaN and Infinity, and for floats such as 1e999.
  # Reading continues after them, because the end of the value is needed.
  odd: list[str] = []

  def number(digits: str) -> float | None:
    value = float(digits)
    if math.isfinite(value):
      return value
    odd.append(digits)
    return None

  decoder = json.JSONDecoder(parse_constant=odd.append, parse_float=number)
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


def said(error: json.JSONDecodeError, before: int = 0) -> str:
  """Returns a syntax error as a message of one line.

  Args:
    error: the error.
    before: number of characters before its text, for the position.
  """
  byte = _BYTE.match(error.doc, error.pos)
  message = _not_utf8(byte) if byte else error.msg.strip(' :')
  return f'{message.removesuffix(" at")} at character {before + error.pos + 1}'


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
