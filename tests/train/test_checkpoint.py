"""Checkpoints: which are kept, and which is taken when one is damaged."""

import dataclasses
import json
import random
import re
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isft_jax.cli import main
from isft_jax.config import RunConfig
from isft_jax.train.checkpoint import (
  Checkpoints,
  checkpoint_folder,
  point_to,
)
from isft_jax.train.trainer import TrainState

CPU = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def state_of(step, size=300):
  """Of noise, which does not compress."""
  noise = np.random.default_rng(step).random((size, 4), np.float32)
  leaves = {'table': jnp.asarray(noise), 'scale': jnp.float32(step)}
  return TrainState(jnp.int32(step), leaves, {'mean': leaves, 'count': step})


def written(workdir, steps, **settings):
  """Saves so many steps; returns those that are left."""
  with Checkpoints(workdir, RunConfig(**settings)) as checkpoints:
    for step in steps:
      checkpoints.save(step, state_of(step), {'next_index': step}, 'print')
  return left(workdir)


def left(workdir):
  names = (p.name for p in (workdir / 'checkpoints').glob('step_*'))
  return sorted(int(name.removeprefix('step_')) for name in names)


def restored(workdir, config=None):
  """What the newest whole checkpoint holds: (step, data), its state checked."""
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=CPU),
    jax.tree.map(jnp.asarray, state_of(0)),
  )
  with Checkpoints(workdir, config) as checkpoints:
    state, data = checkpoints.restore(abstract)
  step = int(state.step)
  jax.tree.map(np.testing.assert_array_equal, state, state_of(step))
  return step, data['next_index']


# ------------------------------------------------------- the config of the run


@dataclasses.dataclass
class OldModel:
  """Fields as version 0.1 named them."""

  hidden: int = 64
  width: int = 8


@dataclasses.dataclass
class OldConfig:
  rows: int = 4
  row_length: int = 16
  sources: tuple = (('DIR', 1.0, ''),)
  keep_last: int = 2
  keep_every: int = 0
  model: OldModel = dataclasses.field(default_factory=OldModel)


def test_the_config_of_an_old_checkpoint_has_new_names(tmp_path):
  with Checkpoints(tmp_path, OldConfig()) as checkpoints:
    checkpoints.save(1, state_of(1), {'next_index': 1}, 'print')
  stored = next((tmp_path / 'checkpoints/step_1/run').rglob('metadata'))
  assert '"row_length"' in stored.read_text()
  with Checkpoints(tmp_path) as checkpoints:
    run = checkpoints.restore_run()
  assert run['fingerprint'] == 'print'
  assert run['config'] == {
    'batch_size': 4,
    'seq_len': 16,
    'mixture': [['DIR', 1.0, '']],
    'keep_last': 2,
    'keep_every': 0,
    'model': {'mlp_width': 64, 'width': 8},
  }


# ----------------------------------------------------------- which are kept


@pytest.mark.parametrize(
  ('settings', 'kept'),
  [
    ({}, [7, 8]),
    ({'keep_last': 1}, [8]),
    ({'keep_last': 2, 'keep_every': 3}, [3, 6, 7, 8]),
    ({'keep_last': 3, 'keep_every': 4}, [4, 6, 7, 8]),
  ],
)
def test_the_last_are_kept_and_every_so_many_for_good(settings, kept, tmp_path):
  left = written(tmp_path, range(1, 9), checkpoint_every=1, **settings)
  assert left == kept


def test_the_newest_is_restored_as_it_was_saved(tmp_path):
  written(tmp_path, [3, 7])
  assert restored(tmp_path) == (7, 7)


# --------------------------------------------------------------- damaged ones


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A run with checkpoints of steps 1 and 2."""
  workdir = tmp_path_factory.mktemp('two')
  assert written(workdir, [1, 2]) == [1, 2]
  return workdir


def files_of(workdir, step):
  """The files of a checkpoint's items."""
  folder = workdir / 'checkpoints' / f'step_{step}'
  return [path for path in sorted(folder.glob('*/**/*')) if path.is_file()]


def cut(path):
  path.write_bytes(path.read_bytes()[:-1])
  size = path.stat().st_size
  return f'{path} has {size:,} of {size + 1:,} bytes'


def remove(path):
  path.unlink()
  return f'{path} is missing'


@pytest.mark.parametrize('damage', [cut, remove])
def test_whatever_file_is_damaged_the_one_before_is_taken(
  damage, two, tmp_path, capsys
):
  for number in range(len(files_of(two, 2))):
    workdir = tmp_path / str(number)
    shutil.copytree(two, workdir)
    message = damage(files_of(workdir, 2)[number])
    with Checkpoints(workdir) as checkpoints:
      assert checkpoints.latest() == 1
    assert capsys.readouterr().out == (
      f'{message}; reading an older checkpoint instead\n'
    )
  assert number > 20
  assert restored(workdir) == (1, 1)


def test_a_run_puts_it_aside_and_saves_that_step_again(two, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  message = cut(files_of(workdir, 2)[0])
  assert restored(workdir, RunConfig()) == (1, 1)
  aside = workdir / 'checkpoints' / 'damaged_step_2'
  assert capsys.readouterr().out == (
    f'{message}; the run resumes from an older checkpoint, or from the start; '
    f'the rest of this one is in {aside}\n'
  )
  assert left(workdir) == [1] and aside.is_dir()
  assert written(workdir, [2]) == [1, 2]
  assert restored(workdir) == (2, 2)

  remove(files_of(workdir, 2)[3])
  assert restored(workdir, RunConfig()) == (1, 1)
  assert left(workdir) == [1] and aside.is_dir()


def flip(path, seed=0):
  """Flips one bit; the size stays."""
  rng = random.Random(f'{path.name} {seed}')
  content = bytearray(path.read_bytes())
  content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)
  return f'{path} has changed since it was written'


def zero(path):
  path.write_bytes(bytes(path.stat().st_size))
  return f'{path} has changed since it was written'


def grow(path):
  size = path.stat().st_size
  path.write_bytes(path.read_bytes() + b'x')
  return f'{path} has {size + 1:,} of {size:,} bytes'


def unreadable(path):
  """As a bad sector: the name and the size are there, and no content."""
  size = path.stat().st_size
  path.unlink()
  path.mkdir()
  return f'{path} is missing' if size else ''


@pytest.mark.parametrize('damage', [flip, zero, grow, unreadable])
def test_whatever_file_has_changed_a_run_resumes_from_the_one_before(
  damage, two, tmp_path, capsys
):
  number_of_files = len(files_of(two, 2))
  # A bit in every file; the coarser damages in every fifth, which is quicker.
  for number in range(0, number_of_files, 1 if damage is flip else 5):
    workdir = tmp_path / str(number)
    shutil.copytree(two, workdir)
    message = damage(files_of(workdir, 2)[number])
    with Checkpoints(workdir, RunConfig()) as checkpoints:
      assert checkpoints.latest() == 1
    aside = workdir / 'checkpoints' / 'damaged_step_2'
    assert capsys.readouterr().out == (
      f'{message}; the run resumes from an older checkpoint, or from the '
      f'start; the rest of this one is in {aside}\n'
    )
    assert aside.is_dir() and left(workdir) == [1]
  assert number_of_files > 20
  assert restored(workdir, RunConfig()) == (1, 1)


def test_who_only_reads_takes_the_one_before(two, tmp_path, capsys):
  """Only the files that are read are compared, which may be a third of all."""
  items = {path.name for path in (two / 'checkpoints/step_2').iterdir()}
  for item in sorted(items & {'params', 'opt_state', 'data', 'run'}):
    workdir = tmp_path / item
    shutil.copytree(two, workdir)
    path = next(p for p in files_of(workdir, 2) if f'step_2/{item}/' in str(p))
    message = flip(path)
    capsys.readouterr()
    if item == 'run':  # not read by `restore`
      assert restored(workdir) == (2, 2)
      with Checkpoints(workdir) as checkpoints:
        checkpoints.restore_run()
    else:
      assert restored(workdir) == (1, 1)
    out = capsys.readouterr().out
    assert out == f'{message}; reading an older checkpoint instead\n'
    assert left(workdir) == [1, 2]
    # It is the newest still, for who reads none of the damage.
    with Checkpoints(workdir) as checkpoints:
      assert checkpoints.latest() == 2


def test_every_flip_of_a_manifest_is_harmless(two, tmp_path):
  """What it says of its files is no longer believed, or still true."""
  for number in range(20):
    workdir = tmp_path / str(number)
    shutil.copytree(two, workdir)
    flip(workdir / 'checkpoints' / 'step_2' / 'files.json', number)
    with Checkpoints(workdir, RunConfig()) as checkpoints:
      assert checkpoints.latest() in (1, 2)


@pytest.mark.parametrize(
  'content', ['', '[]', '3', '{"a": [1]}', '{"a": {"bytes": 1}}', '{"a": null}']
)
def test_a_manifest_of_other_content_is_damage(content, two, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  (workdir / 'checkpoints' / 'step_2' / 'files.json').write_text(content)
  with Checkpoints(workdir, RunConfig()) as checkpoints:
    assert checkpoints.latest() == 1


def with_sizes_only(workdir, step):
  """Turns a manifest into that of an older version."""
  path = workdir / 'checkpoints' / f'step_{step}' / 'files.json'
  manifest = json.loads(path.read_text())
  assert all({*entry} == {'bytes', 'sha256'} for entry in manifest.values())
  sizes = {name: entry['bytes'] for name, entry in manifest.items()}
  path.write_text(json.dumps(sizes))


def without_manifest(workdir, step):
  (workdir / 'checkpoints' / f'step_{step}' / 'files.json').unlink()


@pytest.mark.parametrize('age', [with_sizes_only, without_manifest])
def test_one_without_checksums_is_read_and_if_it_cannot_put_aside(
  age, two, tmp_path, capsys
):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  for step in (1, 2):
    age(workdir, step)
  assert restored(workdir) == restored(workdir, RunConfig()) == (2, 2)

  folder = workdir / 'checkpoints' / 'step_2'
  zero(folder / 'params' / 'manifest.ocdbt')
  capsys.readouterr()
  assert restored(workdir) == (1, 1)
  assert re.fullmatch(
    rf'{folder} cannot be read \(.*\); reading an older checkpoint instead\n',
    capsys.readouterr().out,
  )
  assert left(workdir) == [1, 2]
  assert restored(workdir, RunConfig()) == (1, 1)
  assert re.fullmatch(
    rf'{folder} cannot be read \(.*\); the run resumes from an older .*\n',
    capsys.readouterr().out,
  )
  assert left(workdir) == [1]
  assert (workdir / 'checkpoints' / 'damaged_step_2').is_dir()
  assert written(workdir, [2]) == [1, 2]


@pytest.mark.parametrize('age', [None, with_sizes_only, without_manifest])
def test_where_none_can_be_read_the_newest_is_named_and_all_are_kept(
  age, two, tmp_path
):
  """As when the model has another shape: this is no damage."""
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  for step in (1, 2) if age else ():
    age(workdir, step)
  shapes = {'scale': jax.ShapeDtypeStruct((7,), jnp.float32, sharding=CPU)}
  abstract = TrainState(jnp.int32(0), shapes, shapes)
  folder = workdir / 'checkpoints' / 'step_2'
  for config in (None, RunConfig()):
    with (
      Checkpoints(workdir, config) as checkpoints,
      pytest.raises(ValueError, match=f'^{folder} cannot be read .*: move'),
    ):
      checkpoints.restore(
        abstract._replace(
          step=jax.ShapeDtypeStruct((), jnp.int32, sharding=CPU)
        )
      )
    assert left(workdir) == [1, 2]


def test_where_all_are_damaged_there_is_none(two, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  for step in (1, 2):
    remove(files_of(workdir, step)[0])
  with Checkpoints(workdir) as checkpoints:
    assert checkpoints.latest() is None
  with Checkpoints(workdir, RunConfig()) as checkpoints:
    assert checkpoints.latest() is None
  assert left(workdir) == []


def empty(folder):
  folder.mkdir()
  return f'{folder} is empty'


def empty_item(folder):
  shutil.copytree(folder.with_name('step_2'), folder)
  (folder / 'files.json').unlink()
  shutil.rmtree(folder / 'run')
  (folder / 'run').mkdir()
  return f'{folder / "run"} is missing or empty'


def missing_item(folder):
  shutil.copytree(folder.with_name('step_2'), folder)
  (folder / 'files.json').unlink()
  shutil.rmtree(folder / 'params')
  return f'{folder / "params"} is missing or empty'


def missing_moments(folder):
  """Who only reads the parameters need not know."""
  missing_item(folder)
  (folder / 'opt_state').rename(folder / 'params')
  return f'{folder / "opt_state"} is missing or empty'


@pytest.mark.parametrize('damage', [empty, empty_item, missing_item])
def test_a_checkpoint_without_files_is_left_out(damage, two, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  message = damage(workdir / 'checkpoints' / 'step_3')
  with Checkpoints(workdir) as checkpoints:
    assert checkpoints.latest() == 2
  assert capsys.readouterr().out == (
    f'{message}; reading an older checkpoint instead\n'
  )
  assert restored(workdir, RunConfig()) == (2, 2)
  assert capsys.readouterr().out.endswith(
    f'{message}; the run resumes from an older checkpoint, or from the start; '
    f'the rest of this one is in {workdir}/checkpoints/damaged_step_3\n'
  )
  assert left(workdir) == [1, 2]


def test_a_run_needs_the_moments_too(two, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  missing_moments(workdir / 'checkpoints' / 'step_3')
  with Checkpoints(workdir, RunConfig()) as checkpoints:
    assert checkpoints.latest() == 2


def test_a_file_in_place_of_a_checkpoint_is_put_aside(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'checkpoints' / 'step_1').write_text('no folder')
  assert written(tmp_path, [1]) == [1]
  aside = tmp_path / 'checkpoints' / 'damaged_step_1'
  assert aside.read_text() == 'no folder'


def test_one_of_an_older_version_has_no_seal_and_is_taken(two, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  (workdir / 'checkpoints' / 'step_2' / 'files.json').unlink()
  assert restored(workdir) == (2, 2)


def test_who_only_reads_leaves_what_a_run_is_writing(two, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  part = workdir / 'checkpoints' / 'step_3.orbax-checkpoint-tmp'
  shutil.copytree(workdir / 'checkpoints' / 'step_2', part)
  assert restored(workdir) == (2, 2)
  assert part.is_dir()
  # A thread of Orbax deletes it, and saving waits for that.
  assert written(workdir, [4]) == [2, 4]
  assert not part.exists()


# ------------------------------------------------------------------ full disks


def test_when_the_disk_is_full_the_last_checkpoint_is_intact(tmp_path):
  """A limit on the size of a file stands for a disk that is full."""
  unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
  with (
    pytest.raises(Exception, match='File too large') as caught,
    Checkpoints(tmp_path, RunConfig()) as checkpoints,
  ):
    checkpoints.save(1, state_of(1), {'next_index': 1}, 'print')
    checkpoints.wait()
    try:
      resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, unlimited[1]))
      checkpoints.save(2, state_of(2), {'next_index': 2}, 'print')
      checkpoints.wait()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
  assert 'free some space' in main._as_line(caught.value)
  assert restored(tmp_path) == (1, 1)
  # The same again, where there is space, and then more.
  assert written(tmp_path, [2, 3]) == [2, 3]


def test_a_workdir_that_points_to_a_run_inside_of_it(tmp_path):
  for name, step in (('0001', 3), ('0002', 5)):
    written(tmp_path / 'increments' / name, [step])
    point_to(tmp_path, f'increments/{name}')
    with Checkpoints(tmp_path) as checkpoints:
      assert checkpoints.latest() == step
  assert checkpoint_folder(tmp_path) == (
    tmp_path / 'increments' / '0002' / 'checkpoints'
  )
  # The same again writes nothing.
  before = (tmp_path / 'accepted.json').stat()
  point_to(tmp_path, 'increments/0002')
  assert (tmp_path / 'accepted.json').stat() == before


@pytest.mark.parametrize(
  'text', ['', '{', '[]', '{}', '{"run": 3}', '{"run": "../other"}']
)
def test_a_damaged_pointer_is_refused(text, tmp_path):
  (tmp_path / 'accepted.json').write_text(text)
  with pytest.raises(ValueError, match=r'accepted\.json is damaged'):
    checkpoint_folder(tmp_path)
