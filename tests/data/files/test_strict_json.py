"""What is JSON, what only Python takes for it, and what is said of the rest."""

import json
import math
import pickle

import pytest

from isft_jax.data.files import strict_json

DEEP = strict_json.DEEPEST


def nested(levels):
  return '[' * levels + '1' + ']' * levels


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('{"a": [1, -2.5, "x", true, null]}', {'a': [1, -2.5, 'x', True, None]}),
    (' \t\r\n 1 \n', 1),
    (r'"\u00e9\n\\ud800 \ud83d\ude00"', 'é\n\\ud800 😀'),
    (r'"\u0000"', '\0'),
    ('{"a": 1, "a": 2}', {'a': 2}),
    (nested(DEEP), json.loads(nested(DEEP))),
  ],
)
def test_a_value_is_read(text, value):
  assert strict_json.parse(text) == value


SURROGATE = 'Not text that can be encoded: a lone surrogate at character'
TOO_DEEP = f'Nested deeper than {DEEP} levels at character 1'


@pytest.mark.parametrize(
  ('text', 'error'),
  [
    ('', 'Expecting value at character 1'),
    ('{"a": ', 'Expecting value at character 7'),
    ('{"a": 1', "Expecting ',' delimiter at character 8"),
    ('["a", "b', 'Unterminated string starting at character 7'),
    ('["a\0b"]', 'Invalid control character at character 4'),
    ('\0', 'Expecting value at character 1'),
    ('1 2', 'More text after the value at character 2'),
    ('["NaN", NaN]', 'NaN is not a JSON number at character 9'),
    ('[-Infinity]', '-Infinity is not a JSON number at character 2'),
    ('{"1e999": 1e999}', '1e999 is not a JSON number at character 11'),
    ('9' * 5000, 'Too long a number at character 1'),
    (r'["\ud800"]', f'{SURROGATE} 3'),
    (r'["\\\udc00"]', f'{SURROGATE} 5'),
    (r'["\ud83d\ud83d\ude00"]', f'{SURROGATE} 3'),
    (r'{"\uDBFF": 1}', f'{SURROGATE} 3'),
    ('["ab\udcff"]', 'Byte 0xff is not UTF-8 at character 5'),
    ('\udcff\udcfe[1]', 'Byte 0xff is not UTF-8 at character 1'),
    (nested(DEEP + 1), TOO_DEEP),
    (nested(10_000), TOO_DEEP),
    ('[' * 10_000, TOO_DEEP),
    ('{"a":' * 10_000, TOO_DEEP),
  ],
)
def test_what_is_no_json_is_said_in_one_line(text, error):
  with pytest.raises(ValueError) as raised:
    strict_json.parse(text)
  assert str(raised.value) == error


def test_a_flaw_leaves_the_end_of_the_value_known():
  text = '[NaN, 2]'
  assert strict_json.scan(text, 1) == (
    None,
    4,
    'NaN is not a JSON number at character 2',
  )
  assert strict_json.scan(text, 6, before=100) == (2, 7, '')
  assert strict_json.scan('  NaN', 2, before=100)[2].endswith('character 103')


def test_numbers_that_json_lacks_can_stay_in_a_value():
  text = '{"a": [1.5, NaN], "b": {"c": -1e999}, "d": "NaN"}'
  value = strict_json.parse(text, lenient=True)
  nan, huge = strict_json.NoJson('NaN'), strict_json.NoJson('-1e999')
  assert value == {'a': [1.5, nan], 'b': {'c': huge}, 'd': 'NaN'}
  assert strict_json.first_no_json(value) == 'NaN'
  assert strict_json.first_no_json([1, value['b'], nan]) == '-1e999'
  assert strict_json.first_no_json({'a': [1.5, None, 'NaN', {}]}) == ''
  # Formats take it for a number, and no arithmetic hides it.
  assert math.isnan(nan + 1) and json.dumps([nan]) == '[NaN]'
  assert pickle.loads(pickle.dumps(huge)) == huge != nan


def test_bytes_of_a_text_that_are_not_utf_8():
  assert strict_json.not_utf8('a \u00e9') == ''
  flaw = 'Byte 0xff is not UTF-8 at character 2'
  assert strict_json.not_utf8('a\udcff\udcfe') == flaw
