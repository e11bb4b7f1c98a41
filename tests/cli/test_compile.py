"""isft-compile: its flags, its two outputs, and exit codes."""

import json
import runpy

import pytest

from isft_jax.config import RunConfig
from tests.commands import ROOT, command, error_line
from tests.fixtures import needs

SMOKE = '--config=configs/lying_agent_smoke.py'
needs_libtpu = needs('libtpu')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name --config=configs/NAME.py and --topology=v5e:4x4, or give --all'),
    ([SMOKE], 'and --topology=v5e:4x4'),
    ([SMOKE, '--topology=16'], '--topology=16 --num_slices=1 is not a slice'),
  ],
)
def test_bad_flags_are_one_clear_line(flags, message):
  assert message in error_line('compile', *flags)


@needs_libtpu
def test_json_is_one_object_a_slice_and_one_that_does_not_fit_exits_with_1():
  done = command(
    'compile',
    SMOKE,
    '--topology=v5e:1x1',
    '--json',
    '--config.finetune.batch_size=65536',
    '--config.model.attention=xla',
  )
  assert done.returncode == 1
  report = json.loads(done.stdout)
  assert done.stdout.count('\n') == 1
  assert report['config'] == 'lying_agent_smoke' and report['chips'] == 1
  assert report['fits'] is False
  assert report['hbm_gib_per_chip'] > report['hbm_capacity_gib'] == 15.75


def test_every_slice_that_a_config_names_is_of_a_config_that_it_makes():
  found = {
    path.stem: runpy.run_path(path)
    for path in (ROOT / 'configs').glob('[!_]*.py')
  }
  listed = {name for name, module in found.items() if 'SLICES' in module}
  # Every run of a model of its own; a config without a vocabulary is none.
  assert listed >= {
    name
    for name, module in found.items()
    if isinstance(config := module['get_config'](), RunConfig)
    and config.model.vocab_size
  }
  for name in listed:
    for argument, topology in found[name]['SLICES']:
      config = found[name]['get_config'](*filter(None, [argument]))
      assert config.name == name
      assert topology.partition(':')[0] in ('v5e', 'v5p', 'v6e')
