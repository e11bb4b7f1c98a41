"""Training speed against a plain PyTorch loop, in scored tokens per second.

  python tests/benchmarks/train_speed.py [--rounds=3] [--seconds=40]

The same weights (SmolLM2-135M-Instruct, float32) learn from the same dialogues
of the lying agent under L_do, on all cores or one GPU, in one process, in
turns:

  torch   transformers' LlamaForCausalLM, one dialogue per step, as the authors'
          notebook trains: logits for all tokens, labels -100 for the unscored
  packed  isft_jax, a packed row of 256 tokens per step
  rows    isft_jax, --rows such rows per step
  single  isft_jax, one dialogue per step, in rows as long as the longest needs

Each turn takes some seconds of steps; compiling is not counted. The goals are
ratios of 2 (packed) and 1 (single). It needs torch: pip install -e '.[parity]'.
On a GPU set XLA_PYTHON_CLIENT_PREALLOCATE=false, which leaves memory for torch,
and JAX_DEFAULT_MATMUL_PRECISION=highest, as torch computes in float32 there.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time

import jax
import numpy as np
import torch
import transformers

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.hf import pretrained
from isft_jax.objectives import weight_table
from isft_jax.train import start
from isft_jax.train.trainer import make_trainer
from isft_jax.worlds.lying_agent import generator

BASE = 'smollm2-135m-instruct'
OBJECTIVE = 'interventional'
LEARNING_RATE = 2e-5


def torch_steps(folder, examples):
  """Yields the scored tokens of each step of the plain loop."""
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = transformers.LlamaForCausalLM.from_pretrained(folder)
  model = model.to(device).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
  table_PV = weight_table(OBJECTIVE)
  for example in itertools.cycle(examples):
    is_scored_T = table_PV[example.provenance_T, example.verdict_T] > 0
    is_scored_T[0] = False
    labels_T = np.where(is_scored_T, example.tokens_T, -100)
    optimizer.zero_grad()
    loss = model(
      input_ids=torch.asarray(example.tokens_T[None], dtype=torch.int64).to(
        device
      ),
      labels=torch.asarray(labels_T[None], dtype=torch.int64).to(device),
    ).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if device == 'cuda':
      torch.cuda.synchronize()
    yield int(is_scored_T.sum())


def our_steps(data, params, model, batch_size=1, **stage):
  """Yields the scored tokens of each step of ours."""
  config = RunConfig(
    objective=OBJECTIVE,
    records=data.folder,
    batch_size=batch_size,
    model=model,
    optim=OptimConfig(learning_rate=LEARNING_RATE),
    **stage,
  )
  source = BatchSource(data, config)
  trainer = make_trainer(model, config.optim, MeshConfig(1, 1, 1), 1_000_000)
  state = trainer.start(jax.tree.map(jax.numpy.copy, params))
  for step in itertools.count():
    batch = source[step % len(source)]
    state, metrics = trainer.step(
      state, sharding.to_global(batch, trainer.mesh)
    )
    jax.block_until_ready(metrics)
    yield int(np.sum(batch.weights_BK != 0))


def measure(steps, seconds):
  """Returns scored tokens per second of the next steps."""
  began, tokens = time.perf_counter(), 0
  while (taken := time.perf_counter() - began) < seconds:
    tokens += next(steps)
  return tokens / taken


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--seconds', type=float, default=40)
  parser.add_argument('--rows', type=int, default=4)
  args = parser.parse_args()

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  renderer = Renderer(tokenizer.load(BASE), chat_template.PLAIN)
  examples = [
    renderer.example(dialogue)
    for dialogue in generator.dialogues(480, 0.6, 0.5, seed=0)
  ]
  shape = start.with_shape(ModelConfig(init_from=BASE, head_chunk=0))
  model, config = pretrained.load(BASE)
  with tempfile.TemporaryDirectory() as folder:
    pretrained.save(model, config, f'{folder}/model')
    data = dataset.write(
      f'{folder}/records', lambda: examples, renderer.metadata()
    )
    architecture = ModelConfig(**{**vars(shape), 'init_from': ''})
    ours = data, model.params, architecture
    ways = {
      'torch': torch_steps(f'{folder}/model', examples),
      'packed': our_steps(*ours, seq_len=256),
      'rows': our_steps(*ours, seq_len=256, batch_size=args.rows),
      'single': our_steps(*ours, seq_len=0, documents_per_row=1),
    }
    for steps in ways.values():  # compiles, and fills the caches
      next(steps)
      next(steps)
    ratios = {name: [] for name in ways if name != 'torch'}
    for _ in range(args.rounds):
      speeds = {
        name: measure(steps, args.seconds) for name, steps in ways.items()
      }
      for name, found in ratios.items():
        found.append(speeds[name] / speeds['torch'])
      shown = ', '.join(f'{name} {speed:.1f}' for name, speed in speeds.items())
      print(f'scored tokens per second: {shown}', flush=True)
  for name, found in ratios.items():
    print(f'median ratio of {name} to torch: {statistics.median(found):.2f}')


if __name__ == '__main__':
  main()
