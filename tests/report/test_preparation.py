"""Lines of isft-prepare about its input."""

import os

import pytest

from isft_jax.report import preparation


@pytest.mark.parametrize(
  ('files', 'line'),
  [
    ([], ''),
    (['a.txt'], '(1 .txt): a.txt'),
    (['d/a.md', 'd/b', 'e.md'], '(2 .md, 1 no suffix): d/a.md, d/b, e.md'),
    (['gs://b/c.txt'], '(1 .txt): gs://b/c.txt'),
    (
      [f'{i}.txt' for i in range(1200)],
      '(1,200 .txt): 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...',
    ),
  ],
)
def test_files_that_are_left_out_are_counted_and_named(files, line):
  places = [f if '://' in f else os.path.abspath(f) for f in files]
  start = 'files not read, because of their suffix ' if line else ''
  assert preparation.unread(places) == start + line


def test_bugs_that_rows_were_set_aside_for_are_shown():
  (shown,) = preparation.unread_tables({'unexpected_errors': {'TypeError': 12}})
  assert shown.title == 'bugs: please report these rows'
  assert shown.rows == [('TypeError', '12')]


def test_marks_that_were_not_understood_are_shown():
  report = {'marks_not_understood': {"verdict 'incorrect'": 1200}}
  (shown,) = preparation.unread_tables(report)
  assert shown.title == 'marks that were not understood and have no effect'
  assert shown.header == ('mark', 'rows')
  assert shown.rows == [("verdict 'incorrect'", '1,200')]
