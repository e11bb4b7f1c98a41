"""Parses units, with prefixes, names, quotients and powers.

    text                 dimension (kg, m, s, A, mol, K)   scale
    mV, millivolts       1  2 -3 -1  0  0                  10^-3
    N/mm^2, MPa          1 -1 -2  0  0  0                  10^6
    g/cm^3, g cm^-3      1 -3  0  0  0  0                  10^3
    mol/L, M, molar      0 -3  0  0  1  0                  10^3

Units of the same dimension are compared after multiplication by their scale.
"""

import re
from decimal import Decimal
from typing import NamedTuple


class Unit(NamedTuple):
  """A unit at the start of a text.

  Attributes:
    text: its characters.
    dimension: exponents of kg, m, s, A, mol and K.
    scale: size in SI units.
  """

  text: str
  dimension: tuple[int, ...]
  scale: Decimal


# Symbol, names, dimension, power of ten of its size.
_BASES = (
  ('V', 'volt', (1, 2, -3, -1, 0, 0), 0),
  ('A', 'ampere amp', (0, 0, 0, 1, 0, 0), 0),
  ('W', 'watt', (1, 2, -3, 0, 0, 0), 0),
  ('J', 'joule', (1, 2, -2, 0, 0, 0), 0),
  ('N', 'newton', (1, 1, -2, 0, 0, 0), 0),
  ('Pa', 'pascal', (1, -1, -2, 0, 0, 0), 0),
  ('Hz', 'hertz', (0, 0, -1, 0, 0, 0), 0),
  ('C', 'coulomb', (0, 0, 1, 1, 0, 0), 0),
  ('\u03a9', 'ohm', (1, 2, -3, -2, 0, 0), 0),
  ('m', 'meter metre', (0, 1, 0, 0, 0, 0), 0),
  ('g', 'gram', (1, 0, 0, 0, 0, 0), -3),
  ('s', 'second', (0, 0, 1, 0, 0, 0), 0),
  ('mol', 'mole', (0, 0, 0, 0, 1, 0), 0),
  ('L', 'liter litre', (0, 3, 0, 0, 0, 0), -3),
  ('M', 'molar', (0, -3, 0, 0, 1, 0), 3),
  ('K', 'kelvin', (0, 0, 0, 0, 0, 1), 0),
)
# Symbol, name, power of ten. 'u' and 'K' are common in plain text.
_PREFIXES = (
  ('', '', 0),
  ('p', 'pico', -12),
  ('n', 'nano', -9),
  ('\u03bc', 'micro', -6),
  ('u', 'micro', -6),
  ('m', 'milli', -3),
  ('c', 'centi', -2),
  ('d', 'deci', -1),
  ('k', 'kilo', 3),
  ('K', 'kilo', 3),
  ('M', 'mega', 6),
  ('G', 'giga', 9),
)
# Spelling: dimension and power of ten.
_SYMBOLS = {
  prefix + symbol: (dimension, power + size)
  for prefix, _, power in reversed(_PREFIXES)
  for symbol, _, dimension, size in _BASES
}
_SYMBOLS |= {
  'l': ((0, 3, 0, 0, 0, 0), -3),
  'ml': ((0, 3, 0, 0, 0, 0), -6),
  '\u00c5': ((0, 1, 0, 0, 0, 0), -10),
  '\u00b0C': ((0, 0, 0, 0, 0, 1), 0),
}
# Names in any case, singular or plural.
_NAMES = {
  prefix + name + plural: (dimension, power + size)
  for _, prefix, power in _PREFIXES
  for _, names, dimension, size in _BASES
  for name in names.split()
  for plural in ('', 's')
}
_NAMES |= {f'angstrom{s}': ((0, 1, 0, 0, 0, 0), -10) for s in ('', 's')}

# Optional sign of a product or a quotient, a bracket, a spelling, a power.
_FACTOR = re.compile(
  r'\s*(?P<sign>/|per\b|[\u00b7\u22c5*])?\s*(?P<open>\()?\s*'
  r'(?:(?P<shape>square|cubic)\s+)?(?P<name>\u00b0C|[A-Za-z\u03a9\u03bc\u00c5]+)'
  r'(?:\s*(?:\^|\*\*)\s*\(?(?P<power>[-\u2212]?\d)\)?(?!\d)|(?P<digit>[23])\b)?'
)
# Compatibility forms: micro sign, ohm sign, angstrom sign.
_SIGNS = str.maketrans('\u00b5\u2126\u212b', '\u03bc\u03a9\u00c5')
_MAX_FACTORS = 6


def parse(text: str) -> Unit | None:
  """Returns the unit at the start of a text, or None.

  The longest sequence of factors counts. A bracket after '/' is a denominator:
  'J/(g K)'. Temperatures are differences: degrees Celsius equal kelvins.

  Args:
    text: text after a number, with powers as '^3'.
  """
  plain = text.translate(_SIGNS)
  dimension, power, stop = [0] * 6, 0, 0
  in_denominator = False  # inside the bracket after '/'
  for number in range(_MAX_FACTORS):
    match = _FACTOR.match(plain, stop)
    size = match and _size(match['name'])
    # The first factor has no sign, and a bracket follows only '/'.
    divides = match is not None and match['sign'] in ('/', 'per')
    if not match or not size or (match['open'] and not divides):
      break
    if not number and match['sign']:
      break
    exponent = int(
      (match['power'] or match['digit'] or '1').replace('\u2212', '-')
    )
    exponent *= {'square': 2, 'cubic': 3}.get(match['shape'], 1)
    exponent *= -1 if divides or in_denominator else 1
    for axis, each in enumerate(size[0]):
      dimension[axis] += each * exponent
    power += size[1] * exponent
    stop = match.end()
    in_denominator |= bool(match['open'])
    if in_denominator and plain.startswith(')', stop):
      in_denominator, stop = False, stop + 1
  # 'g per bottle' is no unit.
  if not stop or re.match(r'\s*(?:/|per\b)', plain[stop:]):
    return None
  return Unit(text[:stop].strip(), tuple(dimension), Decimal(1).scaleb(power))


def _size(name: str) -> tuple[tuple[int, ...], int] | None:
  return _SYMBOLS.get(name) or _NAMES.get(name.lower())
