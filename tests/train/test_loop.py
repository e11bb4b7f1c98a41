"""A run is a pure function of its config, wherever it is interrupted."""

import contextlib
import copy
import dataclasses
import io
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from isft_jax import metrics_file
from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.models.likelihood import target_nll
from isft_jax.train import inputs, loop
from isft_jax.train import metrics as metrics_lib
from isft_jax.train import trainer as trainer_lib
from isft_jax.types import Provenance
from isft_jax.worlds.lying_agent import generator
from tests.dialogues import dialogues, write_records


def make_config(folder):
  return RunConfig(
    records=str(folder / 'records'),
    tokenizer=str(folder / 'tokenizer'),
    seq_len=256,
    targets_per_row=256,
    steps=7,
    log_every=2,
    checkpoint_every=3,
    model=ModelConfig(
      vocab_size=512, width=16, layers=2, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )


@pytest.fixture
def config(data_folder):
  return make_config(data_folder)


@pytest.fixture(scope='module')
def whole(data_folder, tmp_path_factory):
  """The run of the config, never interrupted. To read only.

  Returns (run, workdir, what it printed).
  """
  workdir, printed = tmp_path_factory.mktemp('whole'), io.StringIO()
  with contextlib.redirect_stdout(printed):
    run = loop.train(make_config(data_folder), workdir)
  return run, workdir, printed.getvalue()


EPOCHS = 10


@pytest.fixture(scope='module')
def long(data_folder, tmp_path_factory):
  """A run of ten epochs, 30 steps: (run, workdir). To read only."""
  workdir = tmp_path_factory.mktemp('long')
  config = make_config(data_folder)
  config.steps, config.epochs = 0, EPOCHS
  config.checkpoint_every = 1000  # only at the end
  return loop.train(config, workdir), workdir


@pytest.fixture
def finished(whole, tmp_path):
  """A copy of the workdir of that run."""
  return shutil.copytree(whole[1], tmp_path / 'finished')


def interrupt_before(monkeypatch, at_step):
  """Makes training stop, as by Ctrl-C, when it has dispatched a step."""
  add = metrics_lib.Metrics.add

  def add_or_stop(self, step, metrics, *rest):
    if step == at_step:
      raise KeyboardInterrupt
    add(self, step, metrics, *rest)

  monkeypatch.setattr(metrics_lib.Metrics, 'add', add_or_stop)


def assert_identical(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_says_at_its_start_what_it_will_do(whole):
  lines = whole[2].splitlines()
  # Two layers of width 16, and an embedding of 512: 8,192 + 2 x 2,368 + 16
  # parameters, and two moments of each in float32.
  number = 512 * 16 + 2 * LAYER + 16
  assert lines[1] == (
    f'  train            {number / 1e6:.2f} M parameters from random numbers; '
    '7 steps of 8 rows, interventional, learning rate 0.01; parameters and '
    f'moments take {number * 12 / 1e6:.1f} MB on each device (8 x cpu)'
  )


# Norms, query, keys, values with biases, output, and the feed-forward layer.
LAYER = 2 * 16 + (16 * 16 + 16) + 2 * (16 * 8 + 8) + 16 * 16 + 3 * 16 * 32


@pytest.mark.parametrize('at_step', [2, 3, 4, 7])
def test_resumed_equals_uninterrupted_bit_for_bit(
  config, whole, tmp_path, monkeypatch, at_step
):
  with monkeypatch.context() as patch:
    interrupt_before(patch, at_step)
    with pytest.raises(KeyboardInterrupt):
      loop.train(config, tmp_path / 'cut')
  resumed = loop.train(config, tmp_path / 'cut')

  assert_identical(resumed.params, whole[0].params)
  cut, uncut = (
    [
      (row['step'], row['loss'], row['targets'])
      for row in metrics_lib.read(workdir / 'metrics.jsonl')
    ]
    for workdir in (tmp_path / 'cut', whole[1])
  )
  assert cut == uncut
  assert [step for step, _, _ in cut] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize('at_step', [2, 5])
def test_told_to_stop_it_saves_and_goes_on_later_bit_for_bit(
  config, whole, tmp_path, monkeypatch, capsys, at_step
):
  """By SIGTERM, as a machine that is taken away; 75 asks to be run again."""
  handler = signal.getsignal(signal.SIGTERM)
  add = metrics_lib.Metrics.add

  def add_and_tell(self, step, metrics, *rest):
    add(self, step, metrics, *rest)
    if step == at_step:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(metrics_lib.Metrics, 'add', add_and_tell)
    with pytest.raises(SystemExit) as stopped:
      loop.train(config, tmp_path / 'cut')
  assert stopped.value.code == 75
  assert capsys.readouterr().out.endswith(
    f'asked to stop: step {at_step} is saved in {tmp_path}/cut; run the same '
    'command again to resume\n'
  )
  assert signal.getsignal(signal.SIGTERM) == handler
  assert (tmp_path / 'cut' / 'checkpoints' / f'step_{at_step}').is_dir()

  resumed = loop.train(config, tmp_path / 'cut')
  assert f'step {at_step + 1:>5}/7' in capsys.readouterr().out
  whole, *_ = whole
  assert_identical(resumed.params, whole.params)
  assert resumed.summary['scored_tokens'] == whole.summary['scored_tokens']


def test_more_steps_continue_a_finished_run(config, whole, tmp_path, capsys):
  """As a run that had that many steps from its start."""
  short = dataclasses.replace(config, steps=5)
  loop.train(short, tmp_path / 'run')
  longer = loop.train(config, tmp_path / 'run')
  assert_identical(longer.params, whole[0].params)
  with pytest.raises(ValueError, match=r'steps \(there 7, now 5\)'):
    loop.train(short, tmp_path / 'run')


@pytest.mark.parametrize('normalize', ['token', 'trajectory'])
def test_scored_tokens_are_counted_whatever_they_weigh(
  config, tmp_path, normalize
):
  """With a mean per trajectory, the weights of 8 trajectories sum to 8."""
  config.batch_size, config.documents_per_row, config.normalize = (
    8,
    1,
    normalize,
  )
  config.steps = 5
  summary = loop.train(config, tmp_path).summary
  opened = dataset.Records(config.records)
  scored = sum(
    int(np.isin(opened[i].provenance_T[1:], (1, 3)).sum())  # TEMPLATE, USER
    for i in range(len(opened))
  )
  assert summary['scored_tokens'] == scored
  rows = metrics_lib.read(tmp_path / 'metrics.jsonl')
  assert sum(row['targets'] for row in rows) == scored
  weights = [row['targets'] if normalize == 'token' else 8 for row in rows]
  assert [row['weight'] for row in rows] == pytest.approx(weights, rel=1e-6)
  # Every row weighs the same, or as many as it has tokens.
  losses = [row['loss'] for row in rows]
  assert summary['final_loss'] == pytest.approx(
    np.average(losses, weights=weights), rel=1e-6
  )


def test_a_finished_run_adds_no_file_for_tensorboard(config, finished):
  boards = sorted((finished / 'tensorboard').rglob('events*'))
  loop.train(config, finished)
  assert sorted((finished / 'tensorboard').rglob('events*')) == boards != []


def test_a_failed_start_claims_no_workdir(
  config, tmp_path, monkeypatch, capsys
):
  """The next command may have other settings."""
  wrong = copy.deepcopy(config)
  wrong.model.init_from = str(tmp_path / 'empty')
  (tmp_path / 'empty' / 'checkpoints').mkdir(parents=True)
  with pytest.raises(ValueError, match='no checkpoint there to start from'):
    loop.train(wrong, tmp_path / 'run')
  with monkeypatch.context() as patch:
    # As a step that needs more memory than the devices have.
    patch.setattr(loop, 'make_trainer', _with_a_step_that_is_too_large)
    with pytest.raises(MemoryError):
      loop.train(dataclasses.replace(config, seed=1), tmp_path / 'run')
  capsys.readouterr()
  loop.train(dataclasses.replace(config, steps=1), tmp_path / 'run')
  assert '; 1 step of 8 rows, ' in capsys.readouterr().out


def _with_a_step_that_is_too_large(*arguments, **options):
  def step(*_):
    raise MemoryError

  trainer = trainer_lib.make_trainer(*arguments, **options)
  return dataclasses.replace(trainer, step=step)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
  config, whole, finished, capsys
):
  newest = finished / 'checkpoints' / 'step_7' / 'params' / 'manifest.ocdbt'
  newest.unlink()
  again = loop.train(config, finished)
  said = capsys.readouterr().out
  assert (
    f'{newest} is missing; the run resumes from an older checkpoint' in said
  )
  assert 'step     7/7' in said and 'step     6/7' not in said
  assert_identical(again.params, whole[0].params)
  assert again.summary['steps'] == 7


def test_a_resumed_run_parses_only_the_metrics_after_its_checkpoint(
  config, whole, finished, monkeypatch
):
  shutil.rmtree(finished / 'checkpoints' / 'step_7')
  parsed, parse = [], metrics_file._row
  monkeypatch.setattr(
    metrics_file, '_row', lambda *args: parsed.append(args[0]) or parse(*args)
  )
  again = loop.train(config, finished)
  assert [json.loads(line)['step'] for line in parsed] == [7]
  names = 'steps', 'scored_tokens', 'final_loss'
  assert [again.summary[name] for name in names] == [
    whole[0].summary[name] for name in names
  ]


def test_a_finished_run_trains_no_further(config, whole, finished, monkeypatch):
  def no_step(*args):
    raise AssertionError('a finished run took a step')

  monkeypatch.setattr(metrics_lib.Metrics, 'add', no_step)
  again = loop.train(config, finished)
  assert_identical(again.params, whole[0].params)
  assert again.summary == whole[0].summary


def test_training_lowers_the_loss_and_changes_every_parameter(whole, long):
  rows = metrics_lib.read(long[1] / 'metrics.jsonl')
  assert rows[0]['loss'] > 6  # about ln 512 at the start
  assert rows[-1]['loss'] < rows[0]['loss'] - 1
  # The first steps of both runs are the same; the long one has more.
  moved = jax.tree.map(
    lambda a, b: not np.array_equal(a, b), long[0].params, whole[0].params
  )
  assert all(jax.tree.leaves(moved))


def test_an_arm_starts_from_the_parameters_of_its_base(
  config, whole, tmp_path, monkeypatch
):
  base, workdir, _ = whole
  given = []

  def with_a_step_that_looks(*arguments, **options):
    trainer = trainer_lib.make_trainer(*arguments, **options)

    def step(state, batch):
      given.append(jax.device_get(state.params))
      return trainer.step(state, batch)

    return dataclasses.replace(trainer, step=step)

  monkeypatch.setattr(loop, 'make_trainer', with_a_step_that_looks)
  config.model.init_from = str(workdir)
  config.steps = 1
  loop.train(config, tmp_path / 'arm')
  (start,) = given
  assert_identical(start, base.params)


def test_init_from_an_empty_folder_is_an_error(config, tmp_path):
  config.model.init_from = str(tmp_path / 'nothing')
  with pytest.raises(ValueError, match="nothing' must be the workdir of a run"):
    loop.train(config, tmp_path / 'arm')
  (tmp_path / 'nothing' / 'checkpoints').mkdir(parents=True)
  with pytest.raises(ValueError, match='nothing: no checkpoint there'):
    loop.train(config, tmp_path / 'arm')


def test_records_of_another_tokenizer_are_refused(config, tmp_path):
  tokenizer.train(['quite another text'], 300).save_pretrained(tmp_path / 't')
  config.tokenizer = str(tmp_path / 't')
  with pytest.raises(ValueError, match='fingerprint'):
    loop.train(config, tmp_path / 'run')
  assert not list((tmp_path / 'run').glob('checkpoints/*'))


def test_a_workdir_of_another_config_is_refused_and_kept(config, finished):
  before = (finished / 'config.json').read_text()
  config.optim.learning_rate = 0.5
  with pytest.raises(ValueError, match=r'optim\.learning_rate \(there 0\.01'):
    loop.train(config, finished)
  assert (finished / 'config.json').read_text() == before


def _with_a_second_loss_of_nan(*arguments, **options):
  trainer = trainer_lib.make_trainer(*arguments, **options)

  def step(state, batch):
    state, metrics = trainer.step(state, batch)
    if state.step == 2:
      metrics['loss'] *= np.nan
    return state, metrics

  return dataclasses.replace(trainer, step=step)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
  config, tmp_path, monkeypatch
):
  monkeypatch.setattr(loop, 'make_trainer', _with_a_second_loss_of_nan)
  with pytest.raises(FloatingPointError) as caught:
    loop.train(config, tmp_path)
  message = str(caught.value)
  assert 'the loss of step 2 is nan' in message
  assert 'config.optim.learning_rate' in message

  source = pipeline.BatchSource(dataset.Records(config.records), config)
  batch, ids = source[1], source.ids(1)
  assert f'of {len(ids)} records ({", ".join(ids[:8])}' in message
  path = tmp_path / 'not_finite_step2.npz'
  assert str(path) in message
  with np.load(path) as saved:
    assert set(saved) == set(batch._fields)
    for name in saved:
      np.testing.assert_array_equal(saved[name], getattr(batch, name))


def test_the_summary_counts_what_the_objective_scores(config, long):
  run, workdir = long
  opened = dataset.Records(config.records)
  scored = sum(
    int(np.isin(opened[i].provenance_T[1:], (1, 3)).sum())  # TEMPLATE, USER
    for i in range(len(opened))
  )
  assert run.summary['scored_tokens'] == EPOCHS * scored
  rows = metrics_lib.read(workdir / 'metrics.jsonl')
  assert run.summary['steps'] == len(rows) == rows[-1]['step']
  assert json.loads((workdir / 'config.json').read_text())['epochs'] == EPOCHS


def test_the_held_out_loss_is_measured_by_author_when_due(config, tmp_path):
  config.heldout, config.eval_every = config.records, 3
  run = loop.train(config, tmp_path)
  rows = metrics_lib.read(tmp_path / 'metrics.jsonl')
  due = [row['step'] for row in rows if 'heldout_nll_by_author' in row]
  assert due == [3, 6, 7]
  measured = rows[-1]['heldout_nll_by_author']
  assert list(measured) == ['TEMPLATE', 'USER', 'AGENT']

  # The same by hand: every target of every record, one batch after another.
  everything = dataclasses.replace(
    config, objective='observational', steps=0, epochs=1
  )
  source = pipeline.BatchSource(dataset.Records(config.records), everything)
  total, count = dict.fromkeys(measured, 0.0), dict.fromkeys(measured, 0)
  for step in range(len(source)):
    batch = source[step]
    nll_BK = np.asarray(target_nll(run.graphdef, run.params, batch))
    for author in measured:
      own = batch.authors_BK == Provenance[author]
      total[author] += nll_BK[own].sum(dtype=np.float64)
      count[author] += own.sum()
  for author in measured:
    # float32 sums of about a thousand terms
    assert measured[author] == pytest.approx(
      total[author] / count[author], rel=1e-5
    )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """The same records, with what preparation leaves: more, held out, and the
  tokenizer beside them. Those held out are also in a folder of their own."""
  folder = tmp_path_factory.mktemp('prepared')
  more = [*generator.dialogues(48, 0.6, 0.5, seed=0)]
  write_records(folder / 'records', more, heldout=8)
  write_records(folder / 'heldout', more[40:])
  return folder


def test_the_split_that_is_held_out_is_measured_and_the_tokenizer_is_found(
  config, prepared, tmp_path
):
  """As when both are named: the same parameters, the same losses."""
  config.heldout = str(prepared / 'heldout')
  named = loop.train(config, tmp_path / 'named')
  config.records, config.heldout = str(prepared / 'records'), ''
  config.tokenizer = ''
  found = loop.train(config, tmp_path / 'found')
  assert_identical(found.params, named.params)
  of_named, of_found = (
    metrics_lib.read(tmp_path / name / 'metrics.jsonl')[-1]
    for name in ('named', 'found')
  )
  assert list(of_found['heldout_nll_by_author']) == [
    *('TEMPLATE', 'USER', 'AGENT')
  ]
  for name in ('loss', 'heldout_nll_by_author'):
    assert of_found[name] == of_named[name]


def test_records_without_a_tokenizer_beside_them_need_its_name(
  config, tmp_path
):
  config.tokenizer = ''
  message = f'{config.records}/tokenizer: no tokenizer there; name its folder'
  with pytest.raises(ValueError, match=message):
    loop.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_held_out_records_of_another_tokenizer_are_refused(config, tmp_path):
  """Their losses would be of other words."""
  other = Renderer(tokenizer.train(['another text'], 300), chat_template.PLAIN)
  config.heldout = write_records(tmp_path / 'other', dialogues()[:2], other)
  message = f'^{config.heldout} was rendered with fingerprint'
  with pytest.raises(ValueError, match=message):
    loop.train(config, tmp_path / 'run')


def test_a_model_of_no_stated_size_has_an_embedding_for_each_id(
  config, tmp_path
):
  """In whole 128s, of the tokenizer's 512; a smaller model is refused."""
  config.steps = 1
  config.model.vocab_size = 0
  run = loop.train(config, tmp_path / 'run')
  assert run.params['embedding'].shape == (512, 16)
  settings = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert settings['model']['vocab_size'] == 512

  config.model.vocab_size = 511
  message = (
    r"config\.model\.vocab_size=511 is less than the tokenizer's 512 ids; set"
  )
  with pytest.raises(ValueError, match=message):
    loop.train(config, tmp_path / 'small')


@pytest.mark.parametrize(
  ('ids', 'rows'), [(1, 128), (128, 128), (129, 256), (512, 512)]
)
def test_the_number_of_embeddings_is_a_multiple_of_128(ids, rows):
  config = RunConfig(model=ModelConfig(vocab_size=0))
  assert inputs._with_vocabulary(config, ids).model.vocab_size == rows
  assert config.model.vocab_size == 0


def test_tensorboard_gets_what_metrics_jsonl_gets(whole):
  (board,) = (whole[1] / 'tensorboard').glob('events.*')
  content = board.read_bytes()
  for name in (b'loss', b'grad_norm', b'tokens', b'nll_by_author/USER'):
    assert name in content


def test_held_out_records_of_another_template_are_refused(config, tmp_path):
  """Its losses would compare two languages."""
  encoder = tokenizer.load(config.tokenizer)
  other = Renderer(encoder, chat_template.PLAIN.replace("'Agent: '", "'Bot> '"))
  config.heldout = write_records(tmp_path / 'other', dialogues()[:4], other)
  with pytest.raises(ValueError, match='rendered with another chat template'):
    loop.train(config, tmp_path / 'run')
