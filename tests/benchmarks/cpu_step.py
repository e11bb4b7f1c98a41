"""Processor time of a train step on a CPU, by what is recomputed, and of torch.

  taskset -c 0 python tests/benchmarks/cpu_step.py [--remat=none,dots,full]

SmolLM2-135M with random weights in float32 learns from rows of one document
each, half of whose tokens are scored. Processor time says more than the clock
where others use the cores too; `taskset` keeps threads from waiting for each
other. torch (transformers, SDPA, all logits, torch.optim.AdamW) takes turns
with it in one process if it is installed: pip install -e '.[parity]'.

Prints seconds of processor time per step, tokens per such second, and the
model's GFLOP per second.
"""

import argparse
import dataclasses
import os
import time

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import numpy as np

from isft_jax import sharding
from isft_jax.config import MeshConfig, OptimConfig
from isft_jax.models import flops
from isft_jax.models.presets import model_config
from isft_jax.train.trainer import make_trainer
from isft_jax.types import Batch, Provenance

MODEL = model_config('smollm2-135m')
VOCABULARY = MODEL.vocab_size


def batch_of(rows: int, length: int) -> Batch:
  rng = np.random.default_rng(0)
  scored = np.tile(np.arange(0, length, 2, dtype=np.int32), (rows, 1))
  return Batch(
    tokens_BL=rng.integers(0, VOCABULARY, (rows, length)).astype(np.int32),
    positions_BL=np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
    segment_ids_BL=np.ones((rows, length), np.int32),
    columns_BK=scored,
    targets_BK=rng.integers(0, VOCABULARY, scored.shape).astype(np.int32),
    weights_BK=np.ones(scored.shape, np.float32),
    authors_BK=np.full(scored.shape, Provenance.USER, np.int32),
  )


def ours(batch: Batch, remat: str):
  """Returns a function that takes one step."""
  model = dataclasses.replace(MODEL, remat=remat)
  trainer = make_trainer(model, OptimConfig(), MeshConfig(1, 1, 1), 100)
  state = [trainer.init(0)]
  on_device = sharding.to_global(batch, trainer.mesh)

  def step():
    state[0], metrics = trainer.step(state[0], on_device)
    jax.block_until_ready((state, metrics))

  return step


def torchs(batch: Batch):
  """Returns a function that takes one step of torch; None without torch."""
  try:
    import torch
    import transformers
  except ImportError:
    return None
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  config = transformers.LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=MODEL.width,
    intermediate_size=MODEL.mlp_width,
    num_hidden_layers=MODEL.layers,
    num_attention_heads=MODEL.heads,
    num_key_value_heads=MODEL.kv_heads,
    tie_word_embeddings=True,
    attn_implementation='sdpa',
  )
  model = transformers.LlamaForCausalLM(config)
  optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
  tokens = torch.from_numpy(batch.tokens_BL).long()
  labels = torch.where(torch.arange(tokens.shape[1]) % 2 == 1, tokens, -100)

  def step():
    optimizer.zero_grad()
    model(input_ids=tokens, labels=labels).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  return step


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--remat', default='none,dots,full')
  parser.add_argument('--rows', type=int, default=4)
  parser.add_argument('--length', type=int, default=256)
  parser.add_argument('--rounds', type=int, default=3)
  flags = parser.parse_args()
  batch = batch_of(flags.rows, flags.length)
  steps = {f'remat={name}': name for name in flags.remat.split(',')}
  steps = {name: ours(batch, remat) for name, remat in steps.items()}
  if (torch_step := torchs(batch)) is not None:
    steps['torch'] = torch_step
  seconds = {name: [] for name in steps}
  for number in range(flags.rounds + 1):
    for name, step in steps.items():
      before = time.process_time()
      step()
      if number:  # the first one compiles
        seconds[name].append(time.process_time() - before)
  tokens = flags.rows * flags.length
  work = flops.model(MODEL, flags.rows, flags.length, flags.length // 2).total
  for name, each in seconds.items():
    least = min(each)
    print(
      f'{name:<12} {least:6.2f} s  {tokens / least:5.0f} tokens/s  '
      f'{work / least / 1e9:4.0f} GFLOP/s'
    )


if __name__ == '__main__':
  main()
