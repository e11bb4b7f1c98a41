"""Training speed and memory on one GPU, with each attention, and of PyTorch.

  python tests/benchmarks/gpu_speed.py [--models=smollm2-135m,qwen2.5-0.5b]
      [--batch_size=8] [--seq_len=4096] [--steps=10] [--rounds=3]
      [--out=FILE.jsonl] [--ways=auto,packed,xla,torch] [--remat=full,none]

  auto    isft_jax, attention='auto': the Triton kernels from A100 on
  packed  the same, with rows of documents of 512 tokens instead of one document
  xla     isft_jax, attention='xla'
  torch   transformers with the same weights and batch: SDPA, all logits in
          bfloat16, AdamW

Each way runs in its own process, so that peak memories do not mix. Rows
are random tokens, and half of them are scored. Weights, gradients and moments
are bfloat16. Each process prints a line of JSON: tokens per second, model FLOPs
utilisation, peak memory, losses of the first steps, and the time of a step next
to the roofline's. A way that does not fit says so.

The first losses of auto, xla and torch must agree: they are those of the same
weights and tokens. `--tiny` runs everything on any device in a minute, and its
figures mean nothing. torch is left out if it is not installed.
"""

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

DOCUMENT = 512
RATE = 2e-5
# Bytes per second to and from memory, by jax's device_kind: NVIDIA's data
# sheets. Rates of computation are those of isft_jax/chips.py.
MEMORY_SPEEDS = {
  'NVIDIA A100-SXM4-40GB': 1555e9,
  'NVIDIA A100-SXM4-80GB': 2039e9,
  'NVIDIA A100 80GB PCIe': 1935e9,
  'NVIDIA H100 PCIe': 2000e9,
  'NVIDIA H100 80GB HBM3': 3350e9,
  'NVIDIA H200': 4800e9,
}
# Widths are multiples of 9 and 14 heads.
TINY = {'width': 126, 'layers': 2, 'mlp_width': 48, 'vocab_size': 300}


def model_config(args, **settings):
  """Returns the config of the model, small if it must be."""
  from isft_jax.models import presets

  config = presets.model_config(
    args.model, dtype='bfloat16', param_dtype='bfloat16', **settings
  )
  return dataclasses.replace(config, **(TINY if args.tiny else {}))


def make_batch(args, vocab_size, document):
  """Returns a numpy Batch of documents of equal length, half of it scored."""
  from isft_jax.types import Batch, Provenance

  B, L = args.batch_size, args.seq_len
  dice = np.random.default_rng(0)
  tokens_BL = dice.integers(0, vocab_size, (B, L + 1)).astype(np.int32)
  column_L = np.arange(L, dtype=np.int32)
  # The targets of every second column.
  columns_BK = np.tile(column_L[::2], (B, 1))
  return Batch(
    tokens_BL=tokens_BL[:, :-1],
    positions_BL=np.tile(column_L % document, (B, 1)),
    segment_ids_BL=np.tile(1 + column_L // document, (B, 1)),
    columns_BK=columns_BK,
    targets_BK=np.take_along_axis(tokens_BL, columns_BK + 1, axis=1),
    weights_BK=np.ones(columns_BK.shape, np.float32),
    authors_BK=np.full(columns_BK.shape, Provenance.USER, np.int32),
  )


def write_weights(args, folder):
  """Writes random weights as a Hugging Face folder. Runs on the CPU."""
  import jax

  from isft_jax.hf import pretrained
  from isft_jax.models import decoder

  config = model_config(args)
  params = jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(0))
  graphdef, _ = decoder.abstract(config)
  pretrained.save(pretrained.Model(graphdef, params), config, folder)


def ours(args, folder):
  """Returns (loss of a step, peak bytes, constants of the report)."""
  import jax

  from isft_jax import chips, sharding
  from isft_jax.config import MeshConfig, OptimConfig
  from isft_jax.hf import pretrained
  from isft_jax.models import attention, flops
  from isft_jax.tpu import compile as compile_lib
  from isft_jax.tpu import roofline
  from isft_jax.train.trainer import make_trainer

  B, L, K = args.batch_size, args.seq_len, args.seq_len // 2
  device = jax.devices()[0]
  kind = 'xla' if args.way == 'xla' else 'auto'
  kind = attention.resolve(kind, device)
  config = model_config(args, attention=kind, remat=args.remat)
  optim = OptimConfig(learning_rate=RATE)
  trainer = make_trainer(
    config, optim, MeshConfig(data=1, fsdp=1), 1_000, [device]
  )
  state = trainer.start(pretrained.load_params(folder, config))
  document = min(L // 2, DOCUMENT) if args.way == 'packed' else L
  batch = sharding.to_global(
    make_batch(args, config.vocab_size, document), trainer.mesh
  )
  compiled = compile_lib.lower_step(trainer, B, L, K).compile()
  analysis = compiled.memory_analysis()

  def step():
    nonlocal state
    state, metrics = trainer.step(state, batch)
    return float(metrics['loss'])

  def peak():
    stats = device.memory_stats() or {}
    return stats.get('peak_bytes_in_use')

  # Work of the rows as one document each; packed rows have less attention.
  needed = flops.model(config, B, L, K).total
  report = {
    'device': device.device_kind,
    'attention': kind,
    'model_tflops': needed / 1e12,
    'compiled_peak_gib': analysis and analysis.peak_memory_in_bytes / 2**30,
  }
  speed = MEMORY_SPEEDS.get(device.device_kind)
  rate = chips.peak([device])
  if args.tiny:
    rate, speed = rate or 1e12, speed or 1e11
  if rate and speed:
    chip = chips.Chip(0, rate, speed, math.inf, math.inf)
    state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
    least = roofline.roofline(
      chip,
      flops.hardware(config, B, L, K).total,
      roofline.estimate_traffic(config, B, L, K, state_bytes),
      (),
    )
    report |= {
      'peak_tflops_per_second': rate / 1e12,
      'roofline_seconds': least.seconds,
      'roofline_bound_by': least.bound_by,
    }
  return step, peak, report


def theirs(args, folder):
  """Returns the same of transformers."""
  import torch
  import transformers

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.bfloat16, attn_implementation='sdpa'
  )
  model = model.to(device).train()
  model.config.use_cache = False
  if args.remat == 'full':
    model.gradient_checkpointing_enable()
  optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
  batch = make_batch(args, model.config.vocab_size, args.seq_len)
  tokens_BL = torch.asarray(batch.tokens_BL, dtype=torch.int64, device=device)
  columns_BK = torch.asarray(batch.columns_BK, dtype=torch.int64, device=device)
  targets_BK = torch.asarray(batch.targets_BK, dtype=torch.int64, device=device)

  def step():
    optimizer.zero_grad()
    logits_BLV = model(input_ids=tokens_BL).logits
    index_BK1 = columns_BK[..., None].expand(-1, -1, logits_BLV.shape[-1])
    loss = torch.nn.functional.cross_entropy(
      logits_BLV.gather(1, index_BK1).flatten(0, 1).float(),
      targets_BK.flatten(),
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()

  def peak():
    return torch.cuda.max_memory_allocated() if device == 'cuda' else None

  name = torch.cuda.get_device_name() if device == 'cuda' else 'cpu'
  return step, peak, {'device': name, 'attention': 'sdpa'}


def measure(args, folder):
  """Measures one way; returns the entries of its line."""
  make = theirs if args.way == 'torch' else ours
  try:
    step, peak, report = make(args, folder)
    losses = [step() for _ in range(2)]  # also compiles
    seconds = []
    for _ in range(args.rounds):
      began = time.perf_counter()
      for _ in range(args.steps):
        losses.append(step())
      seconds.append((time.perf_counter() - began) / args.steps)
  except Exception as error:  # too large, most likely: say so, and go on
    return {'error': f'{type(error).__name__}: {str(error)[:300]}'}
  used = statistics.median(seconds)
  most = peak()
  return report | {
    'step_seconds': used,
    'step_seconds_of_rounds': seconds,
    'tokens_per_second': args.batch_size * args.seq_len / used,
    'peak_gib': most and most / 2**30,
    'losses': losses[:3],
  }


def complete(lines):
  """Adds what follows from two ways of a model: MFU, ratios."""
  known = [line for line in lines if 'peak_tflops_per_second' in line]
  for line in lines:
    if 'step_seconds' not in line:
      continue
    same = [
      other
      for other in known
      if other['model'] == line['model'] and other['device'] == line['device']
    ]
    if same:
      rate = same[0]['peak_tflops_per_second']
      needed = same[0]['model_tflops']
      line['mfu'] = needed / rate / line['step_seconds']
    if 'roofline_seconds' in line:
      line['times_roofline'] = line['step_seconds'] / line['roofline_seconds']


def show(lines):
  """Prints a table."""
  print('model way remat tokens/s MFU GiB step_s roofline_s first_loss')
  for line in lines:
    head = f'{line["model"]} {line["way"]} {line["remat"]}'
    if 'error' in line:
      print(f'{head} {line["error"]}')
      continue
    figures = [
      ('tokens_per_second', '.0f'),
      ('mfu', '.1%'),
      ('peak_gib', '.2f'),
      ('step_seconds', '.4f'),
      ('roofline_seconds', '.4f'),
    ]
    shown = [
      format(line[name], how) if line.get(name) is not None else '-'
      for name, how in figures
    ]
    print(head, *shown, f'{line["losses"][0]:.4f}')


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--models', default='smollm2-135m,qwen2.5-0.5b')
  parser.add_argument('--ways', default='auto,packed,xla,torch')
  parser.add_argument('--remat', default='full,none')
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--seq_len', type=int, default=4096)
  parser.add_argument('--steps', type=int, default=10)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--out', type=pathlib.Path, help='file of JSON lines')
  parser.add_argument('--tiny', action='store_true')
  # Of the processes that this one starts.
  parser.add_argument('--way', help=argparse.SUPPRESS)
  parser.add_argument('--model', help=argparse.SUPPRESS)
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.tiny:
    args.batch_size, args.seq_len, args.steps, args.rounds = 2, 64, 2, 2
  if args.way == 'write':
    return write_weights(args, args.folder)
  if args.way:
    return print(json.dumps(measure(args, args.folder)))

  def start(way, model, remat, folder):
    flags = {'way': way, 'model': model, 'remat': remat, 'folder': folder}
    flags |= {
      name: getattr(args, name)
      for name in ('batch_size', 'seq_len', 'steps', 'rounds')
    }
    environment = {'JAX_PLATFORMS': 'cpu'} if way == 'write' else {}
    done = subprocess.run(
      [
        *(sys.executable, __file__, *(['--tiny'] if args.tiny else [])),
        *(f'--{name}={value}' for name, value in flags.items()),
      ],
      env=os.environ | environment,
      stdout=subprocess.PIPE,
      text=True,
    )
    return done.stdout.splitlines()[-1:], done.returncode

  ways = [
    way
    for way in args.ways.split(',')
    if way != 'torch' or importlib.util.find_spec('torch')
  ]
  lines = []
  for model in args.models.split(','):
    with tempfile.TemporaryDirectory() as folder:
      _, code = start('write', model, 'none', folder)
      assert not code, f'no weights of {model}'
      for remat in args.remat.split(','):
        for way in ways:
          last, code = start(way, model, remat, folder)
          line = {'model': model, 'way': way, 'remat': remat}
          found = json.loads(last[0]) if last else {'error': f'exit {code}'}
          lines.append(line | found)
          print(json.dumps(lines[-1]), flush=True)
  complete(lines)
  show(lines)
  if args.out:
    args.out.write_text(''.join(json.dumps(line) + '\n' for line in lines))


if __name__ == '__main__':
  main()
