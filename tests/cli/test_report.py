"""isft-report: the page of a run, and of several runs."""

import json
import shutil

import pytest

from isft_jax.data.rendering.renderer import Renderer
from isft_jax.train import run_tokenizer
from tests.commands import command, error_line
from tests.dialogues import chatml_tokenizer, dialogues, write_records
from tests.report.runs.test_runs import make_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir as isft-train leaves it, without checkpoints."""
  folder = tmp_path_factory.mktemp('report')
  renderer = Renderer(chatml_tokenizer())
  records = write_records(folder / 'records', dialogues()[:4], renderer)
  workdir = make_run(folder / 'run', records=records, mixture=[])
  run_tokenizer.write(
    workdir, chatml_tokenizer(), renderer.rendering, 'fingerprint'
  )
  return workdir


def test_the_page_of_a_run_shows_its_first_records(run, tmp_path):
  done = command('report', run, '--records_shown=2', f'--output={tmp_path}')
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == f'open {tmp_path}/report.html\n'
  page = (tmp_path / 'report.html').read_text()
  assert page.count('class="viewer"') == 2
  # By default it is in the workdir.
  assert command('report', run).stdout == f'open {run}/report.html\n'


def test_a_run_whose_records_are_gone_has_a_page_without_them(run, tmp_path):
  copied = shutil.copytree(run, tmp_path / 'run')
  config = json.loads((copied / 'config.json').read_text())
  config['records'] = str(tmp_path / 'gone')
  (copied / 'config.json').write_text(json.dumps(config))
  done = command('report', copied)
  assert done.returncode == 0
  assert done.stderr.startswith('warning: the page shows no records: ')
  assert done.stderr.count('\n') == 1
  assert 'class="viewer"' not in (copied / 'report.html').read_text()


def test_two_runs_are_compared(run, tmp_path):
  other = make_run(tmp_path / 'other', seed=1)
  done = command('report', run, other, f'--output={tmp_path}/page')
  assert done.returncode == 0, done.stderr
  assert 'Settings that differ' in (tmp_path / 'page/report.html').read_text()


def test_what_is_not_a_run_is_one_clear_line(run, tmp_path):
  assert 'name the workdir of a run' in error_line('report')
  assert 'not the workdir of a training run' in error_line('report', tmp_path)
  assert 'is named twice' in error_line('report', run, run)
