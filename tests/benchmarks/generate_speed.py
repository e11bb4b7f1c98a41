"""How fast replies are generated, against transformers, on the CPU.

  python tests/benchmarks/generate_speed.py [--batch=33]

A random model of the shape of Qwen2.5-0.5B in float32, the same weights on both
sides, greedy, with a cache, on all cores. Both take turns in one process, since
the speed of a shared machine drifts; compiling is not counted, the prompt is.
The goal is a ratio of 1.
"""

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
import torch
import transformers

from isft_jax.models import generate, hf

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


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--batch', type=int, default=33)
  parser.add_argument('--prompt', type=int, default=24)
  parser.add_argument('--new', type=int, default=32)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()

  torch.manual_seed(0)
  torch.set_num_threads(os.cpu_count())
  theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**QWEN))
  theirs.eval()
  with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    ours, _ = hf.load(folder)
  dice = np.random.default_rng(0)
  prompts_BL = dice.integers(0, QWEN['vocab_size'], (args.batch, args.prompt))

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
  seconds = {by_us: [], by_torch: []}
  for _ in range(args.rounds):
    for way, spent in seconds.items():
      start = time.perf_counter()
      way()
      spent.append(time.perf_counter() - start)
  tokens = args.batch * args.new
  for name, way in (('transformers', by_torch), ('isft_jax', by_us)):
    rates = ' '.join(f'{tokens / s:.1f}' for s in seconds[way])
    print(f'{name:12}  {rates} tokens/s')
  pairs = zip(seconds[by_torch], seconds[by_us], strict=True)
  ratio = statistics.median(torch_s / our_s for torch_s, our_s in pairs)
  print(f'ratio         {ratio:.2f}; {same:.1%} of the tokens agree')


if __name__ == '__main__':
  main()
