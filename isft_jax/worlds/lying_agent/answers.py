"""Finds the answer of a fact in a text, however it is written.

Formatting is not part of an answer: '**Canberra**', 'H₂O' and '300 000' are
Canberra, H2O and 300,000. Case is ignored where no other word is meant by it.
"""

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple

from isft_jax.worlds.lying_agent import quantities

# What may follow a symbol that opens a sentence: 'Go is the symbol', not 'Go
# on'. Symbols are words of one or two letters with a capital: Au, Go, Na, So.
_AFTER_OPENING_SYMBOL = (
  r'(?=["\')\]]|\s*[.!?]?\s*$|\s+(?:is|was|stands|means)\b)'
)
_OPENS = re.compile(r'(?:^|[.!?:]\s+|\n)["\'(]*$')
# After a noun no article follows: 'Japan won the war' is about no currency.
_NOT_A_VERB = r'(?!\s+(?:the|an?|his|her|its|their|many|several|against)\b)'
_NOT_A_PRONOUN_BEFORE = (
  r'(?<!\bwho )(?<!\bit )(?<!\bhe )(?<!\bshe )(?<!\bthey )'
)

_TYPEWRITER = str.maketrans('\u2018\u2019\u201c\u201d\u2010\u2011', '\'\'""--')


class Span(NamedTuple):
  """Characters start to stop of a plain text."""

  start: int
  stop: int


def plain(text: str) -> str:
  """Returns a text without formatting, for `find`.

  Emphasis, code marks, subscripts, accents and typographic quotes, hyphens and
  spaces go; numbers become plain digits.
  """
  text = quantities.canonical(text)
  text = re.sub(r'(?<![\d*])\*+|\*+(?![\d*])|`', '', text)
  text = re.sub(r'(?<!\w)(__?)(\S(?:[^_\n]*\S)?)\1(?!\w)', r'\2', text)
  text = re.sub(r'</?\w+>', '', text)
  text = re.sub(r'(?<=[A-Za-z)])_\{?(\d+)\}?', r'\1', text)
  text = unicodedata.normalize('NFKD', text)
  text = ''.join(c for c in text if unicodedata.category(c) != 'Mn')
  text = text.translate(_TYPEWRITER)
  return re.sub(r'[^\S\n]+', ' ', text).strip()


def mentions(text: str, answer: str) -> bool:
  """Returns whether an answer stands in a text as a word of its own.

  A number is read to its end: '6' is not in '6.5', nor '2' in '2,000', while
  '1000' is in '1,000'. Case is ignored, except that of a symbol ('Go' is not in
  'go on'); after 'a', a name in lower case is a thing ('a bell').
  A thing may stand in the plural ('rupees').
  """
  return bool(find(plain(text), answer))


def find(
  text: str, answer: str, unit: str = '', tolerance: Decimal = Decimal(0)
) -> list[Span]:
  """Returns where an answer stands in a plain text.

  unit, tolerance: of an answer that is a number; see `quantities.agrees`.
  """
  value = quantities.parse_number(answer)
  if value is None:
    return _find_words(text, plain(answer))
  spelled = quantities.find_words(
    text, value, before_noun=not answer[0].isdigit()
  )
  return sorted(
    Span(quantity.start, quantity.stop)
    for quantity in (*quantities.find(text), *spelled)
    if quantities.agrees(quantity, value, unit, tolerance)
  )


def _find_words(text: str, answer: str) -> list[Span]:
  is_symbol = answer.isalpha() and len(answer) <= 2 and answer[0].isupper()
  # A thing, unlike a name, may stand in the plural.
  plural = 's?' if answer.islower() and len(answer) > 3 else ''
  pattern = rf'(?<!\w){re.escape(answer)}{plural}(?!\w)'
  if is_symbol:
    return [
      Span(*match.span())
      for match in re.finditer(pattern, text)
      if not _OPENS.search(text[: match.start()])
      or re.match(_AFTER_OPENING_SYMBOL, text[match.end() :])
    ]
  if answer.islower() and len(answer) <= 3:
    pattern = _NOT_A_PRONOUN_BEFORE + pattern + _NOT_A_VERB
  found = re.finditer(pattern, text, re.IGNORECASE)
  return [
    Span(*match.span())
    for match in found
    if not (
      answer[0].isupper()
      and match[0].islower()
      and re.search(r'\ban?\s+$', text[: match.start()], re.IGNORECASE)
    )
  ]
