"""A data set that is damaged anywhere says where."""

import json
import shutil

import numpy as np
import pytest

from isft_jax import files
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare, verify
from isft_jax.data.records import dataset, shards
from isft_jax.data.records import index as index_lib
from isft_jax.data.rendering import tokenizer


@pytest.fixture(scope='module')
def whole(renderer, tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  lines = [
    json.dumps(
      {
        'id': f'row {i}',
        'messages': [
          {'role': 'user', 'content': f'What is {i}?'},
          {'role': 'assistant', 'content': 'It is.'},
        ],
      }
    )
    for i in range(20)
  ]
  (folder / 'runs.jsonl').write_text('\n'.join([*lines, 'no row']))
  prepare.prepare(
    prepare.Settings(str(folder / 'runs.jsonl'), heldout=0.3, num_shards=2),
    renderer,
    Rules.default(),
    str(folder / 'out'),
  )
  return folder / 'out'


@pytest.fixture
def copy(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'out')


SHARD = 'trajectories-train.array_record-00001'


def test_a_data_set_that_is_whole(whole):
  seen = []
  assert [*verify.damages(str(whole), seen.append)] == []
  assert seen.count(SHARD) == 2  # its bytes, and then its records
  assert {'index-heldout.npz', 'metadata.json'} <= {*seen}


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  'name',
  [
    SHARD,
    'trajectories-heldout.array_record-00000',
    'index-train.npz',
    'index-heldout.npz',
    'metadata.json',
  ],
)
@pytest.mark.parametrize('missing', [False, True])
def test_a_file_of_which_a_bit_has_changed_or_that_is_gone(name, missing, copy):
  path = dataset.find_version(copy) / name
  path.unlink() if missing else flip(path)
  first, *_ = verify.damages(str(copy))
  said = 'missing' if missing else 'its bytes have changed'
  assert first == f'{path}: {said}'


def test_a_file_that_is_none_of_the_data_set(copy):
  path = dataset.find_version(copy) / 'trajectories-train.array_record-00002'
  path.write_text('')
  assert [*verify.damages(str(copy))] == [
    f'{path}: does not belong to the data set'
  ]


def resum(folder):
  """Makes the checksums those of the files as they are."""
  path = dataset.find_version(folder)
  sums = json.loads((path / shards.CHECKSUMS).read_text())
  sums = {name: files.sha256(path / name) for name in sums}
  (path / shards.CHECKSUMS).write_text(json.dumps(sums))


@pytest.mark.parametrize('field', index_lib.Index._fields)
def test_an_index_that_is_not_that_of_its_records(field, copy):
  """Checksums alone would let pass what was wrong from the beginning."""
  path = dataset.find_version(copy) / 'index-train.npz'
  index = index_lib.read(path, len(dataset.Records(str(copy))))
  array = getattr(index, field)
  array[-1] += 1
  index_lib.save(path, index)
  resum(copy)
  assert [*verify.damages(str(copy))] == [
    f'{path}: {field} does not match {SHARD}'
  ]


def test_a_record_that_cannot_be(copy):
  path = dataset.find_version(copy)
  codec = shards.Codec()
  found = [codec.read(r) for r in shards.read(path / SHARD)]
  shard = shards.Shard(path, 'train', 1)
  for i, record in enumerate(found):
    example = dataset.Example(
      id=record['id'].decode(),
      tokens_T=record['tokens'],
      provenance_T=np.append(record['provenance'][1:], np.uint8(i == 2) * 9),
      segment_T=record['segment'][i == 3 :],
      verdict_T=record['verdict'],
      scored_from=99 if i == 4 else 0,
    )
    shard._writer.write(codec.write(example))
  shard._writer.close()
  resum(copy)
  lines = [line for line in verify.damages(str(copy)) if ': record ' in line]
  assert lines == [
    f'{path / SHARD}: record 2: provenance has a code 9',
    f'{path / SHARD}: record 3: {len(found[3]["tokens"])} tokens, but '
    f'{len(found[3]["tokens"]) - 1} values of segment',
    f'{path / SHARD}: record 4: scored from 99 of '
    f'{len(found[4]["tokens"])} tokens',
  ]


def test_records_without_checksums_are_read_all_the_same(copy):
  path = dataset.find_version(copy)
  (path / shards.CHECKSUMS).unlink()
  assert [*verify.damages(str(copy))] == [
    f'{path / shards.CHECKSUMS}: missing or not JSON'
  ]
  flip(path / SHARD)
  assert len([*verify.damages(str(copy))]) > 1


def test_another_tokenizer_beside_the_records(copy):
  tokenizer.train(['another'] * 3, 280).save_pretrained(copy / 'tokenizer')
  (line,) = verify.damages(str(copy))
  assert line.startswith(f'{copy} was rendered with fingerprint ')


@pytest.mark.parametrize('text', [None, '{', '{}'])
def test_a_tokenizer_that_is_none(text, copy):
  path = copy / 'tokenizer' / 'tokenizer.json'
  path.write_text(text) if text else path.unlink()
  assert [*verify.damages(str(copy))] == [
    f'{copy}/tokenizer: missing or damaged'
  ]


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (('rows', 'read', 30), 'its rows do not add up'),
    (
      ('splits', 'train', {'rows': 1, 'records': 1}),
      "reports {'train': 1, 'heldout': HELD} records, and there are "
      "{'train': TRAIN, 'heldout': HELD}",
    ),
  ],
)
def test_a_report_of_something_else(change, said, copy):
  path = copy / prepare.REPORT
  report = json.loads(path.read_text())
  for split in ('train', 'heldout'):
    number = str(report['splits'][split]['records'])
    said = said.replace({'train': 'TRAIN', 'heldout': 'HELD'}[split], number)
  part, key, value = change
  report[part][key] = value
  path.write_text(json.dumps(report))
  assert [*verify.damages(str(copy))] == [f'{path}: {said}']


def test_notes_of_rows_set_aside_that_are_gone(copy):
  path = copy / prepare.REJECTED
  path.write_text('')
  assert [*verify.damages(str(copy))] == [
    f'{path}: has 0 rejected rows, the report has 1'
  ]


def test_no_data_set_at_all(tmp_path):
  with pytest.raises(ValueError, match='no records there; prepare them first'):
    [*verify.damages(str(tmp_path))]
