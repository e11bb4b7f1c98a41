"""Hosts with different configs, records or plans end with one line."""

import threading
import time

import pytest

from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.data.records import dataset
from isft_jax.train import inputs, multihost
from tests.train import hosts, test_hosts

FACTS = {'config.seed': 0, 'config.mixture': (), 'records of a': 'ab'}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
  monkeypatch.setattr(multihost, '_LEAVING', 0.5)


class Store:
  """Stands for jax's coordinator: keys are written once, and waited for."""

  def __init__(self, hosts):
    self.values, self.waiting = {}, 0
    self.changed = threading.Condition()
    self.hosts, self.is_closed = hosts, False

  def key_value_set(self, key, value):
    with self.changed:
      assert key not in self.values and value
      self.values[key] = value
      self.changed.notify_all()

  def blocking_key_value_get(self, key, milliseconds):
    with self.changed:
      if not self.changed.wait_for(
        lambda: key in self.values, milliseconds / 1000
      ):
        raise RuntimeError('DEADLINE_EXCEEDED: GetKeyValue() timed out\nmore')
    if key.endswith('/result'):
      time.sleep(0.1)  # a host that is slow to read it
    if self.is_closed:
      raise RuntimeError('UNAVAILABLE: failed to connect\nmore')
    return self.values[key]

  def wait_at_barrier(self, name, milliseconds):
    assert name == 'run/known'
    with self.changed:
      self.waiting += 1
      self.changed.notify_all()
      if not self.changed.wait_for(
        lambda: self.waiting == self.hosts, milliseconds / 1000
      ):
        raise RuntimeError('DEADLINE_EXCEEDED: Barrier timed out')


def compare(facts_by_host, seconds=20.0):
  """Runs a host per thread (None never comes); returns their messages."""
  store, messages = Store(len(facts_by_host)), {}

  def run(host, facts):
    try:
      multihost.compare(store, 'run', host, len(facts_by_host), facts, seconds)
      messages[host] = ''
    except ValueError as error:
      messages[host] = str(error)
      # The first host takes the store along when it ends.
      store.is_closed |= not host

  threads = [
    threading.Thread(target=run, args=(host, facts), daemon=True)
    for host, facts in enumerate(facts_by_host)
    if facts is not None
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
  return messages


def test_equal_hosts_go_on():
  assert compare([FACTS] * 4) == {0: '', 1: '', 2: '', 3: ''}


@pytest.mark.parametrize(
  ('theirs', 'words'),
  [
    ({'config.seed': 1}, 'config.seed (0 and 1)'),
    ({'records of a': 'cd'}, "records of a ('ab' and 'cd')"),
    (
      {'config.mixture': [['b', 1, '']]},
      "config.mixture ([] and [['b', 1, '']])",
    ),
    ({'new': 3}, 'new (None and 3)'),
    (
      {'config.seed': 1, 'a': 1, 'b': 1, 'c': 1},
      'config.seed (0 and 1), a (None and 1), b (None and 1) and 1 more',
    ),
  ],
)
@pytest.mark.parametrize('other', [1, 3])
def test_every_host_names_the_difference_in_one_line(theirs, words, other):
  facts = [FACTS] * 4
  facts[other] = FACTS | theirs
  message = (
    f'hosts 0 and {other} differ in {words}; start every host with the same '
    'command, config and records'
  )
  assert compare(facts) == dict.fromkeys(range(4), message)


def test_a_host_that_does_not_come_ends_the_others_in_time():
  since = time.monotonic()
  message = (
    'host 2 has not opened its inputs within 1 s of the first host; look at '
    'its output'
  )
  assert compare([FACTS, FACTS, None], 1.0) == {0: message, 1: message}
  assert time.monotonic() - since < 30


def test_without_the_first_host_the_others_end_too():
  assert compare([None, FACTS], 0.1) == {1: 'host 0 did not answer within 10 s'}


# ------------------------------------------------------------------- the facts


@pytest.fixture
def config(data_folder):
  return RunConfig(
    name='train_tiny',
    records=str(data_folder / 'records'),
    tokenizer=str(data_folder / 'tokenizer'),
    seq_len=256,
    steps=4,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2, eps=1e-3),
    mesh=MeshConfig(data=-1, fsdp=2),
  )


def test_the_facts_cover_config_records_and_plan(config):
  opened = inputs.open_inputs(config)
  facts = inputs.describe(opened)
  assert facts == inputs.describe(inputs.open_inputs(config))
  assert facts['config.optim.learning_rate'] == 1e-2
  assert facts['records of records'] == dataset.Records(config.records).digest()
  assert facts['rows per epoch'] == len(opened.source.plan)
  # Another order of the same rows is another plan.
  (plan,) = opened.source.plan.plans
  plan.entries_E3[[0, 1]] = plan.entries_E3[[1, 0]]
  changed = inputs.describe(opened)
  assert {k for k in facts if facts[k] != changed[k]} == {'digest of the plan'}


def test_two_hosts_with_other_configs_end_with_the_same_line(config, tmp_path):
  said = hosts.finish(
    hosts.start(
      tmp_path / 'hosts',
      2,
      *test_hosts.flags(config, tmp_path / 'run'),
      last=('--config.optim.learning_rate=0.5',),
    )
  )
  assert [code for code, _, _ in said] == [1, 1]
  for _, _, errors in said:
    lines = [line for line in errors.splitlines() if 'error:' in line]
    assert lines == [
      'error: hosts 0 and 1 differ in config.optim.learning_rate (0.01 and '
      '0.5); start every host with the same command, config and records'
    ]
  assert not (tmp_path / 'run').exists()
