"""isft-train: a mixture, watched; samples; and flags that cannot work."""

import os
import sys

import jax
import pytest

from isft_jax.experiments.evidence.arms import mark_demonstrations
from isft_jax.train import metrics
from tests.commands import command, error_line
from tests.dialogues import dialogues, write_records


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
