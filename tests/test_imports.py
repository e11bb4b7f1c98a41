"""Who may import whom. The directions are design decisions, kept by this test.

types <- config, objectives, losses, sharding,
         {axes, pypi, places, gguf_file, chips, files, locks, metrics_file,
          samples_file, follow_file, statistics, terminal, progress_bar}
all of those <- data <- worlds
                models <- hf; data, hf <- inference <- train <- tpu
data: files <- messages <- formats; formats, rendering, records <- preparation,
      records <- batching
      rendering <- comparison
all of those <- experiments
data, inference <- serving
data, train <- following
data, inference, train, worlds <- api
settings and shapes <- configs
all <- cli <- __main__
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

_DATA = (
  'data.files data.messages data.formats data.rendering data.records '
  'data.batching'
)
_GROUND = (
  'types axes column_order config objectives losses sharding pypi places '
  'gguf_file chips files locks metrics_file samples_file statistics terminal '
  'progress_bar '
  f'{_DATA} models hf inference'
)
_REPORT = (
  'report report.lying_agent report.evidence report.theory report.viewer '
  'report.diff report.training report.following'
)
# Room: the rooms that it may import, besides itself.
MAY_IMPORT = {
  '': 'api',  # isft_jax/__init__.py
  'types': '',
  'axes': '',
  'column_order': '',
  'pypi': '',
  'places': 'pypi',
  'gguf_file': 'files',
  'chips': '',
  'files': 'locks',
  'locks': '',
  'metrics_file': 'files',
  'samples_file': 'metrics_file',
  'follow_file': 'files',
  'statistics': '',
  'terminal': '',
  'progress_bar': 'terminal',
  'config': 'types files',
  'objectives': 'types',
  'losses': 'types',
  'sharding': 'types axes column_order config',
  'data.files': 'types files',
  'data.messages': 'types data.files',
  'data.formats': 'types data.files data.messages',
  'data.rendering': 'types files places gguf_file',
  'data.records': 'types files',
  'data.preparation': (
    'types objectives files locks data.files data.messages data.formats '
    'data.rendering data.records'
  ),
  'data.comparison': 'types data.rendering',
  'data.batching': 'types config objectives files data.records',
  'models': 'types axes column_order config losses',
  'models.presets': 'config',
  'hf': 'types config files places gguf_file sharding models',
  'inference': (
    'types files locks terminal progress_bar sharding data.rendering hf models'
  ),
  'serving': 'types files locks data.messages data.rendering inference',
  'train': _GROUND,
  'following': f'{_GROUND} follow_file data.preparation train',
  'tpu': f'{_GROUND} train',
  'worlds': _GROUND,
  'theory': 'types config files losses models',
  'report': 'types files terminal report.lying_agent report.evidence',
  'report.viewer': 'types terminal report',
  'report.diff': 'types report report.viewer',
  # config: results of old versions have old names of fields.
  'report.lying_agent': 'config files statistics report report.viewer',
  'report.evidence': 'files report report.lying_agent',
  'report.theory': 'files report',
  'report.training': (
    'config files metrics_file samples_file report report.viewer '
    'report.lying_agent'
  ),
  'report.following': 'files follow_file report report.training',
  'experiments': f'{_GROUND} train worlds theory {_REPORT} experiments.config',
  'experiments.config': 'config',
  'api': f'{_GROUND} data.preparation train worlds configs',
  'cli': (
    f'{_GROUND} follow_file data.preparation data.comparison train following '
    f'tpu worlds theory {_REPORT} experiments experiments.config api serving '
    'configs'
  ),
  'configs': 'config models.presets experiments.config',
  '__main__': 'cli',
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
  'isft_jax.experiments': ('experiments', 'cli', 'configs'),
  'aiohttp': ('serving',),  # an extra
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
    room_named(name.removeprefix('isft_jax.'))
    for name in names
    if name.startswith('isft_jax.')
  } - {''}
  found = {
    f'{room} imports {other}'
    for other in ours - {room} - set(MAY_IMPORT[room].split())
  }
  if room == 'types':  # NumPy alone
    others = {name.split('.')[0] for name in names} - sys.stdlib_module_names
    found |= {f'types imports {x}' for x in others - {'numpy', 'isft_jax'}}
  for library in NO_LIBRARY.get(room.split('.')[0], ()):
    if any(within(name, library) for name in names):
      found.add(f'{room} imports {library}')
  for module, rooms in ONLY_IN.items():
    if room not in rooms and any(within(name, module) for name in names):
      found.add(f'{room} imports {module}')
  return sorted(found)


def room_named(name: str) -> str:
  """The room of a module: the longest that its name begins with, or none."""
  rooms = [room for room in MAY_IMPORT if room and within(name, room)]
  return max(rooms, key=len, default='')


def room_of(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT / 'isft_jax').with_suffix('').parts
  return room_named('.'.join(parts))


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
def test_a_config_file_imports_only_settings_and_shapes(path):
  assert violations(path.read_text(), 'configs', 'isft_jax.configs') == []


def test_every_file_is_in_a_room():
  roomless = [path for path in FILES if not room_of(path)]
  assert {path.name for path in roomless} == {'__init__.py'}
  assert len(FILES) > 20 and len(CONFIGS) > 1


def test_the_directions_make_no_circle():
  graph = {room: others.split() for room, others in MAY_IMPORT.items()}
  assert {o for others in graph.values() for o in others} <= graph.keys()
  # `rebuild` knows all pages, and they share what else is in its room.
  graph['report'] = []
  # Whoever imports a module of the package runs the front door first, which
  # therefore imports the API only when a name of it is used.
  del graph['']
  order = [*graphlib.TopologicalSorter(graph).static_order()]
  along = ('types', 'data.records', 'data.batching', 'train', 'experiments')
  assert sorted(along, key=order.index) == list(along)
  assert order[-2:] == ['cli', '__main__']


def test_the_report_is_made_without_jax():
  """Through no third party either: a page is made where no model runs."""
  modules = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in FILES
    if room_of(path) == 'report' and path.name != '__init__.py'
  ]
  assert len(modules) >= 3
  assert_no_jax(modules)


def test_a_config_file_loads_without_jax():
  """So that a command with a mistake in its flags fails at once."""
  modules = [f'isft_jax.configs.{path.stem}' for path in CONFIGS]
  assert len(modules) >= 3
  assert_no_jax([name for name in modules if not name.endswith('__init__')])


def assert_no_jax(modules):
  script = (
    f'import sys, {", ".join(modules)}\n'
    f'print(sorted(set(sys.modules) & set({JAX!r})))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True
  )
  assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


def test_the_package_itself_imports_no_library():
  """Its names are loaded when they are used: see isft_jax/__init__.py."""
  script = (
    'import sys; before = set(sys.modules)\n'
    'import isft_jax; assert "finetune" in dir(isft_jax)\n'
    'new = {name.split(".")[0] for name in sys.modules.keys() - before}\n'
    'print(sorted(new - sys.stdlib_module_names))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True
  )
  assert (done.returncode, done.stdout) == (0, "['isft_jax']\n"), done.stderr


def test_labels_are_made_without_jax():
  script = (
    'import sys, isft_jax.api, isft_jax.data.batching.labels\n'
    'isft_jax.weights, isft_jax.labels, isft_jax.write_labels\n'
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
    (
      'losses',
      'from isft_jax.data import batching',
      ['losses imports data.batching'],
    ),
    (
      'losses',
      'from isft_jax.data.batching import packing',
      ['losses imports data.batching'],
    ),
    ('losses', 'import jax.numpy as jnp', []),
    ('sharding', 'from isft_jax.config import MeshConfig', []),
    ('sharding', 'import isft_jax.models', ['sharding imports models']),
    ('data.batching', 'from isft_jax import objectives', []),
    ('data.batching', 'from isft_jax.data.batching import packing', []),
    (
      'data.records',
      'from isft_jax.data.batching import packing',
      ['data.records imports data.batching'],
    ),
    (
      'data.files',
      'import isft_jax.data.formats.openai',
      ['data.files imports data.formats'],
    ),
    (
      'data.records',
      'import jax.numpy as jnp',
      ['data.records imports jax'],
    ),
    ('data.files', 'from jax import lax', ['data.files imports jax']),
    ('data.files', 'def f():\n  import flax', ['data.files imports flax']),
    (
      'data.batching',
      'from isft_jax.losses import x',
      ['data.batching imports losses'],
    ),
    (
      'data.batching',
      'from isft_jax import types, losses',
      ['data.batching imports losses'],
    ),
    ('models', 'from isft_jax import losses', []),
    ('models', 'from isft_jax import sharding', ['models imports sharding']),
    (
      'models',
      'import isft_jax.data.rendering.renderer',
      ['models imports data.rendering'],
    ),
    ('models', 'import isft_jax.train.step as s', ['models imports train']),
    ('train', 'from isft_jax.data.batching import pipeline', []),
    ('train', 'from isft_jax import worlds', ['train imports worlds']),
    ('worlds', 'from isft_jax.inference import generate', []),
    ('worlds', 'import isft_jax.train.loop', ['worlds imports train']),
    ('theory', 'from isft_jax.train import loop', ['theory imports train']),
    ('report', 'from isft_jax.types import Provenance', []),
    ('report', 'from isft_jax.report import plots', []),
    ('report', 'import matplotlib.pyplot as plt', []),
    ('report', 'from flax import nnx', ['report imports flax']),
    ('report', 'from isft_jax import worlds', ['report imports worlds']),
    ('experiments', 'from isft_jax.train import loop', []),
    (
      'train',
      'from isft_jax.experiments import lying_agent',
      ['train imports experiments', 'train imports isft_jax.experiments'],
    ),
    ('experiments', 'import isft_jax.cli', ['experiments imports cli']),
    ('', 'importlib.import_module("isft_jax.api")', []),
    ('', 'from isft_jax.train import loop', [' imports train']),
    ('api', 'from isft_jax.train import loop', []),
    ('api', 'from isft_jax.cli import main', ['api imports cli']),
    ('api', 'from isft_jax.report import plots', ['api imports report']),
    ('train', 'from isft_jax import api', ['train imports api']),
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
    ('data.records', 'import tensorflow_datasets as tfds', []),
    ('train', 'import pickle', ['train imports pickle']),
    (
      'theory',
      'importlib.import_module("isft_jax.train")',
      ['theory imports train'],
    ),
    # Relative imports are resolved, from isft_jax.data.batching.
    ('data.batching', 'from . import packing', []),
    ('data.batching', 'from .packing import make_plan', []),
    ('data.batching', 'from ..records import dataset', []),
    (
      'data.batching',
      'from ..formats import openai',
      ['data.batching imports data.formats'],
    ),
    (
      'data.batching',
      'from ... import losses',
      ['data.batching imports losses'],
    ),
  ],
)
def test_the_check_sees_what_is_planted(room, source, found):
  assert violations(source, room, f'isft_jax.{room}') == found


def test_the_check_sees_what_is_planted_in_a_real_file():
  source = (ROOT / 'isft_jax/data/batching/packing.py').read_text()
  here = 'data.batching', 'isft_jax.data.batching'
  assert violations(source, *here) == []
  planted = source.replace('import numpy as np', 'import jax.numpy as np')
  assert violations(planted, *here) == ['data.batching imports jax']
