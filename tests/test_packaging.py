"""What people install: a wheel that works away from this folder."""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
import yaml

import isft_jax

ROOT = pathlib.Path(__file__).parents[1]
FILES = (
  *('isft_jax', 'configs', 'setup.py', 'pyproject.toml', 'README.md'),
  'LICENSE',
)
EXTRAS = {
  *('beam', 'colab', 'cuda', 'diff', 'gcs', 'parity', 'renderers'),
  *('serve', 'test', 'tpu', 'tpu-compile'),
}
SMALL = (
  '--config.vocab_size=300',
  '--config.documents.number=9',
  '--config.dialogues.number=3',
)
BUILD = (
  'import sys; from setuptools import build_meta; '
  'build_meta.build_wheel(sys.argv[1])'
)


def run(*command, cwd, check=True):
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  return subprocess.run(
    list(map(str, command)),
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
    check=check,
  )


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """A wheel, built as pip would, of a copy of what is in git."""
  tree = tmp_path_factory.mktemp('tree')
  for name in FILES:
    if (ROOT / name).is_dir():
      ignored = shutil.ignore_patterns('__pycache__')
      shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    else:
      shutil.copy(ROOT / name, tree)
  run(sys.executable, '-c', BUILD, tree / 'dist', cwd=tree)
  (found,) = (tree / 'dist').glob('*.whl')
  return found


@pytest.fixture(scope='module')
def programs(wheel, tmp_path_factory):
  """The scripts of a fresh environment that has the wheel.

  What it depends on comes from the environment of the tests.
  """
  place = tmp_path_factory.mktemp('installed')
  venv.create(place, with_pip=False)
  python = place / 'bin/python'
  pip = sys.executable, '-m', 'pip', '--python', python, 'install'
  run(*pip, '--quiet', '--no-deps', '--no-index', wheel, cwd=place)
  (packages,) = place.glob('lib/python*/site-packages')
  # A path alone: what is installed there as editable stays out of sight.
  (packages / 'tests.pth').write_text(sysconfig.get_path('purelib') + '\n')
  return place / 'bin'


def test_a_wheel_holds_all_of_the_package_and_nothing_else(wheel):
  names = {
    name
    for name in zipfile.ZipFile(wheel).namelist()
    if '.dist-info/' not in name
  }
  ours = {
    str(path.relative_to(ROOT))
    for path in (ROOT / 'isft_jax').rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }
  configs = {
    f'isft_jax/configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')
  }
  assert names == ours | configs
  assert {
    'isft_jax/py.typed',
    'isft_jax/report/page.css',
    'isft_jax/report/page.html.j2',
    'isft_jax/report/viewer/viewer.html.j2',
  } < names


def test_a_wheel_says_what_it_is(wheel):
  archive = zipfile.ZipFile(wheel)
  folder = f'isft_jax-{isft_jax.__version__}.dist-info'
  found = email.message_from_bytes(archive.read(f'{folder}/METADATA'))
  assert found['Version'] == isft_jax.__version__
  assert found['License-Expression'] == 'Apache-2.0'
  assert found['Requires-Python'] == '>=3.11'
  assert set(found.get_all('Provides-Extra')) == EXTRAS
  assert f'{folder}/licenses/LICENSE' in archive.namelist()
  assert found.get_payload().startswith('# isft_jax')


def test_a_packaged_config_is_found_by_name_from_anywhere(programs, tmp_path):
  done = run(
    *(programs / 'isft-inspect', '--config=lying_agent_tiny', *SMALL),
    '--html=page.html',
    cwd=tmp_path,
  )
  assert done.stdout == 'the page is in page.html\n'
  page = (tmp_path / 'page.html').read_text(encoding='utf-8')
  for name in ('page.css', 'viewer.js'):
    assert (ROOT / 'isft_jax/report' / name).read_text().strip() in page


def test_what_is_installed_is_the_wheel_alone(programs, tmp_path):
  script = 'import isft_jax; print(isft_jax.__file__)'
  found = run(programs / 'python', '-c', script, cwd=tmp_path).stdout
  assert pathlib.Path(found).is_relative_to(programs.parent)


def test_every_command_is_installed_and_opens_its_help_with_itself(
  programs, tmp_path
):
  commands = {path.name for path in programs.glob('isft-*')}
  modules = {
    f'isft-{path.stem}'
    for path in (ROOT / 'isft_jax/cli').glob('*.py')
    if '\ndef run() -> None:\n' in path.read_text()
  }
  assert commands == modules
  for name in commands:
    shown = run(programs / name, '--help', cwd=tmp_path)
    assert f'\n  {name} ' in shown.stdout


def test_isft_is_installed_and_starts_every_command(programs, tmp_path):
  overview = run(programs / 'isft', cwd=tmp_path).stdout
  by_module = run(programs / 'python', '-m', 'isft_jax', cwd=tmp_path).stdout
  assert overview == by_module
  for path in programs.glob('isft-*'):
    name = path.name.removeprefix('isft-')
    assert f'\n  {name:10}  ' in overview
  shown = run(programs / 'isft', 'train', '--help', cwd=tmp_path)
  assert (
    shown.stdout == run(programs / 'isft-train', '--help', cwd=tmp_path).stdout
  )


def test_an_import_is_quick_and_starts_no_jax():
  script = (
    'import sys, time; start = time.perf_counter(); import isft_jax; '
    'print(time.perf_counter() - start); '
    "print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
  )
  seconds, modules = run(
    sys.executable, '-c', script, cwd=ROOT
  ).stdout.splitlines()
  assert float(seconds) < 1
  assert modules == '[]'


def test_ci_runs_every_job_and_every_python_that_we_name(wheel):
  path = ROOT / '.github/workflows/ci.yml'
  job = yaml.safe_load(path.read_text())['jobs']['test']
  assert [step['run'] for step in job['steps'] if 'run' in step] == [
    '.ci/run ${{ matrix.job }}'
  ]
  matrix = [
    (each['job'], each['python'])
    for each in job['strategy']['matrix']['include']
  ]
  folder = f'isft_jax-{isft_jax.__version__}.dist-info'
  metadata = zipfile.ZipFile(wheel).read(f'{folder}/METADATA').decode()
  pythons = re.findall(r'Python :: (\d\.\d+)\n', metadata)
  oldest = pythons[0]
  assert f'\nRequires-Python: >={oldest}\n' in metadata
  assert sorted(matrix) == sorted(
    [('newest', python) for python in pythons] + [('lowest', oldest)]
  )
  script = (ROOT / '.ci/run').read_text()
  for name in {name for name, _ in matrix}:
    assert f'\n{name}() {{\n' in script, name
  commands = [line.strip() for line in script.splitlines()]
  wanted = 'ruff check .', 'ruff format --check .', 'pytest'
  places = [commands.index(command) for command in wanted]
  assert places == sorted(places)


def test_every_requirement_promises_a_lowest_version(wheel):
  """`.ci/run lowest` installs just those."""
  folder = f'isft_jax-{isft_jax.__version__}.dist-info'
  metadata = zipfile.ZipFile(wheel).read(f'{folder}/METADATA').decode()
  needed = re.findall(r'Requires-Dist: ([^;\n]+)\n', metadata)
  assert len(needed) > 10
  assert [
    each for each in needed if '>=' not in each and '==' not in each
  ] == []
