"""Set once, before jax starts: 8 devices, strict ranks, quick compilation."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
import threading
from importlib import metadata

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
# The programs of tests run for a few steps: compiling them is what takes time.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
# The lowest version can do without its fusion emitters, and then compiles a
# train step in 2 s instead of 7. Newer ones do not know the flag, and end.
if metadata.version('jaxlib').startswith('0.10.'):
  os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')

# Under nohup SIGHUP is ignored, and every process would inherit that.
_is_main = threading.current_thread() is threading.main_thread()
if _is_main and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
  signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What one test has compiled, the others need not: workers, and the commands
# that they run, share a folder of compiled programs while the tests last. Small
# programs too: reading one takes 10 ms where compiling it takes 70, and a
# command that trains has sixty of them.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _FOLDER = tempfile.mkdtemp(prefix='isft-compiled-')
  atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _FOLDER

# The longest files begin: none of them is then left to one worker at the end.
# By processor time; the notebooks read what the experiment has compiled.
_LONGEST = (
  'tests/experiments/test_lying_agent.py',
  'tests/train/test_lora.py',
  'tests/following/test_follow.py',
  'tests/models/test_decoder.py',
  'tests/colabs/test_notebooks.py',
  'tests/train/test_anchor.py',
  'tests/train/test_hosts.py',
  'tests/train/test_loop.py',
  'tests/test_api.py',
  'tests/models/test_splash_attention.py',
  'tests/train/test_best.py',
  'tests/following/test_kills.py',
)


def pytest_collection_modifyitems(items):
  turn = {name: number for number, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: turn.get(item.nodeid.split('::')[0], len(turn)))


def pytest_collection_finish():
  """Spares what is imported from the collections of garbage that follow."""
  gc.freeze()


@pytest.fixture(scope='session')
def data_folder(tmp_path_factory):
  """A folder of forty dialogues: records, and their tokenizer. To read only."""
  from tests.dialogues import dialogues, write_records

  folder = tmp_path_factory.mktemp('dialogues')
  write_records(folder / 'records', dialogues())
  (folder / 'records' / 'tokenizer').rename(folder / 'tokenizer')
  return folder
