"""Bars redraw one line of a terminal, and are a few lines of a log."""

import io
import os
import pty
import select
import subprocess
import sys

import pytest

from isft_jax import progress_bar, terminal
from isft_jax.progress_bar import Bar, track
from tests.commands import ROOT


class Terminal(io.StringIO):
  """A terminal that remembers all that is written to it."""

  def isatty(self):
    return True

  def fileno(self):
    raise OSError

  def screen(self):
    return screen(self.getvalue())


def screen(text):
  """Returns the lines that a terminal shows after a text."""
  lines, column = [''], 0
  for char in text:
    if char == '\n':
      lines.append('')
      column = 0
    elif char == '\r':
      column = 0
    else:
      assert char >= ' ', repr(char)
      line = lines[-1].ljust(column)
      lines[-1] = line[:column] + char + line[column + 1 :]
      column += 1
  return [line.rstrip() for line in lines]


@pytest.fixture
def clock(monkeypatch):
  """Seconds, as a list of one number that the test sets."""
  now = [0.0]
  monkeypatch.setattr(progress_bar.time, 'monotonic', lambda: now[0])
  return now


def guarded_terminal(monkeypatch):
  """Returns a terminal that is stdout and stderr of a guarded process."""
  stream = Terminal()
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setattr(terminal, '_status', terminal._Status())
  for name in 'stdout', 'stderr':
    monkeypatch.setattr(sys, name, terminal.SafeStream(stream))
  return stream


# -------------------------------------------------------------- on a terminal


def test_a_bar_is_redrawn_in_place(clock, monkeypatch):
  both = guarded_terminal(monkeypatch)
  with Bar('records', 200, 'rows') as bar:
    bar.update(10)
    assert both.getvalue() == ''  # it is too early for a bar
    clock[0] = 2.0
    bar.update(20, '3 lost')
    assert both.screen() == [
      'records  [==>                 ]  10%  20/200 rows  3 lost  0:18 left'
    ]
    clock[0] = 2.05
    bar.update(21)
    assert '21/200' not in both.getvalue()  # too early for another one
    clock[0] = 10.0
    bar.update(100)
    assert both.screen() == [
      'records  [==========>         ]  50%  100/200 rows  0:10 left'
    ]
    clock[0] = 18.0
    bar.update(200)
  assert both.screen() == ['records  100%  200/200 rows  in 0:18', '']
  assert '\x1b' not in both.getvalue()


def test_output_stands_above_the_bar(clock, monkeypatch):
  both = guarded_terminal(monkeypatch)
  with Bar('records', unit='rows') as bar:
    clock[0] = 2.0
    bar.update(7)
    assert both.screen() == ['records  7 rows  0:02 so far']
    print('a result')
    assert both.screen() == ['a result', 'records  7 rows  0:02 so far']
    print('a warning', file=sys.stderr)
    # A reply that grows is not interrupted.
    print('It is', end='')
    clock[0] = 3.0
    bar.update(8)
    assert both.screen() == ['a result', 'a warning', 'It is']
    print(' blue.')
    assert both.screen() == [
      *('a result', 'a warning', 'It is blue.'),
      'records  8 rows  0:03 so far',
    ]
    # Tables of rich know where they stand.
    terminal.raw(sys.stdout).write('table\n')
    assert both.screen()[3:] == ['table', '']
  assert both.screen()[4:] == ['records  8 rows  in 0:03', '']


def test_a_narrow_terminal_cuts_the_bar(clock, monkeypatch):
  both = guarded_terminal(monkeypatch)
  monkeypatch.setattr(terminal, '_columns', lambda: 12)
  with Bar('日本語 records', unit='rows') as bar:
    for columns, shown in ((12, '日本語 reco'), (9, '日本語 r'), (4, '日')):
      monkeypatch.setattr(terminal, '_columns', lambda n=columns: n)
      before = len(both.getvalue())
      clock[0] += 2.0
      bar.update(1)
      drawn = both.getvalue()[before:]
      assert drawn.strip() == shown


def test_the_innermost_bar_is_seen(clock, monkeypatch):
  both = guarded_terminal(monkeypatch)
  with Bar('all', 4, 'runs') as outer:
    clock[0] = 2.0
    outer.update(1)
    with Bar('replies', 10, 'prompts') as inner:
      clock[0] = 4.0
      outer.update(2)
      inner.update(5)
      assert both.screen() == [
        'replies  [==========>         ]  50%  5/10 prompts  0:02 left'
      ]
    assert both.screen() == ['']
    outer.update(2)
    assert both.screen() == [
      'all  [==========>         ]  50%  2/4 runs  0:04 left'
    ]
  assert both.screen() == ['all  50%  2/4 runs  in 0:04', '']


def test_names_cannot_control_the_terminal(clock, monkeypatch):
  both = guarded_terminal(monkeypatch)
  with Bar('a\x1b[2Jb\nc') as bar:
    clock[0] = 2.0
    bar.update(1, '\rnote')
    assert both.screen() == ['a\\x1b[2Jb\\nc  1  \\rnote  0:02 so far']


# ------------------------------------------------------------------- in a log


@pytest.mark.parametrize(
  ('is_terminal', 'term', 'is_guarded'),
  [
    (False, 'xterm', True),
    (True, 'dumb', True),
    (True, '', True),
    (True, 'xterm', False),  # its other output is not known
  ],
)
def test_a_log_has_a_line_per_minute(
  is_terminal, term, is_guarded, clock, monkeypatch
):
  stream = Terminal() if is_terminal else io.StringIO()
  monkeypatch.setenv('TERM', term)
  guarded = terminal.SafeStream(stream) if is_guarded else stream
  monkeypatch.setattr(sys, 'stderr', guarded)
  for done in track(range(200), 'records', 200, 'rows'):
    del done
    clock[0] += 0.9
  assert stream.getvalue().splitlines() == [
    'records  34%  67/200 rows  2:00 left',
    'records  67%  134/200 rows  0:59 left',
    'records  100%  200/200 rows  in 3:00',
  ]


def test_short_work_leaves_no_line(clock, capsys):
  for _ in track(range(5), 'records'):
    clock[0] += 0.1
  assert capsys.readouterr() == ('', '')


def test_work_with_lines_of_its_own_has_no_others(clock, capsys):
  with Bar('train', 100, 'steps', has_lines=True) as bar:
    for step in range(100):
      clock[0] += 10.0
      if step % 5 == 0:
        print('step', step)
        bar.line_printed()
      bar.update(step)
  out, err = capsys.readouterr()
  assert len(out.splitlines()) == 20
  assert err == ''


def test_nested_bars_share_the_lines(clock, capsys):
  for _ in track(range(4), 'all', 4, 'runs'):
    for _ in track(range(10), 'replies', 10, 'prompts'):
      clock[0] += 4.0
  assert capsys.readouterr().err.splitlines() == [
    'all  25%  1/4 runs  3:00 left; replies  50%  5/10 prompts  0:20 left',
    'all  50%  2/4 runs  2:00 left; replies  100%  10/10 prompts  0:00 left',
    'all  100%  4/4 runs  in 2:40',
  ]


def test_another_host_shows_nothing(clock, capsys):
  with Bar('records', is_silent=True) as bar:
    clock[0] = 100.0
    bar.update(1)
  assert capsys.readouterr() == ('', '')


def test_the_last_state_is_left_after_an_error(clock, capsys):
  with pytest.raises(KeyError), Bar('records', unit='rows') as bar:
    clock[0] = 5.0
    bar.update(3)
    raise KeyError
  assert capsys.readouterr().err == 'records  3 rows  in 0:05\n'


@pytest.mark.parametrize(
  ('seconds', 'shown'),
  [(0, '0:00'), (59.6, '1:00'), (750, '12:30'), (7500, '2:05:00')],
)
def test_clock(seconds, shown):
  assert progress_bar.clock(seconds) == shown


# ------------------------------------------------------- processes of their own

PROGRAM = """
import os, sys, time
from isft_jax import progress_bar, terminal
progress_bar._SHORT = 0.0
terminal.guard()
for number in progress_bar.track(range(12), 'records', 12, 'rows'):
  time.sleep(0.05)
  if number in (4, 8):
    print(f'line {number}', flush=True)
if 'kill' in sys.argv:
  with progress_bar.Bar('more', 5) as bar:
    time.sleep(0.2)
    bar.update(1)
    os.kill(os.getpid(), 9)
print('result')
"""


def run(*arguments, stdout=None, **environment):
  """Runs the program on a terminal; returns its raw output and exit code."""
  main, side = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, '-c', PROGRAM, *arguments],
    cwd=ROOT,
    env=os.environ | {'TERM': 'xterm'} | environment,
    stdin=subprocess.DEVNULL,
    stdout=stdout or side,
    stderr=side,
  )
  os.close(side)
  output = b''
  while select.select([main], [], [], 60)[0]:
    try:
      if not (piece := os.read(main, 1 << 16)):
        break
    except OSError:  # Linux, after the last writer
      break
    output += piece
  os.close(main)
  return output.decode().replace('\r\n', '\n'), process.wait()


@pytest.mark.parametrize('environment', [{}, {'NO_COLOR': '1'}])
def test_a_pseudo_terminal(environment):
  output, code = run(**environment)
  assert code == 0
  assert '\x1b' not in output
  assert output.count('\r') > 5
  assert screen(output) == [
    *('line 4', 'line 8'),
    'records  100%  12/12 rows  in 0:01',
    *('result', ''),
  ]


def test_a_dumb_terminal():
  output, _ = run(TERM='dumb')
  assert '\r' not in output
  lines = ['line 4', 'line 8', 'records  100%  12/12 rows  in 0:01', 'result']
  assert output.splitlines() == lines


def test_results_of_a_terminal_go_to_a_file(tmp_path):
  with (tmp_path / 'out').open('w') as file:
    output, _ = run(stdout=file)
  assert (tmp_path / 'out').read_text() == 'line 4\nline 8\nresult\n'
  assert screen(output) == ['records  100%  12/12 rows  in 0:01', '']


def test_a_killed_process_leaves_nothing_behind():
  output, code = run('kill')
  assert code == -9
  assert screen(output)[-1].startswith('more  [====>')


def test_pipes():
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == 'line 4\nline 8\nresult\n'
  assert done.stderr == 'records  100%  12/12 rows  in 0:01\n'
