"""One training per workdir."""

import os
import socket

import pytest
from etils import epath

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.train import lock, loop, multihost
from isft_jax.train import metrics as metrics_lib


@pytest.fixture
def config(data_folder):
  """Its step is the program of test_loop.py, which is compiled once."""
  return RunConfig(
    records=str(data_folder / 'records'),
    tokenizer=str(data_folder / 'tokenizer'),
    seq_len=256,
    targets_per_row=256,
    steps=2,
    eval_every=1,
    model=ModelConfig(
      vocab_size=512, width=16, layers=2, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )


def test_a_second_training_in_a_workdir_ends_with_one_line(config, tmp_path):
  """Under another name of the folder too; the first one is not disturbed."""
  (tmp_path / 'link').symlink_to(tmp_path)
  refused = []

  def second(*_):
    for place in (tmp_path / 'run', tmp_path / 'link' / 'run'):
      with pytest.raises(ValueError) as raised:
        loop.train(config, place)
      refused.append(str(raised.value))
    return {}

  loop.train(config, tmp_path / 'run', probe=second)
  assert len(refused) == 4
  first = refused[0]
  assert '\n' not in first
  assert first.startswith(
    f'{tmp_path}/run: another training is writing there (process {os.getpid()} '
    f'on {socket.gethostname()}, since '
  )
  assert first.endswith('); wait for it, or name another --workdir')
  rows = metrics_lib.read(tmp_path / 'run' / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2]
  assert not (tmp_path / 'run' / '.lock').exists()
  loop.train(config, tmp_path / 'run')  # the lock is free


def test_a_new_workdir_stays_only_if_something_was_written(tmp_path):
  for name in ('empty', 'used'):
    with lock.locked(tmp_path / name):
      if name == 'used':
        (tmp_path / name / 'config.json').touch()
  assert [path.name for path in tmp_path.iterdir()] == ['used']
  (tmp_path / 'old').mkdir()
  with lock.locked(tmp_path / 'old'):
    pass
  assert (tmp_path / 'old').is_dir()


def test_a_bucket_has_no_lock():
  place = epath.Path('gs://bucket/run')
  with lock.locked(place), lock.locked(place):
    pass


# --------------------------------------------------------------- several hosts


class Store:
  """The key-value store of jax's coordinator."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value):
    assert value and key not in self.values
    self.values[key] = value

  def blocking_key_value_get(self, key, milliseconds):
    if key not in self.values:
      raise RuntimeError('DEADLINE_EXCEEDED: nobody wrote it')
    return self.values[key]


def as_host(monkeypatch, host, store):
  """Makes this process look like one of two hosts, at its first call."""
  monkeypatch.setattr(multihost, '_numbers', iter(range(9)))
  monkeypatch.setattr(multihost.jax, 'process_index', lambda: host)
  monkeypatch.setattr(multihost.jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
    multihost.orbax_multihost, 'get_jax_distributed_client', lambda: store
  )


def test_all_hosts_of_a_run_share_its_lock(monkeypatch, tmp_path):
  store = Store()
  as_host(monkeypatch, 0, store)
  with lock.locked(tmp_path):
    as_host(monkeypatch, 1, store)
    with lock.locked(tmp_path):
      pass


def test_all_hosts_of_a_second_run_end_with_the_same_line(
  monkeypatch, tmp_path
):
  store, lines = Store(), []
  with lock.locked(tmp_path):
    for host in (0, 1):
      as_host(monkeypatch, host, store)
      with pytest.raises(ValueError) as raised, lock.locked(tmp_path):
        pass
      lines.append(str(raised.value))
  assert lines[0] == lines[1]
  assert f'(process {os.getpid()} on ' in lines[0]


def test_a_first_host_that_does_not_answer_is_named(monkeypatch, tmp_path):
  as_host(monkeypatch, 1, Store())
  with (
    pytest.raises(ValueError, match='host 0 did not answer within 600 s'),
    lock.locked(tmp_path),
  ):
    pass
