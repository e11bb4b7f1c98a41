"""What a chip sends in a step, from 16 to 256 chips at the same work a chip.

  python tests/benchmarks/collectives.py [--config=qwen2_5_7b] [--length=1024]

One row a chip, on v5e. More chips share out the same parameters: what a chip
gathers and sums grows as (n - 1) / n, and so hardly at all.
"""

import argparse
import os
import pathlib
import runpy

os.environ['JAX_PLATFORMS'] = 'cpu'

from isft_jax.tpu.compile import compile_run

ROOT = pathlib.Path(__file__).parents[2]
SLICES = {16: 'v5e:4x4', 64: 'v5e:8x8', 256: 'v5e:16x16'}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--config', default='qwen2_5_7b')
  parser.add_argument('--length', type=int, default=1_024)
  args = parser.parse_args()
  module = runpy.run_path(str(ROOT / 'configs' / f'{args.config}.py'))
  base = 0
  for chips, topology in SLICES.items():
    config = module['get_config'](f'batch={chips},length={args.length}')
    report = compile_run(config, topology)
    kinds = report['collective_gib_per_chip']
    total = sum(kinds.values())
    base = base or total
    print(
      f'{chips:>4} chips  {total:8.3f} GiB a chip  {total / base:6.3f}  '
      f'HBM {report["hbm_gib_per_chip"]:6.2f} GiB  {kinds}',
      flush=True,
    )


if __name__ == '__main__':
  main()
