"""Records: what is written is read, whole or not at all."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from isft_jax.data.records import dataset as records_lib
from isft_jax.data.records import index as index_lib
from isft_jax.data.records import shards
from isft_jax.data.records.dataset import Index, Records, Trajectories, write
from isft_jax.types import Example, Provenance, Verdict

METADATA = {
  'fingerprint': 'feed5eed',
  'rendering': {'template': 'é {{ x }}', 'values': {'a': [1, None, True]}},
}
FIELDS = {
  'tokens_T': np.int32,
  'provenance_T': np.uint8,
  'segment_T': np.int32,
  'verdict_T': np.uint8,
}


def random_example(rng, number):
  length = int(rng.integers(1, 40))
  return Example(
    id=f'dialogue-{number:06d}',
    tokens_T=rng.integers(0, 200_000, length).astype(np.int32),
    provenance_T=rng.integers(0, len(Provenance), length).astype(np.uint8),
    segment_T=np.sort(rng.integers(0, 9, length)).astype(np.int32),
    verdict_T=rng.integers(0, len(Verdict), length).astype(np.uint8),
    scored_from=int(rng.choice([0, 1, length // 2, length])),
    window=int(rng.integers(0, 3)),
  )


def special_examples():
  """Extreme values in every field, and the shortest records there are."""
  yield Example(
    id='漢字 é 👍 /"\\',
    tokens_T=np.array([0, 2**31 - 1, -1, -(2**31)], np.int32),
    provenance_T=np.array([0, 255, 7, 1], np.uint8) % 8,
    segment_T=np.array([2**31 - 1, 0, 1, 2], np.int32),
    verdict_T=np.array([0, 1, 2, 0], np.uint8),
    scored_from=3,
    window=2**31 - 1,
  )
  for length in (0, 1):
    yield Example(
      id='',
      **{name: np.zeros(length, dtype) for name, dtype in FIELDS.items()},
    )


@pytest.fixture(scope='module')
def examples():
  rng = np.random.default_rng(0)
  return [*special_examples(), *(random_example(rng, i) for i in range(60))]


@pytest.fixture(scope='module')
def folder(examples, tmp_path_factory):
  folder = tmp_path_factory.mktemp('records')
  write(str(folder), lambda: examples, METADATA)
  return folder


def index_path(folder, split='train') -> pathlib.Path:
  (path,) = pathlib.Path(folder).glob(f'trajectories/*/index-{split}.npz')
  return path


def contents(folder):
  return {
    path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
    for path in sorted(pathlib.Path(folder).rglob('*'))
    if path.is_file()
  }


# ---------------------------------------------------------------- round trip


def test_every_field_of_every_record_comes_back_exactly(folder, examples):
  records = Records(str(folder))
  assert len(records) == len(examples)
  for number, example in enumerate(examples):
    read = records[number]
    for name, dtype in FIELDS.items():
      array = getattr(read, name)
      assert array.dtype == dtype
      np.testing.assert_array_equal(array, getattr(example, name), strict=True)
    for name in ('id', 'scored_from', 'window'):
      assert getattr(read, name) == getattr(example, name)
      assert type(getattr(read, name)) is type(getattr(example, name))


def test_records_are_read_in_any_order(folder, examples):
  records = Records(str(folder))
  order = np.random.default_rng(1).permutation(len(examples))
  assert [records[n].id for n in order] == [examples[n].id for n in order]


def test_write_returns_what_opening_the_folder_gives(examples, tmp_path):
  written = write(str(tmp_path), lambda: examples[:5], METADATA)
  opened = Records(str(tmp_path))
  assert len(written) == len(opened) == 5
  assert written.folder == opened.folder == str(tmp_path)
  assert [written[i].id for i in range(5)] == [e.id for e in examples[:5]]


def test_a_record_holds_authors_and_no_loss_mask():
  """One data set serves every objective: a weight has no place in it."""
  features = Trajectories(data_dir='/nowhere').info.features
  assert {name: feature.np_dtype for name, feature in features.items()} == {
    'tokens': np.int32,
    'provenance': np.uint8,
    'segment': np.int32,
    'verdict': np.uint8,
    'scored_from': np.int32,
    'window': np.int32,
    'id': np.object_,
  }


def test_the_metadata_come_back_as_they_were(folder):
  """JSON values: how the tokens were made, in full."""
  assert Records(str(folder)).metadata == METADATA


# --------------------------------------------------------------------- index


def brute_force_index(examples) -> Index:
  shape = (len(examples), len(Provenance), len(Verdict))
  counts_NPV = np.zeros(shape, int)
  last_NPV = np.full(shape, -1)
  for n, example in enumerate(examples):
    for position in range(len(example.tokens_T)):
      if position == 0 or position < example.scored_from:
        continue
      cell = (n, example.provenance_T[position], example.verdict_T[position])
      counts_NPV[cell] += 1
      last_NPV[cell] = position
  # Records of window 0 before a record, and it: those begin a trajectory.
  trajectory_N = [
    sum(e.window == 0 for e in examples[: n + 1]) for n in range(len(examples))
  ]
  lengths = [len(e.tokens_T) for e in examples]
  return Index(lengths, counts_NPV, last_NPV, trajectory_N)


def test_the_index_is_that_of_a_count_by_hand(folder, examples):
  index = Records(str(folder)).index
  expected = brute_force_index(examples)
  for name in Index._fields:
    np.testing.assert_array_equal(getattr(index, name), getattr(expected, name))
  # The examples must be able to tell a wrong count: windows, and cells in use.
  assert len(set(expected.trajectory_N)) < len(examples) - 10
  assert sum(e.scored_from > 1 for e in examples) > 10
  assert (expected.counts_NPV.sum(axis=0) > 0).all()


def test_the_index_of_one_record_cell_by_cell(tmp_path):
  """Position 0 has no context, 1 and 2 are the overlap of a window."""
  T, U, A = Provenance.TEMPLATE, Provenance.USER, Provenance.AGENT
  example = Example(
    id='x',
    #                       0  1  2  3  4  5  6  7
    provenance_T=np.array([T, U, A, T, A, A, A, U], np.uint8),
    verdict_T=np.array([0, 0, 2, 0, 2, 1, 2, 0], np.uint8),
    tokens_T=np.arange(8, dtype=np.int32),
    segment_T=np.zeros(8, np.int32),
    scored_from=3,
  )
  index = write(str(tmp_path), lambda: [example], {}).index
  right, wrong, unknown = Verdict.RIGHT, Verdict.WRONG, Verdict.UNKNOWN
  assert index.length_N.tolist() == [8]
  assert {
    (author, verdict): (index.counts_NPV[0][author, verdict], last)
    for (author, verdict), last in np.ndenumerate(index.last_NPV[0])
    if last != -1
  } == {
    # author, verdict: how many, the last position
    (T, unknown): (1, 3),
    (A, wrong): (2, 6),
    (A, right): (1, 5),
    (U, unknown): (1, 7),
  }
  assert index.counts_NPV.sum() == 5


def test_the_windows_of_a_trajectory_share_its_number(tmp_path):
  windows = [0, 0, 1, 2, 0, 1, 0]
  made = [
    dataclasses.replace(next(special_examples()), window=window)
    for window in windows
  ]
  index = write(str(tmp_path), lambda: made, {}).index
  assert index.trajectory_N.tolist() == [1, 2, 2, 2, 3, 3, 4]


# -------------------------------------------------------------------- splits


@pytest.fixture(scope='module')
def both(examples, tmp_path_factory):
  """Records 0 to 39 to train on, and the others held out."""
  folder = str(tmp_path_factory.mktemp('both'))
  write(folder, lambda: examples[:40], METADATA, lambda: examples[40:])
  return folder


def test_each_split_has_its_own_records_in_their_order(both, examples):
  train, heldout = (Records(both, split) for split in ('train', 'heldout'))
  assert train.splits == heldout.splits == ('train', 'heldout')
  assert train.metadata == heldout.metadata == METADATA
  assert (len(train), len(heldout)) == (40, 23)
  for records, expected in ((train, examples[:40]), (heldout, examples[40:])):
    for number, example in enumerate(expected):
      assert records[number].id == example.id
      np.testing.assert_array_equal(records[number].tokens_T, example.tokens_T)


@pytest.mark.parametrize(
  ('split', 'own'), [('train', slice(40)), ('heldout', slice(40, None))]
)
def test_each_split_has_its_own_index(both, examples, split, own):
  index = Records(both, split).index
  for name, array in brute_force_index(examples[own])._asdict().items():
    np.testing.assert_array_equal(getattr(index, name), array)


def test_what_is_opened_by_default_and_returned_is_the_split_to_train_on(
  both, examples
):
  def never():
    raise AssertionError('asked for examples')

  before = contents(both)
  again = write(both, never, METADATA, never)
  assert contents(both) == before
  assert len(Records(both)) == len(again) == 40
  assert Records(both)[39].id == again[39].id == examples[39].id


def test_two_splits_are_two_more_files(both):
  assert sorted(path.name for path in index_path(both).parent.iterdir()) == [
    'checksums.json',
    'dataset_info.json',
    'features.json',
    'index-heldout.npz',
    'index-train.npz',
    'metadata.json',
    'trajectories-heldout.array_record-00000',
    'trajectories-train.array_record-00000',
  ]


def test_an_unknown_split_is_named_with_those_that_there_are(both):
  message = f"{both}: no split 'test' there, but train, heldout"
  with pytest.raises(ValueError, match=message):
    Records(both, 'test')


@pytest.mark.parametrize('heldout', [None, lambda: [], lambda: iter(())])
def test_without_held_out_examples_there_is_no_such_split(
  heldout, examples, tmp_path
):
  records = write(str(tmp_path), lambda: examples[:5], METADATA, heldout)
  assert records.splits == Records(str(tmp_path)).splits == ('train',)
  message = f"{tmp_path}: no split 'heldout' there, but train"
  with pytest.raises(ValueError, match=message):
    Records(str(tmp_path), 'heldout')


@pytest.mark.parametrize('heldout', [None, lambda: [], special_examples])
def test_no_example_to_train_on_is_named_and_leaves_nothing(
  heldout, examples, tmp_path
):
  """Or the folder would be taken for a data set, and never be filled."""
  with pytest.raises(ValueError, match=f'{tmp_path}: no example'):
    write(str(tmp_path), lambda: [], METADATA, heldout)
  with pytest.raises(ValueError, match='no records there; prepare them first'):
    Records(str(tmp_path))
  records = write(str(tmp_path), lambda: examples[:5], METADATA, heldout)
  assert [records[i].id for i in range(5)] == [e.id for e in examples[:5]]


@pytest.mark.parametrize('after', [0, 1, 4])
def test_a_write_that_is_cut_in_its_second_split_leaves_nothing_that_opens(
  after, examples, tmp_path
):
  def cut():
    yield from examples[:after]
    raise RuntimeError('the power fails')

  with pytest.raises(RuntimeError, match='the power fails'):
    write(str(tmp_path), lambda: examples[:5], {}, cut)
  for split in ('train', 'heldout'):
    with pytest.raises(ValueError, match='no records there; prepare them'):
      Records(str(tmp_path), split)


def test_a_damaged_index_of_one_split_leaves_the_other_whole(
  examples, tmp_path
):
  def make():
    return write(str(tmp_path), lambda: examples[:5], {}, lambda: examples[5:9])

  make()
  path = index_path(tmp_path, 'heldout')
  path.unlink()
  assert len(Records(str(tmp_path))) == 5
  with pytest.raises(ValueError, match=f'{path}: missing or damaged; prepare'):
    Records(str(tmp_path), 'heldout')
  make()
  index = Records(str(tmp_path), 'heldout').index
  for name, array in brute_force_index(examples[5:9])._asdict().items():
    np.testing.assert_array_equal(getattr(index, name), array)


# --------------------------------------------------------- whole or not at all


def test_writing_a_whole_data_set_again_changes_nothing(folder):
  def never():
    raise AssertionError('asked for examples')

  before = contents(folder)
  records = write(str(folder), never, METADATA)
  assert contents(folder) == before
  assert len(records) == 63


def test_writing_leaves_alone_what_else_is_in_the_folder(examples, tmp_path):
  """TFDS makes a folder of downloads there; one of the user's is not ours."""
  theirs = tmp_path / 'downloads' / 'thesis.tex'
  theirs.parent.mkdir()
  theirs.write_text('all of it')
  write(str(tmp_path), lambda: examples[:5], {})
  assert theirs.read_text() == 'all of it'


def test_writing_leaves_nothing_but_the_records(examples, tmp_path):
  write(str(tmp_path), lambda: examples[:5], {})
  assert [path.name for path in tmp_path.iterdir()] == ['trajectories']
  assert sorted(
    path.name for path in index_path(tmp_path).parent.iterdir()
  ) == [
    'checksums.json',
    'dataset_info.json',
    'features.json',
    'index-train.npz',
    'metadata.json',
    'trajectories-train.array_record-00000',
  ]


@pytest.mark.parametrize('after', [0, 1, 4])
def test_a_write_that_is_cut_leaves_nothing_that_opens(
  after, examples, tmp_path
):
  def cut():
    yield from examples[:after]
    raise RuntimeError('the power fails')

  with pytest.raises(RuntimeError, match='the power fails'):
    write(str(tmp_path), cut, {})
  with pytest.raises(ValueError, match='no records there; prepare them first'):
    Records(str(tmp_path))
  records = write(str(tmp_path), lambda: examples[:5], {})
  assert [records[i].id for i in range(5)] == [e.id for e in examples[:5]]


def test_a_write_that_is_cut_before_its_index_is_finished(
  examples, tmp_path, monkeypatch
):
  def cut(path, parts):
    raise RuntimeError('the power fails')

  with monkeypatch.context() as patch:
    patch.setattr(index_lib, 'join', cut)
    with pytest.raises(RuntimeError, match='the power fails'):
      write(str(tmp_path), lambda: examples, {})
  with pytest.raises(ValueError, match='no records there; prepare them first'):
    Records(str(tmp_path))
  index = write(str(tmp_path), lambda: examples, {}).index
  for name, array in brute_force_index(examples)._asdict().items():
    np.testing.assert_array_equal(getattr(index, name), array)


def test_what_a_killed_writer_leaves_is_never_opened(examples, tmp_path):
  """It writes into a folder beside, and puts that in its place as the last act.
  A kill leaves it there; the next run clears it away."""
  write(str(tmp_path), lambda: examples[:5], {})
  whole = index_path(tmp_path).parent
  left = tmp_path / 'incomplete' / 'trajectories' / whole.name
  shutil.copytree(whole, left)
  (left / 'index-train.npz').unlink()
  assert Records(str(tmp_path))[0].id == examples[0].id
  shutil.rmtree(whole)
  with pytest.raises(ValueError, match='no records there; prepare them first'):
    Records(str(tmp_path))
  assert len(write(str(tmp_path), lambda: examples[:4], {})) == 4
  assert not (tmp_path / 'incomplete').exists()


def test_a_missing_folder_is_named(tmp_path):
  missing = f'{tmp_path}/none'
  with pytest.raises(ValueError, match=f'{missing}: no records there; prepare'):
    Records(missing)
  with pytest.raises(ValueError, match=f'{tmp_path}: no records there'):
    Records(str(tmp_path))


def without(path):
  path.unlink()


def cut_in_half(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
  path.write_bytes(b'')


def overwritten(path):
  path.write_bytes(b'no archive' * 100)


def with_a_flipped_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def of_another_version(path):
  np.savez(path, length_N=np.zeros(3))


@pytest.mark.parametrize(
  'damage',
  [
    without,
    cut_in_half,
    emptied,
    overwritten,
    with_a_flipped_bit,
    of_another_version,
  ],
)
def test_a_damaged_index_is_named_with_its_remedy(damage, examples, tmp_path):
  write(str(tmp_path), lambda: examples[:5], {})
  path = index_path(tmp_path)
  damage(path)
  message = f'{path}: missing or damaged; prepare the records again'
  with pytest.raises(ValueError, match=message):
    Records(str(tmp_path))


@pytest.mark.parametrize('damage', [without, cut_in_half, emptied])
def test_preparing_again_is_the_remedy(damage, examples, tmp_path):
  write(str(tmp_path), lambda: examples[:5], {})
  damage(index_path(tmp_path))
  index = write(str(tmp_path), lambda: examples[:5], {}).index
  for name, array in brute_force_index(examples[:5])._asdict().items():
    np.testing.assert_array_equal(getattr(index, name), array)


def like(example, **changes):
  return dataclasses.replace(example, **changes)


def test_shards_of_another_preparation_are_named(tmp_path):
  """Their records are as many, with the same ids."""
  tokens_T = np.arange(4, dtype=np.int32)
  first = Example(
    id='a',
    tokens_T=tokens_T,
    provenance_T=np.array([1, 3, 4, 5], np.uint8),
    segment_T=np.zeros(4, np.int32),
    verdict_T=np.zeros(4, np.uint8),
  )
  five = dict.fromkeys(['tokens_T', 'segment_T'], np.zeros(5, np.int32))
  five |= dict.fromkeys(['provenance_T', 'verdict_T'], np.ones(5, np.uint8))
  others = {
    'has 5 tokens, but 4 in the index': like(first, **five),
    'has 2 scorable tokens, but 3 in the index': like(first, scored_from=2),
    'has other authors or verdicts than in the index': like(
      first, verdict_T=np.array([0, 0, 1, 0], np.uint8)
    ),
    'has its authors in another order than in the index': like(
      first, provenance_T=np.array([1, 3, 5, 4], np.uint8)
    ),
    'is window 1, which is not that of the index': like(first, window=1),
  }
  records_lib.write(str(tmp_path / 'a'), lambda: [first] * 3, {})
  path = records_lib.find_version(tmp_path / 'a')
  for i, (error, other) in enumerate(others.items()):
    folder = tmp_path / str(i)
    examples = [first, other, first]
    records_lib.write(str(folder), lambda examples=examples: examples, {})
    name = shards.name('train', 0)
    (path / name).write_bytes(
      (records_lib.find_version(folder) / name).read_bytes()
    )
    records = records_lib.Records(str(tmp_path / 'a'))
    np.testing.assert_array_equal(records[0].tokens_T, tokens_T)
    np.testing.assert_array_equal(records[2].tokens_T, tokens_T)
    with pytest.raises(ValueError) as raised:
      records[1]
    assert str(raised.value) == (
      f'{path / name}: record 1 {error}: the shard or the index belongs to '
      f'another preparation; isft-prepare --verify={tmp_path / "a"} lists all '
      'damages'
    )


def test_the_digest_is_of_the_tokens_and_of_the_index_of_one_split(
  examples, tmp_path
):
  def digest(name, train, metadata=METADATA, heldout=()):
    folder = str(tmp_path / name)
    return write(folder, lambda: train, metadata, lambda: heldout).digest()

  five = examples[:5]
  expected = digest('five', five)
  assert digest('held out', five, heldout=examples[5:9]) == expected
  assert digest('other metadata', five, {}) == expected
  # Other tokens, and the same index: their authors are the same.
  first = like(five[0], tokens_T=five[0].tokens_T[::-1])
  assert digest('other tokens', [first, *five[1:]]) != expected

  path, index = index_path(tmp_path / 'five'), Records(f'{tmp_path}/five').index
  index_lib.save(epath.Path(path), index._replace(last_NPV=index.last_NPV + 1))
  assert Records(f'{tmp_path}/five').digest() != expected


@pytest.mark.parametrize('lengths', [(3, 5), (5, 3), (3, 3)])
def test_swapped_shards_are_named(lengths, tmp_path, monkeypatch):
  monkeypatch.setattr(records_lib, 'SHARD_RECORDS', 2)

  def examples():
    for length, number in zip(lengths, (2, 1), strict=True):
      for _ in range(number):
        authors_T = np.full(length, 2 + number, np.uint8)
        zeros_T = np.zeros(length, np.int32)
        yield Example(
          'x', zeros_T, authors_T, zeros_T, zeros_T.astype(np.uint8)
        )

  records_lib.write(str(tmp_path), examples, {})
  path = records_lib.find_version(tmp_path)
  first, second = (path / shards.name('train', i) for i in range(2))
  first.rename(path / 'x')
  second.rename(first)
  (path / 'x').rename(second)
  records = records_lib.Records(str(tmp_path))
  for number, place in enumerate([(first, 0), (first, 1), (second, 0)]):
    with pytest.raises(ValueError) as raised:
      records[number]
    assert str(raised.value).startswith(f'{place[0]}: record {place[1]} ')


def test_an_index_of_other_records_is_refused(examples, tmp_path):
  """Its counts would plan rows of targets that are not there."""
  write(str(tmp_path / 'five'), lambda: examples[:5], {})
  write(str(tmp_path / 'six'), lambda: examples[:6], {})
  path = index_path(tmp_path / 'five')
  path.write_bytes(index_path(tmp_path / 'six').read_bytes())
  with pytest.raises(ValueError, match=str(path)):
    Records(str(tmp_path / 'five'))


# ------------------------------------------------------------ what it runs on


SCRIPT = """
import sys
import numpy as np
from isft_jax.data.batching import packing
from isft_jax.data.records import dataset
from isft_jax.data.rendering import renderer, tokenizer
from isft_jax.types import Example

array = np.arange(3, dtype=np.int32)
codes = np.full(3, 3, np.uint8)
example = Example('x', array, codes, array, codes)
made = dataset.write(sys.argv[1], lambda: [example], {})
assert made[0].tokens_T.tolist() == [0, 1, 2]
found = {name.partition('.')[0] for name in sys.modules}
print('found:', sorted(found & {'tensorflow', 'jax', 'jaxlib', 'flax'}))
"""


def test_records_are_written_and_read_without_tensorflow_and_jax(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT, str(tmp_path)],
    capture_output=True,
    text=True,
    env=dict(os.environ),
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'found: []'


def test_more_records_than_a_shard_holds_keep_their_order(
  examples, tmp_path, monkeypatch
):
  monkeypatch.setattr(records_lib, 'SHARD_RECORDS', 7)
  found = write(str(tmp_path), lambda: examples[:20], {})
  names = sorted(p.name for p in index_path(tmp_path).parent.glob('*record*'))
  assert names == [
    f'trajectories-train.array_record-0000{shard}' for shard in range(3)
  ]
  assert [found[i].id for i in range(20)] == [e.id for e in examples[:20]]


# ------------------------------------------------- numbers that are not there


@pytest.mark.parametrize('number', [-1, 63, 1000])
def test_a_record_that_does_not_exist_is_named(number, folder):
  """Not the last one for -1: records are numbers, not places in a list."""
  with pytest.raises(IndexError) as error:
    Records(str(folder))[number]
  assert str(error.value) == f'{folder}: record {number} of 63'


def test_a_numpy_integer_is_a_number_of_a_record(folder, examples):
  assert Records(str(folder))[np.int64(62)].id == examples[62].id


@pytest.mark.parametrize('batch', [1, 7, 63, 64])
def test_records_are_indexed_in_order_however_many_are_read_at_once(
  batch, examples, tmp_path, monkeypatch
):
  """The index of a shard is made of its own file, a few records at a time."""
  monkeypatch.setattr(shards, '_BATCH', batch)
  index = write(str(tmp_path), lambda: examples, {}).index
  for name, array in brute_force_index(examples)._asdict().items():
    np.testing.assert_array_equal(getattr(index, name), array)
  (path,) = index_path(tmp_path).parent.glob('*array_record*')
  codec = shards.Codec()
  read = [codec.read(record)['id'] for record in shards.read(epath.Path(path))]
  assert read == [example.id.encode() for example in examples]


def test_a_split_knows_how_many_bytes_its_records_have(examples, tmp_path):
  codec = shards.Codec()
  write(str(tmp_path), lambda: examples[:9], {}, lambda: examples[9:11])
  splits = tfds.builder_from_directory(index_path(tmp_path).parent).info.splits
  for split, own in (('train', examples[:9]), ('heldout', examples[9:11])):
    assert splits[split].num_examples == len(own)
    assert splits[split].num_bytes == sum(len(codec.write(e)) for e in own)


# ------------------------------------------------------- data, and no program


class Bomb:
  """An object that makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_an_index_with_a_program_in_it_is_refused_and_not_run(
  examples, tmp_path
):
  """A data set may come from anybody: numpy's files can hold pickles."""
  write(str(tmp_path), lambda: examples[:5], {})
  path, mark = index_path(tmp_path), tmp_path / 'it ran'
  bombs = np.array([Bomb(mark)] * 5, object)
  np.savez(path, **dict.fromkeys(Index._fields, bombs))
  with pytest.raises(ValueError, match=f'{path}: missing or damaged; prepare'):
    Records(str(tmp_path))
  assert not mark.exists()
