"""isft-compile: its flags, its two outputs, and exit codes."""

import json
import os
import re
import runpy
import signal
import time

import pytest

from isft_jax.config import RunConfig
from isft_jax.tpu import search
from tests.commands import ROOT, command, error_line, start
from tests.fixtures import needs

SMOKE = '--config=configs/lying_agent_smoke.py'
needs_libtpu = needs('libtpu')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name --config=configs/NAME.py and --topology=v5e:4x4, or give --all'),
    ([SMOKE], 'and --topology=v5e:4x4'),
    ([SMOKE, '--topology=16'], '--topology=16 --num_slices=1 is not a slice'),
    (['--search', '--all'], '--search takes one --config and --topology, not'),
    ([SMOKE, '--search'], 'and --topology=v5e:4x4'),
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


# ------------------------------------------------------------------- the search


def compile_at_once(config, topology, slices):
  """Stands for the compiler: what keeps anything is as fast as can be."""
  del topology, slices
  seconds = 9.0 if config.model.remat == 'full' else 1e-9
  return {
    'fits': True,
    'hbm_gib_per_chip': 1.0,
    'estimated_step_seconds': seconds,
    'seconds_by_resource': {'compute': seconds, 'hbm': 0, 'ici': 0, 'dcn': 0},
    'hardware_tflops_per_step': 2.0,
    'model_tflops_per_step': 1.0,
    'collective_gib_per_chip': {},
  }


def refuse(config, topology, slices):
  raise RuntimeError('INTERNAL: no program today')


def compile_the_first(config, topology, slices):
  """Stands for a compiler that takes long for all but the config."""
  if config.model.remat != 'full':
    time.sleep(600)
  return compile_at_once(config, topology, slices)


def slowly():
  search.compile_without_probes = compile_the_first


def at_once():
  search.compile_without_probes = compile_at_once


def never():
  search.compile_without_probes = refuse


FLAGS = (
  *(SMOKE, '--topology=v5e:1x1', '--search'),
  *('--config.model.remat=full', '--config.finetune.batch_size=2'),
)


@needs_libtpu
def test_a_search_prints_flags_and_writes_a_config(tmp_path):
  path = tmp_path / 'fast.py'
  done = command(
    'compile', *FLAGS, f'--output={path}', before=at_once, timeout=300
  )
  assert done.returncode == 0, done.stderr
  first, *trials, flags = done.stdout.splitlines()
  assert first.startswith('lying_agent_smoke on v5e:1x1: ')
  tried = [line for line in trials if 'per scored token' in line]
  assert len([line for line in tried if line.endswith('config itself')]) == 1
  assert all(re.match(r' +\d  fits         1.00 GiB  ', line) for line in tried)
  assert re.fullmatch(r'(--config\.[\w.]+=[\w,]+ ?)+', flags)
  assert f'train with --config={path}' in done.stderr
  config = runpy.run_path(str(path))['get_config']()
  assert f'--config.model.remat={config.model.remat}' in flags
  assert config.finetune.batch_size == 2
  # The flags and the file are the same run, and nothing is faster.
  again = command(
    *('compile', f'--config={path}', '--topology=v5e:1x1', '--search'),
    *('--json', '--headroom=0.2', '--search_minutes=2'),
    before=at_once,
    timeout=300,
  )
  assert again.returncode == 0, again.stderr
  assert json.loads(again.stdout)['settings'] == {}
  assert 'the config itself' in again.stderr


def _printed(running) -> str:
  path = running.outputs[0]
  return path.read_text() if path.exists() else ''


@needs_libtpu
def test_an_interrupted_search_has_the_best_so_far():
  with start('compile', *FLAGS, before=slowly) as running:
    while 'the config itself' not in _printed(running):
      time.sleep(0.1)
    os.kill(running.process.pid, signal.SIGINT)
    done = running.wait(60)
  assert done.returncode == 0, done.stderr
  assert 'the config itself is the fastest that fits:' in done.stdout
  assert re.search(r'compiled 1: 1 fit, .* [1-9]\d* stopped', done.stdout)


@needs_libtpu
def test_a_search_that_finds_nothing_says_what_to_change():
  failed = command(
    *('compile', *FLAGS, '--search_minutes=0.3'),
    before=never,
    timeout=300,
  )
  assert failed.returncode == 1
  assert 'failed' in failed.stdout and 'no program today' in failed.stdout
  assert failed.stderr.startswith('error: no settings were found that fit; ')
