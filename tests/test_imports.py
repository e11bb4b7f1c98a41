"""Who may import whom. The directions are design decisions, kept by this test.

types <- {config, objectives, losses, sharding}
{types, pypi, places, gguf_file} <- data, models
all of those <- train, probes, theory
all of those <- experiments
all <- cli
"""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'isft_jax').rglob('*.py'))
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))

_FILES = 'pypi places gguf_file'
_GROUND = f'types config objectives losses sharding {_FILES} data models'
# Room: the rooms that it may import, besides itself.
MAY_IMPORT = {
  '': '',  # isft_jax/__init__.py
  'types': '',
  'pypi': '',
  'places': 'pypi',
  'gguf_file': '',
  'config': 'types',
  'objectives': 'types',
  'losses': 'types',
  'sharding': 'types config',
  'data': f'types config objectives {_FILES}',
  'models': f'types config losses {_FILES}',
  'train': _GROUND,
  'probes': _GROUND,
  'theory': _GROUND,
  'report': 'types',
  'experiments': f'{_GROUND} train probes theory report',
  'cli': f'{_GROUND} train probes theory report experiments configs',
  'configs': 'config',
}
# Room: what it may not import from outside.
JAX = ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex')
NO_LIBRARY = {
  # data imports config and objectives, which may load no jax either.
  'config': JAX,
  'objectives': JAX,
  'data': (*JAX, 'tensorflow', 'torch'),
  'report': JAX,
}
# Module: the only rooms that may import it.
ONLY_IN = {
  'absl.flags': ('cli',),
  'absl.app': ('cli',),
  'ml_collections': ('cli',),
  'isft_jax.experiments': ('experiments', 'cli'),
  'tensorflow': (),
  'torch': (),
  'pickle': (),
}


def imported(tree: ast.AST, package: str) -> set[str]:
  """Every dotted name that a file imports, inside functions too.

  `from a import b` gives a and a.b: b may be a module.
  package: of the file, for relative imports.
  """
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        parts = package.split('.')
        parts = parts[: len(parts) - node.level + 1]
        base = '.'.join([*parts, base] if base else parts)
      names.add(base)
      names |= {f'{base}.{alias.name}' for alias in node.names}
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
      ('import_module', '__import__')
    ):
      names.add(ast.literal_eval(node.args[0]))
  return names


def within(name: str, module: str) -> bool:
  return name == module or name.startswith(module + '.')


def violations(source: str, room: str, package: str = 'isft_jax') -> list[str]:
  """What a file of a room imports and may not."""
  names = imported(ast.parse(source), package)
  ours = {
    name.split('.')[1] for name in names if name.startswith('isft_jax.')
  } & MAY_IMPORT.keys()
  found = {
    f'{room} imports {other}'
    for other in ours - {room} - set(MAY_IMPORT[room].split())
  }
  if room == 'types':  # NumPy alone
    others = {name.split('.')[0] for name in names} - sys.stdlib_module_names
    found |= {f'types imports {x}' for x in others - {'numpy', 'isft_jax'}}
  for library in NO_LIBRARY.get(room, ()):
    if any(within(name, library) for name in names):
      found.add(f'{room} imports {library}')
  for module, rooms in ONLY_IN.items():
    if room not in rooms and any(within(name, module) for name in names):
      found.add(f'{room} imports {module}')
  return sorted(found)


def room_of(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT / 'isft_jax').with_suffix('').parts
  return '' if parts == ('__init__',) else parts[0]


def package_of(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(ROOT).parent.parts)


# ------------------------------------------------------------------ the package


@pytest.mark.parametrize(
  'path', FILES, ids=[str(path.relative_to(ROOT)) for path in FILES]
)
def test_a_file_imports_only_what_its_room_may(path):
  source = path.read_text()
  assert violations(source, room_of(path), package_of(path)) == []


@pytest.mark.parametrize('path', CONFIGS, ids=[path.name for path in CONFIGS])
def test_a_config_file_imports_the_settings_alone(path):
  assert violations(path.read_text(), 'configs', 'isft_jax.configs') == []


def test_every_room_has_a_direction():
  assert {room_of(path) for path in FILES} <= MAY_IMPORT.keys()
  assert len(FILES) > 20 and len(CONFIGS) > 1


def test_the_directions_make_no_circle():
  graph = {room: others.split() for room, others in MAY_IMPORT.items()}
  assert {o for others in graph.values() for o in others} <= graph.keys()
  order = [*graphlib.TopologicalSorter(graph).static_order()]
  assert order.index('types') < order.index('data') < order.index('train')
  assert order[-1] == 'cli'


def test_the_report_is_made_without_jax():
  """Through no third party either: a page is made where no model runs."""
  modules = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in FILES
    if room_of(path) == 'report' and path.name != '__init__.py'
  ]
  assert len(modules) >= 3
  script = (
    f'import sys, {", ".join(modules)}\n'
    f'print(sorted(set(sys.modules) & set({JAX!r})))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True
  )
  assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


# ------------------------------------------------------------- the check itself


@pytest.mark.parametrize(
  ('room', 'source', 'found'),
  [
    ('types', 'import numpy as np', []),
    ('types', 'import jax', ['types imports jax']),
    ('types', 'from etils import epath', ['types imports etils']),
    ('types', 'from isft_jax import config', ['types imports config']),
    ('config', 'import isft_jax.types', []),
    ('losses', 'from isft_jax.data import packing', ['losses imports data']),
    ('losses', 'import jax.numpy as jnp', []),
    ('sharding', 'from isft_jax.config import MeshConfig', []),
    ('sharding', 'import isft_jax.models', ['sharding imports models']),
    ('data', 'from isft_jax import objectives', []),
    ('data', 'from isft_jax.data import packing', []),
    ('data', 'import jax.numpy as jnp', ['data imports jax']),
    ('data', 'from jax import lax', ['data imports jax']),
    ('data', 'def f():\n  import flax.nnx', ['data imports flax']),
    ('data', 'from isft_jax.losses import x', ['data imports losses']),
    ('data', 'from isft_jax import types, losses', ['data imports losses']),
    ('models', 'from isft_jax import losses', []),
    ('models', 'from isft_jax import sharding', ['models imports sharding']),
    ('models', 'import isft_jax.data.render', ['models imports data']),
    ('models', 'import isft_jax.train.step as s', ['models imports train']),
    ('train', 'from isft_jax.data import pipeline', []),
    ('train', 'from isft_jax import probes', ['train imports probes']),
    ('probes', 'from isft_jax.models import generate', []),
    ('probes', 'import isft_jax.train.loop', ['probes imports train']),
    ('theory', 'from isft_jax.train import loop', ['theory imports train']),
    ('report', 'from isft_jax.types import Provenance', []),
    ('report', 'from isft_jax.report import plots', []),
    ('report', 'import matplotlib.pyplot as plt', []),
    ('report', 'from flax import nnx', ['report imports flax']),
    ('report', 'from isft_jax import probes', ['report imports probes']),
    ('experiments', 'from isft_jax.train import loop', []),
    (
      'train',
      'from isft_jax.experiments import lying_agent',
      ['train imports experiments', 'train imports isft_jax.experiments'],
    ),
    ('experiments', 'import isft_jax.cli', ['experiments imports cli']),
    ('cli', 'from isft_jax.experiments import lying_agent', []),
    ('cli', 'from absl import app, flags', []),
    ('train', 'from absl import flags', ['train imports absl.flags']),
    ('train', 'import absl.flags', ['train imports absl.flags']),
    ('train', 'from absl.flags import F', ['train imports absl.flags']),
    ('train', 'from absl import logging', []),
    (
      'experiments',
      'from ml_collections import config_flags',
      ['experiments imports ml_collections'],
    ),
    ('data', 'import tensorflow_datasets as tfds', []),
    ('train', 'import pickle', ['train imports pickle']),
    (
      'data',
      'importlib.import_module("isft_jax.models")',
      ['data imports models'],
    ),
    # Relative imports are resolved, from isft_jax.data.
    ('data', 'from . import packing', []),
    ('data', 'from .packing import make_plan', []),
    ('data', 'from .. import losses', ['data imports losses']),
    ('data', 'from ..models import decoder', ['data imports models']),
  ],
)
def test_the_check_sees_what_is_planted(room, source, found):
  assert violations(source, room, f'isft_jax.{room}') == found


def test_the_check_sees_what_is_planted_in_a_real_file():
  source = (ROOT / 'isft_jax/data/packing.py').read_text()
  assert violations(source, 'data', 'isft_jax.data') == []
  planted = source.replace('import numpy as np', 'import jax.numpy as np')
  assert violations(planted, 'data', 'isft_jax.data') == ['data imports jax']
