"""Do the evidence's arms train faster side by side than one after another?

  taskset -c 0 python tests/benchmarks/side_by_side.py [--arms=4]

Arms share every shape, so one compiled step serves them all; `jax.vmap` over
their states would take a step of each at once. Processor time of a step an arm
is printed for both, compilation apart.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import evidence_tiny
from isft_jax.models import decoder
from isft_jax.train import optim
from isft_jax.train.step import make_step
from isft_jax.train.trainer import TrainState
from isft_jax.types import Batch, Provenance

STEPS = 12


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--arms', type=int, default=4)
  arms = parser.parse_args().arms
  config = evidence_tiny.get_config()
  graphdef, _ = decoder.abstract(config.model)
  optimizer = optim.make_optimizer(config.finetune.optim, STEPS)
  step = make_step(graphdef, optimizer, 1)

  def start(seed):
    params = decoder.init(config.model, jax.random.key(seed))
    return TrainState(jnp.zeros((), int), params, optimizer.init(params))

  states = [start(seed) for seed in range(arms)]
  batches = [batch(config, seed) for seed in range(arms)]
  stacked = [
    jax.tree.map(lambda *x: jnp.stack(x), *t) for t in (states, batches)
  ]
  for name, function, arguments, number in (
    ('one after another', step, (states[0], batches[0]), 1),
    ('side by side', jax.vmap(step), stacked, arms),
  ):
    first, each = measured(jax.jit(function), *arguments)
    print(
      f'{name:18} first step {first:5.1f} s, then '
      f'{1e3 * each / number:6.1f} ms a step and arm'
    )


def measured(step, state, of):
  """Returns processor time of the first step, compiled, and of a later one."""
  begun = time.process_time()
  state, metrics = jax.block_until_ready(step(state, of))
  compiled = time.process_time()
  for _ in range(STEPS):
    state, metrics = step(state, of)
  jax.block_until_ready(metrics)
  return compiled - begun, (time.process_time() - compiled) / STEPS


def batch(config, seed) -> Batch:
  """Returns full rows of tokens at random, all of them scored."""
  B, L = config.finetune.batch_size, config.finetune.seq_len
  tokens_BL = np.random.default_rng(seed).integers(
    config.vocab_size, size=(B, L), dtype=np.int32
  )
  columns_BK = np.tile(np.arange(L, dtype=np.int32), (B, 1))
  return Batch(
    tokens_BL=tokens_BL,
    positions_BL=columns_BK,
    segment_ids_BL=np.ones((B, L), np.int32),
    columns_BK=columns_BK,
    targets_BK=tokens_BL,
    weights_BK=np.ones((B, L), np.float32),
    authors_BK=np.full((B, L), Provenance.USER, np.int32),
  )


if __name__ == '__main__':
  main()
