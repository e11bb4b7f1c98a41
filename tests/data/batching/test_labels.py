"""Labels: what they say of each token, and that their loss is ours."""

import json

import jax
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import isft_jax
from isft_jax import objectives
from isft_jax.config import ModelConfig, RunConfig
from isft_jax.data.batching import labels, pipeline
from isft_jax.data.batching.scored_rows import target_weights
from isft_jax.data.preparation import windows
from isft_jax.data.records import dataset
from isft_jax.hf import pretrained
from isft_jax.losses import normalize, weighted_sum
from isft_jax.models import decoder
from isft_jax.models.likelihood import target_nll
from isft_jax.objectives import NAMES, weight_table
from isft_jax.types import Example, Provenance, Verdict
from tests.fixtures import reason_to_skip

METADATA = {'fingerprint': 'f1', 'rendering': {}}
# Position: author and verdict of each token of a record.
AUTHORS = 'cctuutaaaattddttoohhpta'
LETTERS = {
  'p': Provenance.PAD,
  't': Provenance.TEMPLATE,
  'c': Provenance.CONTEXT,
  'u': Provenance.USER,
  'o': Provenance.TOOL,
  'a': Provenance.AGENT,
  'd': Provenance.DEMONSTRATION,
  'h': Provenance.HARNESS,
}


def example(authors, id='x', verdicts='', scored_from=0, window=0):
  """Token t is 10 + t; verdicts: 'r' right, 'w' wrong, else unknown."""
  codes = {'r': Verdict.RIGHT, 'w': Verdict.WRONG}
  T = len(authors)
  return Example(
    id=id,
    tokens_T=np.arange(10, 10 + T, dtype=np.int32),
    provenance_T=np.array([LETTERS[a] for a in authors], np.uint8),
    segment_T=np.zeros(T, np.int32),
    verdict_T=np.array(
      [codes.get(v, Verdict.UNKNOWN) for v in verdicts.ljust(T)], np.uint8
    ),
    scored_from=scored_from,
    window=window,
  )


def drawn(one, objective):
  """A letter for each label: `#` the token itself, `.` ignored."""
  weights_T = target_weights(
    one, weight_table(objective), objectives.turn_tokens(objective)
  )
  found_T = labels.labels_from_weights(one.tokens_T, weights_T)
  assert found_T.dtype == np.int32
  kinds = np.where(found_T == one.tokens_T, '#', '?')
  return ''.join(np.where(found_T == labels.IGNORED, '.', kinds))


@pytest.mark.parametrize(
  ('objective', 'authors', 'verdicts', 'scored_from', 'expected'),
  [
    # A demonstration is the world's; context and padding are never scored.
    ('interventional', 'cctuutaadtp', '', 0, '..####..##.'),
    ('observational', 'cctuutaadtp', '', 0, '..########.'),
    ('agent_only', 'cctuutaadtp', '', 0, '......##...'),
    # The first token of each turn of the agent, or the first and the last.
    ('weighted_first(1)', 'cctuutaaaatuaatua', '', 0, '..#####...###.###'),
    ('weighted_first(1)', 'aaaaua', '', 0, '....##'),
    ('weighted_first(1)', 'uaaaaa', '', 3, '......'),
    ('weighted_ends(1)', 'cctuutaaaatuaatua', '', 0, '..#####..########'),
    ('weighted_ends(1)', 'aaaaua', '', 0, '...###'),
    ('weighted_ends(1)', 'uaaaaa', '', 3, '.....#'),
    # The first token has no context: nothing predicts it.
    ('interventional', 'uua', '', 0, '.#.'),
    ('agent_only', 'aua', '', 0, '..#'),
    # Tokens before scored_from are another window's labels.
    ('observational', 'uuaauu', '', 3, '...###'),
    ('observational', 'uuaauu', '', 6, '......'),
    # A verdict decides what is scored of the agent.
    ('error_masked', 'tuaaaa', '  rrww', 0, '.###..'),
    ('truth_only', 'tuaaaa', '  rrww', 0, '..##..'),
    # Weights above 0 are labels, whatever they are.
    ('USER=1,TOOL=0.5', 'tuaoot', '', 0, '.#.##.'),
  ],
)
def test_what_is_a_label(objective, authors, verdicts, scored_from, expected):
  one = example(authors, verdicts=verdicts, scored_from=scored_from)
  assert drawn(one, objective) == expected


@pytest.mark.parametrize(
  ('objective', 'expected'),
  [
    *((name, False) for name in NAMES),
    ('weighted(1)', False),
    ('weighted(0.3)', True),
    ('USER=2', True),
    ('USER=1,TOOL=1', False),
  ],
)
def test_which_objectives_need_weights(objective, expected):
  assert labels.is_weighted(weight_table(objective)) == expected


# -------------------------------------------------------------------- the file


def trajectories(rng):
  """Records of many lengths: some in windows, one without a target."""
  made = [example('ccc', id='empty')]
  for number in range(12):
    T = int(rng.integers(4, 60))
    authors = ''.join(rng.choice(list('tuaodh'), T))
    verdicts = ''.join(rng.choice(list('rw '), T))
    made += windows.split(
      example(authors, id=f'run-{number}', verdicts=verdicts), 24, 6
    )
  return made


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  made = trajectories(np.random.default_rng(0))
  assert sum(one.window > 0 for one in made) > 5
  folder = tmp_path_factory.mktemp('records')
  return dataset.write(str(folder), lambda: iter(made), METADATA)


def test_the_columns_and_what_is_told_of_them(records, tmp_path):
  path = tmp_path / 'labels.parquet'
  counts = labels.write(records, path, 'interventional')
  table = parquet.read_table(path)
  ints = pa.list_(pa.int32())
  assert [
    (field.name, field.type, field.nullable) for field in table.schema
  ] == [
    ('id', pa.string(), False),
    ('window', pa.int32(), False),
    ('input_ids', ints, False),
    ('labels', ints, False),
  ]
  assert json.loads(table.schema.metadata[b'isft_jax']) == {
    'version': isft_jax.__version__,
    'objective': 'interventional',
    'split': 'train',
    'records': len(records),
    'fingerprint': 'f1',
  }
  rows = table.to_pylist()
  assert len(rows) == len(records) == counts.records
  for row, one in zip(rows, records, strict=True):
    assert (row['id'], row['window']) == (one.id, one.window)
    assert row['input_ids'] == one.tokens_T.tolist()
  assert counts.tokens == sum(len(row['input_ids']) for row in rows)
  numbers = [sum(label != -100 for label in row['labels']) for row in rows]
  assert (counts.targets, counts.empty) == (sum(numbers), numbers.count(0))
  assert counts.empty >= 1 and not counts.weighted


def test_every_token_is_a_label_of_one_window(records, tmp_path):
  """All of the world's tokens but the first of a trajectory, each once."""
  path = tmp_path / 'labels.parquet'
  labels.write(records, path, 'observational')
  found = {}
  for row in parquet.read_table(path).to_pylist():
    scored = [label for label in row['labels'] if label != -100]
    found.setdefault(row['id'], []).extend(scored)
  del found['empty']
  assert len(found) == 12
  for tokens in found.values():
    assert tokens == [*range(11, 11 + len(tokens))]


def test_weights_are_a_column_only_if_they_are_needed(records, tmp_path):
  path = tmp_path / 'labels.parquet'
  counts = labels.write(records, path, 'weighted(0.25)')
  assert counts.weighted
  table = parquet.read_table(path)
  assert table.schema.field('weights').type == pa.list_(pa.float32())
  table_PV = weight_table('weighted(0.25)')
  for row, one in zip(table.to_pylist(), records, strict=True):
    assert row['weights'] == target_weights(one, table_PV).tolist()
    are_labels = np.array(row['labels']) != -100
    np.testing.assert_array_equal(are_labels, np.array(row['weights']) != 0)


def test_row_groups_bound_what_is_held(records, tmp_path):
  one, many = tmp_path / 'one.parquet', tmp_path / 'many.parquet'
  labels.write(records, one, 'interventional')
  labels.write(records, many, 'interventional', group_tokens=50)
  assert parquet.read_table(one) == parquet.read_table(many)
  assert parquet.read_metadata(one).num_row_groups == 1
  groups = parquet.ParquetFile(many)
  assert groups.num_row_groups > 3
  for number in range(groups.num_row_groups):
    ids = groups.read_row_group(number).column('input_ids')
    assert sum(map(len, ids.to_pylist())) < 50 + 24  # the longest record


@pytest.mark.parametrize(
  ('group_tokens', 'rows'), [(10, [2, 2, 2, 1]), (11, [3, 3, 1])]
)
def test_the_record_that_reaches_the_limit_ends_a_row_group(
  group_tokens, rows, tmp_path
):
  """Seven records of five tokens."""
  made = [example('tuatu')] * 7
  records = dataset.write(str(tmp_path / 'r'), lambda: made, METADATA)
  path = tmp_path / 'labels.parquet'
  labels.write(records, path, 'interventional', group_tokens)
  file = parquet.ParquetFile(path)
  groups = map(file.read_row_group, range(file.num_row_groups))
  assert [group.num_rows for group in groups] == rows


def test_the_file_is_written_at_once_or_not_at_all(
  records, tmp_path, monkeypatch
):
  path = tmp_path / 'labels.parquet'
  labels.write(records, path, 'interventional')
  before = path.read_bytes()

  def fail(self, table):
    raise OSError('disk full')

  with monkeypatch.context() as patch:
    patch.setattr(parquet.ParquetWriter, 'write_table', fail)
    with pytest.raises(OSError, match='disk full'):
      labels.write(records, path, 'agent_only')
  assert path.read_bytes() == before
  labels.write(records, path, 'agent_only')  # ours may be replaced
  assert path.read_bytes() != before
  assert [found.name for found in tmp_path.iterdir()] == ['labels.parquet']


@pytest.mark.parametrize('kind', ['text', 'parquet'])
def test_another_file_is_not_replaced(records, tmp_path, kind):
  path = tmp_path / 'other.parquet'
  path.write_text('mine')
  if kind == 'parquet':
    parquet.write_table(pa.table({'x': [1]}), path)
  before = path.read_bytes()
  with pytest.raises(ValueError, match='exists and is not a file of labels'):
    labels.write(records, path, 'interventional')
  assert path.read_bytes() == before


def test_no_file_without_a_label(tmp_path):
  made = [example('ccpp'), example('uc')]
  records = dataset.write(str(tmp_path / 'r'), lambda: iter(made), METADATA)
  with pytest.raises(ValueError, match='there is no label to write'):
    labels.write(records, tmp_path / 'labels.parquet', 'interventional')
  assert not (tmp_path / 'labels.parquet').exists()


# -------------------------------------------------------------------- the loss

MODEL = ModelConfig(
  vocab_size=128,
  width=16,
  layers=2,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
)


@pytest.fixture(scope='module')
def model():
  rng, (graphdef, shapes) = np.random.default_rng(1), decoder.abstract(MODEL)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  return pretrained.Model(graphdef, params)


def our_loss(model, records, objective):
  """The masked loss of an epoch of packed rows, as training sums it up."""
  config = RunConfig(
    records=records.folder,
    objective=objective,
    batch_size=3,
    seq_len=64,
    epochs=1,
  )
  source = pipeline.BatchSource(records, config)
  nll = jax.jit(target_nll, static_argnums=0)
  total = count = 0.0
  for step in range(len(source)):
    batch = source[step]
    found = nll(*model, batch)
    both = weighted_sum(found, batch.weights_BK)
    total, count = total + both[0], count + both[1]
  return float(normalize(total, count))


def padded(rows, name, value, dtype):
  length = max(len(row['input_ids']) for row in rows)
  return np.array(
    [row[name] + [value] * (length - len(row[name])) for row in rows], dtype
  )


def numpy_loss(logits_BLV, labels_BL, weights_BL):
  """Cross entropy of shifted labels, -100 ignored, in float64."""
  logits_BLV = logits_BLV[:, :-1].astype(np.float64)
  labels_BL, weights_BL = labels_BL[:, 1:], weights_BL[:, 1:]
  is_label_BL = labels_BL != -100
  top_BL1 = logits_BLV.max(axis=-1, keepdims=True)
  log_z_BL = np.log(np.exp(logits_BLV - top_BL1).sum(-1)) + top_BL1[..., 0]
  index_BL1 = np.where(is_label_BL, labels_BL, 0)[..., None]
  nll_BL = log_z_BL - np.take_along_axis(logits_BLV, index_BL1, -1)[..., 0]
  weights_BL = np.where(is_label_BL, weights_BL, 0)
  return np.sum(nll_BL * weights_BL) / np.sum(weights_BL)


def torch_loss(logits_BLV, labels_BL):
  """What the causal models of transformers compute, on padded rows."""
  import torch
  from transformers.loss.loss_utils import ForCausalLMLoss

  return float(
    ForCausalLMLoss(
      torch.tensor(logits_BLV),
      torch.tensor(labels_BL),
      vocab_size=logits_BLV.shape[-1],
    )
  )


@pytest.mark.parametrize(
  'objective', [*NAMES, 'weighted(0.3)', 'USER=1,TOOL=0.5']
)
def test_their_loss_on_the_labels_is_ours(records, model, tmp_path, objective):
  """Windows, demonstrations, verdicts and padding: all is as in training."""
  path = tmp_path / 'labels.parquet'
  counts = labels.write(records, path, objective)
  rows = parquet.read_table(path).to_pylist()
  tokens_BL = padded(rows, 'input_ids', 0, np.int32)
  labels_BL = padded(rows, 'labels', -100, np.int64)
  weights_BL = np.ones_like(tokens_BL, np.float32)
  if counts.weighted:
    weights_BL = padded(rows, 'weights', 0, np.float32)
  logits_BLV = np.asarray(model(tokens_BL))
  ours = our_loss(model, records, objective)
  # Sums of some hundred terms in float32, in another order.
  theirs = numpy_loss(logits_BLV, labels_BL, weights_BL)
  assert theirs == pytest.approx(ours, rel=1e-6)
  if not counts.weighted and not reason_to_skip('torch'):
    assert torch_loss(logits_BLV, labels_BL) == pytest.approx(ours, rel=1e-6)
  if counts.weighted:  # the labels alone are another objective
    other = numpy_loss(logits_BLV, labels_BL, np.ones_like(weights_BL))
    assert abs(other - ours) > 1e-3
