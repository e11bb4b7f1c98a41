"""isft-export: models and labels, its flags, and errors as one line."""

import numpy as np
import pytest
from pyarrow import parquet

from isft_jax.data.records import dataset
from isft_jax.types import Example, Provenance
from tests.commands import command, error_line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name --checkpoint=WORKDIR and --output=FOLDER for a model'),
    (['--records=x'], 'name --records=DIR and --labels=FILE.parquet'),
    (['--labels=x'], 'name --records=DIR and --labels=FILE.parquet'),
    (['--records=nowhere', '--labels=x'], 'nowhere: no records there'),
    (
      ['--checkpoint=w', '--output=x', '--labels=y'],
      'run the command once for each',
    ),
    (['--checkpoint=nowhere', '--output=x'], 'nowhere: no checkpoints there'),
    (['--dtype=int4'], 'int4'),
    (['--checkpoint=w', '--output=x', '--step=0'], 'step'),
    (['--step=3', '--labels=y'], 'run the command once for each'),
  ],
)
def test_bad_flags_are_one_clear_line(flags, message):
  assert message in error_line('export', *flags)


def test_help_shows_the_command_and_its_flags():
  shown = command('export', '--help').stdout
  assert 'isft-export --checkpoint=WORKDIR --output=FOLDER' in shown
  assert 'isft-export --records=DIR --labels=FILE.parquet' in shown
  for flag in (
    *('checkpoint', 'output', 'dtype', 'records', 'labels', 'objective'),
    *('split', 'step', 'tokenizer'),
  ):
    assert f'--{flag}:' in shown


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """A record of a user and an agent, and one that nobody is scored in."""
  P = Provenance
  authors = {
    'talk': (P.USER, P.USER, P.AGENT, P.AGENT, P.USER),
    'rules': (P.CONTEXT, P.CONTEXT),
  }
  made = [
    Example(
      id=id,
      tokens_T=np.arange(5, 5 + len(codes), dtype=np.int32),
      provenance_T=np.array(codes, np.uint8),
      segment_T=np.zeros(len(codes), np.int32),
      verdict_T=np.zeros(len(codes), np.uint8),
    )
    for id, codes in authors.items()
  ]
  folder = tmp_path_factory.mktemp('records')
  dataset.write(str(folder), lambda: iter(made), {'fingerprint': 'f'})
  return folder


def test_labels_of_records(records, tmp_path):
  path = tmp_path / 'labels.parquet'
  done = command('export', f'--records={records}', f'--labels={path}')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    '2 records with 7 tokens; 2 are labels (interventional), the others are '
    '-100',
    '1 records have no label: leave them out, because the mean loss of a batch '
    'without labels is not a number',
    f'the labels are in {path}',
  ]
  assert parquet.read_table(path).to_pylist() == [
    {
      'id': 'talk',
      'window': 0,
      'input_ids': [5, 6, 7, 8, 9],
      'labels': [-100, 6, -100, -100, 9],
    },
    {'id': 'rules', 'window': 0, 'input_ids': [5, 6], 'labels': [-100, -100]},
  ]


def test_weights_that_labels_cannot_say_are_a_column(records, tmp_path):
  path = tmp_path / 'labels.parquet'
  done = command(
    'export',
    f'--records={records}',
    f'--labels={path}',
    '--objective=weighted(0.5)',
  )
  assert done.returncode == 0, done.stderr
  assert "by its value in the column 'weights'" in done.stdout
  row = parquet.read_table(path).to_pylist()[0]
  assert row['labels'] == [-100, 6, 7, 8, 9]
  assert row['weights'] == [0, 1, 0.5, 0.5, 1]
