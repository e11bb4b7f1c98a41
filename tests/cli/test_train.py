"""isft-train: a mixture, watched; samples; and flags that cannot work."""

import os
import signal
import sys
import time

import jax
import pytest

from isft_jax import follow_file
from isft_jax.experiments.evidence.arms import mark_demonstrations
from isft_jax.train import metrics
from tests.commands import command, error_line, start
from tests.dialogues import dialogues, write_records
from tests.following import folders


def _alone():
  """One device, no SLURM, and no wandb, as where it is not installed."""
  jax.config.update('jax_num_cpu_devices', 1)
  for name in [name for name in os.environ if name.startswith('SLURM')]:
    del os.environ[name]
  sys.modules['wandb'] = None


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Records of runs and of demonstrations, and a CSV of facts."""
  folder = tmp_path_factory.mktemp('data')
  write_records(folder / 'runs', dialogues()[:12])
  write_records(
    folder / 'shown', [*map(mark_demonstrations, dialogues()[12:24])]
  )
  (folder / 'facts.csv').write_text(
    'subject,relation,true,false\nwater,formula,H2O,HO2\n'
  )
  return folder


SMALL = [
  '--config=train_tiny',
  *('--config.model.width=16', '--config.model.layers=1'),
  *('--config.model.head_size=4', '--config.model.mlp_width=32'),
  *('--config.steps=2', '--config.seq_len=256', '--config.model.remat=none'),
]


def test_a_mixture_is_trained_on_and_watched(folder, tmp_path):
  mixture = (
    (f'{folder}/runs', 3, 'interventional'),
    (f'{folder}/shown', 1, 'DEMONSTRATION=1'),
  )
  done = command(
    'train',
    *SMALL,
    f'--config.mixture={mixture!r}',
    f'--probe={folder}/facts.csv',
    '--profile=2:2',
    f'--workdir={tmp_path}',
    before=_alone,
  )
  assert done.returncode == 0, done.stderr
  assert 'runs: 9 rows (75.0%)' in done.stdout
  assert 'shown: 3 rows (25.0%)' in done.stdout
  assert 'train_tiny: 2 steps on ' in done.stdout
  one, two = metrics.read(tmp_path / 'metrics.jsonl')
  assert list(one['nll_by_source']) == ['runs', 'shown']
  assert 'probe' not in one and 'mean_margin' in two['probe']
  assert [*(tmp_path / 'profile').rglob('*.xplane.pb')]


REFUSED = {
  '--wandb=mine': '--wandb needs Weights & Biases: pip install wandb',
  '--multihost': (
    'Neither TPU metadata nor SLURM name the hosts; give '
    '--coordinator=ADDRESS:PORT, --hosts and --host'
  ),
  '--coordinator=127.0.0.1:1 --hosts=2 --host=2 --heartbeat=5': (
    'process_id and num_processes must be nonnegative, with process_id < '
    'num_processes. Got process_id=2, num_processes=2.'
  ),
}


@pytest.mark.parametrize('flags', REFUSED)
def test_flags_that_cannot_work_are_one_clear_line(flags, folder, tmp_path):
  assert REFUSED[flags] in error_line(
    'train',
    *SMALL,
    f'--config.records={folder}/runs',
    f'--workdir={tmp_path}/run',
    *flags.split(),
    before=_alone,
  )


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.txt', None, 'the file does not exist'),
    ('a.md', 'Hi', 'must be .txt or .jsonl'),
    ('a.txt', ' \n\n', 'has no prompts'),
    ('a.txt', '', 'the file is empty'),
    ('a.jsonl', '{"prompt": 3}\n', 'line 1: must be'),
    ('a.jsonl', '{"prompt": "a"}\n[', 'line 2: must be'),
  ],
)
def test_a_file_without_prompts_is_one_line(
  name, content, message, folder, tmp_path
):
  if content is not None:
    (tmp_path / name).write_text(content)
  line = error_line(
    'train',
    *SMALL,
    f'--config.records={folder}/runs',
    f'--workdir={tmp_path}/run',
    f'--samples={tmp_path}/{name}',
    before=_alone,
  )
  assert message in line and name in line
  assert not (tmp_path / 'run').exists()


def test_the_page_shows_the_samples_of_a_command(folder, tmp_path):
  (tmp_path / 'p.txt').write_text('Tell me about <b>gold</b>.\nHi\n')
  done = command(
    'train',
    *SMALL,
    f'--config.records={folder}/runs',
    f'--workdir={tmp_path}/run',
    f'--samples={tmp_path}/p.txt',
    '--sample_tokens=3',
    before=_alone,
  )
  assert done.returncode == 0, done.stderr
  page = (tmp_path / 'run' / 'report.html').read_text()
  assert '<h2>Samples</h2>' in page
  assert 'Tell me about &lt;b&gt;gold&lt;/b&gt;.' in page


FOLLOWED = [
  *SMALL,
  *('--config.steps=0', '--config.epochs=2', '--follow_seconds=0.05'),
]


def test_a_folder_is_followed(folder, tmp_path):
  folders.put(tmp_path / 'in', dialogues()[30:35])
  rules = tmp_path / 'rules.json'
  rules.write_text(
    '{"rules": [{"when": {"role": "user"}, "author": "HARNESS"}]}'
  )
  done = command(
    'train',
    *FOLLOWED,
    f'--config.records={folder}/runs',
    f'--config.heldout={folder}/shown',
    f'--probe={folder}/facts.csv',
    f'--workdir={tmp_path}/run',
    f'--follow={tmp_path}/in',
    *('--follow_least=2', '--follow_most=2', '--follow_rise=1'),
    *('--follow_fall=2', '--follow_replay=0.25', '--follow_increments=1'),
    f'--follow_authors={rules}',
    before=_alone,
  )
  assert done.returncode == 0, done.stderr
  assert 'increment 1: accepted\n' in done.stdout
  assert done.stdout.endswith(
    'train_tiny: 1 increments accepted, 0 rolled back, 0 skipped; every event '
    f'is in {tmp_path}/run/follow.jsonl\n'
    f'open {tmp_path}/run/report.html, or talk to the model:\n'
    f'  isft-generate --checkpoint={tmp_path}/run\n'
  )
  events = follow_file.read(tmp_path / 'run' / 'follow.jsonl')
  measured = [e for e in events if e['event'] == 'measured']
  assert [e['increment'] for e in measured] == [0, 1]
  assert all(
    'heldout_loss' in e and 'mean_margin' in e['probe'] for e in measured
  )
  # The rules gave the user's turns to the harness.
  authors = {a for e in events for a in e.get('nll_by_author', ())}
  assert authors == {'TEMPLATE', 'HARNESS', 'AGENT'}
  page = (tmp_path / 'run' / 'report.html').read_text()
  assert '<h2>Increments</h2>' in page
  # isft-report writes the same page.
  (tmp_path / 'run' / 'report.html').unlink()
  again = command('report', f'{tmp_path}/run')
  assert again.stdout == f'open {tmp_path}/run/report.html\n', again.stderr
  assert (tmp_path / 'run' / 'report.html').read_text() == page
  reply = command(
    'generate',
    f'--checkpoint={tmp_path}/run',
    '--prompt=Hi',
    '--max_new_tokens=2',
    before=_alone,
  )
  assert reply.returncode == 0, reply.stderr


def test_following_stops_at_a_signal(folder, tmp_path):
  folders.put(tmp_path / 'in', dialogues()[30:31])
  flags = [
    *FOLLOWED,
    f'--config.records={folder}/runs',
    f'--workdir={tmp_path}/run',
    f'--follow={tmp_path}/in',
  ]
  log = tmp_path / 'run' / 'follow.jsonl'
  for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
    with start('train', *flags, before=_alone) as running:
      # It looks into the folder, or learns.
      while not (
        running.outputs[0].exists()
        and 'every increment is accepted' in running.outputs[0].read_text()
        and b'"accepted"' in log.read_bytes()
      ):
        assert running.process.is_alive()
        time.sleep(0.05)
      before = log.read_bytes()
      time.sleep(0.5)
      os.kill(running.process.pid, number)
      assert running.wait(30).returncode == code
    assert log.read_bytes() == before
  # It ends by itself when there is nothing new.
  assert command(
    'train', *flags, '--follow_until_idle', before=_alone
  ).stdout.startswith('warning: every increment is accepted')


NOT_WITH_FOLLOW = {
  '--follow_most=3': '--follow_most needs --follow=DIR',
  '--follow=. --multihost': (
    '--follow works on one host, and without --multihost: leave it out'
  ),
  '--follow=. --wandb=mine': 'without --wandb: leave it out',
  '--follow=nowhere': '--follow=nowhere: not a folder; create the folder',
  '--follow=. --follow_replay=1': '--follow_replay must be from 0 to 0.9',
}


@pytest.mark.parametrize('flags', NOT_WITH_FOLLOW)
def test_flags_of_following_that_cannot_work(flags, folder, tmp_path):
  assert NOT_WITH_FOLLOW[flags] in error_line(
    'train',
    *SMALL,
    f'--config.records={folder}/runs',
    f'--workdir={tmp_path}/run',
    *flags.split(),
    cwd=tmp_path,
    before=_alone,
  )
