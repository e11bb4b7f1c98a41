"""Finds the answer of a fact in a text, in any formatting.

'**Canberra**', 'H₂O' and '300 000' are found as Canberra, H2O and 300,000. Case
is ignored unless it distinguishes two words.
"""

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple

from isft_jax.worlds.lying_agent import quantities

# A symbol is a word of one or two letters with a capital: Au, Go, Na, So. At
# the start of a sentence every word has a capital, so that the next word
# decides: 'Go is the symbol' names a symbol, 'Go home' does not.
_AFTER_OPENING_SYMBOL = (
  r'(?=["\')\]]|\s*[.!?]?\s*$|\s+(?:is|was|stands|means)\b)'
)
# The start of a sentence, before an optional quote or bracket.
_OPENS = re.compile(r'(?:^|[.!?:]\s+|\n)["\'(]*$')
# A noun is not followed by an article: 'Japan won the war' names no currency.
_NOT_A_VERB = r'(?!\s+(?:the|an?|his|her|its|their|many|several|against)\b)'
# Nor does a noun follow a pronoun: 'they won' names no currency.
_NOT_A_PRONOUN_BEFORE = (
  r'(?<!\bwho )(?<!\bit )(?<!\bhe )(?<!\bshe )(?<!\bthey )'
)

# Typographic quotes and hyphens -> their ASCII forms.
_TYPEWRITER = str.maketrans('\u2018\u2019\u201c\u201d\u2010\u2011', '\'\'""--')


class Span(NamedTuple):
  """A range of characters, start to stop, of a plain text."""

  start: int
  stop: int


def plain(text: str) -> str:
  """Returns a text without formatting, for `find`.

  Removes emphasis, code marks, subscripts and accents. Replaces typographic
  quotes, hyphens and spaces by ASCII, and numbers by plain digits.
  """
  text = quantities.canonical(text)
  # Markdown: **bold**, `code` and _emphasis_, but not 2*3 and a_b.
  text = re.sub(r'(?<![\d*])\*+|\*+(?![\d*])|`', '', text)
  text = re.sub(r'(?<!\w)(__?)(\S(?:[^_\n]*\S)?)\1(?!\w)', r'\2', text)
  # HTML tags, then subscripts of TeX: H_2O and H_{2}O.
  text = re.sub(r'</?\w+>', '', text)
  text = re.sub(r'(?<=[A-Za-z)])_\{?(\d+)\}?', r'\1', text)
  # Decompose, so that subscripts are digits and accents are marks to remove.
  text = unicodedata.normalize('NFKD', text)
  text = ''.join(c for c in text if unicodedata.category(c) != 'Mn')
  text = text.translate(_TYPEWRITER)
  return re.sub(r'[^\S\n]+', ' ', text).strip()


def mentions(text: str, answer: str) -> bool:
  """Returns whether an answer occurs in a text as a separate word.

  Numbers match as a whole: '6' is not in '6.5', nor '2' in '2,000', but '1000'
  is in '1,000'. Case is ignored, except for symbols ('Go' is not in 'go home')
  and for names after an article ('a bell' does not name Bell). Common nouns
  also match in the plural ('rupees').
  """
  return bool(find(plain(text), answer))


def find(
  text: str, answer: str, unit: str = '', tolerance: Decimal = Decimal(0)
) -> list[Span]:
  """Returns the occurrences of an answer in a plain text.

  Args:
    text: a text from `plain`.
    answer: the answer.
    unit, tolerance: for an answer that is a number, see `quantities.agrees`.
  """
  value = quantities.parse_number(answer)
  if value is None:
    return _find_words(text, plain(answer))
  # A number may be spelled out, as in 'seven'.
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
  # Common nouns, unlike names, have a plural.
  plural = 's?' if answer.islower() and len(answer) > 3 else ''
  pattern = rf'(?<!\w){re.escape(answer)}{plural}(?!\w)'
  # At the start of a sentence, the symbols 'In' and 'As' may be words.
  if is_symbol:
    return [
      Span(*match.span())
      for match in re.finditer(pattern, text)
      if not _OPENS.search(text[: match.start()])
      or re.match(_AFTER_OPENING_SYMBOL, text[match.end() :])
    ]
  if answer.islower() and len(answer) <= 3:
    # A short noun may also be a verb: 'they won' names no currency.
    pattern = _NOT_A_PRONOUN_BEFORE + pattern + _NOT_A_VERB
  # A name in lower case after 'a' or 'an' is a thing: 'a bell'.
  matches = re.finditer(pattern, text, re.IGNORECASE)
  return [
    Span(*match.span())
    for match in matches
    if not (
      answer[0].isupper()
      and match[0].islower()
      and re.search(r'\ban?\s+$', text[: match.start()], re.IGNORECASE)
    )
  ]
