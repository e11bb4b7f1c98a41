"""What the scored head saves: time and memory of a step, three heads compared.

  python tests/benchmarks/head_memory.py [--repeats=5]

  all logits  a logit for every token of a row, masked: [B, L, V]
  scored      hidden states are gathered first: [B, K, V]
  in parts    and the vocabulary goes through in parts: what the package does

at K = L / 4, L / 2 and L. The time is a ratio to all logits at the same share,
measured in turns in one process, on this machine: a small decoder with the
vocabulary of Qwen2.5, so that nearly all of its step is the head. The memory is
what the compiler sets aside beside the step's arguments. Where libtpu is
installed, the same is compiled for one TPU v5e chip, at the size of
Qwen2.5-0.5B; its peak counts the arguments too.
"""

import argparse
import dataclasses
import functools
import importlib.util
import os
import statistics
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax import chips
from isft_jax.config import ModelConfig, OptimConfig
from isft_jax.models import decoder
from isft_jax.train import optim
from isft_jax.train.step import make_step
from isft_jax.train.trainer import TrainState
from isft_jax.types import Batch

SHARES = (0.25, 0.5, 1.0)
SMALL = ModelConfig(vocab_size=151_936, width=128, layers=2, remat='full')
QWEN = ModelConfig(
  vocab_size=151_936,
  width=896,
  layers=24,
  heads=14,
  kv_heads=2,
  head_size=64,
  mlp_width=4864,
  rope_theta=1e6,
  dtype='bfloat16',
  remat='full',
  attention='splash',
)


def batch_of(rows, length, share, gathered):
  """Rows of one document each, a share of whose tokens is scored."""
  rng = np.random.default_rng(0)
  scored = round(length * share)
  tokens = rng.integers(0, SMALL.vocab_size, (rows, length + 1), np.int32)
  columns_BL = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
  columns_BK = np.sort(rng.permuted(columns_BL, axis=1)[:, :scored], axis=1)
  weights_BL = np.zeros((rows, length), np.float32)
  np.put_along_axis(weights_BL, columns_BK, 1, axis=1)
  slots = columns_BK if gathered else columns_BL
  return Batch(
    tokens_BL=tokens[:, :-1],
    positions_BL=columns_BL,
    segment_ids_BL=np.ones((rows, length), np.int32),
    columns_BK=slots,
    targets_BK=np.take_along_axis(tokens[:, 1:], slots, axis=1),
    weights_BK=np.take_along_axis(weights_BL, slots, axis=1),
    authors_BK=np.ones(slots.shape, np.int32),
  )


def heads(config, rows, length, share):
  """{name: (config, batch)}."""
  whole = dataclasses.replace(config, head_chunk=0)
  scored = batch_of(rows, length, share, gathered=True)
  return {
    'all logits': (whole, batch_of(rows, length, share, gathered=False)),
    'scored': (whole, scored),
    'in parts': (config, scored),
  }


def step_of(config):
  """(jitted step, start: params -> state)."""
  graphdef, _ = decoder.abstract(config)
  optimizer = optim.make_optimizer(OptimConfig(), 10)

  def start(params):
    return TrainState(jnp.int32(0), params, optimizer.init(params))

  return jax.jit(make_step(graphdef, optimizer, 1), donate_argnums=0), start


def on_this_machine(rows, length, repeats):
  print(f'\nthis machine: width {SMALL.width}, {rows} x {length} tokens')
  print(f'{"share":>5}  {"head":<10} {"MiB":>6} {"seconds":>8} {"ratio":>6}')
  params = jax.jit(functools.partial(decoder.init, SMALL))(jax.random.key(0))
  for share in SHARES:
    runs, losses = {}, {}
    for name, (config, batch) in heads(SMALL, rows, length, share).items():
      step, start = step_of(config)
      state = start(jax.tree.map(jnp.copy, params))
      compiled = step.lower(state, batch).compile()
      state, metrics = compiled(state, batch)  # not timed: the first
      losses[name] = float(metrics['loss'])
      runs[name] = [compiled, state, batch, []]
    for _ in range(repeats):
      for run in runs.values():
        compiled, state, batch, seconds = run
        since = time.perf_counter()
        run[1], metrics = compiled(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - since)
    base = statistics.median(runs['all logits'][-1])
    for name, (compiled, _, _, seconds) in runs.items():
      temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
      median = statistics.median(seconds)
      print(
        f'{share:>5}  {name:<10} {temporary:>6,.0f} {median:>8.2f} '
        f'{median / base:>6.2f}  loss {losses[name]:.5f}',
        flush=True,
      )


def on_a_tpu_chip(rows, length):
  (chip,) = chips.describe('v5e:1x1')
  where = jax.sharding.SingleDeviceSharding(chip)
  print(f'\nTPU v5e, one chip: Qwen2.5-0.5B, {rows} x {length} tokens')
  print(f'{"share":>5}  {"head":<10} {"MiB":>6} {"peak MiB":>9}')
  for share in SHARES:
    for name, (config, batch) in heads(QWEN, rows, length, share).items():
      step, start = step_of(config)
      state = jax.eval_shape(start, decoder.abstract(config)[1])
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        (state, batch),
      )
      try:
        memory = step.lower(*shapes).compile().memory_analysis()
      except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
          raise
        print(f'{share:>5}  {name:<10} out of memory', flush=True)
        continue
      print(
        f'{share:>5}  {name:<10} {memory.temp_size_in_bytes / 2**20:>6,.0f} '
        f'{memory.peak_memory_in_bytes / 2**20:>9,.0f}',
        flush=True,
      )


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=2)
  parser.add_argument('--length', type=int, default=256)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--tpu_rows', type=int, default=8)
  args = parser.parse_args()
  if args.repeats:
    on_this_machine(args.rows, args.length, args.repeats)
  if importlib.util.find_spec('libtpu'):
    on_a_tpu_chip(args.tpu_rows, length=2048)


if __name__ == '__main__':
  main()
