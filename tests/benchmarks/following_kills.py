"""Kills following in each of its stages: nothing is lost or repeated.

  python tests/benchmarks/following_kills.py

It takes a few minutes on two cores. tests/following/test_kills.py kills in some
of these stages.
"""

import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from tests.following import test_kills


def main():
  with tempfile.TemporaryDirectory() as folder:
    test_kills.check(pathlib.Path(folder), test_kills.STAGES)
  print(f'{len(test_kills.STAGES)} kills changed nothing')


if __name__ == '__main__':
  main()
