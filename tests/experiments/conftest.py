"""One whole run of the smoke experiment, for every test that looks at it."""

import pathlib
from typing import NamedTuple

import pytest

from tests.commands import command
from tests.experiments import smoke as experiment


class Run(NamedTuple):
  workdir: pathlib.Path
  printed: str


@pytest.fixture(scope='session')
def smoke(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('smoke') / 'run'
  done = command(
    *('reproduce', *experiment.FLAGS, f'--workdir={workdir}'),
    before=experiment.one_device,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return Run(workdir, done.stdout)
