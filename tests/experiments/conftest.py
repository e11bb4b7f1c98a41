"""One whole run of the smoke experiment, for every test that looks at it."""

import time
from typing import NamedTuple

import pytest

from tests.benchmarks import kills


class Run(NamedTuple):
  workdir: str
  printed: str
  seconds: float


@pytest.fixture(scope='session')
def smoke(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('smoke') / 'run'
  started = time.monotonic()
  process = kills.reproduce(workdir)
  out, err = process.communicate()
  assert process.returncode == 0, out + err
  return Run(workdir, out, time.monotonic() - started)
