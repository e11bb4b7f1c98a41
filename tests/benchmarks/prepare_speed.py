"""How fast records are written, against plain encoding of the same text.

  python tests/benchmarks/prepare_speed.py [--rows=2000]

Both on one thread, in one run: `isft-prepare` from a file of agent runs to
records (parse, render twice, compare, encode, look authors up, write, index),
and the tokenizer alone on the rendered text. The goal is a ratio of 0.9.

Rows are repeated with a number in each message, so that no message but the
system prompt is the same in two rows, as in real runs.
"""

import argparse
import json
import os
import pathlib
import random
import tempfile
import time

os.environ['RAYON_NUM_THREADS'] = '1'
os.environ['TOKENIZERS_PARALLELISM'] = 'false'

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare
from isft_jax.data.rendering import tokenizer
from isft_jax.data.rendering.renderer import Renderer

ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / 'shared' / 'trajectories' / 'tau_bench_airline.jsonl'
TEMPLATE = ROOT / 'tests' / 'data' / 'templates' / 'qwen3_like.jinja'
WORDS = ('flight', 'seat', 'change', 'please', 'the', 'refund', 'card', 'when')


def made_up_rows():
  """Agent runs of about the size of real ones, where there are none here."""
  dice = random.Random(0)

  def words(number):
    return ' '.join(dice.choices(WORDS, k=number))

  for _ in range(50):
    messages = [{'role': 'system', 'content': words(800)}]
    for turn in range(dice.randrange(4, 12)):
      call = {'name': 'look_up', 'arguments': json.dumps({'id': words(3)})}
      call = {'id': f'{turn}', 'type': 'function', 'function': call}
      messages += [
        {'role': 'user', 'content': words(30)},
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'tool_call_id': f'{turn}', 'content': words(90)},
        {'role': 'assistant', 'content': words(60)},
      ]
    yield json.dumps({'messages': messages})


def numbered(line, i):
  """Returns a row with a number in each message that is not the system's."""
  row = json.loads(line)
  key = next(k for k in ('messages', 'traj') if k in row)
  for message in row[key]:
    if message['role'] != 'system' and isinstance(message.get('content'), str):
      message['content'] += f' ({i})'
  return json.dumps(row)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=1000)
  parser.add_argument('--block', type=int, default=200)
  parser.add_argument('--vocab_size', type=int, default=8000)
  args = parser.parse_args()

  if REAL.exists():
    lines, what = REAL.read_text().splitlines(), 'real runs (tau-bench airline)'
  else:
    lines, what = list(made_up_rows()), 'made-up runs'
  lines = [numbered(lines[i % len(lines)], i) for i in range(args.rows)]
  encoder = tokenizer.train(lines[:50], args.vocab_size)
  encoder.add_special_tokens(
    {'additional_special_tokens': ['<|im_start|>', '<|im_end|>']}
  )
  renderer = Renderer(encoder, TEMPLATE.read_text())
  texts = [
    renderer.render(
      registry.read(json.loads(line), 'x', 'auto', Rules.default())
    ).text
    for line in lines
  ]

  # In turns, since the speed of a shared machine drifts.
  prepared = encoded = tokens = 0
  for first in range(0, args.rows, args.block):
    block = slice(first, first + args.block)
    with tempfile.TemporaryDirectory() as folder:
      source = pathlib.Path(folder) / 'runs.jsonl'
      source.write_text('\n'.join(lines[block]) + '\n')
      start = time.process_time()
      report, _ = prepare.prepare(
        prepare.Settings(str(source)),
        renderer,
        Rules.default(),
        f'{folder}/records',
      )
      prepared += time.process_time() - start
      tokens += report['tokens']
    start = time.process_time()
    for text in texts[block]:
      encoder(text, add_special_tokens=False)
    encoded += time.process_time() - start

  print(f'{args.rows} {what}, {tokens:,} tokens')
  print(f'encoding alone   {tokens / encoded:12,.0f} tokens/s of CPU time')
  print(f'records written  {tokens / prepared:12,.0f} tokens/s of CPU time')
  print(f'ratio            {encoded / prepared:12.2f}')


if __name__ == '__main__':
  main()
