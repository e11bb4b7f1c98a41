"""Which files are new, complete, changed; and copies of them."""

import hashlib
import os

import pytest

from isft_jax.following import transcripts
from isft_jax.following.transcripts import Folder, Look


@pytest.fixture
def folder(tmp_path):
  place = tmp_path / 'in'
  place.mkdir()
  return place


def test_a_file_is_ready_when_two_looks_see_the_same(folder):
  seen = Folder(str(folder))
  assert seen.look({}) == Look([], 0, [])
  (folder / 'b.json').write_text('[')
  (folder / 'a.json').write_text('[1]')
  assert seen.look({}) == Look([], 2, [])
  (folder / 'b.json').write_text('[1]')  # it grows
  assert seen.look({}) == Look(['a.json'], 1, [])
  assert seen.look({}) == Look(['a.json', 'b.json'], 0, [])
  taken = {'a.json': seen.state('a.json')}
  assert seen.look(taken) == Look(['b.json'], 0, [])
  # Equal size, other time.
  os.utime(folder / 'a.json', ns=(0, 1))
  assert seen.look(taken) == Look(['b.json'], 0, ['a.json'])


def test_names_that_are_no_transcripts(folder):
  for name in (
    *('.hidden.json', 'a.json.part', 'a.tmp', 'a.txt', '.open/journal.jsonl'),
    *('day/b.jsonl', 'c.jsonl.gz', 'config.json', 'prepare_report.json'),
  ):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{}')
  (folder / 'dangling.json').symlink_to(folder / 'nothing')
  (folder / 'loop').symlink_to(folder)
  os.mkfifo(folder / 'pipe.json')
  seen = Folder(str(folder))
  seen.look({})
  # What looks like our own output hides nothing: all is accounted for.
  assert seen.look({}).ready == [
    *('c.jsonl.gz', 'config.json', 'day/b.jsonl', 'prepare_report.json'),
  ]


def looked(folder):
  seen = Folder(str(folder))
  seen.look({})
  return seen


def test_a_copy_is_what_the_digest_says(folder, tmp_path):
  (folder / 'day').mkdir()
  (folder / 'day' / 'a.json').write_text('[1]')
  target = tmp_path / 'copies' / 'day' / 'a.json'
  entry = looked(folder).copy('day/a.json', transcripts.epath.Path(target))
  digest = hashlib.sha256(b'[1]').hexdigest()
  assert target.read_text() == '[1]'
  modified = (folder / 'day' / 'a.json').stat().st_mtime_ns
  assert entry == {
    'file': 'day/a.json',
    'bytes': 3,
    'modified': modified,
    'sha256': digest,
  }


def test_a_file_that_changes_or_vanishes_is_not_copied(
  folder, tmp_path, capsys
):
  target = transcripts.epath.Path(tmp_path / 'copy.json')
  (folder / 'a.json').write_text('[1]')
  seen = looked(folder)
  (folder / 'a.json').write_text('[1, 2]')
  assert seen.copy('a.json', target) is None
  (folder / 'a.json').write_text('[')
  assert seen.copy('a.json', target) is None
  (folder / 'a.json').unlink()
  assert seen.copy('a.json', target) is None
  assert capsys.readouterr().out == ''


def test_a_file_that_cannot_be_read_is_left(folder, tmp_path, capsys):
  target = transcripts.epath.Path(tmp_path / 'copy.json')
  (folder / 'a.json').write_text('[1]')
  (folder / 'b.json').write_text('[1]')
  seen = looked(folder)
  (folder / 'a.json').unlink()
  (folder / 'a.json').mkdir()  # no permission stops a test that runs as root
  assert seen.copy('a.json', target) is None
  assert capsys.readouterr().out == (
    'warning: a.json cannot be read (Is a directory); it is tried again when '
    'the command starts\n'
  )
  (folder / 'a.json').rmdir()
  (folder / 'a.json').write_text('[1]')
  seen.look({})
  assert seen.look({}) == Look(['b.json'], 0, [])


def test_a_huge_file_is_not_copied(folder, tmp_path):
  with (folder / 'a.json').open('wb') as file:
    file.truncate(transcripts.LARGEST + 1)  # a hole: it takes no disk
  target = tmp_path / 'copy.json'
  entry = looked(folder).copy('a.json', transcripts.epath.Path(target))
  assert entry['bytes'] == (1 << 30) + 1 and entry['sha256'] == ''
  assert not target.exists()


def entry(name, sha256):
  return {'file': name, 'bytes': 1, 'modified': 2, 'sha256': sha256}


def test_what_was_taken_and_what_was_learned():
  events = [
    {'event': 'begun', 'increment': 0},
    {
      'event': 'found',
      'increment': 1,
      'files': [entry('a', '1'), entry('bad', '2')],
    },
    {'event': 'scored', 'increment': 1, 'file': 'a'},
    {'event': 'accepted', 'increment': 1},
    {'event': 'found', 'increment': 2, 'files': [entry('b', '3')]},
    {'event': 'scored', 'increment': 2, 'file': 'b'},
    {'event': 'rolled_back', 'increment': 2},
  ]
  assert transcripts.taken(events) == dict.fromkeys(('a', 'bad', 'b'), (1, 2))
  # What was set aside or rolled back may come again under another name.
  assert transcripts.learned(events) == {'1': 'a'}


def test_files_with_the_content_of_another():
  new = [entry('c', '1'), entry('d', '4'), entry('e', '4'), entry('f', '')]
  assert transcripts.duplicates([*new, entry('g', '')], {'1': 'a'}) == {
    'c': 'a',
    'e': 'd',
  }
