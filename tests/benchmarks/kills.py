"""Kills an experiment at random moments, and lets it finish each time.

  python tests/benchmarks/kills.py --kills=20

Every second kill waits for the next checkpoint, and comes while it is written.
After every SIGKILL the same command starts again. The results must be those of
a run that was left alone: all of results.json but the seconds.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]


# A job in the background of a shell ignores Ctrl-C; this one is to heed it.
PROGRAM = """
import signal
from isft_jax.cli import reproduce
signal.signal(signal.SIGINT, signal.default_int_handler)
reproduce.run()
"""


def reproduce(workdir, *flags, devices=1) -> subprocess.Popen:
  """Starts the smoke experiment on so many virtual devices."""
  return subprocess.Popen(
    [
      sys.executable,
      '-c',
      PROGRAM,
      '--config=lying_agent_smoke',
      f'--workdir={workdir}',
      *flags,
    ],
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices)},
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def results(workdir) -> dict:
  """Returns results.json without the seconds, which no two runs share."""
  found = json.loads((pathlib.Path(workdir) / 'results.json').read_text())
  for arm in found['arms'].values():
    arm.get('train', {}).pop('seconds', None)
  return found


def _is_writing(workdir, since: float) -> bool:
  """Returns whether there is half a checkpoint, begun since that time."""
  parts = pathlib.Path(workdir).glob('*/checkpoints/*-checkpoint-tmp')
  try:
    return any(part.stat().st_mtime > since for part in parts)
  except FileNotFoundError:
    return False  # it was finished meanwhile


def kill_and_finish(workdir, kills: int, longest: float, seed: int) -> list:
  """Kills a run so many times, then lets it end; returns when.

  Each moment is text: seconds, and whether half a checkpoint was left.

  longest: seconds that a run takes if it is left alone.

  Raises RuntimeError, with what it printed, if a run fails by itself.
  """
  rng, moments = random.Random(seed), []
  while len(moments) < kills:
    started = time.time()
    process = reproduce(workdir)
    moment, aimed = started + rng.uniform(0, longest), len(moments) % 2
    while process.poll() is None and (
      time.time() < moment or (aimed and not _is_writing(workdir, started))
    ):
      time.sleep(0.01)
    process.kill()
    out, err = process.communicate()
    if process.returncode == 0:
      break  # it was done before its time
    if process.returncode != -signal.SIGKILL:
      raise RuntimeError(f'killed at {moments}, then:\n{out}\n{err}')
    half = ' writing' if _is_writing(workdir, started) else ''
    moments.append(f'{time.time() - started:.1f} s{half}')
  process = reproduce(workdir)
  out, err = process.communicate()
  if process.returncode:
    raise RuntimeError(f'killed at {moments}, then:\n{out}\n{err}')
  return moments


def survives(folder, kills: int, whole, longest: float) -> bool:
  """Returns whether so many kills, over as many runs as it takes, do nothing.

  A run may be done before it was killed often enough: then another begins.

  whole: workdir of a run that was left alone.
  """
  done = round_ = 0
  while done < kills:
    workdir = f'{folder}/{round_}'
    moments = kill_and_finish(workdir, kills - done, longest, seed=round_)
    same = results(workdir) == results(whole)
    print(
      f'killed after {", ".join(moments) or "the end"}: '
      f'{"same" if same else "OTHER"} results',
      flush=True,
    )
    if not same:
      return False
    done, round_ = done + len(moments), round_ + 1
  return True


def main():
  """Prints a line for each run, until there were enough kills."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--kills', type=int, default=20)
  wanted = parser.parse_args().kills
  with tempfile.TemporaryDirectory() as folder:
    whole, started = f'{folder}/whole', time.monotonic()
    reproduce(whole).communicate()
    longest = time.monotonic() - started
    print(f'uninterrupted: {longest:.0f} s', flush=True)
    if not survives(folder, wanted, whole, longest):
      sys.exit(1)


if __name__ == '__main__':
  main()
