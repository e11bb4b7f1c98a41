"""Prepares many broken rows: every one is written, or set aside with a reason.

python tests/benchmarks/mutated_rows.py [--rows=10000] [--formats=inspect,tau2]

With --formats, as many rows of each of these log formats; 'all' is all of them.
"""

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.data.chat_tokenizer import NAMES
from tests.data.formats.log_rows import ROWS
from tests.data.preparation.test_prepare_mutated import check


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=10_000)
  parser.add_argument('--seed', type=int, default=1000)
  parser.add_argument('--formats', default='')
  args = parser.parse_args()
  formats = ROWS if args.formats == 'all' else args.formats.split(',')
  for i, format in enumerate(filter(None, formats)):
    with tempfile.TemporaryDirectory() as folder:
      report = check(
        args.rows,
        args.seed + i,
        'chatml',
        pathlib.Path(folder),
        valid=[ROWS[format]],
      )
    print(f'{format}: {report["rows"]} {report["rejected"]}')
  if args.formats:
    return
  for i, name in enumerate(NAMES):
    share = args.rows * (i + 1) // len(NAMES) - args.rows * i // len(NAMES)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
      report = check(share, args.seed + i, name, pathlib.Path(folder))
    seconds = time.perf_counter() - start
    print(f'{name}: {report["rows"]} {report["rejected"]} in {seconds:.0f} s')


if __name__ == '__main__':
  main()
