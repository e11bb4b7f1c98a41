"""Tables to rows: cells as JSON has them, or a row with its error."""

import datetime
import decimal
import json

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from isft_jax.data.files import rows, strict_json, tables
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed

RUNS = [
  {
    'id': f'run {i}',
    'messages': [
      {'role': 'user', 'content': 'What?', 'tool_calls': None},
      {
        'role': 'assistant',
        'content': None,
        'tool_calls': [
          {'id': 'a', 'function': {'name': 'f', 'arguments': '{"x": 1}'}}
        ],
      },
      {'role': 'tool', 'content': f'{i}', 'tool_call_id': 'a'},
    ],
  }
  for i in range(150)
]


def filled(message):
  """A message as a table holds it: what it lacks is null."""
  return {
    key: message.get(key)
    for key in ('role', 'content', 'tool_calls', 'tool_call_id')
  }


TABLE = [{**run, 'messages': [*map(filled, run['messages'])]} for run in RUNS]
BARE = [  # and without what is null
  {
    **run,
    'messages': [
      {k: v for k, v in message.items() if v is not None}
      for message in run['messages']
    ],
  }
  for run in RUNS
]


def read(pattern):
  return [row for file in rows.files(pattern) for row in rows.read(file)]


def as_parquet(folder):
  table = pyarrow.Table.from_pylist(TABLE)
  pyarrow.parquet.write_table(table, folder / 'a.parquet', row_group_size=70)


def as_arrow_file(folder):
  table = pyarrow.Table.from_pylist(TABLE)
  with pyarrow.ipc.new_file(folder / 'a.arrow', table.schema) as writer:
    writer.write_table(table, max_chunksize=99)


def as_the_datasets_library_does(folder):
  datasets.Dataset.from_list(TABLE).save_to_disk(folder)


@pytest.mark.parametrize(
  'save', [as_parquet, as_arrow_file, as_the_datasets_library_does]
)
def test_a_table_holds_the_rows_that_were_put_in(save, tmp_path):
  save(tmp_path)
  found = read(tmp_path)
  assert [row.value for row in found] == BARE
  assert [row.number for row in found] == [*range(1, 151)]
  assert {row.error for row in found} == {''}
  rules = Rules.default()
  assert [registry.read(row.value, 'x', 'auto', rules) for row in found] == [
    registry.read(run, 'x', 'openai', rules) for run in RUNS
  ]


def test_what_the_datasets_library_has_computed_is_not_read(tmp_path):
  as_the_datasets_library_does(tmp_path)
  loaded = datasets.load_from_disk(tmp_path)
  loaded.map(lambda row: {'id': row['id'] + ' again'})
  loaded.shuffle(seed=0)
  assert len([*tmp_path.glob('cache-*.arrow')]) == 2
  assert [row.value for row in read(tmp_path)] == BARE


def test_cells_that_json_does_not_know(tmp_path):
  row = {
    'day': datetime.datetime(2026, 1, 2, 3),
    'price': decimal.Decimal('1.50'),
    'score': float('nan'),
    'rate': 0.5,
    'ok': True,
  }
  table = pyarrow.Table.from_pylist([row])
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  assert [row.value for row in read(tmp_path)] == [
    {
      'day': '2026-01-02T03:00:00',
      'price': '1.50',
      'rate': 0.5,
      'ok': True,
    }
  ]


BYTES = strict_json.NoJson('a cell of type bytes')


def test_cells_of_bytes_are_kept_as_such(tmp_path):
  picture = [{'bytes': b'\x89PNG', 'path': 'a.png'}]
  table = pyarrow.Table.from_pylist([{'a': b'\xff', 'b': picture}, {'a': None}])
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  assert [row.value for row in read(tmp_path)] == [
    {'a': BYTES, 'b': [{'bytes': BYTES, 'path': 'a.png'}]},
    {},
  ]


@pytest.mark.parametrize(
  ('row', 'error'),
  [
    ({'screenshot': b'a'}, None),
    (
      {'messages': [{'role': 'user', 'content': b'a'}]},
      'turn 0: content is a cell of type bytes, expected text',
    ),
    (
      {'messages': [{'role': 'user', 'content': 'a', 'blob': b'a'}]},
      'turn 0: holds a cell of type bytes',
    ),
    ({'tools': [{'name': 'f', 'icon': b'a'}]}, 'a tool holds a cell of type b'),
  ],
)
def test_bytes_spoil_a_row_only_in_a_message_or_tool(row, error, tmp_path):
  row = {'messages': [{'role': 'user', 'content': 'a'}], **row}
  table = pyarrow.Table.from_pylist([row])
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  (found,) = read(tmp_path)
  try:
    registry.read(found.value, 'x', 'auto', Rules.default())
    assert error is None
  except Malformed as malformed:
    assert error and str(malformed).startswith(error)


@pytest.mark.parametrize('name', ['a.parquet', 'a.arrow'])
def test_a_broken_table_is_a_row_with_its_error(name, tmp_path):
  as_parquet(tmp_path) if name == 'a.parquet' else as_arrow_file(tmp_path)
  path = tmp_path / name
  path.write_bytes(path.read_bytes()[:-100])
  *_, last = read(tmp_path)
  assert last.value is None
  assert last.error.endswith('; the rest of the file is not read')
  path.write_bytes(b'')
  (only,) = read(tmp_path)
  assert (only.number, only.value) == (1, None)


@pytest.mark.parametrize(
  'create', [pyarrow.ipc.new_file, pyarrow.ipc.new_stream]
)
@pytest.mark.parametrize('value', [2**30, -(2**30), 2**31 - 1, 3])
@pytest.mark.parametrize('at', [0, 1, 2, 3])
def test_a_damaged_offset_of_a_text_is_an_error(create, value, at, tmp_path):
  """Such an offset is an address, which ends the process if it is followed."""
  offsets = np.array([0, 5, 12, 21], '<i4')
  table = pyarrow.table({'text': ['a' * 5, 'b' * 7, 'c' * 9]})
  path = tmp_path / 'a.arrow'
  with create(path, table.schema) as writer:
    writer.write_table(table)
  content = path.read_bytes()
  assert content.count(offsets.tobytes()) == 1
  damaged = offsets.copy()
  damaged[at] = value
  path.write_bytes(content.replace(offsets.tobytes(), damaged.tobytes()))
  *_, last = read(tmp_path)
  # 3 is a valid start of the first text.
  if (at, value) == (0, 3) or (at, value) == (1, 3):
    assert last.error == ''
  else:
    assert last.value is None
    assert last.error.endswith('; the rest of the file is not read')


@pytest.mark.parametrize(
  ('size', 'factor', 'is_read'),
  [(1 << 20, 200, False), (1 << 23, 200, True), (1 << 20, 10**6, True)],
)
def test_a_column_that_would_fill_the_memory_is_not_read(
  size, factor, is_read, tmp_path, monkeypatch
):
  monkeypatch.setattr(tables, '_LARGEST_COLUMN', size)
  monkeypatch.setattr(tables, '_MOST_PACKED', factor)
  table = pyarrow.table({'id': ['a'], 'text': ['x' * (1 << 22)]})
  path = tmp_path / 'a.parquet'
  pyarrow.parquet.write_table(table, path, compression='zstd')
  assert path.stat().st_size < 10_000
  (only,) = read(tmp_path)
  if is_read:
    assert only.value == {'id': 'a', 'text': 'x' * (1 << 22)}
    return
  assert only.value is None
  assert only.error.startswith('column text has ')
  assert only.error.endswith(
    'when they are decompressed; the rest of the file is not read'
  )


def call(**arguments):
  function = {'name': 'f', 'arguments': arguments}
  return {'role': 'assistant', 'tool_calls': [{'function': function}]}


@pytest.mark.parametrize(
  'calls',
  [
    [{'x': 1}, {'y': [2]}, {}],  # Arrow gives each both, and nulls
    [{'x': 'a'}, {'x': {'y': None}}, {}],  # of two types: JSON, with its nulls
  ],
)
@pytest.mark.parametrize('way', ['parquet', 'disk', 'hub'])
def test_calls_have_the_arguments_that_were_written(
  way, calls, tmp_path, monkeypatch
):
  (tmp_path / 'runs.jsonl').write_text(
    '\n'.join(json.dumps({'messages': [call(**c)]}) for c in calls)
  )
  load, about = datasets.load_dataset, {'data_files': f'{tmp_path}/runs.jsonl'}
  made = load('json', **about, split='train', cache_dir=tmp_path / 'cache')
  place = str(tmp_path / way)
  if way == 'disk':
    made.save_to_disk(place)
  else:
    made.to_parquet(tmp_path / 'parquet' / 'a.parquet')
  if way == 'hub':
    place, about = 'hf://org/name', {'data_dir': f'{tmp_path}/parquet'}
    monkeypatch.setattr(
      datasets,
      'load_dataset',
      lambda *_, **asked: load('parquet', **about, **asked),
    )
  rules = Rules.default()
  found = [registry.read(row.value, 'x', 'auto', rules) for row in read(place)]
  assert [
    segment.fields['tool_calls'][0]['function']['arguments']
    for trajectory in found
    for segment in trajectory.segments
  ] == calls


def test_json_that_is_none_is_an_error_of_its_row(tmp_path):
  texts = ['{"a": }', '[1]', '{"a": NaN}']
  cells = pyarrow.array(texts, pyarrow.json_())
  table = pyarrow.table({'row': cells})
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  assert [row[2:] for row in read(tmp_path)] == [
    (None, 'Expecting value at character 7'),
    ({'row': [1]}, ''),
    ({'row': {'a': strict_json.NoJson('NaN')}}, ''),
  ]


def test_data_sets_of_the_hub_are_streamed(monkeypatch):
  asked = []

  def load(place, config, split, streaming):
    asked.append((place, config, split, streaming))
    return datasets.IterableDataset.from_generator(lambda: iter(TABLE[:3]))

  monkeypatch.setattr(datasets, 'load_dataset', load)
  assert [row.value for row in read('hf://org/name')] == BARE[:3]
  (place,) = rows.files('hf://org/name/config', 'test')
  assert place == 'hf://org/name/config:test'
  assert [row.number for row in rows.read(place)] == [1, 2, 3]
  assert asked == [
    ('org/name', None, 'train', True),
    ('org/name', 'config', 'test', True),
  ]
  assert rows.size(place) is None


def test_a_stream_that_breaks_off_is_no_end(monkeypatch):
  def two():
    yield from TABLE[:2]
    raise ConnectionError('the hub\nhung up')

  monkeypatch.setattr(
    datasets,
    'load_dataset',
    lambda *_, **__: datasets.IterableDataset.from_generator(two),
  )
  with pytest.raises(ValueError) as raised:
    read('hf://org/name')
  assert str(raised.value) == (
    'hf://org/name, --split=train, after row 2: the hub hung up'
  )


def test_what_the_hub_refuses_is_one_line(monkeypatch):
  def load(*args, **kwargs):
    raise FileNotFoundError("Dataset 'org/name' doesn't exist\non the Hub")

  monkeypatch.setattr(datasets, 'load_dataset', load)
  with pytest.raises(ValueError) as raised:
    read('hf://org/name')
  assert str(raised.value) == (
    "hf://org/name, --split=train: Dataset 'org/name' doesn't exist on the Hub"
  )


def test_a_split_is_of_the_hub_alone(tmp_path):
  as_parquet(tmp_path)
  with pytest.raises(ValueError, match='--split=test is only for data sets of'):
    rows.files(tmp_path, 'test')
