"""config.keep_best: the checkpoint with the lowest held-out loss is kept."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax import api
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records import dataset
from isft_jax.models.likelihood import target_nll
from isft_jax.train import loop, saved
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.checkpoint import Best, Checkpoints
from tests.commands import command, error_line
from tests.dialogues import dialogues, write_records
from tests.train.test_checkpoint import flip, left, remove, state_of


def written(workdir, losses, **settings):
  """Saves a checkpoint for each {step: held-out loss}; returns those left."""
  with Checkpoints(workdir, RunConfig(**settings)) as checkpoints:
    checkpoints.keep_best()
    for step, loss in losses.items():
      checkpoints.save(
        step, state_of(step), {'next_index': step}, 'print', heldout_loss=loss
      )
  return left(workdir)


def best_of(workdir):
  """The best checkpoint, as a run that resumes knows it."""
  with Checkpoints(workdir, RunConfig()) as checkpoints:
    checkpoints.keep_best()
    return checkpoints.best


# ------------------------------------------------------------- the checkpoints


@pytest.mark.parametrize(
  ('losses', 'kept', 'best'),
  [
    ({1: 3.0, 2: 2.0, 3: 2.5, 4: 2.5, 5: None}, [2, 4, 5], 2),
    ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, [1, 3, 4], 1),
    ({1: 3.0, 2: 2.0, 3: 1.0}, [2, 3], 3),
    ({1: None, 2: None, 3: None}, [2, 3], None),
    # Equal losses: the first. What is not finite is never the best.
    ({1: 2.0, 2: 2.0, 3: 2.0, 4: 2.0}, [1, 3, 4], 1),
    ({1: float('nan'), 2: 5.0, 3: float('-inf'), 4: 6.0}, [2, 3, 4], 2),
    ({1: -1.0, 2: 0.0, 3: 1, 4: 2.0}, [1, 3, 4], 1),
  ],
)
def test_the_best_is_kept_besides_the_last(losses, kept, best, tmp_path):
  assert written(tmp_path, losses) == kept
  assert best_of(tmp_path) == (best and Best(best, losses[best]))


def test_the_best_is_kept_besides_those_that_are_kept_for_good(tmp_path):
  losses = {step: abs(step - 5.0) for step in range(1, 10)}
  settings = {'checkpoint_every': 1, 'keep_every': 4, 'keep_last': 1}
  assert written(tmp_path, losses, **settings) == [4, 5, 8, 9]


def test_a_resumed_run_knows_the_best(tmp_path):
  """A worse one does not take its place, and a better one does."""
  assert written(tmp_path, {1: 2.0, 2: 3.0, 3: 3.0}) == [1, 2, 3]
  assert written(tmp_path, {4: 2.5, 5: 2.5, 6: 2.5}) == [1, 5, 6]
  assert written(tmp_path, {7: 1.5, 8: 2.5, 9: 2.5}) == [7, 8, 9]
  assert written(tmp_path, {10: None, 11: None}) == [7, 10, 11]


def test_without_it_no_checkpoint_is_the_best(tmp_path):
  with Checkpoints(tmp_path, RunConfig()) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, state_of(step), {'next_index': step}, 'print')
  assert left(tmp_path) == [2, 3]
  with pytest.raises(ValueError, match=r'has no best .*--config\.keep_best'):
    Checkpoints(tmp_path, step='best')


@pytest.mark.parametrize('damage', [flip, remove])
@pytest.mark.parametrize('item', ['params', 'run'])
def test_a_damaged_best_is_not_compared_with(damage, item, tmp_path, capsys):
  """It is put aside, and the best of the others takes its place."""
  written(tmp_path, {1: 1.0, 2: 3.0, 3: 4.0})
  folder = tmp_path / 'checkpoints' / 'step_1'
  path = next(p for p in sorted((folder / item).rglob('*')) if p.is_file())
  message = damage(path)
  capsys.readouterr()
  assert best_of(tmp_path) == Best(2, 3.0)
  assert message in capsys.readouterr().out
  assert written(tmp_path, {4: 2.0, 5: 9.0, 6: 9.0}) == [4, 5, 6]


def test_a_reader_of_a_damaged_best_is_told(tmp_path):
  written(tmp_path, {1: 1.0, 2: 3.0, 3: 4.0})
  folder = tmp_path / 'checkpoints' / 'step_1' / 'params'
  message = flip(next(p for p in sorted(folder.rglob('*')) if p.is_file()))
  with (
    Checkpoints(tmp_path, step='best') as checkpoints,
    pytest.raises(ValueError, match=f'{message}; name another step'),
  ):
    checkpoints.restore_params({})


# --------------------------------------------------------------------- the run


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Records, four of them held out; and others without any."""
  folder = tmp_path_factory.mktemp('data')
  write_records(folder / 'records', dialogues()[:16], heldout=4)
  write_records(folder / 'all', dialogues()[:4])
  return folder


@pytest.fixture
def config(folder):
  return RunConfig(
    records=str(folder / 'records'),
    seq_len=256,
    targets_per_row=256,
    steps=6,
    log_every=100,
    eval_every=1,
    checkpoint_every=4,
    keep_last=1,
    keep_best=True,
    mesh=MeshConfig(1, 1, 1),
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )


def measure(monkeypatch, losses):
  """Makes the evaluations of a run return these losses, in turn."""
  left = iter(losses)
  monkeypatch.setattr(
    loop, '_evaluate', lambda *_: {'heldout_loss': jnp.float32(next(left))}
  )


def stop_before(monkeypatch, step):
  """Makes a run end as by a kill, before a step is logged and saved."""
  add = metrics_lib.Metrics.add

  def add_or_stop(self, number, metrics, *rest):
    if number == step:
      raise KeyboardInterrupt
    add(self, number, metrics, *rest)

  monkeypatch.setattr(metrics_lib.Metrics, 'add', add_or_stop)


def test_a_better_evaluation_saves_between_the_steps_that_save(
  config, tmp_path, monkeypatch, capsys
):
  measure(monkeypatch, [3, 2, 1, 4, 5, 6])
  run = loop.train(config, tmp_path)
  assert left(tmp_path) == [3, 6]
  assert run.summary['best_step'] == 3
  assert run.summary['best_heldout_loss'] == 1
  assert 'step     3/6  held-out loss  scored 1.0000' in capsys.readouterr().out
  # The finished run knows it still.
  again = loop.train(config, tmp_path)
  assert again.summary == run.summary
  best = saved.load(str(tmp_path), step='best').model.params
  third = saved.load(str(tmp_path), step=3).model.params
  jax.tree.map(np.testing.assert_array_equal, best, third)
  with pytest.raises(AssertionError):
    last = saved.load(str(tmp_path)).model.params
    jax.tree.map(np.testing.assert_array_equal, best, last)


def test_the_last_evaluation_can_be_the_best(config, tmp_path, monkeypatch):
  measure(monkeypatch, [3, 2, 4, 4, 4, 1])
  assert loop.train(config, tmp_path).summary['best_step'] == 6
  assert left(tmp_path) == [6]


@pytest.mark.parametrize('at_step', [2, 3, 4, 5, 6])
def test_a_killed_run_ends_with_the_same_best(
  config, tmp_path, monkeypatch, at_step
):
  """Evaluations after the last checkpoint are repeated."""
  losses = [3, 2, 5, 4, 1, 6]
  with monkeypatch.context() as patch:
    measure(patch, losses)
    stop_before(patch, at_step)
    with pytest.raises(KeyboardInterrupt):
      loop.train(config, tmp_path)
  with monkeypatch.context() as patch:
    measure(patch, losses[left(tmp_path)[-1] :])
    summary = loop.train(config, tmp_path).summary
  assert (summary['best_step'], left(tmp_path)) == (5, [5, 6])


def test_it_can_be_switched_on_later(config, tmp_path, monkeypatch):
  measure(monkeypatch, [1, 2, 3, 4])
  later = dataclasses.replace(config, keep_best=False, steps=4)
  assert 'best_step' not in loop.train(later, tmp_path).summary
  measure(monkeypatch, [3, 2])
  summary = loop.train(config, tmp_path).summary
  assert summary['best_step'] == 6


@pytest.mark.parametrize('normalize', ['token', 'trajectory'])
def test_the_loss_is_that_of_the_objective_on_all_held_out_records(
  config, tmp_path, normalize
):
  """The agent's tokens weigh a quarter, and the others one."""
  config = dataclasses.replace(
    config, steps=2, normalize=normalize, objective='weighted(0.25)'
  )
  run = loop.train(config, tmp_path)
  source = pipeline.BatchSource(
    dataset.Records(config.records, 'heldout'),
    dataclasses.replace(config, epochs=1, steps=0),
  )
  total = weight = 0.0
  for step in range(len(source)):
    batch = source[step]
    nll_BK = np.asarray(target_nll(run.graphdef, run.params, batch))
    total += (nll_BK * batch.weights_BK).sum(dtype=np.float64)
    weight += batch.weights_BK.sum(dtype=np.float64)
  last = metrics_lib.read(tmp_path / 'metrics.jsonl')[-1]
  # float32 sums of some hundred terms
  assert last['heldout_loss'] == pytest.approx(total / weight, rel=1e-5)
  without = dataclasses.replace(config, keep_best=False)
  loop.train(without, tmp_path / 'without')
  other = metrics_lib.read(tmp_path / 'without' / 'metrics.jsonl')[-1]
  assert 'heldout_loss' not in other
  assert other['heldout_nll_by_author'] == last['heldout_nll_by_author']


def test_each_component_of_a_mixture_has_its_objective(
  config, folder, tmp_path
):
  """The sum over both is divided once."""
  write_records(tmp_path / 'more', dialogues()[16:24], heldout=2)
  mixture = (
    (config.records, 1, 'interventional'),
    (str(tmp_path / 'more'), 1, 'agent_only'),
  )
  run = loop.train(
    dataclasses.replace(
      config,
      records='',
      mixture=mixture,
      plan_objective='observational',
      steps=1,
    ),
    tmp_path / 'run',
  )
  total = weight = 0.0
  for records, _, objective in mixture:
    source = pipeline.BatchSource(
      dataset.Records(records, 'heldout'),
      dataclasses.replace(config, objective=objective, epochs=1, steps=0),
    )
    for step in range(len(source)):
      batch = source[step]
      nll_BK = np.asarray(target_nll(run.graphdef, run.params, batch))
      total += (nll_BK * batch.weights_BK).sum(dtype=np.float64)
      weight += batch.weights_BK.sum(dtype=np.float64)
  (row,) = metrics_lib.read(tmp_path / 'run' / 'metrics.jsonl')
  assert row['heldout_loss'] == pytest.approx(total / weight, rel=1e-5)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'eval_every': 0},
      r'^config\.keep_best needs config\.eval_every of at least 1 \(got 0\)',
    ),
    ({'records': 'all'}, r'needs held-out records, and .*/all has none; name'),
    (
      {'objective': 'USER=1', 'heldout': 'words'},
      r"objective 'USER=1' scores none of the held-out records of .*/words;",
    ),
  ],
)
def test_what_cannot_be_compared_is_refused(
  config, folder, settings, message, tmp_path
):
  if settings.get('heldout'):
    agents = [
      dataclasses.replace(each, segments=each.segments[:1])
      for each in dialogues()[:2]
    ]
    assert {t.role for each in agents for t in each.segments} == {'system'}
    settings = settings | {'heldout': write_records(tmp_path / 'words', agents)}
  if 'records' in settings:
    settings = settings | {'records': str(folder / settings['records'])}
  with pytest.raises(ValueError, match=message) as caught:
    loop.train(dataclasses.replace(config, **settings), tmp_path / 'run')
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'run').exists()


# ---------------------------------------------------------------- the commands


def test_the_commands_take_the_best(folder, tmp_path):
  workdir = tmp_path / 'a run'
  done = command(
    'train',
    '--config=train_tiny',
    *('--config.model.width=16', '--config.model.layers=1'),
    *('--config.model.head_size=4', '--config.model.mlp_width=32'),
    *('--config.steps=3', '--config.seq_len=256', '--config.model.remat=none'),
    *('--config.eval_every=1', '--config.optim.learning_rate=10'),
    *('--config.optim.warmup_steps=0', '--config.keep_best'),
    f'--config.records={folder}/records',
    f'--workdir={workdir}',
  )
  assert done.returncode == 0, done.stderr
  rows = metrics_lib.read(workdir / 'metrics.jsonl')
  best = min(rows, key=lambda row: row['heldout_loss'])
  # Steps of size 10 make the model worse.
  assert best['step'] < 3
  assert (
    f'the best checkpoint is step {best["step"]}, with a held-out loss of '
    f'{best["heldout_loss"]:.4f}:\n'
    f"  isft-generate --checkpoint='{workdir}' --step=best\n"
  ) in done.stdout
  assert left(workdir) == sorted({best['step'], 3})

  for name, *flags in (
    ('generate', '--prompt=Tell me about gold.', '--max_new_tokens=4'),
    ('probe', '--reply_tokens=1', f'--output={tmp_path}/probes.json'),
    ('export', f'--output={tmp_path}/exported'),
  ):
    flags = [f'--checkpoint={workdir}', '--step=best', *flags]
    done = command(name, *flags)
    assert done.returncode == 0, done.stderr
  assert (tmp_path / 'exported' / 'config.json').exists()
  loaded = api.load(workdir, step='best').model.params
  expected = saved.load(str(workdir), step=best['step']).model.params
  jax.tree.map(np.testing.assert_array_equal, loaded, expected)


@pytest.mark.parametrize('step', ['0', '-1', 'Best', '1.5', 'last', ''])
def test_a_step_is_a_number_or_best(step):
  line = error_line('generate', '--checkpoint=W', f'--step={step}')
  assert "must be a whole number of at least 1, or 'best'" in line


def test_the_best_of_a_run_without_it_is_refused(folder, tmp_path):
  line = error_line(
    'generate', f'--checkpoint={tmp_path}', '--step=best', '--prompt=a'
  )
  assert 'no checkpoints there' in line
  (pathlib.Path(tmp_path) / 'checkpoints').mkdir()
  line = error_line(
    'generate', f'--checkpoint={tmp_path}', '--step=best', '--prompt=a'
  )
  assert 'has no best checkpoint' in line and '--config.keep_best' in line


def test_the_loss_is_where_the_reader_looks_for_it(tmp_path):
  written(tmp_path, {1: 2.5})
  path = tmp_path / 'checkpoints' / 'step_1' / 'run' / 'metadata'
  assert json.loads(path.read_text())['heldout_loss'] == 2.5
