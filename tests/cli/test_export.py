"""isft-export: models and labels, its flags, and errors as one line."""

import json

import numpy as np
import pytest
import transformers
from pyarrow import parquet

from isft_jax.data.records import dataset
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.train import loop
from isft_jax.types import Example, Provenance
from tests.commands import command, error_line
from tests.train import test_lora as lora_runs


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
    (['--adapter'], 'name --checkpoint=WORKDIR and --output=FOLDER'),
    (['--adapter', '--records=x'], 'run the command once for each'),
    (['--base=b', '--labels=x'], 'run the command once for each'),
    (
      ['--checkpoint=w', '--output=x', '--adapter', '--dtype=bfloat16'],
      '--adapter writes float32 adapters without their base',
    ),
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
    *('split', 'step', 'tokenizer', '[no]adapter', 'base'),
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


def test_a_run_of_adapters_leaves_in_two_forms(data_folder, tmp_path):
  """Merged, and as an adapter; both reply and probe as the run itself does."""
  base, run, adapter = (tmp_path / name for name in ('base', 'run', 'adapter'))
  lora_runs.save_base(base, 0, data_folder)
  loop.train(lora_runs.run_config(data_folder, base), str(run))

  def output(name, *flags):
    done = command(name, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout

  export = f'--checkpoint={run}', f'--output={adapter}', '--adapter'
  assert output('export', *export) == f'the adapter is in {adapter}\n'
  merged = f'--checkpoint={run}', f'--output={tmp_path / "merged"}'
  output('export', *merged)
  # Both have the tokenizer of the run for AutoTokenizer too.
  text = 'In 1889, 1234567 of 3.14.\n'
  expected = tokenizer_lib.load(str(data_folder / 'tokenizer'))(text)
  for folder in (adapter, tmp_path / 'merged'):
    found = transformers.AutoTokenizer.from_pretrained(folder)
    assert found(text)['input_ids'] == expected['input_ids']
  models = {
    'run': [f'--checkpoint={run}'],
    'merged': [f'--model={tmp_path / "merged"}', f'--tokenizer={adapter}'],
    'adapter': [
      *(f'--model={base}', f'--adapter={adapter}'),
      f'--tokenizer={adapter}',
    ],
    'moved': [f'--checkpoint={run}', f'--base={tmp_path / "elsewhere"}'],
  }
  replies, probes = {}, {}
  prompt = ('--prompt=Tell me about gold.', '--max_new_tokens=6', '--raw')
  for name, flags in models.items():
    if name == 'moved':
      base.rename(tmp_path / 'elsewhere')
    replies[name] = output('generate', *flags, *prompt)
    path = tmp_path / f'{name}.json'
    output('probe', *flags, '--plain', f'--output={path}', '--reply_tokens=2')
    probes[name] = json.loads(path.read_text())['mean_margin']
  assert len(set(replies.values())) == 1
  # A run is loaded onto all devices, which sum in another order.
  assert max(probes.values()) - min(probes.values()) < 1e-6
  # An adapter by itself is no model.
  message = error_line('generate', f'--model={adapter}', '--prompt=x')
  assert message.endswith(f'both, as --model=BASE --adapter={adapter}\n')
