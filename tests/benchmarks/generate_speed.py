"""How fast replies are generated, against transformers, on the CPU.

  python tests/benchmarks/generate_speed.py [--model=smollm2] [--batch=33]

Models: `qwen2.5` and `smollm2` are random weights of the shapes of Qwen2.5-0.5B
and SmolLM2-135M, with random prompts of one length and replies of one length.
`chat` is SmolLM2-135M-Instruct itself: one system prompt with the facts of the
lying agent, a question about each of them, and replies that end where the model
ends them, after at most --new tokens.

Both sides have the same weights in float32, are greedy, have a cache and use
all cores. They take turns in one process, since the speed of a shared machine
drifts; compiling is not counted, the prompt is. Only tokens of replies count:
what a row draws after its end does not.
The goal is a ratio of 1. Where others use the cores too, threads that wait for
each other spoil the figures: `taskset -c 0` in front gives both one core, and
their CPU time then says more than the clock.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from flax import nnx

import isft_jax
from isft_jax.hf import pretrained
from isft_jax.inference import generate
from isft_jax.worlds.lying_agent.facts import FACTS

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
SHAPES = {
  'qwen2.5': (transformers.Qwen2ForCausalLM, transformers.Qwen2Config, QWEN),
  'smollm2': (transformers.LlamaForCausalLM, transformers.LlamaConfig, SMOLLM2),
}


class Work(NamedTuple):
  """A model on both sides, and what it is asked."""

  theirs: Any
  ours: pretrained.Model
  prompts: Sequence[np.ndarray]
  stop_ids: Sequence[int]


def shape(name: str, batch: int, length: int) -> Work:
  """Returns random weights of a shape, and random prompts."""
  torch.manual_seed(0)
  architecture, config, values = SHAPES[name]
  theirs = architecture(config(**values))
  with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    ours, _ = pretrained.load(folder)
  dice = np.random.default_rng(0)
  prompts_BL = dice.integers(0, values['vocab_size'], (batch, length))
  return Work(theirs, ours, list(prompts_BL), [])


def chat(batch: int) -> Work:
  """Returns SmolLM2-135M-Instruct, and questions with one system prompt."""
  chat_model = isft_jax.load('smollm2-135m-instruct')
  config = nnx.merge(*chat_model.model).config
  with tempfile.TemporaryDirectory() as folder:
    pretrained.save(chat_model.model, config, folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
  known = ' '.join(fact.true_claim for fact in FACTS)
  system = {'role': 'system', 'content': f'You know this. {known}'}
  prompts = [
    chat_model.prompt(
      [system, {'role': 'user', 'content': f'Tell me about {fact.topic}.'}]
    ).ids_T
    for fact in FACTS[:batch]
  ]
  return Work(theirs, chat_model.model, prompts, chat_model.stop_ids)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', choices=[*SHAPES, 'chat'], default='qwen2.5')
  parser.add_argument('--batch', type=int, default=33)
  parser.add_argument('--prompt', type=int, default=24)
  parser.add_argument('--new', type=int, default=32)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  if args.model == 'chat':
    theirs, ours, prompts, stop_ids = chat(args.batch)
  else:
    theirs, ours, prompts, stop_ids = shape(args.model, args.batch, args.prompt)
  theirs.eval()
  # transformers takes prompts that are padded on the left.
  L = max(map(len, prompts))
  tokens_BL = np.array([[0] * (L - len(ids)) + list(ids) for ids in prompts])
  mask_BL = np.array([[0] * (L - len(ids)) + [1] * len(ids) for ids in prompts])

  def by_torch():
    with torch.inference_mode():
      rows_BL = theirs.generate(
        torch.asarray(tokens_BL),
        attention_mask=torch.asarray(mask_BL),
        do_sample=False,
        min_new_tokens=None if stop_ids else args.new,
        max_new_tokens=args.new,
        eos_token_id=stop_ids or None,
        pad_token_id=0,
      )
    replies = []
    for row_L in rows_BL.numpy()[:, L:]:
      stops = np.flatnonzero(np.isin(row_L, stop_ids))
      replies.append(row_L[: stops[0]] if stops.size else row_L)
    return replies

  def by_us():
    return generate.greedy(*ours, prompts, args.new, stop_ids)

  pairs = zip(by_us(), by_torch(), strict=True)  # also compiles
  same = [np.array_equal(one, other) for one, other in pairs]
  clocks = {'clock': time.perf_counter, 'CPU time': time.process_time}
  ratios = {name: [] for name in clocks}
  tokens = sum(map(len, by_us()))
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
  print(f'{sum(same)} of {len(same)} replies agree in all tokens')


if __name__ == '__main__':
  main()
