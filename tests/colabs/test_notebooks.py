"""The notebooks: each runs from a clean kernel, on a CPU, with no network.

ISFT_SMOKE makes them small: a tiny model stands in for SmolLM2 in the fourth.
Every command in them must end with 0.
"""

import importlib.metadata
import json
import os
import pathlib
import re
import sys

import jax
import nbclient
import nbformat
import pytest

from tests.commands import on_path
from tests.experiments import smoke as experiment

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
NAMES = (
  '1_see_the_masks',
  '2_lying_agent',
  '3_theory_of_delusions',
  '4_your_own_trajectories',
)
# They would make a kernel differ from that of a reader.
OURS = ('JAX_NUM_CPU_DEVICES', 'JAX_NUMPY_RANK_PROMOTION')
SECONDS = 900  # of a cell, on a machine that others use
# What a reader must see of each: pictures, pages with buttons, and words.
SHOWN = {
  '1_see_the_masks': (0, 3, ['the page is in rules.html']),
  '2_lying_agent': (3, 1, ['Interventional above observational']),
  '3_theory_of_delusions': (
    6,
    0,
    ['0.345', 'p_B: 0.3500, then 0.8116', 'p_B: 0.1069, then 0.4891'],
  ),
  '4_your_own_trajectories': (
    1,
    1,
    [
      'Ready: isft_jax',
      'the model is in exported',
      'After the fine-tuning:',
      '  user       Where is my order 2222? It was a tent.\n  assistant  ',
      '  tool       order 2222: a tent, sent with DPD, now in Lyon, 3 days left'
      '\n  assistant  ',
    ],
  ),
}


def read(name):
  return nbformat.read(ROOT / 'colabs' / f'{name}.ipynb', as_version=4)


def checked(source):
  """Returns a cell that stops where a command of it fails."""
  command = r'(?m)^( *)(!(?:.*\\\n)*.*)$'
  return re.sub(command, r'\1\2\n\1assert _exit_code == 0', source)


def as_for_a_reader():
  """Undoes what conftest.py sets; its experiment is that of our other tests."""
  jax.config.update('jax_num_cpu_devices', 1)
  jax.config.update('jax_numpy_rank_promotion', 'allow')
  if experiment.FLAGS[0] in sys.argv:
    experiment.compile_well()
    sys.argv.extend(experiment.FLAGS[1:])


def run(name, folder):
  book = read(name)
  for cell in book.cells:
    if cell.cell_type == 'code':
      cell.source = checked(cell.source)
  (scripts := folder / 'scripts').mkdir()
  environment = {k: v for k, v in os.environ.items() if k not in OURS}
  environment |= {
    'ISFT_SMOKE': '1',
    'PATH': f'{scripts}:{os.environ["PATH"]}',
    'IPYTHONDIR': str(folder / 'ipython'),
  }
  client = nbclient.NotebookClient(
    book,
    timeout=SECONDS,
    kernel_name='python3',
    resources={'metadata': {'path': str(folder)}},
  )
  with on_path(scripts, before=as_for_a_reader):
    client.execute(env=environment)
  return book


def set_up(folder, before='', after=''):
  """Runs the set-up cell, and Python before and after it; returns the end.

  Returns:
    The text of an error as a browser shows it, or what was printed.
  """
  cells = [before, read(NAMES[0]).cells[1].source, after]
  book = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
  )
  client = nbclient.NotebookClient(
    book,
    timeout=SECONDS,
    kernel_name='python3',
    allow_errors=True,
    resources={'metadata': {'path': str(folder)}},
  )
  client.execute(env=dict(os.environ) | {'IPYTHONDIR': str(folder / 'ipython')})
  *_, last = outputs(book)
  return '\n'.join(last.get('traceback', [])) or last['text']


def outputs(book):
  return [
    output
    for cell in book.cells
    if cell.cell_type == 'code'
    for output in cell.outputs
  ]


@pytest.mark.parametrize('name', NAMES)
def test_it_runs_from_a_clean_kernel(name, tmp_path):
  found = outputs(run(name, tmp_path))
  data = [output.get('data', {}) for output in found]
  pages = [each['text/html'] for each in data if 'text/html' in each]
  words = ''.join(
    output.get('text', '') + output.get('data', {}).get('text/markdown', '')
    for output in found
  )
  pictures, frames, lines = SHOWN[name]
  assert sum('image/png' in each for each in data) == pictures
  assert sum('<iframe srcdoc=' in page for page in pages) == frames
  for line in lines:
    assert line in words
  assert 'Traceback' not in words and '\nerror:' not in words
  # Nothing that a browser shows in red.
  assert [each for each in found if each.get('name') == 'stderr'] == []


def test_a_command_that_fails_stops_the_test():
  assert checked('x = 1\n!a \\\n  b\nif x:\n  !c\n') == (
    'x = 1\n!a \\\n  b\nassert _exit_code == 0\nif x:\n  !c\n'
    '  assert _exit_code == 0\n'
  )


def test_there_are_four():
  assert tuple(path.stem for path in NOTEBOOKS) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_it_is_short_and_holds_no_outputs(name):
  book = read(name)
  nbformat.validate(book)
  assert len(book.cells) < 18
  for cell in book.cells:
    if cell.cell_type == 'code':
      assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize('name', NAMES)
def test_it_opens_with_a_badge_that_opens_it(name):
  first = read(name).cells[0].source
  place = f'isft-jax/isft_jax/blob/main/colabs/{name}.ipynb'
  assert f'(https://colab.research.google.com/github/{place})' in first


@pytest.mark.parametrize('name', NAMES)
def test_it_says_how_to_open_a_fork(name):
  first, setup = (cell.source for cell in read(name).cells[:2])
  assert 'replace `isft-jax` in the address' in first
  assert '\nREPO = \'isft-jax/isft_jax\'  # @param {type:"string"}\n' in setup


@pytest.mark.parametrize('name', NAMES)
def test_a_cell_with_a_title_shows_no_code(name):
  hidden = {'cellView': 'form', 'jupyter': {'source_hidden': True}}
  cells = read(name).cells
  for cell in cells:
    has_title = cell.source.startswith('# @title ')
    assert cell.metadata == (hidden if has_title else {})
  assert cells[1].source.startswith('# @title ')


# Stands in for pip and git, which would need a network.
STAND_IN = """
import importlib.util, subprocess, sys
import numpy
calls = []
def stand_in(command, **options):
  if command[0] == 'git':
    return subprocess.CompletedProcess(command, GIT, '', 'no such place')
  if '-c' in command and 'pip' in command:
    calls.append(open(command[-1]).read())
  return subprocess.CompletedProcess(command, PIP, 'cpu', 'pip has no room')
subprocess.run = stand_in
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: (
  None if name == 'isft_jax' else find_spec(name)
)
"""


def test_a_set_up_that_cannot_clone_stops_with_one_sentence(tmp_path):
  text = set_up(tmp_path, STAND_IN.replace('GIT', '1'))
  assert text == (
    'Stopped: https://github.com/isft-jax/isft_jax could not be cloned. '
    'Check REPO in this cell.'
  )


def test_set_up_keeps_the_numpy_that_is_loaded(tmp_path):
  before = STAND_IN.replace('GIT', '0').replace('PIP', '1')
  text = set_up(tmp_path, before, 'print(calls)')
  version = importlib.metadata.version('numpy')
  assert text == f"['numpy=={version}\\n']\n"
  assert not (tmp_path / 'loaded_packages.txt').exists()


def test_set_up_asks_for_a_restart_if_numpy_was_replaced(tmp_path):
  text = set_up(tmp_path, "import numpy\nnumpy.__version__ = '1.0'")
  assert text == (
    'Stopped: isft_jax is installed, but needs a newer numpy than this session '
    'has loaded. Choose Runtime > Restart session and run this cell again.'
  )


def test_all_install_in_the_same_words():
  assert len({read(name).cells[1].source for name in NAMES}) == 1


def test_the_notebooks_are_in_the_json_that_jupyter_writes():
  """One change in a notebook is then one change in git."""
  for path in NOTEBOOKS:
    text = path.read_text(encoding='utf-8')
    found = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    assert text == found + '\n'


@pytest.mark.parametrize(
  ('name', 'row', 'said'),
  [
    (
      '2_lying_agent',
      r'`qwen2_5_0_5b_paper` \| v5e:1x1 \| 1 x 256, 256',
      r"'qwen': ([\d.]+)}",
    ),
    (
      '4_your_own_trajectories',
      r'`qwen2_5_0_5b` \| v5e:1x1 \| 8 x 2,048, 1,024',
      r'GIB = ([\d.]+) ',
    ),
  ],
)
def test_the_memory_of_a_chip_is_that_of_the_docs(name, row, said):
  """Both are what isft-compile said: of a new table both become old."""
  table = (ROOT / 'docs/tpu.md').read_text(encoding='utf-8')
  measured = re.search(rf'{row} \| ([\d.]+) of 15\.75 \|', table)[1]
  source = '\n'.join(cell.source for cell in read(name).cells)
  assert re.search(said, source)[1] == measured
