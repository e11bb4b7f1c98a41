"""A step of adapters against a step of all weights: time and peak memory.

  python tests/benchmarks/lora_step.py [--rank=16] [--rounds=8] [--steps=3]

SmolLM2-135M-Instruct in float32 on dialogues of the lying agent, rows of 256
tokens. The two steps take turns in one process, after they are compiled, and
the printed ratio is the median of the rounds. Peak memory is that of one
process for each, from its start to the end of a few steps. The goals are ratios
of 0.75 (time) and 0.6 (memory).
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from isft_jax import sharding
from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
)
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.train import start
from isft_jax.train.trainer import make_trainer
from isft_jax.worlds.lying_agent import generator

BASE = 'smollm2-135m-instruct'
MIB = 2**20


def write_records(folder):
  renderer = Renderer(tokenizer.load(BASE), chat_template.PLAIN)
  examples = [
    renderer.example(dialogue)
    for dialogue in generator.dialogues(64, 0.6, 0.5, seed=0)
  ]
  dataset.write(folder, lambda: examples, renderer.metadata())


def make_step(folder, rank, rows, remat):
  """Returns a function that trains one step, compiled."""
  shape = start.with_shape(
    ModelConfig(init_from=BASE, head_chunk=0, remat=remat)
  )
  config = RunConfig(
    records=folder,
    batch_size=rows,
    seq_len=256,
    model=shape,
    lora=LoraConfig(rank=rank),
    mesh=MeshConfig(1, 1, 1),
    optim=OptimConfig(learning_rate=1e-4),
  )
  source = BatchSource(dataset.Records(folder), config)
  trainer = make_trainer(
    shape, config.optim, config.mesh, 1_000, lora=config.lora
  )
  state = start.begin(config, trainer, '')
  if rank:
    base = start.load_base(config, trainer, '')
    state = state._replace(frozen=base.params)
  state = {'state': state}
  batch = sharding.to_global(source[0], trainer.mesh)

  def step():
    state['state'], metrics = trainer.step(state['state'], batch)
    return float(metrics['loss'])

  step()
  return step


def peak_mib():
  """Returns the largest resident memory of this process so far."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (line,) = (line for line in lines if line.startswith('VmHWM'))
  return int(line.split()[1]) * 1024 / MIB


def measure_memory(folder, args, rank):
  command = [sys.executable, __file__, '--records', folder, '--memory']
  command += [f'--rank={rank}', f'--rows={args.rows}', f'--remat={args.remat}']
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return float(done.stdout.split()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rank', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=8)
  parser.add_argument('--steps', type=int, default=3)
  parser.add_argument('--rows', type=int, default=1)
  parser.add_argument('--remat', default='none')
  parser.add_argument('--records', default='', help='of an earlier call')
  parser.add_argument('--memory', action='store_true', help='only the memory')
  args = parser.parse_args()

  if args.memory:
    step = make_step(args.records, args.rank, args.rows, args.remat)
    for _ in range(3):
      step()
    print(peak_mib())
    return

  with tempfile.TemporaryDirectory() as folder:
    folder = args.records or f'{folder}/records'
    if not args.records:
      write_records(folder)
    memory = {
      rank: measure_memory(folder, args, rank) for rank in (0, args.rank)
    }
    steps = {
      rank: make_step(folder, rank, args.rows, args.remat)
      for rank in (0, args.rank)
    }
    rounds = []
    for _ in range(args.rounds):
      seconds = {}
      for rank, step in steps.items():
        began = time.perf_counter()
        for _ in range(args.steps):
          step()
        seconds[rank] = (time.perf_counter() - began) / args.steps
      rounds.append(seconds)
      print(
        f'  all weights {seconds[0]:.3f} s per step, adapters '
        f'{seconds[args.rank]:.3f} s: {seconds[args.rank] / seconds[0]:.2f}',
        flush=True,
      )
  ratio = statistics.median(each[args.rank] / each[0] for each in rounds)
  print(
    f'{jax.devices()[0].device_kind}, rank {args.rank}, {args.rows} x 256, '
    f'remat {args.remat}: time of a step {ratio:.2f} of that of all weights\n'
    f'peak memory {memory[args.rank]:,.0f} MiB of {memory[0]:,.0f} MiB: '
    f'{memory[args.rank] / memory[0]:.2f}'
  )


if __name__ == '__main__':
  main()
