"""On Beam: the data set of the plain path, byte for byte."""

import gzip
import itertools
import json
import zipfile

import pytest

from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare, verify
from isft_jax.data.records import dataset
from tests.data.preparation.questions import contents, rows
from tests.fixtures import import_or_skip

beam = import_or_skip('isft_jax.data.preparation.beam', 'apache-beam')

RULES = Rules.default()


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  for name, numbers in (('a', range(20)), ('b', range(20, 60))):
    (folder / f'{name}.jsonl').write_text('\n'.join([*rows(numbers), 'none']))
  return folder


def test_the_data_set_is_that_of_the_plain_path_byte_for_byte(
  renderer, source, tmp_path
):
  """Records, index, checksums, rows set aside, report."""
  settings = prepare.Settings(
    str(source), heldout=0.2, max_length=20, num_shards=3
  )
  prepare.prepare(settings, renderer, RULES, str(tmp_path / 'plain'))
  asked = settings, renderer, RULES, str(tmp_path / 'beam')
  report, was_there = beam.prepare(*asked, 'DirectRunner')
  assert not was_there
  assert report['rows'] == {'read': 62, 'written': 53, 'rejected': 9}
  assert contents(tmp_path / 'plain') == contents(tmp_path / 'beam')
  assert [*verify.damages(str(tmp_path / 'beam'))] == []
  again, was_there = beam.prepare(*asked, 'DirectRunner')
  assert was_there
  assert again == json.loads(json.dumps(report))


def test_archives_and_sessions_keep_their_order(renderer, tmp_path):
  """A damaged file has its error last, and a trajectory its first line."""
  runs = tmp_path / 'runs'
  runs.mkdir()
  packed = [
    gzip.compress('\n'.join(rows(range(n, n + 10))).encode()) for n in (0, 10)
  ]
  (runs / 'a.jsonl.gz').write_bytes(packed[0])
  (runs / 'b.jsonl.gz').write_bytes(packed[1][:-9])
  with zipfile.ZipFile(runs / 'c.zip', 'w') as archive:
    for n in (20, 30):
      archive.writestr(f'd/{n}.jsonl', '\n'.join(rows(range(n, n + 10))))
  events = [
    json.dumps({'type': 'user', 'sessionId': id, 'message': {}})
    for id in 'xyxzyx'
  ]
  pairs = zip(events, rows(range(40, 46)), strict=True)
  lines = itertools.chain.from_iterable(pairs)
  (runs / 'e.jsonl').write_text('\n'.join(lines))
  settings = prepare.Settings(str(runs), num_shards=2)
  report, _ = prepare.prepare(
    settings, renderer, RULES, str(tmp_path / 'plain'), num_workers=2
  )
  beam.prepare(settings, renderer, RULES, str(tmp_path / 'beam'))
  assert contents(tmp_path / 'plain') == contents(tmp_path / 'beam')
  notes = (tmp_path / 'plain' / prepare.REJECTED).read_text().splitlines()
  places = [
    (note['file'].removeprefix(f'{runs}/'), note['row'], note['id'])
    for note in map(json.loads, notes)
    if not note['id'].startswith('row')
  ]
  lost = 10 - (report['rows']['read'] - 40)
  assert places == [
    ('b.jsonl.gz', 11 - lost, f'b:{11 - lost}'),
    ('e.jsonl', 1, 'e:1'),
    ('e.jsonl', 3, 'e:3'),
    ('e.jsonl', 7, 'e:7'),
  ]


def test_without_a_number_of_shards_the_records_are_the_same_set(
  renderer, source, tmp_path, monkeypatch
):
  monkeypatch.setattr(dataset, 'SHARD_RECORDS', 20)
  settings = prepare.Settings(str(source))
  prepare.prepare(settings, renderer, RULES, str(tmp_path / 'plain'))
  options = '--direct_num_workers=1 --direct_running_mode=in_memory'
  beam.prepare(
    settings, renderer, RULES, str(tmp_path / 'beam'), options=options
  )
  found = [dataset.Records(str(tmp_path / way)) for way in ('plain', 'beam')]
  plain, beams = (
    sorted((e.id, e.tokens_T.tobytes(), e.provenance_T.tobytes()) for e in data)
    for data in found
  )
  assert plain == beams
  places = [tmp_path / way / prepare.REJECTED for way in ('plain', 'beam')]
  assert places[0].read_text() == places[1].read_text()
  shards = dataset.find_version(tmp_path / 'beam').glob('*array_record*')
  assert len([*shards]) == 3


def test_a_data_set_that_begins_with_another(renderer, source, tmp_path):
  old = tmp_path / 'old'
  settings = prepare.Settings(str(source / 'a.jsonl'))
  prepare.prepare(settings, renderer, RULES, str(old))
  settings = prepare.Settings(str(source), extends=str(old), num_shards=2)
  report, _ = beam.prepare(settings, renderer, RULES, str(tmp_path / 'new'))
  assert report['rows'] == {'read': 41, 'written': 35, 'rejected': 6}
  old, new = (dataset.Records(str(tmp_path / n)) for n in ('old', 'new'))
  assert [new[i].id for i in range(len(old))] == [e.id for e in old]
  assert len(new) == len(old) + 35
  assert [*verify.damages(str(tmp_path / 'new'))] == []


def test_no_row_at_all_says_why(renderer, tmp_path):
  (tmp_path / 'a.jsonl').write_text('none\n')
  with pytest.raises(ValueError, match='none of 1 rows could be written'):
    beam.prepare(
      prepare.Settings(str(tmp_path / 'a.jsonl')),
      renderer,
      RULES,
      str(tmp_path / 'out'),
    )
  assert not (tmp_path / 'out').exists()
