"""Real models on real slices: memory, traffic and the time to compile.

  python tests/benchmarks/tpu_compile.py [--only=qwen2_5_7b] [--json=FILE]

Each shipped config on the slices that it names, by isft-compile in a process of
its own, so that compiling is timed from nothing; beside it the CPU time, since
the compiler is busy on one core most of the time, and the machine's load.
Memory is set beside what the project promises of it.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from isft_jax.cli import compile as cli

ROOT = pathlib.Path(__file__).parents[2]
PROMISED = {  # GiB a chip, at most; with half of the positions scored
  ('qwen2_5_0_5b', 'v5e:2x2', 2_048): 2.4,
  # A tenth of the memory stays free.
  ('qwen2_5_0_5b', 'v5e:2x2', 4_096): 14.18,
  ('qwen2_5_7b', 'v5e:4x4', 4_096): 14.18,
}


def compiled(config: str, argument: str, topology: str) -> tuple[dict, float]:
  """(report, CPU seconds) of a run of the command."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [
      *(sys.executable, '-c'),
      'from isft_jax.cli import compile; compile.run()',
      f'--config={config}{":" + argument if argument else ""}',
      f'--topology={topology}',
      '--json',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if not done.stdout:
    raise RuntimeError(done.stderr)
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return json.loads(done.stdout), after.ru_utime - before.ru_utime


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', default='')
  parser.add_argument('--json', default='')
  args = parser.parse_args()
  print(
    f'{"config":<20} {"slice":<10} {"rows x length":>13} {"HBM":>6} '
    f'{"at most":>7}'
    f' {"decode":>7} {"sent":>7} {"bound by":>8} {"compile":>8} {"command":>8}'
    f' {"CPU":>6} {"load":>5}'
  )
  for config, argument, topology in cli.shipped():
    if args.only not in config:
      continue
    since = time.perf_counter()
    report, cpu = compiled(config, argument, topology)
    seconds = time.perf_counter() - since
    B, L = report['batch'], report['length']
    promised = PROMISED.get((config, topology, L), report['hbm_capacity_gib'])
    sent = sum(report.get('collective_gib_per_chip', {}).values())
    print(
      f'{config:<20} {topology:<10} {f"{B} x {L:,}":>13} '
      f'{report["hbm_gib_per_chip"]:>6.2f} {promised:>7.2f} '
      f'{report.get("decode_hbm_gib_per_chip") or 0:>7.2f} {sent:>7.2f} '
      f'{report.get("bound_by", "memory"):>8} '
      f'{report["compile_seconds"]:>6.0f} s {seconds:>6.0f} s {cpu:>4.0f} s '
      f'{os.getloadavg()[0]:>5.1f}',
      flush=True,
    )
    if args.json:
      with open(args.json, 'a') as file:
        file.write(json.dumps(report) + '\n')


if __name__ == '__main__':
  main()
