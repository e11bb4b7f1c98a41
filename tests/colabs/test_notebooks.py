"""The notebooks: each runs from a clean kernel, on a CPU, with no network.

ISFT_SMOKE makes them small. Every command in them must end with 0.
"""

import json
import os
import pathlib
import re
import sysconfig

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
NAMES = (
  '1_see_the_masks',
  '2_lying_agent',
  '3_theory_of_delusions',
  '4_your_own_trajectories',
)
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
    ['the lie is preferred to the truth', 'the model is in exported'],
  ),
}


def read(name):
  return nbformat.read(ROOT / 'colabs' / f'{name}.ipynb', as_version=4)


def checked(source):
  """Returns a cell that stops where a command of it fails."""
  command = r'(?m)^( *)(!(?:.*\\\n)*.*)$'
  return re.sub(command, r'\1\2\n\1assert _exit_code == 0', source)


def run(name, folder):
  book = read(name)
  for cell in book.cells:
    if cell.cell_type == 'code':
      cell.source = checked(cell.source)
  scripts = sysconfig.get_path('scripts')
  # As on a machine of one device, and not as in our other tests.
  ours = ('JAX_NUM_CPU_DEVICES', 'JAX_NUMPY_RANK_PROMOTION')
  environment = {k: v for k, v in os.environ.items() if k not in ours}
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
  client.execute(env=environment)
  return book


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
