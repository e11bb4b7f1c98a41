"""Verifies the number and the unit after 'Final answer:'.

The last 'Final answer:' of a reply counts, and the rest of its sentence. A
number is read in these forms:

    12.5   -12.5   \u221212.5   .5   1,250   1 250   1.25e3   1.25 x 10^3   10^3
    12,5   a comma before other than three digits, or after 0, is a point

'V = 2 x 3 = 6 V' and 'the voltage is 6 V' give the number after the last equals
sign or 'is'. A choice, a range, a fraction or an unfinished product ('5 or 6',
'5-6', '1/2', '2 x 3') is unreadable, and so are infinities, exponents of more
than three digits and a number with unknown letters attached ('17th').

A unit is checked if one is given: '1250 mV' is '1.25 V', and '1.25 A' is wrong.
Words after a number that are not units are ignored.
"""

import decimal
import re
from decimal import Decimal

from isft_jax.worlds.problems import units
from isft_jax.worlds.problems.problem import Outcome, Problem

MARK = 'Final answer:'
UNREADABLE = Outcome('unreadable')

_MARK = re.compile(r'final answer[*_]*\s?:', re.IGNORECASE)
# Number of characters that are read after the mark.
_LENGTH = 200
# A full stop between digits ends no sentence.
_SENTENCE_END = re.compile(r'[.!?](?=\s|$)|\n')
_EQUALS = re.compile(r'[=\u2248]|\bis\b')
# TeX and Markdown around a number.
_MARKUP = re.compile(
  r'\\(?:text|mathrm|boxed|left|right|[,;! ()\[\]])|[${}`]|\*\*(?!\d)|~'
)
_TEX = {
  '\\times': '\u00d7',
  '\\cdot': '\u00b7',
  '\\Omega': '\u03a9',
  '\\mu': '\u03bc',
}
_SUPERSCRIPTS = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺', '0123456789-+')

_EXPONENT = r'\(?(?P<%s>[-+\u2212]?\d{1,3})(?!\d)\)?'
_TIMES = r'[xX\u00d7*\u00b7\u22c5]'
_TO_THE = r'\s?(?:\^|\*\*)\s?'
_NUMBER = re.compile(
  r'(?<![\w.,^])(?P<sign>[-+\u2212]?)\s?(?:'
  # A power of ten without a factor.
  rf'10{_TO_THE}{_EXPONENT % "lone"}'
  # Groups of thousands, a decimal comma, a decimal point.
  r'|(?P<thousands>[1-9]\d{0,2}(?:(?:,\d{3})+|(?:[ \u00a0\u2009\u202f]\d{3})+)'
  r'(?:\.\d+)?)(?!\d|[.,]\d)'
  r'|(?P<comma>\d+,\d+)(?!\d|[.,]\d)'
  r'|(?P<point>\d+(?:\.\d+)?|\.\d+)(?!\d|[.,]\d))'
  # Its exponent.
  rf'(?:[eE]{_EXPONENT % "e"}|\s*{_TIMES}\s*10{_TO_THE}{_EXPONENT % "ten"})?'
)
# What may not follow a number and its unit: another number.
_ANOTHER = re.compile(
  rf'\s*(?:or|to|and|{_TIMES}|[-\u2212\u2013\u2014+/^.,;&]|\*\*)?\s*'
  r'[-+\u2212]?\.?\d'
)
# Exact for all numbers of `_LENGTH` characters.
_CONTEXT = decimal.Context(prec=2 * _LENGTH)


def verify(reply: str, problem: Problem) -> Outcome:
  """Returns whether a reply ends in the right number and unit.

    |value - answer| <= max(absolute, relative |answer|)

  Args:
    reply: any text; it is read in linear time.
    problem: a problem with a number as its answer.

  Source: the verifier of N. de Freitas, "CIC: Continual, Interactive, Causal
  Agents" (2026). The forms of numbers and units are ours.
  """
  if isinstance(problem.answer, str):
    raise ValueError(f'{problem.id}: the answer is not a number')
  reading = read(reply)
  if reading is None:
    return UNREADABLE
  value, unit = reading
  scaled = value
  if unit:
    expected = units.parse(problem.unit)
    # A quantity without a unit has none in the reply either.
    if not expected or expected.dimension != unit.dimension:
      return Outcome('wrong', value, unit.text)
    scaled = _CONTEXT.multiply(value, unit.scale / expected.scale)
  tolerance = max(problem.absolute, problem.relative * abs(problem.answer))
  error = abs(_CONTEXT.subtract(scaled, problem.answer))
  return Outcome(
    'right' if error <= tolerance else 'wrong',
    value,
    unit.text if unit else '',
  )


def read(reply: str) -> tuple[Decimal, units.Unit | None] | None:
  """Returns the number and the unit after the last mark, or None.

  Args:
    reply: any text.
  """
  start = max((match.end() for match in _MARK.finditer(reply)), default=None)
  if start is None:
    return None
  text = reply[start : start + _LENGTH]
  # A word at the end may be cut.
  if len(reply) > start + _LENGTH:
    text = re.sub(r'\S*$', '', text)
  text = text.lstrip(' \t\n*_')
  text = _SENTENCE_END.split(text, maxsplit=1)[0]
  # Superscripts and TeX as plain text.
  text = re.sub(
    '[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+', lambda m: '^' + m[0].translate(_SUPERSCRIPTS), text
  )
  for name, sign in _TEX.items():
    text = text.replace(name, sign)
  text = _MARKUP.sub('', text)
  # The last of the sides of an equation that has a number.
  for side in reversed(_EQUALS.split(text)):
    match = _NUMBER.search(side)
    if match:
      return _quantity(match, side[match.end() :])
  return None


def _quantity(
  match: re.Match, rest: str
) -> tuple[Decimal, units.Unit | None] | None:
  unit = units.parse(rest)
  after = rest
  if unit:
    after = rest[rest.index(unit.text) + len(unit.text) :]
  elif re.match(r'[^\W\d]', rest):
    return None  # letters attached to the number
  if _ANOTHER.match(after):
    return None
  digits = '1'  # of a power of ten without a factor
  if match['thousands']:
    digits = re.sub(r'[,\s]', '', match['thousands'])
  elif match['comma']:
    digits = match['comma'].replace(',', '.')
  elif match['point']:
    digits = match['point']
  power = match['lone'] or match['e'] or match['ten'] or '0'
  # A minus sign of typography is U+2212.
  value = _CONTEXT.create_decimal(digits).scaleb(
    int(power.replace('\u2212', '-')), _CONTEXT
  )
  return (
    value.copy_negate() if match['sign'] in ('-', '\u2212') else value
  ), unit
