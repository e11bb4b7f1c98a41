"""The page of a followed folder: what happened, increment by increment."""

import json
import re

import pytest

from isft_jax.report.following import page

HOSTILE = '<img src=x onerror=alert(1)>'


def found(increment, *names):
  files = [{'file': name} for name in names]
  return {'event': 'found', 'increment': increment, 'files': files}


def scored(increment, name, **sums):
  return {
    'event': 'scored',
    'increment': increment,
    'file': name,
    'nll_by_author': sums,
  }


def measured(increment, loss, margin):
  return {
    'event': 'measured',
    'increment': increment,
    'heldout_loss': loss,
    'probe': {'mean_margin': margin},
  }


EVENTS = [
  {'event': 'begun', 'increment': 0, 'folder': '/in'},
  measured(0, 3.0, 0.1),
  found(1, 'a.json', 'b.json'),
  {
    'event': 'set_aside',
    'increment': 1,
    'file': 'b.json',
    'reason': 'malformed',
    'message': f'row 1: {HOSTILE}',
    'rows': 2,
  },
  scored(1, 'a.json', USER=[6.0, 2], AGENT=[8.0, 2]),
  {'event': 'trained', 'increment': 1, 'steps': 2},
  measured(1, 2.5, 0.2),
  {'event': 'accepted', 'increment': 1},
  found(2, HOSTILE, 'z.json'),
  scored(2, HOSTILE, USER=[2.0, 2]),
  measured(2, 2.75, 0.25),
  {'event': 'rolled_back', 'increment': 2, 'because': 'it rose'},
  found(3, 'c.json'),
  {'event': 'skipped', 'increment': 3, 'because': 'nothing'},
  {
    'event': 'changed',
    'increment': 0,
    'file': 'a.json',
    'sha256': '1',
    'time': '2026-01-01',
  },
  found(4, 'd.json'),
]


def cells(text, title):
  """The rows of a table as texts."""
  (table,) = re.findall(
    f'aria-label="{title}">(.*?)</table>', text, flags=re.DOTALL
  )
  rows = re.findall('<tr>(.*?)</tr>', table, flags=re.DOTALL)
  return [
    [
      ' '.join(re.sub('<[^>]*>', ' ', cell).split())
      for cell in re.findall('<t[hd][^>]*>(.*?)</t[hd]>', row, flags=re.DOTALL)
    ]
    for row in rows
  ]


@pytest.fixture
def text():
  return page.page(EVENTS, 'mine').decode()


def test_the_increments(text):
  assert (
    '6 transcripts of /in were taken; increments: 1 accepted, 1 rolled back, '
    '1 skipped.'
  ) in text
  assert cells(text, 'Increments')[1:] == [
    ['start', '-', '0', '-', '3.0000', '0.1000', '-'],
    ['1', '2', '1', '3.5000', '2.5000', '0.2000', 'accepted'],
    ['2', '2', '0', '1.0000', '2.7500', '0.2500', 'rolled back it rose'],
    ['3', '1', '0', '-', '-', '-', 'skipped nothing'],
    ['4', '1', '0', '-', '-', '-', '-'],
  ]


def test_what_was_set_aside(text):
  shown = HOSTILE.replace('<', '&lt;').replace('>', '&gt;')
  assert cells(text, 'Transcripts set aside')[1:] == [
    ['b.json', '1', f'2 rows, malformed: row 1: {shown}'],
    [f'{shown}, and 1 more', '2', 'rolled back: it rose'],
    ['c.json', '3', 'skipped: nothing'],
  ]
  assert cells(text, 'Transcripts that changed')[1:] == [
    ['a.json', '2026-01-01']
  ]
  assert HOSTILE not in text


def test_the_charts(text):
  # Tooltips have the first and the last value of each line.
  assert re.findall('<title>(.*?: .*?)</title>', text) == [
    'USER: 3.0000 to 1.0000',
    'AGENT: 4.0000 to 4.0000',
    'accepted: 3.0000 to 2.5000',
    'rolled back: 2.7500 to 2.7500',
  ]


def test_a_folder_without_any_transcript(tmp_path):
  (tmp_path / 'follow.jsonl').write_text(
    json.dumps(EVENTS[0]) + '\n{"event": "mea'
  )
  text = page.write(tmp_path).read_text()
  assert '0 transcripts of /in were taken; increments: none yet.' in text
  assert 'Nothing was set aside.' in text
  assert page.write(tmp_path, tmp_path / 'other').parent.name == 'other'


def test_a_long_list_is_cut():
  aside = {**EVENTS[3], 'rows': 1}
  events = [{**aside, 'file': f'{number}.json'} for number in range(203)]
  text = page.page(events, 'mine').decode()
  assert 'The first 200; 3 more' in ' '.join(text.split())
  assert len(cells(text, 'Transcripts set aside')) == 201
