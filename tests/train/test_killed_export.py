"""A killed export leaves no model, and the same command then succeeds."""

import functools
import itertools
import os
import signal
import sys

import jax
import numpy as np
import pytest

from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.hf import pretrained
from isft_jax.train.export import export
from tests.commands import command, error_line
from tests.hf.damaged_folders import MODEL, write_folder
from tests.train.saved_runs import save_run


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run whose checkpoint holds the weights of a model folder."""
  path = tmp_path_factory.mktemp('run')
  folder = write_folder(path / 'model')
  model, _ = pretrained.load(folder)
  save_run(path / 'run', MODEL, model.params, str(folder))
  return path / 'run'


def kill_at(number, folder):
  """Kills this process at its number-th change in a folder."""
  changes = itertools.count(1)

  def hook(event, arguments):
    if event in ('open', 'os.mkdir', 'os.rename') and arguments:
      is_inside = str(arguments[0]).startswith(folder)
      if is_inside and next(changes) == number:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)


def assert_whole(folder, workdir):
  model, _ = pretrained.load(folder)
  expected, _ = pretrained.load(workdir.parent / 'model')
  jax.tree.map(np.testing.assert_array_equal, model.params, expected.params)
  assert tokenizer_lib.load(str(folder)).eos_token_id == 0
  assert (folder / 'generation_config.json').is_file()


@pytest.mark.parametrize('exists', [False, True])
def test_a_killed_export_can_be_repeated(exists, workdir, tmp_path):
  target = tmp_path / 'place' / 'model'
  (target if exists else target.parent).mkdir(parents=True)
  flags = f'--checkpoint={workdir}', f'--output={target}'
  kills = 0
  for number in (1, 4, 9, 14):
    before = functools.partial(kill_at, number, str(target.parent))
    if command('export', *flags, before=before).returncode == 0:
      break
    kills += 1
    names = {path.name for path in target.glob('[!.]*')}
    assert 'config.json' not in names
    assert exists or not target.exists()
  assert kills >= 2
  if kills == 4:
    export(str(workdir), str(target))
  assert_whole(target, workdir)
  # Nothing else is left, and the folder is not written again.
  assert [path.name for path in target.parent.iterdir()] == ['model']
  assert not [*target.glob('.*')]
  with pytest.raises(ValueError, match='is not empty; name another --output'):
    export(str(workdir), str(target))


def test_an_export_has_the_modes_of_the_umask(workdir, tmp_path):
  before = os.umask(0o022)
  try:
    export(str(workdir), str(tmp_path / 'model'))
  finally:
    os.umask(before)
  modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.glob('model/*')}
  assert modes.keys() >= {'config.json', 'model.safetensors', 'tokenizer.json'}
  assert set(modes.values()) == {0o644}
  assert (tmp_path / 'model').stat().st_mode & 0o777 == 0o755


def test_a_model_folder_is_no_run(workdir, tmp_path):
  model = workdir.parent / 'model'
  line = error_line('export', f'--checkpoint={model}', f'--output={tmp_path}/x')
  assert f'{model}: a model already; an export starts from the workdir' in line
  line = error_line(
    'export', f'--records={model}', f'--labels={tmp_path}/x.parquet'
  )
  assert f'--records={model}: a model; name a folder that isft-prepare' in line
  line = error_line('inspect', f'--records={workdir}', '--tokenizer=x')
  assert f'--records={workdir}: the workdir of a run' in line
