"""metrics.jsonl after a crash: damage is removed, and no whole row is lost."""

import json
import math
import subprocess
import sys

import pytest
from etils import epath

from isft_jax import metrics_file
from isft_jax.train import history
from tests.commands import ROOT


def row(step, loss=1.5):
  return {
    'step': step,
    'loss': loss,
    'targets': 10.0,
    'weight': 2.0,
    'nll_by_author': {'USER': 0.25},
    'seconds': 0.5,
  }


def text(*steps):
  return b''.join(json.dumps(row(step)).encode() + b'\n' for step in steps)


def totals_of(steps=10, steps_per_epoch=10):
  return history.Totals(steps - steps_per_epoch)


def resumed(folder, content, done):
  """Returns (steps that stay, warning) after a resumption."""
  path = epath.Path(folder / 'metrics.jsonl')
  path.write_bytes(content)
  warning = history.resume(path, done, totals_of())
  kept = [json.loads(line) for line in path.read_text().splitlines()]
  # The file is now undamaged: a second time, there is nothing to do.
  assert path.read_bytes() == text(*(each['step'] for each in kept))
  again = history.resume(path, done, totals_of())
  assert again == missing(done - len(kept), path)
  assert metrics_file.read(path) == kept
  steps = [each['step'] for each in kept]
  return steps, warning.removeprefix(f'warning: {path}: ')


def missing(number, path):
  words = 'step has' if number == 1 else 'steps have'
  return f'warning: {path}: {number} {words} no metrics' if number else ''


WHOLE, HALF = text(3), text(3)[:40]
LAST = text(3)[:-1]  # without its line break

# Content, steps done -> steps that stay, warning.
CASES = {
  'undamaged': (text(1, 2, 3), 3, [1, 2, 3], ''),
  'rows after the checkpoint': (text(1, 2, 3), 2, [1, 2], ''),
  'no checkpoint': (text(1, 2, 3), 0, [], ''),
  'no rows': (b'', 0, [], ''),
  'a torn last line after the checkpoint': (
    text(1, 2) + HALF, 2, [1, 2], '1 damaged line repaired'
  ),
  'a torn last line before it': (
    text(1, 2) + HALF, 3, [1, 2],
    '1 damaged line repaired, 1 step has no metrics',
  ),
  'a last line without its end': (
    text(1, 2) + LAST, 3, [1, 2, 3], '1 damaged line repaired'
  ),
  'NUL bytes at the end': (
    text(1, 2, 3) + bytes(5000), 3, [1, 2, 3], '1 damaged line repaired'
  ),
  'NUL bytes, then rows': (
    text(1, 2) + bytes(5000) + text(3, 4), 4, [1, 2, 3, 4],
    '1 damaged line repaired',
  ),
  'NUL bytes in place of rows': (
    text(1) + bytes(len(text(2, 3))) + text(4), 4, [1, 4],
    '1 damaged line repaired, 2 steps have no metrics',
  ),
  'NUL bytes only': (
    bytes(5000), 2, [], '1 damaged line repaired, 2 steps have no metrics'
  ),
  'NUL bytes in the middle of a row': (
    text(1) + text(2).replace(b': 10.0', b': 1\0\0\0') + text(3), 3, [1, 3],
    '1 damaged line repaired, 1 step has no metrics',
  ),
  'a torn line, then a row on it': (
    text(1) + text(2)[:30] + text(3), 3, [1, 3],
    '1 damaged line repaired, 1 step has no metrics',
  ),
  'two rows on a line': (
    text(1) + text(2)[:-1] + text(3), 3, [1, 2, 3], '1 damaged line repaired'
  ),
  'an empty line': (
    text(1) + b'\n' + text(2), 2, [1, 2], '1 damaged line repaired'
  ),
  'bytes that are no text': (
    text(1) + b'\xff\xfe\n' + text(2), 2, [1, 2], '1 damaged line repaired'
  ),
  'deep brackets': (
    text(1) + b'[' * 100_000 + b'\n' + text(2), 2, [1, 2],
    '1 damaged line repaired',
  ),
  'another value': (
    text(1) + b'[1]\n7\nnull\n' + text(2), 2, [1, 2],
    '3 damaged lines repaired',
  ),
  'a step that is no number': (
    text(1) + text(2).replace(b'2,', b'"2",', 1) + text(3), 3, [1, 3],
    '1 damaged line repaired, 1 step has no metrics',
  ),
  'a name of which a bit flipped': (
    text(1) + text(2).replace(b'targets', b'uargets') + text(3), 3, [1, 3],
    '1 damaged line repaired, 1 step has no metrics',
  ),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_damage_is_removed_and_whole_rows_stay(case, tmp_path):
  content, done, steps, warning = CASES[case]
  assert resumed(tmp_path, content, done) == (steps, warning)


@pytest.mark.parametrize('cut', range(0, len(text(1, 2, 3)), 7))
def test_a_file_that_is_cut_anywhere_keeps_the_rows_before(cut, tmp_path):
  steps, warning = resumed(tmp_path, text(1, 2, 3)[:cut], 3)
  whole = text(1, 2, 3)[:cut].count(b', "seconds": 0.5}')
  assert steps == [1, 2, 3][:whole]
  assert warning


def test_a_file_that_does_not_exist_is_made(tmp_path):
  path = epath.Path(tmp_path / 'metrics.jsonl')
  assert metrics_file.read(path) == []
  assert history.resume(path, 0, totals_of()) == ''
  assert path.read_bytes() == b''


def test_numbers_that_are_not_finite_are_read(tmp_path):
  """The row of a bad step is written before the run ends."""
  path = tmp_path / 'metrics.jsonl'
  path.write_text(json.dumps(row(1, math.nan)) + '\n')
  assert math.isnan(metrics_file.read(path)[0]['loss'])


# ----------------------------------------------------------------------- totals


def test_totals_are_those_of_all_rows_and_of_the_last_epoch():
  totals = totals_of(steps=4, steps_per_epoch=2)
  for step, loss, weight in ((1, 9, 1), (2, 9, 1), (3, 1, 3), (4, 2, 1)):
    totals.add(row(step, loss) | {'weight': weight}, b'')
  assert totals.summary() == {
    'steps': 4,
    'scored_tokens': 40,
    'seconds': 2.0,
    'final_loss': (1 * 3 + 2 * 1) / 4,
  }


# ------------------------------------------------------- sums of a checkpoint


@pytest.fixture
def parsed(monkeypatch):
  """Counts the lines that are parsed."""
  lines, parse = [], metrics_file._row
  monkeypatch.setattr(
    metrics_file, '_row', lambda *args: lines.append(args) or parse(*args)
  )
  return lines


def at_checkpoint(folder, *steps):
  """Writes rows of steps; returns (file, what their checkpoint has)."""
  path = epath.Path(folder / 'metrics.jsonl')
  path.write_bytes(text(*steps))
  totals = totals_of(20, 8)
  for step in steps:
    totals.add(row(step), text(step))
  # A checkpoint keeps them as JSON.
  return path, json.loads(json.dumps(totals.state()))


def test_only_the_lines_after_a_checkpoint_are_parsed(tmp_path, parsed):
  """19 steps are in the checkpoint, and 2 steps and half a row came after."""
  path, stored = at_checkpoint(tmp_path, *range(1, 20))
  path.write_bytes(text(*range(1, 22)) + HALF)
  totals = totals_of(20, 8)
  warning = history.resume(path, 19, totals, stored)
  assert warning == f'warning: {path}: 1 damaged line repaired'
  assert path.read_bytes() == text(*range(1, 20))
  # Each of the two rows once, and the half row as a line and in two pieces.
  assert len(parsed) == 5
  assert totals.state() == stored

  # The sums are those of all rows.
  every = totals_of(20, 8)
  assert history.resume(path, 19, every) == ''
  assert totals.state() == every.state()
  assert totals.summary() == every.summary()
  assert len(parsed) == 5 + 19


def test_a_resumed_run_adds_to_the_sums_of_its_checkpoint(tmp_path, parsed):
  path, stored = at_checkpoint(tmp_path, 1, 2)
  totals = totals_of(20, 8)
  assert history.resume(path, 2, totals, stored) == ''
  totals.add(row(3), text(3))
  with path.open('ab') as file:
    file.write(text(3))
  again = totals_of(20, 8)
  assert history.resume(path, 3, again, totals.state()) == ''
  assert again.state() == totals.state() == at_checkpoint(tmp_path, 1, 2, 3)[1]
  assert parsed == []


def test_steps_that_had_no_metrics_are_still_missing(tmp_path):
  path, stored = at_checkpoint(tmp_path, 1, 2, 5)
  warning = history.resume(path, 5, totals_of(20, 8), stored)
  assert warning == f'warning: {path}: 2 steps have no metrics'


# What differs from the checkpoint -> all three lines are parsed.
@pytest.mark.parametrize(
  'change',
  [
    lambda path, _: path.write_bytes(text(1) + text(2)[:-2] + b' }\n'),
    lambda path, _: path.write_bytes(text(1, 2)),
    lambda path, _: path.write_bytes(text(1, 2, 3).replace(b'1.5', b'5.1')),
    lambda _, stored: stored.update(before_last_epoch=13),
    lambda _, stored: stored.update(step=2),
    lambda _, stored: stored.update(another='of another version'),
    lambda _, stored: stored.pop('seconds'),
    lambda _, stored: stored.clear(),
  ],
  ids=[
    'a changed line', 'a lost line', 'changed numbers', 'another last epoch',
    'another step', 'one sum more', 'one sum less', 'an old checkpoint',
  ],
)  # fmt: skip
def test_other_lines_or_sums_are_parsed_again(change, tmp_path, parsed):
  path, stored = at_checkpoint(tmp_path, 1, 2, 3)
  change(path, stored)
  totals, every = totals_of(20, 8), totals_of(20, 8)
  warning = history.resume(path, 3, totals, stored)
  assert len(parsed) >= totals.rows == path.read_bytes().count(b'\n') >= 1
  history.resume(path, 3, every)
  assert totals.state() == every.state()
  assert bool(warning) == (totals.rows < 3)


LARGE = """
import resource, sys
from etils import epath
from isft_jax.train import history
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
totals = history.Totals(99_000)
assert history.resume(epath.Path(sys.argv[1]), 99_000, totals) == ''
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(totals.rows, after - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
  """100,000 rows are 15 MB of text, and were 200 MB of objects."""
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(text(*range(1, 100_001)))
  done = subprocess.run(
    [sys.executable, '-c', LARGE, path],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  rows, kilobytes = map(int, done.stdout.split())
  assert rows == 99_000
  assert kilobytes < 5_000
  with path.open('rb') as file:
    assert sum(1 for _ in file) == 99_000
