"""Hosts on one machine: processes of 4 devices each that form a cluster.

Run as a program, it is one of them: isft-train, which also writes down the
batches that it read.
"""

import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 8  # of all hosts together


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def start(
  folder, hosts: int, *flags, heartbeat=10, send='', at=0, last=()
) -> list:
  """Starts isft-train on so many hosts; folder gets what each has read.

  send: 'SIGKILL', say, which the last host sends to itself before its batch
    number `at`, from 1 on.
  last: flags of the last host only.
  """
  folder.mkdir(parents=True)
  port, started = free_port(), []
  for host in range(hosts):
    joins = (
      f'--coordinator=127.0.0.1:{port}',
      f'--hosts={hosts}',
      f'--host={host}',
      f'--heartbeat={heartbeat}',
    )
    started.append(
      subprocess.Popen(
        [
          *(sys.executable, __file__, folder / f'read{host}.jsonl'),
          *(send if host == hosts - 1 else '', str(at), *flags, *joins),
          *(last if host == hosts - 1 else ()),
        ],
        cwd=ROOT,
        env=os.environ
        | {
          'JAX_NUM_CPU_DEVICES': str(DEVICES // hosts),
          'JAX_PLATFORMS': 'cpu',
          'PYTHONPATH': str(ROOT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return started


def finish(processes) -> list[tuple[int, str, str]]:
  """Waits for all; returns exit code, output and errors of each."""
  said = [process.communicate(timeout=300) for process in processes]
  return [
    (process.returncode, *texts)
    for process, texts in zip(processes, said, strict=True)
  ]


def read(folder) -> list[list]:
  """Returns the batches that each host read: [[step's tokens, ...], ...]."""
  return [
    [json.loads(line) for line in path.read_text().splitlines()]
    for path in sorted(folder.glob('read*.jsonl'))
  ]


def main():
  from isft_jax import sharding
  from isft_jax.cli import train

  path, send, at = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
  del sys.argv[1:4]
  to_global = sharding.to_global
  numbers = itertools.count(1)

  def noted(batch, mesh):
    number = next(numbers)
    if send and number >= at:
      if number == at:
        os.kill(os.getpid(), signal.Signals[send])
      time.sleep(0.1)  # a step of a larger model; the news have to travel
    with path.open('a') as file:
      file.write(json.dumps(batch.tokens_BL.tolist()) + '\n')
    return to_global(batch, mesh)

  sharding.to_global = noted
  train.run()


if __name__ == '__main__':
  main()
