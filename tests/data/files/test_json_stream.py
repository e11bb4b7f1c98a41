"""Values come one at a time, whatever the length of the text around them."""

import io
import json
import tracemalloc

import pytest

from isft_jax.data.files import json_stream, strict_json

GONE = '; the rest of the file is not read'


def read(text):
  return [*json_stream.values(io.StringIO(text))]


@pytest.mark.parametrize(
  ('text', 'values'),
  [
    ('[]', []),
    (' [ ] ', []),
    ('[1, "a,]", {"b": [2]} , null]', [1, 'a,]', {'b': [2]}, None]),
    ('{"a": 1}\n', [{'a': 1}]),
    ('12', [12]),
  ],
)
def test_values_of_a_text(text, values):
  assert read(text) == [(value, '') for value in values]


@pytest.mark.parametrize(
  ('text', 'values', 'error'),
  [
    ('', [], 'The file is empty'),
    (' \n', [], 'The file is empty'),
    ('[', [], f'Expecting value at character 2{GONE}'),
    ('[1, 2', [1, 2], f"Expecting ',' or ']' at character 6{GONE}"),
    ('[1, 2,', [1, 2], f'Expecting value at character 7{GONE}'),
    ('[1, 2,]', [1, 2], f'Expecting value at character 7{GONE}'),
    ('[1 2]', [1], f"Expecting ',' or ']' at character 4{GONE}"),
    ('[1, {"a": ]', [1], f'Expecting value at character 11{GONE}'),
    ('[1] x', [1], f'More text after the end at character 5{GONE}'),
    ('{} {}', [{}], f'More text after the end at character 4{GONE}'),
  ],
)
def test_the_last_error_stands_for_the_rest(text, values, error):
  assert read(text) == [*((value, '') for value in values), (None, error)]


def test_reading_goes_on_after_a_value_whose_end_is_known():
  assert read(r'[1, NaN, "\ud800", 2]') == [
    (1, ''),
    (strict_json.NoJson('NaN'), ''),
    (
      '\ud800',
      'Not text that can be encoded: a lone surrogate at character 11',
    ),
    (2, ''),
  ]


@pytest.mark.parametrize('chunk', [1, 2, 3, 7])
def test_values_do_not_depend_on_where_chunks_end(chunk, monkeypatch):
  monkeypatch.setattr(json_stream, '_CHUNK', chunk)
  values = [123456, -1.5e-7, 'a\\"é\n', [[], {}], {'k': [True, None]}, False]
  for indent in (None, 2):
    for ascii_only in (True, False):
      text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
      assert read(text) == [(value, '') for value in values]
  broken = '[123456, "abc", nul]'
  at = f'Expecting value at character 17{GONE}'
  assert read(broken) == [(123456, ''), ('abc', ''), (None, at)]


def test_a_long_value_is_read_again_a_few_times_only(monkeypatch):
  """The text read doubles: 4 million characters are 6 doublings of 64 Ki."""
  times = []
  scan = strict_json.scan
  monkeypatch.setattr(
    strict_json, 'scan', lambda *args: times.append(1) or scan(*args)
  )
  value = ['x' * 4_000_000]
  assert read(json.dumps([value, 1])) == [(value, ''), (1, '')]
  assert len(times) == 1 + 6 + 1


def test_a_broken_text_is_not_read_to_its_end():
  stream = io.StringIO('[1, {"a" 1}' + ' ' * 1_000_000)
  assert [value for value, _ in json_stream.values(stream)] == [1, None]
  assert stream.tell() < 100_000


def test_memory_holds_one_value_and_not_the_array(tmp_path):
  path = tmp_path / 'rows.json'
  row = json.dumps({'text': 'x' * 20_000})
  path.write_text('[' + ','.join([row] * 500) + ']')
  tracemalloc.start()
  with open(path) as stream:
    assert sum(1 for _ in json_stream.values(stream)) == 500
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert path.stat().st_size > 10_000_000
  assert peak < 1_000_000


@pytest.mark.parametrize('chunk', [1, 2, 3, 7, 1000])
def test_fields_of_an_object_and_elements_of_its_arrays(chunk, monkeypatch):
  monkeypatch.setattr(json_stream, '_CHUNK', chunk)
  document = {'a': 1.5, 'b': [1, {'x': []}, 'é'], 'c': [2], 'd"': {}, 'e': []}
  for indent in (None, 2):
    stream = io.StringIO(json.dumps(document, indent=indent))
    assert [*json_stream.fields(stream, {'b', 'e', 'f'})] == [
      ('a', 1.5, ''),
      ('b', 1, ''),
      ('b', {'x': []}, ''),
      ('b', 'é', ''),
      ('c', [2], ''),
      ('d"', {}, ''),
    ]


@pytest.mark.parametrize(
  ('text', 'error'),
  [
    ('', f"Expecting '{{' delimiter at character 1{GONE}"),
    ('[1]', f"Expecting '{{' delimiter at character 1{GONE}"),
    ('{"a"', f"Expecting ':' delimiter at character 5{GONE}"),
    ('{"a": }', f'Expecting value at character 7{GONE}'),
    ('{} 1', f'More text after the end at character 4{GONE}'),
  ],
)
def test_the_last_error_of_an_object(text, error):
  assert [*json_stream.fields(io.StringIO(text), {'a'})] == [('', None, error)]
