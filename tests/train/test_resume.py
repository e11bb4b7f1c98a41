"""A resumed run trains on the records, template and tokenizer it began with."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.train import loop, resume
from isft_jax.train import metrics as metrics_lib
from tests.dialogues import dialogues, plain_renderer, write_records

DIALOGUES = dialogues()[:24]


def make_config(folder):
  return RunConfig(
    mixture=(
      (str(folder / 'runs'), 3, 'interventional'),
      (str(folder / 'more'), 1, 'observational'),
    ),
    tokenizer=str(folder / 'runs' / 'tokenizer'),
    seq_len=256,
    targets_per_row=256,
    steps=3,
    checkpoint_every=2,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
  """A run of two components, stopped after its checkpoint of step 2."""
  folder = tmp_path_factory.mktemp('stopped')
  write_records(folder / 'runs', DIALOGUES[:16], heldout=4)
  write_records(folder / 'more', DIALOGUES[16:])
  loop.train(make_config(folder), folder / 'run')
  shutil.rmtree(folder / 'run' / 'checkpoints' / 'step_3')
  return folder


@pytest.fixture
def folder(stopped, monkeypatch):
  """That run in the same place, to change; put back afterwards."""
  kept = stopped.with_name('kept')
  shutil.copytree(stopped, kept)
  yield stopped
  shutil.rmtree(stopped)
  kept.rename(stopped)


def rewrite(folder, change, heldout=None):
  """Writes records again, with each example changed."""
  opened = dataset.Records(str(folder))
  splits = {
    split: [*map(change, dataset.Records(str(folder), split))]
    for split in opened.splits
  }
  if heldout is not None:
    splits['heldout'] = heldout
  shutil.rmtree(folder / 'trajectories')
  dataset.write(
    str(folder),
    lambda: splits['train'],
    opened.metadata,
    lambda: splits.get('heldout', ()),
  )


def with_another_token(example):
  """Other words of the same length, by the same authors."""
  tokens_T = np.array(example.tokens_T)
  tokens_T[-1] = (tokens_T[-1] + 1) % 400
  return dataclasses.replace(example, tokens_T=tokens_T)


def other_words(folder):
  rewrite(folder / 'runs', with_another_token)
  return 'records of runs', 'held-out records of runs'


def other_words_of_a_small_component(folder):
  rewrite(folder / 'more', with_another_token)
  return ('records of more',)


def other_held_out_words(folder):
  held_out = [*dataset.Records(str(folder / 'runs'), 'heldout')]
  changed = [with_another_token(example) for example in held_out]
  rewrite(folder / 'runs', lambda example: example, changed)
  return ('held-out records of runs',)


def no_held_out_records(folder):
  rewrite(folder / 'runs', lambda example: example, [])
  return ('held-out records of runs',)


def other_order(folder):
  shutil.rmtree(folder / 'runs')
  write_records(
    folder / 'runs', DIALOGUES[11::-1] + DIALOGUES[12:16], heldout=4
  )
  return ('records of runs',)


def more_records(folder):
  shutil.rmtree(folder / 'runs')
  more = DIALOGUES[:12] * 4 + DIALOGUES[12:16]
  write_records(folder / 'runs', more, heldout=4)
  return 'records of runs', 'rows per epoch'


def index_of_another_preparation(folder):
  """The shards and their checksums are the same."""
  (path,) = folder.glob('runs/trajectories/*/index-train.npz')
  with np.load(path) as arrays:
    index = dict(arrays)
  index['length_N'][[0, 1]] = index['length_N'][[1, 0]]
  np.savez(path, **index)
  return ('records of runs',)


def write_both(folder, renderer):
  """The same dialogues as before, rendered in another way."""
  for name in ('runs', 'more'):
    shutil.rmtree(folder / name)
  write_records(folder / 'runs', DIALOGUES[:16], renderer, heldout=4)
  write_records(folder / 'more', DIALOGUES[16:], renderer)


def other_template(folder):
  template = chat_template.PLAIN.replace("'Agent: '", "'Bot> '")
  encoder = plain_renderer().tokenizer
  write_both(folder, Renderer(encoder, template))
  return 'fingerprint', 'records of runs', 'records of more'


def other_tokenizer(folder):
  text = chat_template.ChatTemplate(chat_template.PLAIN).text
  encoder = tokenizer.train([*map(text, DIALOGUES)], 500)
  write_both(folder, Renderer(encoder, chat_template.PLAIN))
  return 'fingerprint', 'records of runs', 'records of more'


@pytest.mark.parametrize(
  'change',
  [
    other_words,
    other_words_of_a_small_component,
    other_held_out_words,
    no_held_out_records,
    other_order,
    more_records,
    index_of_another_preparation,
    other_template,
    other_tokenizer,
  ],
)
def test_a_run_with_other_data_is_refused_in_one_line(change, folder):
  metrics = (folder / 'run' / 'metrics.jsonl').read_text()
  names = change(folder)
  with pytest.raises(ValueError, match='was trained on records') as caught:
    loop.train(make_config(folder), folder / 'run')
  message = str(caught.value)
  assert '\n' not in message
  then, now = re.search(
    r'run: this run was trained on records \((.*)\), these are others '
    r'\((.*)\); give',
    message,
  ).groups()
  for name in names:
    values = [
      dict(each.rsplit(' ', 1) for each in side.split(', '))[name]
      for side in (then, now)
    ]
    assert values[0] != values[1], name
  if change not in (more_records, other_template, other_tokenizer):
    assert len(then.split(', ')) == len(names)
  # Nothing is lost: the checkpoint and its metrics stay as they are.
  assert (folder / 'run' / 'checkpoints' / 'step_2').is_dir()
  assert (folder / 'run' / 'metrics.jsonl').read_text() == metrics


def rewritten_files(folder):
  """The same records, prepared again."""
  rewrite(folder / 'runs', lambda example: example)
  rewrite(folder / 'more', lambda example: example)


def other_description(folder):
  """A later version of TFDS may describe the same records in other words."""
  for path in folder.glob('*/trajectories/*/dataset_info.json'):
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {'description': 'In other words.'}))


def older_checkpoint(folder):
  """Old versions kept only the fingerprint."""
  path = next(folder.glob('run/checkpoints/step_2/run')) / 'metadata'
  content = json.loads(path.read_text())
  assert set(content.pop('records')) == {'digests', 'rows_per_epoch'}
  path.write_text(json.dumps(content))
  (folder / 'run' / 'checkpoints' / 'step_2' / 'files.json').unlink()


@pytest.mark.parametrize(
  'change', [rewritten_files, other_description, older_checkpoint]
)
def test_a_run_with_the_same_data_resumes(change, folder, capsys):
  change(folder)
  capsys.readouterr()
  run = loop.train(make_config(folder), folder / 'run')
  assert run.summary['steps'] == 3
  rows = metrics_lib.read(folder / 'run' / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3]


def test_an_old_checkpoint_still_refuses_another_template(folder):
  older_checkpoint(folder)
  other_template(folder)
  with pytest.raises(ValueError, match=r'\(fingerprint \w+\), these are'):
    loop.train(make_config(folder), folder / 'run')


# ------------------------------------------------------ position in the batches


@pytest.mark.parametrize(
  'data',
  [
    {'next_index': 1},
    {'next_index': 3},
    {'next_index': 2.0},
    {'next_index': True},
    {'next_index': None},
    {'other': 2},
    {},
    [],
    None,
  ],
)
def test_batches_must_continue_at_the_step_of_the_checkpoint(data):
  resume.check_position('run', 2, {'next_index': 2})
  with pytest.raises(ValueError, match='the checkpoint of step 2 is damaged'):
    resume.check_position('run', 2, data)


def test_a_checkpoint_of_another_position_is_refused(folder):
  path = pathlib.Path(folder) / 'run/checkpoints/step_2/data/metadata'
  assert json.loads(path.read_text()) == {'next_index': 2}
  path.write_text(json.dumps({'next_index': 7}))
  with pytest.raises(ValueError, match='its next batch is number 7'):
    loop.train(make_config(folder), folder / 'run')
