"""Hosts on one machine: processes of 4 devices each that form a cluster."""

import itertools
import json
import os
import signal
import socket
import time

import jax

from isft_jax import sharding
from isft_jax.cli import train
from tests.commands import Running

DEVICES = 8  # of all hosts together


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def start(
  folder, hosts: int, *flags, heartbeat=10, send='', at=0, last=()
) -> list[Running]:
  """Starts isft-train on so many hosts; folder gets what each has read.

  send: 'SIGKILL', say, which the last host sends to itself before its batch
    number `at`, from 1 on.
  last: flags of the last host only.
  """
  folder.mkdir(parents=True)
  port, started = free_port(), []
  for host in range(hosts):
    is_last = host == hosts - 1
    started.append(
      Running(
        _train,
        *(DEVICES // hosts, folder / f'read{host}.jsonl'),
        *(send if is_last else '', at),
        argv=(
          *flags,
          f'--coordinator=127.0.0.1:{port}',
          f'--hosts={hosts}',
          f'--host={host}',
          f'--heartbeat={heartbeat}',
          *(last if is_last else ()),
        ),
      )
    )
  return started


def finish(started) -> list[tuple[int, str, str]]:
  """Waits for all; returns exit code, output and errors of each."""
  try:
    said = [running.wait(300) for running in started]
  finally:
    for running in started:
      running.end()
  return [(done.returncode, done.stdout, done.stderr) for done in said]


def read(folder) -> list[list]:
  """Returns the batches that each host read: [[step's tokens, ...], ...]."""
  return [
    [json.loads(line) for line in path.read_text().splitlines()]
    for path in sorted(folder.glob('read*.jsonl'))
  ]


def _train(devices, path, send, at):
  """Becomes a host: isft-train, which also writes down what it read."""
  jax.config.update('jax_num_cpu_devices', devices)
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
