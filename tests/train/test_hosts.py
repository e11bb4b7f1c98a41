"""Two hosts of 4 devices are one of 8, and lose nothing when one is lost.

One story, in the order of the fixtures: a host is killed and the other ends;
both go on, until a host is told to stop and both do; one host goes on alone, on
another mesh, to the end.
"""

import dataclasses
import http.server
import os
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from isft_jax import chips, sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records import dataset
from isft_jax.train import loop, preemption
from isft_jax.train import metrics as metrics_lib
from isft_jax.worlds.lying_agent import fact_files, probes
from tests.commands import ROOT
from tests.dialogues import plain_renderer
from tests.fixtures import needs
from tests.train import hosts

needs_libtpu = needs('libtpu')
HEARTBEAT = 10
KILLED_AT, TOLD_AT = 6, 5  # a host's batches
STEPS, EVERY = 24, 3


@pytest.fixture(scope='module')
def config(data_folder):
  """Eight epochs of three steps."""
  return RunConfig(
    name='train_tiny',
    records=str(data_folder / 'records'),
    tokenizer=str(data_folder / 'tokenizer'),
    seq_len=256,
    steps=STEPS,
    log_every=2,
    eval_every=4,
    checkpoint_every=EVERY,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    # eps far above a gradient's rounding, as in test_meshes.py
    optim=OptimConfig(learning_rate=1e-2, eps=1e-3),
    mesh=MeshConfig(data=-1, fsdp=2),
  )


def flags(config, workdir):
  """The config as changes to configs/train_tiny.py."""

  def of(settings, default, prefix=''):
    for field in dataclasses.fields(settings):
      value = getattr(settings, field.name)
      if dataclasses.is_dataclass(value):
        yield from of(
          value, getattr(default, field.name), f'{prefix}{field.name}.'
        )
      elif not isinstance(value, tuple):
        yield f'--config.{prefix}{field.name}={value}'

  return [
    '--config=train_tiny',
    *of(config, RunConfig()),
    f'--workdir={workdir}',
  ]


def written(path):
  """Facts for isft-train to ask for."""
  path.write_text(
    'subject,relation,true,false\ngold,symbol,Au,Go\nwater,formula,H2O,HO2\n'
  )
  return path


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
  """One process of 8 devices, from the start to the end: (run, its lines)."""
  workdir, folder = map(tmp_path_factory.mktemp, ('whole', 'facts'))
  facts, _ = fact_files.read(str(written(folder / 'facts.csv')))
  watch = probes.watch(facts, plain_renderer())
  run = loop.train(config, str(workdir), watch)
  return run, metrics_lib.read(workdir / 'metrics.jsonl')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('hosts')


@pytest.fixture(scope='module')
def killed(config, folder):
  """Two hosts, of which the second is killed: (codes, seconds, words)."""
  started = hosts.start(
    folder / 'killed',
    2,
    *flags(config, folder / 'run'),
    heartbeat=HEARTBEAT,
    send='SIGKILL',
    at=KILLED_AT,
  )
  started[1].wait(300)
  since = time.monotonic()
  (first, _, words), (second, _, _) = hosts.finish(started)
  return (first, second), time.monotonic() - since, words


@pytest.fixture(scope='module')
def told(config, folder, killed):
  """The two hosts go on; the second is told to stop.

  Returns [(code, out, err), ...] and the metrics they leave.
  """
  facts = written(folder / 'facts.csv')
  said = hosts.finish(
    hosts.start(
      folder / 'told',
      2,
      *flags(config, folder / 'run'),
      f'--probe={facts}',
      send='SIGTERM',
      at=TOLD_AT,
    )
  )
  return said, metrics_lib.read(folder / 'run' / 'metrics.jsonl')


@pytest.fixture(scope='module')
def alone(config, folder, told):
  """One host, another mesh, to the end: (run, its lines)."""
  run = loop.train(
    dataclasses.replace(config, mesh=MeshConfig(2, 2, 2)), str(folder / 'run')
  )
  return run, metrics_lib.read(folder / 'run' / 'metrics.jsonl')


def test_when_a_host_is_killed_the_other_ends_within_the_heartbeat(killed):
  codes, seconds, words = killed
  assert codes[1] == -9
  assert codes[0] != 0
  assert seconds < HEARTBEAT + 5  # and what it takes to end
  # Quoted in the README.
  assert 'another task died' in words
  assert 'stopped sending heartbeats' in words


def test_when_a_host_is_told_to_stop_both_save_and_can_be_started_again(
  told, folder
):
  said, lines = told
  assert [code for code, _, _ in said] == [75, 75] == [preemption.EXIT_CODE] * 2
  last = lines[-1]['step']
  assert last < STEPS
  assert f'asked to stop: step {last} is saved in {folder}/run' in said[0][1]
  assert (folder / 'run' / 'checkpoints' / f'step_{last}').is_dir()


def test_facts_are_asked_of_a_model_that_no_host_has_whole(whole, told):
  _, expected = whole
  asked = [line for line in told[1] if 'probe' in line]
  assert [line['step'] for line in asked] in ([4], [4, 8], [4, 8, 12])
  for line in asked:
    margin = expected[line['step'] - 1]['probe']['mean_margin']
    # float32 sums in another order, of margins of some tenths
    assert line['probe']['mean_margin'] == pytest.approx(margin, abs=1e-4)
    assert abs(margin) > 1e-3


def test_one_host_speaks_for_all(told):
  (_, first, _), (_, second, _) = told[0]
  assert 'rows per epoch' in first and '/24  loss' in first
  assert 'train_tiny' not in second


def test_every_host_reads_its_own_part_of_every_batch_once(
  config, folder, killed, told
):
  """Also after going on: from the newest checkpoint, not a batch left out."""
  source = pipeline.BatchSource(dataset.Records(config.records), config)
  expected = [source[step].tokens_BL.tolist() for step in range(STEPS)]
  last = told[1][-1]['step']

  one, other = hosts.read(folder / 'killed')
  assert len(other) == KILLED_AT - 1
  for step in range(KILLED_AT - 1):
    assert one[step] + other[step] == expected[step]

  one, other = hosts.read(folder / 'told')
  both = [a + b for a, b in zip(one, other, strict=True)]
  done = last - len(both)  # 0, if the first was not yet whole when it ended
  assert done in (0, EVERY)
  assert both == expected[done:last]


def test_the_losses_are_those_of_one_process(whole, told, alone):
  (_, expected), (_, before), (_, lines) = whole, told, alone
  assert len(before) >= TOLD_AT
  assert [line['step'] for line in lines] == [*range(1, STEPS + 1)]
  assert lines[: len(before)] == before
  for line, other in zip(lines, expected, strict=True):
    for name in ('targets', 'tokens'):
      assert line[name] == other[name]
    # float32 sums in another order
    assert line['loss'] == pytest.approx(other['loss'], rel=1e-5)
    assert line['nll_by_author'] == pytest.approx(
      other['nll_by_author'], rel=1e-5
    )
  assert expected[-1]['loss'] < expected[0]['loss'] - 1


def test_the_parameters_are_those_of_one_process(whole, alone):
  """After 24 steps, on two meshes and two numbers of hosts."""
  jax.tree.map(
    # The tolerance of test_meshes.py, whose parameters also move by 1e-2 a step
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=2e-5),
    jax.device_get(alone[0].params),
    jax.device_get(whole[0].params),
  )


def test_two_hosts_may_split_the_columns_of_each_row(config, whole, folder):
  """A row is on 8 devices of two hosts, which both read it: in an epoch."""
  mesh = MeshConfig(data=1, fsdp=1, context=8)
  config = dataclasses.replace(config, steps=3, mesh=mesh)
  workdir = folder / 'context'
  finished = hosts.finish(
    hosts.start(folder / 'split', 2, *flags(config, workdir))
  )
  assert [code for code, *_ in finished] == [0, 0], finished
  first, second = hosts.read(folder / 'split')
  assert first == second
  lines = metrics_lib.read(workdir / 'metrics.jsonl')
  for line, other in zip(lines, whole[1][:3], strict=True):
    # float32 sums in another order
    for name in ('loss', 'grad_norm'):
      assert line[name] == pytest.approx(other[name], rel=2e-5), name


# ------------------------------------------------------------ parts of a batch


@needs_libtpu
@pytest.mark.parametrize(
  ('sizes', 'parts'),
  [
    ((16, 1, 1), 4),
    ((1, 16, 1), 4),
    ((4, 4, 1), 4),
    ((2, 2, 4), 2),  # a row is on two hosts
    ((1, 1, 16), 1),  # on all
    ((1, 4, 1, 4), 4),  # experts split the rows, too
    ((1, 2, 4, 2), 2),
    ((2, 2, 1, 1, 4), 2),  # the columns of a row are on two hosts
    ((1, 1, 1, 1, 16), 1),
  ],
)
def test_the_hosts_of_a_slice_share_out_its_rows(sizes, parts):
  """Of v5e:4x4: four hosts, of whatever devices jax puts next to each other."""
  mesh = sharding.make_mesh(MeshConfig(*sizes), chips.describe('v5e:4x4'))
  found = [sharding.host_share(mesh, host) for host in range(4)]
  assert {of for _, of in found} == {parts}
  assert {part for part, _ in found} == set(range(parts))


# --------------------------------------------------------- who the hosts are


def joined(script, *arguments) -> list[str]:
  """What a script prints that joins hosts, outside of any cluster."""
  clean = {k: v for k, v in os.environ.items() if not k.startswith('SLURM')}
  shown = subprocess.run(
    [sys.executable, '-c', script, *arguments],
    cwd=ROOT,
    env=clean,
    capture_output=True,
    text=True,
    check=True,
  )
  return shown.stdout.splitlines()


BY_SLURM = """
import os
from isft_jax.train import multihost
try:
  multihost.join()
except ValueError as error:
  print(error)
os.environ.update(SLURM_JOB_ID='7', SLURM_STEP_NODELIST='127.0.0.1',
                  SLURM_NTASKS='1', SLURM_PROCID='0', SLURM_LOCALID='0')
multihost.join(heartbeat=5)
import jax
print(jax.distributed.is_initialized(), jax.process_count())
"""


def test_hosts_are_found_by_slurm_or_have_to_be_named():
  refused, found = joined(BY_SLURM)
  assert refused == (
    'coordinator_address should be defined. Neither TPU metadata nor SLURM '
    'name the hosts; give --coordinator=ADDRESS:PORT, --hosts and --host'
  )
  assert found == 'True 1'


BY_METADATA = """
import os, sys
os.environ['GCE_METADATA_IP'], os.environ['JAX_COORDINATOR_PORT'] = sys.argv[1:]
os.environ['JAX_FORCE_TPU_INIT'] = '1'  # as if there were a TPU
import jax
del os.environ['TPU_SKIP_MDS_QUERY']  # set as there is none
from isft_jax.train import multihost
multihost.join(heartbeat=5)
print(jax.distributed.is_initialized(), jax.process_count())
"""
METADATA = {
  'agent-worker-number': '0',
  'worker-network-endpoints': 'unknown:unknown:127.0.0.1',
  'tpu-env': "ACCELERATOR_TYPE: 'v5litepod-8'",
}


class Metadata(http.server.BaseHTTPRequestHandler):
  """What a TPU VM asks who it is."""

  def do_GET(self):
    self.send_response(200)
    self.end_headers()
    self.wfile.write(METADATA[self.path.rsplit('/', 1)[1]].encode())

  def log_message(self, *_):
    pass


@needs_libtpu
def test_hosts_are_found_by_tpu_metadata():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Metadata) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f'127.0.0.1:{server.server_port}'
    assert joined(BY_METADATA, place, str(hosts.free_port())) == ['True 1']
    server.shutdown()
