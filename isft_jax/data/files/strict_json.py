"""JSON as the standard has it, and no more than a chat template can bear.

Python's own reader takes NaN and 1e999, lets half a character through as a lone
surrogate, and meets deep nesting as an error of the stack that it happens to
stand on. Any of those would surface later, as the traceback of a template or of
a tokenizer; here each is a sentence about the row.
"""

import itertools
import json
import math
import re

DEEPEST = 256  # levels; templates recurse over values, on a stack of 1,000

# A byte that is no UTF-8, where text was decoded with errors=surrogateescape.
_BYTE = re.compile('[\ud800-\udfff]')
_SURROGATE = re.compile(r'\\u[dD][89abcdefABCDEF]')
# Consumes a pair whole, and any other escape, so that group 1 is half a pair.
_ESCAPE = re.compile(
  r'\\u[dD][89abAB]..\\u[dD][cdefCDEF]|\\(u)[dD][89abcdefABCDEF]|\\.'
)
_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|([-\w.+]+)')
_BLANK = ' \t\r\n'


def parse(text: str) -> object:
  """Returns the one value that a text holds.

  Raises ValueError, one line: what is wrong and at which character, from 1.
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
  """Reads the value that begins at a character of a text.

  before: characters that preceded the text, for the positions in messages.
  Returns the value, where it ends, and '' or why it cannot be used although its
  end is known. Raises json.JSONDecodeError where that is not known.
  """
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
  except RecursionError:
    raise json.JSONDecodeError(_TOO_DEEP, text, start) from None
  except ValueError:  # more digits than Python turns into an int
    raise json.JSONDecodeError('Too long a number', text, start) from None
  what, at = _flaw(text, start, end, value, odd)
  return value, end, what and f'{what} at character {before + at + 1}'


def said(error: json.JSONDecodeError, before: int = 0) -> str:
  """Returns an error as one line; `before` characters preceded its text."""
  byte = _BYTE.match(error.doc, error.pos)
  what = _not_utf8(byte) if byte else error.msg.strip(' :')
  return f'{what.removesuffix(" at")} at character {before + error.pos + 1}'


_TOO_DEEP = f'Nested deeper than {DEEPEST} levels'


def _flaw(
  text: str, start: int, end: int, value: object, odd: list[str]
) -> tuple[str, int]:
  """What makes a value unusable, and where; '' when nothing does."""
  if odd:
    bare = _BARE.finditer(text, start, end)
    at = next(word.start() for word in bare if word[1] == odd[0])
    return f'{odd[0][:40]} is not a JSON number', at
  if not text.isascii() and (byte := _BYTE.search(text, start, end)):
    return _not_utf8(byte), byte.start()
  if _SURROGATE.search(text, start, end):
    for escape in _ESCAPE.finditer(text, start, end):
      if escape[1]:
        what = 'Not text that can be encoded: a lone surrogate'
        return what, escape.start()
  return (_TOO_DEEP if _deep(value) else ''), start


def _not_utf8(byte: re.Match) -> str:
  return f'Byte 0x{ord(byte[0]) & 0xFF:02x} is not UTF-8'


def _deep(value: object) -> bool:
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
