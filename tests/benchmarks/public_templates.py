"""Prepares the shared agent runs under each public chat template.

  python tests/benchmarks/public_templates.py [--every=1] [NAME...]

Prints a line per template: the rows that are written, and those set aside by
reason. `--every=4` takes each fourth row.
"""

import argparse
import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from tests.data.marker_tokenizer import marker_tokenizer
from tests.data.rendering.test_public_templates import FOLDER

RUNS = pathlib.Path(__file__).parents[3] / 'shared' / 'trajectories'


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--every', type=int, default=1)
  parser.add_argument('names', nargs='*')
  args = parser.parse_args()

  trajectories = [
    registry.read(row.value, f'{row.file}:{row.number}', 'auto', Rules())
    for file in rows.files(RUNS)
    for row in [*rows.read(file)][:: args.every]
  ]
  print(f'{len(trajectories)} runs')
  total = collections.Counter()
  for path in sorted(FOLDER.glob('*.jinja')):
    if args.names and path.stem not in args.names:
      continue
    source = path.read_text()
    # Mistral's templates want ids of nine characters.
    digits = 9 if 'length != 9' in source else 0
    renderer = Renderer(marker_tokenizer(source), source, call_id_digits=digits)
    counts = collections.Counter()
    for trajectory in trajectories:
      try:
        renderer.render(trajectory)
        counts['written'] += 1
      except Rejected as error:
        counts[error.reason] += 1
    total += counts
    shown = ', '.join(f'{n} {reason}' for reason, n in counts.most_common())
    print(f'{path.stem:60} {shown}', flush=True)
  print('all', dict(total))


if __name__ == '__main__':
  main()
