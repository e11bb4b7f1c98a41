"""Damaged files of a data set: one line that names the file, or no change."""

import functools
import json
import random

import numpy as np
import pytest

from isft_jax.data.preparation import verify
from isft_jax.data.records import dataset, shards
from tests.dialogues import dialogues, write_records

MUTATIONS = 40  # of each file
VALUES = (
  None,
  0,
  -1,
  1e308,
  'x',
  '../x',
  [],
  {},
  True,
  10**30,
  ['1'],
  {'a': 1},
)
TEXTS = (
  *(b'', b'{}', b'[]', b'null', b'7', b'"x"', b'\xff\xfe\x00', bytes(500)),
  *(b'[' * 100_000, b'{"a":' * 5000),
  b'version https://git-lfs.github.com/spec/v1\n',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('records')
  write_records(path, dialogues()[:6])
  return path


# ------------------------------------------------------------ one change each


def cut(content, rng):
  return content[: rng.randrange(len(content))]


def flip_bits(content, rng):
  changed = bytearray(content)
  for _ in range(rng.choice([1, 1, 3, 30])):
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
  return bytes(changed)


def zero(content, rng):
  start = rng.randrange(len(content))
  stop = min(len(content), start + rng.randrange(1, 4000))
  return content[:start] + bytes(stop - start) + content[stop:]


def drop(content, rng):
  start = rng.randrange(len(content))
  return content[:start] + content[start + rng.randrange(1, 60) :]


def insert(content, rng):
  at = rng.randrange(len(content) + 1)
  return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:]


def replace(content, rng):
  return rng.choice(TEXTS)


def change_value(content, rng):
  """Other JSON of the same outline; of other files, the bytes in reverse."""
  try:
    tree = json.loads(content)
  except ValueError:
    return content[::-1]
  parents = []
  todo = [tree]
  while todo:
    node = todo.pop()
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children:
      parents.append((node, key))
      todo += [child] if isinstance(child, dict | list) else []
  parent, key = rng.choice(parents)
  if rng.random() < 0.3:
    del parent[key]
  else:
    parent[key] = rng.choice(VALUES)
  return json.dumps(tree).encode()


CHANGES = cut, flip_bits, zero, drop, insert, replace, change_value


def mutations(content, name):
  rng = random.Random(name)
  for number in range(MUTATIONS):
    change = CHANGES[number % len(CHANGES)]
    changed = change(content, rng)
    if changed != content:
      yield change.__name__, changed


# ----------------------------------------------------------------- the promise


def values(records):
  return [
    (each.id, each.tokens_T.tolist(), each.provenance_T.tolist())
    for each in records
  ]


def outcome(function, folder):
  """Returns the result, or None after an error, which must be one line."""
  try:
    return function()
  except ValueError as error:
    assert '\n' not in str(error)
    assert str(folder) in str(error)
    return None


NAMES = [
  shards.CHECKSUMS,
  shards.FEATURES,
  'dataset_info.json',
  'metadata.json',
  'index-train.npz',
  'trajectories-train.array_record-00000',
]


@pytest.mark.parametrize('name', NAMES)
def test_a_damaged_file_is_named_or_changes_nothing(name, folder):
  path = dataset.find_version(folder)
  assert {file.name for file in path.iterdir()} == {*NAMES}
  content, expected = (
    (path / name).read_bytes(),
    values(dataset.Records(str(folder))),
  )
  refused = 0
  try:
    for change, changed in mutations(content, name):
      (path / name).write_bytes(changed)
      records = outcome(lambda: dataset.Records(str(folder)), folder)
      read = None
      if records:
        assert len(records.digest()) == 64
        read = outcome(functools.partial(values, records), folder)
        assert read in (None, expected), change
      refused += read is None
      # A data set that extends this one must not take over the damage.
      outcome(lambda: dataset._verified_checksums(path), folder)
      # `--verify` finds every change of the bytes.
      lines = [*verify.damages(str(folder))]
      assert any(str(path) in line for line in lines), change
      assert not any('\n' in line for line in lines)
  finally:
    (path / name).write_bytes(content)
  # Without its checksums a data set can be read.
  assert refused > MUTATIONS // 2 or name == shards.CHECKSUMS
  assert values(dataset.Records(str(folder))) == expected


@pytest.mark.parametrize(
  ('name', 'dtype', 'shape'),
  [
    ('length_N', np.int64, (6,)),
    ('length_N', np.float32, (6,)),
    ('counts_NPV', np.int32, (6, 2, 2)),
    ('last_NPV', np.int32, (6,)),
    ('trajectory_N', np.int32, (6, 1)),
  ],
)
def test_an_index_of_another_type_is_refused(name, dtype, shape, folder):
  (path,) = folder.glob('trajectories/*/index-train.npz')
  content = path.read_bytes()
  with np.load(path) as arrays:
    changed = dict(arrays)
  changed[name] = np.zeros(shape, dtype)
  np.savez(path, **changed)
  try:
    with pytest.raises(ValueError, match='missing or damaged'):
      dataset.Records(str(folder))
  finally:
    path.write_bytes(content)
