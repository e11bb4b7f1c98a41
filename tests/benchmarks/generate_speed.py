"""How fast replies are generated, against transformers, on the CPU.

  python tests/benchmarks/generate_speed.py [--model=smollm2] [--batch=33]

A random model of the shape of Qwen2.5-0.5B or SmolLM2-135M in float32, the same
weights on both sides, greedy, with a cache, on all cores. Both take turns in
one process, since the speed of a shared machine drifts; compiling is not
counted, the prompt is.
The goal is a ratio of 1. Where others use the cores too, threads that wait for
each other spoil the figures: `taskset -c 0` in front gives both one core, and
their CPU time then says more than the clock.
"""

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
import torch
import transformers

from isft_jax.hf import pretrained
from isft_jax.inference import generate

QWEN = {
  'vocab_size': 151_936,
  'hidden_size': 896,
  'intermediate_size': 4864,
  'num_hidden_layers': 24,
  'num_attention_heads': 14,
  'num_key_value_heads': 2,
  'tie_word_embeddings': True,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6},
}
SMOLLM2 = {
  'vocab_size': 49_152,
  'hidden_size': 576,
  'intermediate_size': 1536,
  'num_hidden_layers': 30,
  'num_attention_heads': 9,
  'num_key_value_heads': 3,
  'tie_word_embeddings': True,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e5},
}
MODELS = {
  'qwen2.5': (transformers.Qwen2ForCausalLM, transformers.Qwen2Config, QWEN),
  'smollm2': (transformers.LlamaForCausalLM, transformers.LlamaConfig, SMOLLM2),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', choices=MODELS, default='qwen2.5')
  parser.add_argument('--batch', type=int, default=33)
  parser.add_argument('--prompt', type=int, default=24)
  parser.add_argument('--new', type=int, default=32)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()

  torch.manual_seed(0)
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  architecture, config, shape = MODELS[args.model]
  theirs = architecture(config(**shape))
  theirs.eval()
  with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    ours, _ = pretrained.load(folder)
  dice = np.random.default_rng(0)
  prompts_BL = dice.integers(0, shape['vocab_size'], (args.batch, args.prompt))

  def by_torch():
    with torch.inference_mode():
      tokens_BL = theirs.generate(
        torch.asarray(prompts_BL),
        attention_mask=torch.ones(prompts_BL.shape, dtype=torch.int64),
        do_sample=False,
        min_new_tokens=args.new,
        max_new_tokens=args.new,
        pad_token_id=0,
      )
    return tokens_BL.numpy()[:, args.prompt :]

  def by_us():
    return np.stack(generate.greedy(*ours, prompts_BL, args.new))

  same = np.mean(by_us() == by_torch())  # also compiles
  clocks = {'clock': time.perf_counter, 'CPU time': time.process_time}
  ratios = {name: [] for name in clocks}
  tokens = args.batch * args.new
  for _ in range(args.rounds):
    seconds = []
    for way in (by_torch, by_us):
      start = [now() for now in clocks.values()]
      way()
      now = [now() for now in clocks.values()]
      seconds.append(np.subtract(now, start))
    theirs_s, ours_s = seconds
    for name, a, b in zip(clocks, theirs_s, ours_s, strict=True):
      ratios[name].append(a / b)
      print(
        f'{name:8}  transformers {tokens / a:6.1f} tokens/s, '
        f'isft_jax {tokens / b:6.1f} tokens/s, ratio {a / b:.2f}',
        flush=True,
      )
  for name, found in ratios.items():
    print(f'median ratio by {name}: {statistics.median(found):.2f}')
  print(f'{same:.1%} of the tokens agree')


if __name__ == '__main__':
  main()
