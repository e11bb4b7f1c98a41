"""follow.jsonl: appended to once per event, and repaired after a crash."""

import json

import pytest

from isft_jax.follow_file import NAME, Log, by_increment, describe, read

FOUND = {'event': 'found', 'increment': 1, 'files': []}
ENDED = {'event': 'accepted', 'increment': 1}


def plain(events):
  return [{k: v for k, v in e.items() if k != 'time'} for e in events]


def test_an_event_is_written_once(tmp_path):
  log = Log(tmp_path)
  assert plain(log.add(FOUND, ENDED, FOUND)) == [FOUND, ENDED]
  assert log.add(ENDED) == []
  again = Log(tmp_path)
  assert plain(again.events) == plain(read(tmp_path / NAME)) == [FOUND, ENDED]
  # A decision is the same with other words.
  assert again.add(ENDED | {'because': 'x'}) == []
  other = ENDED | {'increment': 2}
  assert plain(again.add(other)) == [other]
  assert plain(read(tmp_path / NAME)) == [FOUND, ENDED, other]


@pytest.mark.parametrize(
  'left',
  [
    b'{"event": "acc',
    b'\0\0\0\0',
    b'\0\0\n',
    b'{"a": 1}\n{"event"',
    b'[' * 9999,
  ],
)
def test_what_a_crash_leaves_is_removed(left, tmp_path):
  Log(tmp_path).add(FOUND)
  path = tmp_path / NAME
  whole = path.read_bytes()
  path.write_bytes(whole + left)
  assert plain(read(path)) == [FOUND]
  assert path.read_bytes() == whole + left  # a reader changes nothing
  log = Log(tmp_path)
  assert path.read_bytes() == whole
  log.add(ENDED)
  assert plain(read(path)) == [FOUND, ENDED]


def test_damage_before_other_events_is_refused(tmp_path):
  log = Log(tmp_path)
  log.add(FOUND)
  log.add(ENDED)
  path = tmp_path / NAME
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b'\0' * 20 + b'\n' + lines[1])
  with pytest.raises(ValueError, match=r'follow\.jsonl, line 1: damaged'):
    Log(tmp_path)


def test_events_of_an_increment(tmp_path):
  log = Log(tmp_path)
  log.add(FOUND, ENDED, FOUND | {'increment': 2})
  assert plain(log.of(1, 'accepted')) == [ENDED]
  assert log.of(2, 'accepted') == []
  assert [*by_increment(log.events)] == [1, 2]


def test_a_line_for_a_person():
  aside = {
    'event': 'set_aside',
    'increment': 2,
    'file': 'a\x1b.json',
    'reason': 'malformed',
    'message': 'row 1: no JSON',
    'rows': 1,
  }
  assert describe(aside) == (
    "increment 2: 'a\\x1b.json' set aside as malformed: row 1: no JSON"
  )
  assert describe(FOUND | {'files': [1]}) == 'increment 1: 1 new transcript'
  assert describe(FOUND | {'files': [1, 2]}) == 'increment 1: 2 new transcripts'
  rolled = {'event': 'rolled_back', 'increment': 3, 'because': 'it fell'}
  assert describe(rolled) == 'increment 3: rolled back: it fell'
  measured = {'event': 'measured', 'increment': 1}
  assert describe(measured) == ''
  assert describe(measured | {'heldout_loss': 2}) == (
    'increment 1: held-out loss 2.0000'
  )
  changed = {'event': 'changed', 'increment': 0, 'file': 'a.json'}
  assert describe(changed) == (
    'warning: a.json has changed since it was taken, and is not taken again; '
    'give it another name'
  )


def test_the_file_is_lines_of_json(tmp_path):
  Log(tmp_path).add(FOUND | {'files': ['\udcff\n']})
  (line,) = (tmp_path / NAME).read_bytes().splitlines()
  assert json.loads(line)['files'] == ['\udcff\n']
  assert [*json.loads(line)][:2] == ['event', 'increment']
