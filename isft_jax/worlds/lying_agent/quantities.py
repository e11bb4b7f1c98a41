"""Parses numbers with units in a text: '299,792.458 km', '3 x 10^5', 'seven'.

`canonical` rewrites the numbers of a text as plain digits, so that every number
has a single spelling. `find` parses them, and `agrees` compares them across
units.
"""

import re
from decimal import Decimal
from typing import NamedTuple

# Number words. The index of a word is its value.
_WORDS = (
  *('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'),
  *('nine', 'ten', 'eleven', 'twelve'),
)
_SCALES = {'thousand': 1_000, 'million': 1_000_000}
_SUPERSCRIPTS = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺', '0123456789-+')


class _Unit(NamedTuple):
  """A unit: value * size + zero is the quantity in the base unit of its kind.

  Args:
    pattern: regular expression of its names.
    kind: 'temperature' or 'length'; only equal kinds are compared.
    size: size in the base unit, degree Celsius or metre.
    zero: offset in the base unit.
  """

  pattern: str
  kind: str
  size: Decimal
  zero: Decimal = Decimal(0)


# 'm' without '/' or 'per' is too short to be a safe unit: only 'm/s' and 'm per
# second' count.
_UNITS = (
  _Unit('(?i:celsius|centigrade)|C', 'temperature', Decimal(1)),
  _Unit('(?i:kelvins?)|K', 'temperature', Decimal(1), Decimal('-273.15')),
  _Unit('(?i:fahrenheit)|F', 'temperature', Decimal(5) / 9, Decimal(-160) / 9),
  _Unit(r'(?i:met(?:er|re)s?)|m(?=\s*(?:/|per\b))', 'length', Decimal(1)),
  _Unit('(?i:kilomet(?:er|re)s?|km)', 'length', Decimal(1000)),
  _Unit('(?i:miles?)', 'length', Decimal('1609.344')),
  _Unit('(?i:feet|foot|ft)', 'length', Decimal('0.3048')),
)
# The unit after a number, with a degree sign or 'per hour' around it.
_UNIT = re.compile(
  r'\s*(?:°|degrees?\b)?\s*(?:'
  + '|'.join(f'({unit.pattern})' for unit in _UNITS)
  + r')\b(?P<hourly>\s*(?:/\s*h|per h|an h))?'
)
# Digits that are not part of a word, an exponent or a longer number.
_NUMBER = re.compile(r'(?<![\w.^])(?<!\d,)\d+(?:\.\d+)?(?![.,]?\d)')
# A unit symbol or no letter may follow a number: not '3rd', nor '5G'.
_AFTER = re.compile(r'(?:km|ft|[mCFK])\b|\W|$')


class Quantity(NamedTuple):
  """A number in a text, and its unit.

  Args:
    start, stop: characters of the number.
    value: the number.
    unit: '' without a unit; else the index in `_UNITS`, followed by ' per hour'
      for a rate per hour.
  """

  start: int
  stop: int
  value: Decimal
  unit: str


def canonical(text: str) -> str:
  """Returns a text with its numbers as plain digits.

    300,000   300 000   3 x 10^5   3 × 10⁵   3e5   300 thousand   300000.0

  all become 300000.
  """
  # Superscripts: 10⁵ -> 10^5.
  text = re.sub(
    '[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+', lambda m: '^' + m[0].translate(_SUPERSCRIPTS), text
  )
  # Groups of thousands: 300,000 and 300 000 -> 300000.
  text = re.sub(
    r'(?<![\w.,])[1-9]\d{0,2}(?:(?:,\d{3})+|(?:\s\d{3})+)(?![\d,])',
    lambda m: re.sub(r'[\s,]', '', m[0]),
    text,
  )
  # Powers of ten: 3 x 10^5 and 3e5 -> 300000.
  text = re.sub(
    r'(?<![\w.])(\d+(?:\.\d+)?)'
    r'(?:\s*(?:x|\u00d7|\*|\\times)\s*10\s*(?:\^|\*\*)\s*|[eE])'
    r'\{?([-+]?\d{1,2})\b\}?',
    lambda m: _digits(Decimal(m[1]).scaleb(int(m[2]))),
    text,
  )
  # Words: 300 thousand -> 300000.
  text = re.sub(
    r'(?<![\w.])(\d+(?:\.\d+)?) (thousand|million)\b',
    lambda m: _digits(Decimal(m[1]) * _SCALES[m[2]]),
    text,
  )
  # Zeros after the point: 300000.0 -> 300000.
  return re.sub(r'(?<=\d)\.0+(?![\d.])', '', text)


def parse_number(answer: str) -> Decimal | None:
  """Returns the value of a text that consists of one number, else None."""
  if answer.lower() in _WORDS:
    return Decimal(_WORDS.index(answer.lower()))
  digits = canonical(answer)
  return Decimal(digits) if _NUMBER.fullmatch(digits) else None


def find(text: str) -> list[Quantity]:
  """Returns the quantities written in digits in a `canonical` text."""
  return [
    Quantity(
      *match.span(),
      # A minus sign follows a space or a bracket, a hyphen follows a word.
      -Decimal(match[0])
      if re.search(r'(?:^|[\s(])[-\u2212]$', text[: match.start()])
      else Decimal(match[0]),
      leading_unit(text[match.end() :]),
    )
    for match in _NUMBER.finditer(text)
    if _AFTER.match(text, match.end())
  ]


def find_words(text: str, value: Decimal, before_noun: bool) -> list[Quantity]:
  """Returns the occurrences of a number spelled out as a word.

  Args:
    text: the text.
    value: the number; only zero to twelve are known as words.
    before_noun: True to accept 'two factors' as well as 'It is two.' If the
      answer is written in digits, 'two factors' mostly means another number.
  """
  if value not in range(len(_WORDS)):
    return []
  # If no noun may follow, the word must end a clause.
  end = '' if before_noun else r'(?=\s*(?:[.,;:!?)"]|$))'
  word = rf'(?<![\w-]){_WORDS[int(value)]}(?![\w-]){end}'
  return [
    Quantity(*match.span(), value, leading_unit(text[match.end() :]))
    for match in re.finditer(word, text, re.IGNORECASE)
  ]


def leading_unit(text: str) -> str:
  """Returns the unit at the start of a text, in the form of `Quantity.unit`."""
  match = _UNIT.match(text)
  if not match:
    return ''
  index = next(i for i in range(len(_UNITS)) if match[i + 1])
  return f'{index} per hour' if match['hourly'] else str(index)


def agrees(
  quantity: Quantity, value: Decimal, unit: str, tolerance: Decimal = Decimal(0)
) -> bool:
  """Returns whether a quantity equals a value, after conversion of units.

  Args:
    quantity: a quantity in a text.
    value: the expected value.
    unit: unit of the value, see `leading_unit`. If the value or the quantity
      has no unit, only the numbers are compared.
    tolerance: relative tolerance.
  """
  other = quantity.value
  if unit and quantity.unit and unit != quantity.unit:
    if not (unit.isdigit() and quantity.unit.isdigit()):
      return False  # a rate per hour is not converted
    ours, theirs = _UNITS[int(unit)], _UNITS[int(quantity.unit)]
    if ours.kind != theirs.kind:
      return False
    other = (other * theirs.size + theirs.zero - ours.zero) / ours.size
    other = round(other, 6)  # removes the error of 5 / 9 in decimal
  return abs(other - value) <= tolerance * abs(value)


def _digits(value: Decimal) -> str:
  return format(value.normalize(), 'f')
