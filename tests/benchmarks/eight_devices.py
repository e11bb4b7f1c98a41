"""Runs the smoke experiment on one device and on eight: the results agree.

  python tests/benchmarks/eight_devices.py

It takes a few minutes on two cores. The base is trained on the eight devices
too; tests/experiments/test_lying_agent.py starts an arm from the base of one.
"""

import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.benchmarks import kills


def compare(one: dict, eight: dict) -> None:
  """Compares arms of two runs by name; raises AssertionError."""
  for name, arm in eight.items():
    margins = [[f['margin'] for f in a['facts']] for a in (one[name], arm)]
    # float32 sums in another order, through 16 steps of Adam
    np.testing.assert_allclose(*margins, rtol=0, atol=2e-3)
    scored = [a.get('train', {}).get('scored_tokens') for a in (one[name], arm)]
    assert scored[0] == scored[1], (name, scored)


def main():
  with tempfile.TemporaryDirectory() as folder:
    one, eight = f'{folder}/one', f'{folder}/eight'
    for workdir, devices in ((one, 1), (eight, 8)):
      flags = f'--config.mesh.fsdp={devices}'
      process = kills.reproduce(workdir, flags, devices=devices)
      _, error = process.communicate()
      if process.returncode:
        sys.exit(error)
    arms = [kills.results(workdir)['arms'] for workdir in (one, eight)]
    assert list(arms[0]) == list(arms[1])
    compare(*arms)
  print('the results of one device and of eight agree')


if __name__ == '__main__':
  main()
