"""Tables as text: aligned, whole, and nothing in them is obeyed."""

import io
import re

import pytest

from isft_jax.report import tables
from isft_jax.report.tables import Table

HOSTILE = '[bold red]x[/] :smile: \x1b[31m\x07\u202e\nhttps://x.org'
SHOWN = r'[bold red]x[/] :smile: \x1b[31m\x07\u202e↵ https://x.org'


class Terminal(io.StringIO):
  encoding = 'utf-8'

  def isatty(self):
    return True


@pytest.fixture
def terminal(monkeypatch):
  for name in ('NO_COLOR', 'FORCE_COLOR', 'TTY_COMPATIBLE', 'COLORTERM'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('TERM', 'xterm-256color')
  monkeypatch.setenv('COLUMNS', '40')
  return Terminal()


def test_the_first_column_is_to_the_left_and_others_to_the_right():
  table = Table('Two', ('arm', 'nats'), [('base', '1.25'), ('do', '-10')])
  assert tables.text(table) == (
    'Two\n'
    'arm   nats\n'
    'base  1.25\n'
    'do     -10'
  )  # fmt: skip


def test_columns_may_be_aligned_otherwise_and_have_no_title_or_header():
  table = Table('', ('', '', ''), [('a', 'long', 'x'), ('bbb', 'b', '')])
  assert tables.text(table, '><<') == '  a  long  x\nbbb  b'


def test_a_wide_character_takes_two_columns():
  table = Table('', ('', ''), [('山', '1'), ('abc', '2')])
  assert tables.text(table) == '山   1\nabc  2'


def test_a_row_is_one_line_however_long_it_is():
  row = tuple('word ' * 100 + 'end' for _ in range(30))
  table = Table('x' * 1000, tuple('abcdefghijklmnopqrstuvwxyz1234'), [row])
  title, _, line = tables.text(table).split('\n')
  assert title == 'x' * 1000
  assert line.split('  ') == list(row)


def test_what_a_cell_holds_is_shown_and_not_obeyed(terminal):
  table = Table(HOSTILE, (HOSTILE, 'number'), [(HOSTILE, '1')])
  assert tables.text(table).count(SHOWN) == 3
  assert '\x1b' not in tables.text(table)
  tables.show(table, stream=terminal)
  codes = set(re.findall(r'\x1b\[[^m]*m', terminal.getvalue()))
  assert codes == {'\x1b[1m', '\x1b[0m'}  # bold, and no link
  assert terminal.getvalue().count('\x1b') == len(
    re.findall(r'\x1b\[[01]m', terminal.getvalue())
  )


def test_a_narrow_terminal_shows_every_number_whole(terminal):
  row = ('who acts', *(f'{number}.024 ± 0.188' for number in range(9)))
  tables.show(Table('', tuple('abcdefghij'), [row]), stream=terminal)
  text = re.sub(r'\x1b\[[0-9;]*m', '', terminal.getvalue())
  assert all(cell in text for cell in row[1:]) and '…' not in text


def test_a_pipe_gets_lines_without_color(monkeypatch):
  # As where rich would color a pipe: GitHub's runs, or a shell that asks.
  monkeypatch.setenv('FORCE_COLOR', '1')
  stream = io.StringIO()
  table = Table('Long ' * 40, ('arm', 'nats'), [('base', '1.25')])
  tables.show(table, table, stream=stream)
  assert stream.getvalue() == f'{tables.text(table)}\n\n{tables.text(table)}\n'
  assert '\x1b' not in stream.getvalue()


def test_a_terminal_gets_bold_headers_and_lines_that_fit(terminal):
  table = Table('In all', ('what it is', 'n'), [('word ' * 20 + 'end', '12')])
  tables.show(table, stream=terminal)
  lines = re.sub(r'\x1b\[[0-9;]*m', '', terminal.getvalue()).split('\n')
  assert max(map(len, lines)) <= 40
  assert '\x1b[1mIn all\x1b[0m' in terminal.getvalue()
  assert ' '.join(' '.join(lines).split()).count('word') == 20
  assert '12' in lines[2]


@pytest.mark.parametrize(
  ('text', 'cell'),
  [
    ('a|b', r'a\|b'),
    ('a\\|b', r'a\\\|b'),  # a backslash must not free the pipe
    ('one\ntwo\r\nthree\n', 'one ↵ two ↵ three'),
    ('one\n\ntwo', 'one ↵  ↵ two'),
    ('\u2028x\x0by', '↵ x ↵ y'),
    ('<b>*x* `y` $z$', r'\<b\>\*x\* \`y\` \$z\$'),
    ('~w~ &lt; [k]', r'\~w\~ \&lt; \[k\]'),
    ('agent_only _x_', r'agent_only \_x\_'),
  ],
)
def test_markdown_shows_a_cell_as_it_was_written(text, cell):
  assert tables.markdown(('', text), [('x', text), (text, 'y')]) == (
    f'|  | {cell} |\n| :-- | --: |\n| x | {cell} |\n| {cell} | y |\n'
  )
