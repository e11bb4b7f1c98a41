"""What is seen of a run while it trains, without making the devices wait."""

import dataclasses
import importlib
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from isft_jax import chips
from isft_jax.cli.train import parse_steps
from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records import dataset
from isft_jax.experiments.evidence.arms import mark_demonstrations
from isft_jax.models.likelihood import target_nll
from isft_jax.train import loop
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.loggers import Loggers
from isft_jax.types import Provenance
from isft_jax.worlds.lying_agent import probes
from isft_jax.worlds.lying_agent.facts import FACTS
from tests.dialogues import dialogues, plain_renderer, write_records

P = len(Provenance)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Runs of an agent, and others whose right turns a third party wrote."""
  folder = tmp_path_factory.mktemp('data')
  made = {
    'runs': dialogues()[:20],
    'demonstrations': [*map(mark_demonstrations, dialogues()[20:32])],
  }
  return {
    name: write_records(folder / name, trajectories, heldout=4)
    for name, trajectories in made.items()
  }


@pytest.fixture
def config(folders):
  return RunConfig(
    mixture=(
      (folders['runs'], 3, 'interventional'),
      (folders['demonstrations'], 1, 'DEMONSTRATION=1'),
    ),
    plan_objective='observational',
    seq_len=256,
    targets_per_row=256,
    steps=4,
    log_every=100,
    eval_every=2,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )


def by_hand(trained, components):
  """{component: {author: mean NLL}} of batches of one component each."""
  found = {}
  for name, source in components.items():
    total_P, count_P = np.zeros(P), np.zeros(P)
    for step in range(source.steps_per_epoch):
      batch = source[step]
      nll_BK = np.asarray(target_nll(trained.graphdef, trained.params, batch))
      np.add.at(total_P, batch.authors_BK, nll_BK)
      np.add.at(count_P, batch.authors_BK, 1)
    found[name] = {
      author.name: total_P[author] / count_P[author]
      for author in Provenance
      if author != Provenance.PAD and count_P[author]
    }
  return found


def test_the_loss_is_told_by_source_and_author(config, folders, tmp_path):
  """Of training and of what each source holds out; with a step of size 0, the
  parameters are the same all along."""
  config.optim = dataclasses.replace(config.optim, learning_rate=0.0)
  trained = loop.train(config, tmp_path)
  rows = metrics_lib.read(tmp_path / 'metrics.jsonl')
  everything = dataclasses.replace(
    config, mixture=(), objective='observational', epochs=1, steps=0
  )
  expected = by_hand(
    trained,
    {
      name: pipeline.BatchSource(dataset.Records(folder, 'heldout'), everything)
      for name, folder in folders.items()
    },
  )
  due = [row for row in rows if 'heldout_nll_by_source' in row]
  assert [row['step'] for row in due] == [2, 4]
  for row in due:
    for name in folders:
      # float32 sums of some hundred terms
      assert row['heldout_nll_by_source'][name] == pytest.approx(
        expected[name], rel=1e-5
      )
  assert 'DEMONSTRATION' in expected['demonstrations']
  assert 'DEMONSTRATION' not in expected['runs']

  opened = [dataset.Records(folder) for folder in folders.values()]
  source = pipeline.BatchSource(opened, config)
  for step, row in enumerate(rows):
    batch = source[step]
    nll_BK = np.asarray(target_nll(trained.graphdef, trained.params, batch))
    assert row['row_fill'] == pytest.approx(np.mean(batch.segment_ids_BL != 0))
    assert row['target_fill'] == pytest.approx(np.mean(batch.authors_BK != 0))
    for number, name in enumerate(folders):
      for author, value in row['nll_by_source'][name].items():
        own = batch.authors_BK == number * P + Provenance[author]
        assert value == pytest.approx(nll_BK[own].mean(), rel=1e-5)
    for author, value in row['nll_by_author'].items():
      own = (batch.authors_BK % P == Provenance[author]) & (
        batch.authors_BK != 0
      )
      assert value == pytest.approx(nll_BK[own].mean(), rel=1e-5)
  assert set(rows[0]['nll_by_source']) == set(folders)


def test_a_run_of_one_source_is_told_by_author_alone(config, tmp_path):
  config.records, config.mixture = config.mixture[0][0], ()
  config.steps = 1
  config.model.layers = 2  # the program of test_loop.py, compiled once
  loop.train(config, tmp_path)
  (row,) = metrics_lib.read(tmp_path / 'metrics.jsonl')
  assert not [name for name in row if 'source' in name]
  assert 'mfu' not in row  # nobody knows the peak of a CPU


def test_values_are_fetched_when_they_are_written_and_not_before(
  config, tmp_path, monkeypatch
):
  """Held-out losses and all: once for four steps."""
  fetched = []
  get = jax.device_get
  monkeypatch.setattr(
    jax, 'device_get', lambda values: fetched.append(values) or get(values)
  )
  loop.train(config, tmp_path)
  assert [len(values) for values in fetched] == [4]


def test_a_probe_is_asked_when_the_held_out_loss_is_measured(config, tmp_path):
  bank, renderer = FACTS[:3], plain_renderer()
  trained = loop.train(config, tmp_path, probes.watch(bank, renderer))
  rows = metrics_lib.read(tmp_path / 'metrics.jsonl')
  assert [row['step'] for row in rows if 'probe' in row] == [2, 4]
  margin_N = probes.margins(
    trained.graphdef, trained.params, probes.prepare(bank, renderer)
  )
  assert rows[-1]['probe'] == {
    'mean_margin': float(margin_N.mean()),
    'prefers_lie': float(np.mean(margin_N < 0)),
  }
  assert rows[1]['probe'] != rows[-1]['probe']


# ------------------------------------------------------------------- a profile


def test_a_few_steps_are_traced_for_xprof(config, tmp_path, capsys):
  loop.train(config, tmp_path, profile=(2, 3))
  (trace,) = (tmp_path / 'profile').glob('plugins/profile/*/*.xplane.pb')
  content = trace.read_bytes()
  assert b'step_num' in content
  assert (
    f'steps 2 to 3 are traced; view them with xprof --logdir={tmp_path}/profile'
    '\n' in capsys.readouterr().out
  )


def test_steps_to_trace_are_a_start_and_a_stop():
  assert parse_steps('10:15') == (10, 15)
  assert parse_steps('') == ()
  for text in ('10', '15:10', '0:3', '3:', 'a:b', '1:2:3'):
    with pytest.raises(ValueError, match=rf"START:STOP.*got '{text}'"):
      parse_steps(text)


# ------------------------------------------------------------- speed, and MFU


def device(kind):
  return types.SimpleNamespace(device_kind=kind)


@pytest.mark.parametrize(
  ('kinds', 'tera'),
  [
    (['TPU v5 lite'] * 4, 4 * 197),
    (['TPU v3'] * 2, 123),  # two cores are a chip
    (['TPU v4'], 275),
    (['NVIDIA H100 80GB HBM3'] * 8, 8 * 989),
    (['cpu'], 0),
    (['TPU v4', 'something else'], 0),
  ],
)
def test_the_peak_of_devices_is_that_of_all_or_unknown(kinds, tera):
  assert chips.peak(map(device, kinds)) == pytest.approx(tera * 1e12)


class Drawn:
  """A board that remembers."""

  def __init__(self):
    self.rows = {}

  def add(self, step, scalars):
    self.rows[step] = scalars

  def close(self):
    pass


def test_speed_is_of_the_time_between_flushes(tmp_path, monkeypatch, capsys):
  """Ten steps in 20 s, of 1 s each at the peak: an MFU of a half."""
  clock = iter([100.0, 120.0])
  monkeypatch.setattr(metrics_lib.time, 'perf_counter', lambda: next(clock))
  board = Drawn()
  values = {
    'loss': jnp.float32(2),
    'tokens': jnp.int32(1000),
    'targets': jnp.float32(500),
  }
  with metrics_lib.Metrics(
    epath.Path(tmp_path), 'run', 0, 30, board, ideal_seconds=1.0
  ) as metrics:
    for step in range(1, 11):
      metrics.add(step, values)
    metrics.flush()
  assert capsys.readouterr().out == (
    '  run              step    10/30  loss  2.0000      500 tokens/s     250 '
    'targets/s  MFU 50.0%  ETA 0:40\n'
  )
  expected = {'loss': 2, 'tokens': 1000, 'targets': 500, 'seconds': 2.0}
  expected |= {'mfu': 0.5}
  rows = metrics_lib.read(tmp_path / 'metrics.jsonl')
  assert rows == [{'step': step, **expected} for step in range(1, 11)]
  rates = {'tokens_per_second': 500, 'targets_per_second': 250}
  assert board.rows == {step: expected | rates for step in range(1, 11)}


def test_an_evaluation_is_a_line_of_its_own(tmp_path, capsys):
  """Losses by author, in the order of authors, and the numbers of a probe."""
  nll = np.zeros(len(Provenance), np.float32)
  nll[[Provenance.USER, Provenance.AGENT]] = 1.25, 2.5
  values = {'loss': jnp.float32(2), 'tokens': jnp.int32(9)}
  values |= {'targets': jnp.float32(5)}
  with metrics_lib.Metrics(
    epath.Path(tmp_path), 'run', 0, 30, Drawn()
  ) as metrics:
    metrics.add(1, values)
    metrics.add(2, values | {'heldout_nll_by_author': nll})
    metrics.add(3, values | {'probe': {'mean_margin': np.float32(-0.5)}})
    metrics.flush()
  _, *lines = capsys.readouterr().out.splitlines()
  assert lines == [
    '  run              step     2/30  '
    'held-out loss  USER 1.2500  AGENT 2.5000',
    '  run              step     3/30  probe  mean_margin -0.5',
  ]


@pytest.mark.skipif(
  not pathlib.Path('/dev/full').exists(), reason='no device that is full'
)
def test_a_full_disk_is_named_with_its_file(tmp_path):
  values = {'loss': jnp.float32(2), 'tokens': jnp.int32(9)}
  values |= {'targets': jnp.float32(5)}
  with (
    pytest.raises(OSError, match='No space left') as caught,
    metrics_lib.Metrics(epath.Path(tmp_path), 'run', 0, 30, Drawn()) as metrics,
  ):
    metrics._file = open('/dev/full', 'ab')  # noqa: SIM115
    metrics.add(1, values)
    metrics.flush()
  assert caught.value.filename == str(tmp_path / 'metrics.jsonl')


# ---------------------------------------------------------------------- boards


@pytest.fixture
def wandb(monkeypatch):
  """A stand-in that is called as the library is; no network here."""
  calls = []

  class Run:
    def log(self, scalars, step):
      calls.append((step, scalars))

    def finish(self):
      calls.append('finish')

  module = types.ModuleType('wandb')
  module.init = lambda **settings: calls.append(settings) or Run()
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return calls


def test_weights_and_biases_is_drawn_in_if_it_is_asked_for(tmp_path, wandb):
  folder = epath.Path(tmp_path)
  for done, scalars in ((0, {'loss': 2.0}), (1, {'loss': 1.0})):
    boards = Loggers(folder, RunConfig(name='mine', seed=7), done, 'project')
    boards.add(done + 1, scalars)
    boards.close()
  first, one, finish, second, two, _ = wandb
  assert (one, two) == ((1, {'loss': 2.0}), (2, {'loss': 1.0}))
  assert finish == 'finish'
  assert first == second  # the same run goes on
  assert first['project'] == 'project' and first['name'] == 'mine'
  assert first['config']['seed'] == 7 and first['resume'] == 'allow'

  Loggers(folder, RunConfig(), 0).close()
  assert len(wandb) == 6

  other = folder / 'other'
  other.mkdir()
  Loggers(other, RunConfig(), 0, 'project').close()
  assert wandb[6]['id'] != first['id']


def test_where_it_is_not_installed_that_is_said(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ImportError):
    importlib.import_module('wandb')
  with pytest.raises(ValueError, match='pip install wandb'):
    Loggers(epath.Path(tmp_path), RunConfig(), 0, 'project')
