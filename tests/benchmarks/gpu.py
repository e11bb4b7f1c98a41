"""The long runs of SmolLM2 on one GPU, several at a time.

  python tests/benchmarks/gpu.py --out=DIR [--workers=10] [--limit=560]
      [--only=REGEX] [--dialogues=FILE --facts=FILE] [-- FLAGS]

  lying-N       lying_agent_smollm2, seed N
  paper-N       the same with the paper's hyperparameters
  flywheel-A-N  flywheel_smollm2, arm A of seed N. The arms share no state:
                together they are the run of three seeds
  given-S-N     the dialogues of --dialogues instead of ours, with switch S
  given-paper   the authors' whole setting on them: hyperparameters and switches

Products of float32 are computed in float32, not in TF32. Kernels are not tuned:
on an H200 the step of SmolLM2 compiles in 8 s instead of 68, and then takes 45
ms instead of 18. Each run is a process of isft-reproduce, and FLAGS go to all.
Every run that ends appends a line to DIR/results.jsonl: name, command, seconds,
results. After `limit` seconds the runs in progress are stopped, and the arms
that they have finished are kept; no other run is started.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ARMS = ('observational', 'interventional', 'agent_only', 'truth_only')
SEEDS = range(3)
KEPT = '--config.finetune.shuffle=False'
PIECES = '--config.piecewise'
NARROW = '--config.model.dtype=bfloat16 --config.model.param_dtype=bfloat16'
TWO = "--config.arms=('observational','interventional')"
ENVIRONMENT = {
  'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
  'XLA_FLAGS': '--xla_gpu_autotune_level=0',
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',  # several runs share its memory
}


def runs(given: str) -> dict[str, str]:
  """Returns the flags of each run by its name, in the order to start them.

  given: the flags that name someone else's dialogues and facts; '': no such
    runs.
  """
  lying = '--config=lying_agent_smollm2'
  found = {}
  for seed in SEEDS:
    for arm in ARMS:
      found[f'flywheel-{arm}-{seed}'] = (
        f'--config=flywheel_smollm2 --config.seeds=1 --config.seed={seed} '
        f"--config.flywheel.arms=('{arm}',)"
      )
  if given:
    found['given-paper'] = (
      f'{lying}:paper {given} {TWO} {KEPT} {PIECES} {NARROW}'
    )
  for seed in SEEDS:
    found[f'paper-{seed}'] = f'{lying}:paper --config.seed={seed}'
    found[f'lying-{seed}'] = f'{lying} --config.seed={seed}'
  if given:
    switches = {'none': '', 'piecewise': PIECES, 'bfloat16': NARROW}
    for switch, flags in switches.items():
      for seed in SEEDS:
        found[f'given-{switch}-{seed}'] = (
          f'{lying} {given} {TWO} {flags} --config.seed={seed}'
        )
    # Nothing is left for a seed to choose.
    found['given-kept'] = f'{lying} {given} {TWO} {KEPT}'
  return found


def run(name: str, flags: str, out: pathlib.Path, deadline: float) -> dict:
  """Runs one; returns its line of results."""
  workdir = out / 'runs' / name
  begun = time.monotonic()
  if begun > deadline:
    raise TimeoutError(name)
  entry = 'from isft_jax.cli import reproduce; reproduce.run()'
  with (out / f'{name}.log').open('w') as log:
    process = subprocess.Popen(
      [sys.executable, '-c', entry, *flags.split(), f'--workdir={workdir}'],
      env=os.environ
      | ENVIRONMENT
      | {'JAX_COMPILATION_CACHE_DIR': str(out / 'compiled')},
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    try:
      process.wait(max(1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
  results = workdir / 'results.json'
  found = {
    'whole': results.exists(),
    'results': json.loads(results.read_text()) if results.exists() else None,
    # What results.json is made of: an arm each.
    'parts': {
      str(path.relative_to(workdir)): json.loads(path.read_text())
      for pattern in ('*/probes.json', 'flywheel/*/*.json')
      for path in sorted(workdir.glob(pattern))
    },
  }
  shutil.rmtree(workdir, ignore_errors=True)  # checkpoints of many gigabytes
  seconds = round(time.monotonic() - begun)
  command = f'isft-reproduce {flags}'
  return {'name': name, 'command': command, 'seconds': seconds} | found


def describe(line: dict) -> str:
  """Returns a run in a few words: margins and lies, or accuracies."""
  shown = []
  for path, part in line['parts'].items():
    if 'accuracy' in part:
      right = ' '.join(f'{each:.3f}' for each in part['accuracy'])
      shown.append(f'right {right}')
    else:
      margin, lies = part['mean_margin'], part['prefers_lie']
      shown.append(f'{path.split("/")[0]} {margin:+.3f} {lies}')
  return ('' if line['whole'] else 'NOT WHOLE ') + '; '.join(shown)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--workers', type=int, default=10)
  parser.add_argument('--limit', type=float, default=1e6, help='seconds')
  parser.add_argument('--only', default='', help='names that match')
  parser.add_argument('--dialogues', default='')
  parser.add_argument('--facts', default='')
  parser.add_argument('flags', nargs='*')
  args = parser.parse_args()
  given = ''
  if args.dialogues:
    given = f'--dialogues={args.dialogues} --facts={args.facts}'
  args.out.mkdir(parents=True, exist_ok=True)
  begun = time.monotonic()
  deadline = begun + args.limit
  with (
    concurrent.futures.ThreadPoolExecutor(args.workers) as pool,
    (args.out / 'results.jsonl').open('a') as file,
  ):
    futures = [
      pool.submit(run, name, ' '.join([flags, *args.flags]), args.out, deadline)
      for name, flags in runs(given).items()
      if re.search(args.only, name)
    ]
    for future in concurrent.futures.as_completed(futures):
      try:
        line = future.result()
      except TimeoutError as error:
        print(f'{error}: not started, the time is over', flush=True)
        continue
      file.write(json.dumps(line) + '\n')
      file.flush()
      print(
        f'[{time.monotonic() - begun:4.0f} s] {line["name"]} '
        f'{line["seconds"]} s: {describe(line)}',
        flush=True,
      )


if __name__ == '__main__':
  main()
