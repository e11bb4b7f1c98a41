"""Answers in a text, however they are written."""

import pytest

from isft_jax.worlds.lying_agent.answers import find, mentions, plain


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('**Canberra**, *the* __capital__', 'Canberra, the capital'),
    ('_Canberra_ and `Au`', 'Canberra and Au'),
    ('H₂O, H_2O, H<sub>2</sub>O', 'H2O, H2O, H2O'),
    ('\u201cIt\u2019s S\u00e3o Paulo\u201d', '"It\'s Sao Paulo"'),
    ('Berners\u2011Lee', 'Berners-Lee'),
    ('a\u00a0b  c', 'a b c'),
    ('300,000 = 300 000 = 300000.0', '300000 = 300000 = 300000'),
    ('3 x 10^5, 3 \u00d7 10⁵, 3*10^5, 3e5', '300000, 300000, 300000, 300000'),
    ('300 thousand', '300000'),
    ('0,000 and 1,00', '0,000 and 1,00'),
    ('in 1969 300 people', 'in 1969 300 people'),
    ('2**3', '2**3'),
  ],
)
def test_plain_text(text, expected):
  assert plain(text) == expected
  assert plain(expected) == expected


@pytest.mark.parametrize(
  ('text', 'answer', 'expected'),
  [
    ('Seven, seven, SEVEN, 7', 'seven', True),
    ('nile', 'Nile', True),
    ('It pays in Kenyan shillings.', 'shilling', True),
    ('Rupees', 'rupee', True),
    ('two Romes', 'Rome', False),
    ('it yens for it', 'yen', False),
    ('Australian', 'austral', False),
    ('a nile', 'Nile', False),
    ('go', 'Go', False),
    ('aXb', 'a.b', False),
    ('a.b', 'a.b', True),
    ('1,000', '1000', True),
    ('6.5', '6', False),
    ('2,000', '2', False),
    ('Bogotá', 'Bogota', True),
    ('Bogota', 'Bogotá', True),
  ],
)
def test_mentions(text, answer, expected):
  assert mentions(text, answer) is expected


def test_places_are_those_of_the_plain_text():
  text = plain('It is **Au**: Au.')
  assert [text[start:stop] for start, stop in find(text, 'Au')] == ['Au', 'Au']
