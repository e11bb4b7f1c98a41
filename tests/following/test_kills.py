"""Following is killed in its stages, and loses or repeats nothing."""

import os
import pkgutil
import signal

import jax
import numpy as np

from isft_jax import follow_file
from isft_jax.config import OptimConfig
from isft_jax.following.settings import Settings
from isft_jax.train import checkpoint, saved
from tests.commands import in_process
from tests.dialogues import dialogues, write_records
from tests.following import folders

# Function -> the call of it, counted from 1 in each process, at whose start the
# process is killed. They follow each other on the way through the increments:
# a process resumes where the one before was killed.
# tests/benchmarks/following_kills.py kills at all of them.
STAGES = [
  # Increment 0.
  ('isft_jax.train.checkpoint:_write_manifest', 1),  # half a checkpoint
  ('isft_jax.following.gate:measure', 1),
  # Increment 1: files are copied, prepared, scored, learned, measured.
  ('isft_jax.following.transcripts:Folder.copy', 2),
  ('isft_jax.data.preparation.outcomes:Preparer.__call__', 2),
  ('isft_jax.following.scores:measure_transcripts', 1),
  ('isft_jax.train.metrics:Metrics.flush', 1),  # nothing is saved yet
  ('isft_jax.train.checkpoint:_write_manifest', 2),  # of its second step
  ('isft_jax.train.metrics:Metrics.summary', 1),  # all is saved
  ('isft_jax.following.gate:objection', 1),
  ('isft_jax.train.checkpoint:point_to', 2),  # accepted, and not pointed to
  # Increment 2, whose garbage is rolled back.
  ('HALF LINE', 1),  # of the files
  ('HALF LINE', 2),  # of what is set aside
  ('isft_jax.data.records.dataset:Writer.finish', 1),
  ('isft_jax.train.metrics:Metrics.flush', 2),
  ('isft_jax.train.checkpoint:point_to', 2),
]
# What they leave behind: half files, a half-learned increment, a measure
# without its decision, and decisions that were not yet carried out.
KILLS = [STAGES[number] for number in (0, 2, 3, 5, 6, 8, 9, 10, 13, 14)]


def config(data):
  return folders.config(
    data,
    epochs=6,
    checkpoint_every=2,
    log_every=1,
    optim=OptimConfig(learning_rate=3e-2),
  )


def follow(data, workdir, folder, place, number):
  """Follows as a process that is killed at a call; without a place, it ends."""
  jax.config.update('jax_num_cpu_devices', 1)
  from isft_jax.following import follow

  _plant(place, number)
  settings = Settings(str(folder), seconds=0.01, most=3, until_idle=True)
  follow.follow(config(data), workdir, settings)


def _plant(place, number):
  if not place:
    return
  is_half = place == 'HALF LINE'
  place = 'isft_jax.follow_file:Log._append' if is_half else place
  module, _, path = place.partition(':')
  *owner, name = path.split('.')
  holder = pkgutil.resolve_name(
    f'{module}:{".".join(owner)}' if owner else module
  )
  function, calls = getattr(holder, name), []

  def planted(*arguments, **settings):
    calls.append(1)
    if len(calls) == number:
      if is_half:
        log, text = arguments
        function(log, text[: len(text) // 2])
      os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **settings)

  setattr(holder, name, planted)


def without_times(workdir):
  return [
    {k: v for k, v in event.items() if k not in ('time', 'seconds')}
    for event in follow_file.read(workdir / follow_file.NAME)
  ]


def test_kills_change_nothing(tmp_path):
  check(tmp_path, KILLS)


def check(tmp_path, kills):
  """Follows undisturbed and with kills; asserts that nothing differs."""
  data, folder = tmp_path / 'data', tmp_path / 'in'
  write_records(data / 'records', dialogues()[30:])
  (data / 'records' / 'tokenizer').rename(data / 'tokenizer')
  folders.put(folder, dialogues()[:3])
  (folder / '1.json').write_text('{"messages": [')
  for name in ('2.json', '2b.json'):
    (folder / name).write_text(folders.GARBAGE)
  folders.put(folder, dialogues()[4:6], first=3000)

  def run(workdir, place, number):
    return in_process(follow, data, workdir, folder, place, number, timeout=120)

  quiet, killed = tmp_path / 'quiet', tmp_path / 'killed'
  assert run(quiet, '', 0).returncode == 0
  decisions = [
    event['event']
    for event in without_times(quiet)
    if event['event'] in follow_file.ENDS
  ]
  assert decisions == ['accepted', 'rolled_back', 'accepted']

  for place, number in kills:
    done = run(killed, place, number)
    assert done.returncode == -signal.SIGKILL, (place, number, done.stderr)
  assert run(killed, '', 0).returncode == 0
  assert without_times(killed) == without_times(quiet)
  one, other = (saved.load(str(each)).model.params for each in (quiet, killed))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert checkpoint.checkpoint_folder(killed).parent.name == '0003'
  # Nothing else is left behind.
  names = [
    sorted(
      str(path.relative_to(each))
      for path in each.rglob('*')
      if 'checkpoints' not in path.parts and 'tensorboard' not in path.parts
    )
    for each in (quiet, killed)
  ]
  assert names[0] == names[1]
  assert [*(killed / 'incoming').iterdir()] == []
