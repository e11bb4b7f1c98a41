"""CSV and TSV to rows: text, JSON in cells, and syntax errors."""

import csv
import json

import pytest

from isft_jax.data.files import rows
from isft_jax.data.files.strict_json import NoJson

GONE = '; the rest of the file is not read'
TURNS = [{'role': 'user', 'content': 'He said "a,b;\tc"\r\nand left.\n'}]


def read(path, content):
  """Number, value and error of each row of a file of that content."""
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return [row[1:] for row in rows.read(path)]


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('mark', ['', '\ufeff'])
@pytest.mark.parametrize(
  ('name', 'delimiter'), [('x.csv', ','), ('x.csv', ';'), ('x.tsv', '\t')]
)
def test_rows_that_were_written_are_read(name, delimiter, mark, end, tmp_path):
  path = tmp_path / name
  with path.open('w', newline='', encoding='utf-8') as file:
    file.write(mark)
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow(['id', 'messages', 'note'])
    for i in range(3):
      writer.writerow([f'run {i}', json.dumps(TURNS), '[see "below"]\r\n'])
  assert [row[1:] for row in rows.read(path)] == [
    (i + 1, {'id': f'run {i}', 'messages': TURNS, 'note': '[see "below"]\r\n'},
     '')
    for i in range(3)
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('cell', 'value'),
  [
    ('"[1, {""a"": null}]"', [1, {'a': None}]),
    ('" {""a"": 1} "', {'a': 1}),
    ('[]', []),
    ('"{""a"": NaN}"', {'a': NoJson('NaN')}),
    # Everything else is text.
    ('12', '12'),
    ('true', 'true'),
    ('"""a"""', '"a"'),
    ('[1] and more', '[1] and more'),
    ('{name}', '{name}'),
    ("[{'role': 'user'}]", "[{'role': 'user'}]"),
    (' a ', ' a '),
    ('é 😀', 'é 😀'),
    ('NaN', 'NaN'),
  ],
)
def test_a_cell_is_text_or_json(cell, value, tmp_path):
  assert read(tmp_path / 'x.csv', f'a,b\n{cell},1\n') == [
    (1, {'a': value, 'b': '1'}, '')
  ]


def test_tables_without_quotes(tmp_path):
  content = 'id\tmessages\n1\t[{"role": "user", "content": "a \\"b\\""}]\n'
  assert read(tmp_path / 'x.tsv', content) == [
    (1, {'id': '1', 'messages': [{'role': 'user', 'content': 'a "b"'}]}, '')
  ]


def test_empty_cells_and_blank_lines_are_left_out(tmp_path):
  assert read(tmp_path / 'x.csv', '\na,b\n\n1,\n,""\n') == [
    (1, {'a': '1'}, ''),
    (2, {}, ''),
  ]
  for nothing in ('', '\n', 'a,b\n'):
    assert read(tmp_path / 'x.csv', nothing) == []


def test_a_huge_cell(tmp_path):
  turns = [{'role': 'user', 'content': 'x' * 3_000_000}]
  with (tmp_path / 'x.csv').open('w', newline='') as file:
    csv.writer(file).writerows([['messages'], [json.dumps(turns)]])
  (row,) = rows.read(tmp_path / 'x.csv')
  assert row.value == {'messages': turns}


@pytest.mark.parametrize(
  ('content', 'expected'),
  [
    # Errors of one row.
    (
      'a,b\n1\n1,2,3\n3,4\n',
      [
        (1, None, '1 cells, expected 2 as in the first line'),
        (2, None, '3 cells, expected 2 as in the first line'),
        (3, {'a': '3', 'b': '4'}, ''),
      ],
    ),
    (
      b'a,b\n1,\xff\n"[""\xff""]",2\n3,4\n',
      [
        (1, None, "column 'b': Byte 0xff is not UTF-8 at character 1"),
        (2, None, "column 'a': Byte 0xff is not UTF-8 at character 3"),
        (3, {'a': '3', 'b': '4'}, ''),
      ],
    ),
    (
      'a\n"[""\\ud800""]"\n',
      [
        (1, None, "column 'a': Not text that can be encoded: a lone surrogate "
         'at character 3'),
      ],
    ),
    # Errors after which the limits of rows are unknown.
    (
      'a,b\n1,2\n"3"4,5\n6,7\n',
      [
        (1, {'a': '1', 'b': '2'}, ''),
        (2, None, f"',' expected after '\"'{GONE}"),
      ],
    ),
    (
      'a,b\n1,2\n"3,4\n5,6\n',
      [
        (1, {'a': '1', 'b': '2'}, ''),
        (2, None, f'unexpected end of data{GONE}'),
      ],
    ),
    ('a,b,a\n1,2,3\n', [(1, None, f"two columns are called 'a'{GONE}")]),
    (
      b'a\xff,b\n1,2\n',
      [(1, None, f'Byte 0xff is not UTF-8 at character 2{GONE}')],
    ),
  ],
)  # fmt: skip
def test_errors(content, expected, tmp_path):
  assert read(tmp_path / 'x.csv', content) == expected
