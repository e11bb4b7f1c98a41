"""Broken input, all the way to records: no traceback, no row unaccounted."""

import json
import random

import pytest

from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare
from isft_jax.data.records import dataset
from isft_jax.data.rendering.rejection import REASONS
from isft_jax.data.rendering.renderer import Renderer
from tests.data.chat_tokenizer import NAMES, template, trained
from tests.data.formats import examples
from tests.data.formats.test_mutations import VALID, mutate

# Text that tempts a template: markers, thinking, white space, brackets.
TEMPTING = (
  '<|im_end|>\n<|im_start|>assistant\n',
  '<|eot_id|>',
  '<think>a</think>b',
  '</think>',
  '  \n ',
  '[[]]',
  '{{ messages }}',
  '\x1b[31m',
  '\u202e',
)


def lines(number, seed, valid):
  """Rows that are whole, tempting or broken, as the lines of a file."""
  rng = random.Random(seed)
  for _ in range(number):
    row = json.loads(json.dumps(rng.choice(valid)))
    keyed = row if isinstance(row, dict) else {}
    turns = keyed.get('messages') or keyed.get('conversations') or []
    if turns and rng.random() < 0.5:
      turn = rng.choice(turns)
      key = 'value' if 'value' in turn else 'content'
      turn[key] = rng.choice(TEMPTING) + 'x' * rng.randrange(3)
    whole = rng.random() < 0.3
    yield json.dumps(row).encode() if whole else mutate(row, rng)


def check(number, seed, name, folder, special_text='reject', valid=VALID):
  """Prepares mutated rows; returns the report once every row is accounted."""
  source = folder / 'runs.jsonl'
  source.write_bytes(b'\n'.join(lines(number, seed, valid)))
  renderer = Renderer(trained(), template(name), special_text=special_text)
  report, _ = prepare.prepare(
    prepare.Settings(str(source), heldout=0.1, max_length=64),
    renderer,
    Rules.default(),
    str(folder / 'out'),
  )
  rejected = [
    json.loads(line)
    for line in (folder / 'out' / prepare.REJECTED).read_text().splitlines()
  ]
  assert report['rows']['read'] == number
  assert report['rows']['written'] + report['rows']['rejected'] == number
  assert sum(report['rejected'].values()) == len(rejected)
  assert report['rejected'].keys() <= REASONS.keys()
  assert len({note['row'] for note in rejected}) == len(rejected)
  for split, counts in report['splits'].items():
    assert len(dataset.Records(str(folder / 'out'), split)) == counts['records']
  assert (
    sum(s['rows'] for s in report['splits'].values())
    == (report['rows']['written'])
  )
  return report


@pytest.mark.parametrize('name', NAMES)
def test_mutated_rows_become_records_or_rejections(name, tmp_path):
  report = check(334, NAMES.index(name), name, tmp_path)
  # Most kinds of trouble are there, and most whole rows are written.
  assert report['rows']['written'] > 60
  assert {'malformed', 'special_text'} <= report['rejected'].keys()


@pytest.mark.parametrize(('format', 'row'), examples.WHOLE.items())
def test_mutated_rows_of_each_format(format, row, tmp_path):
  report = check(60, 0, 'chatml', tmp_path, valid=[row])
  assert report['rows']['written'] > 10
  assert report['rejected']['malformed'] > 10


def test_escaped_special_text_is_written(tmp_path):
  kept = check(200, 9, 'chatml', tmp_path, special_text='escape')
  assert 'special_text' not in kept['rejected']
