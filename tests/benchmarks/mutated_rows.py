"""Prepares many broken rows: every one is written, or set aside with a reason.

python tests/benchmarks/mutated_rows.py [--rows=10000] [--formats=codex,gemini]

With --formats, that many rows of each of these formats.
"""

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.data.chat_tokenizer import NAMES
from tests.data.formats import examples
from tests.data.formats.test_mutations import VALID
from tests.data.preparation.test_prepare_mutated import check


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=10_000)
  parser.add_argument('--seed', type=int, default=1000)
  parser.add_argument('--formats', default='')
  args = parser.parse_args()
  for name in filter(None, args.formats.split(',')):
    row = examples.ROWS[name]
    run(name, args.rows, args.seed, 'chatml', [row])
  if args.formats:
    return
  for i, name in enumerate(NAMES):
    share = args.rows * (i + 1) // len(NAMES) - args.rows * i // len(NAMES)
    run(name, share, args.seed + i, name, VALID)


def run(title, number, seed, template, valid):
  """Prepares mutated rows, and prints what became of them."""
  start = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    report = check(number, seed, template, pathlib.Path(folder), valid=valid)
  seconds = time.perf_counter() - start
  print(f'{title}: {report["rows"]} {report["rejected"]} in {seconds:.0f} s')


if __name__ == '__main__':
  main()
