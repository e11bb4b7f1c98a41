"""How far a preparation grows: its speed with workers, its memory with rows.

  python tests/benchmarks/prepare_scale.py [--rows=2000] [--workers=2]
  python tests/benchmarks/prepare_scale.py --memory [--rows=200000]

The first prepares the same agent runs with one process and with several, in
turns, and gives two ratios: of the times that pass, which tell of this machine
and of whoever else uses it; and of processor time, which tells what as many
cores would give that nobody else uses. There, no core can be done before the
main process has read and written all, nor before its equal share of all the
work, what the workers spend on starting included:

  ratio = one process's time / max(main process's, (main's + workers') / cores)

The second prepares a tenth of the rows, and then all of them, each in a process
of its own, and gives the peak of the memory that its main process held; a
worker's is known from above alone, since Linux counts what it was forked from.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

os.environ['RAYON_NUM_THREADS'] = '1'
os.environ['TOKENIZERS_PARALLELISM'] = 'false'

ROOT = pathlib.Path(__file__).parents[2]
TEMPLATE = ROOT / 'tests' / 'data' / 'templates' / 'qwen3_like.jinja'
WORDS = ('flight', 'seat', 'change', 'please', 'the', 'refund', 'card', 'when')

MEASURED = """
import json, pathlib, resource, sys, time
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare
from isft_jax.data.rendering import tokenizer
from isft_jax.data.rendering.renderer import Renderer

if __name__ == '__main__':
  source, encoder, template, output, workers = sys.argv[1:]
  template = pathlib.Path(template).read_text()
  renderer = Renderer(tokenizer.load(encoder), template)
  started = time.process_time()
  report, _ = prepare.prepare(
    prepare.Settings(source, heldout=0.05),
    renderer,
    Rules.default(),
    output,
    num_workers=int(workers),
  )
  here = time.process_time() - started
  both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
  peaks = [resource.getrusage(who).ru_maxrss // 1024 for who in both]
  children = resource.getrusage(resource.RUSAGE_CHILDREN)
  told = {key: report[key] for key in ('tokens', 'seconds')}
  told |= {'MiB': peaks, 'main': here}
  told['workers'] = children.ru_utime + children.ru_stime
  print(json.dumps(told))
"""


def write_rows(path, rows, turns):
  """Made-up agent runs, the same ones each time."""
  dice = random.Random(0)

  def words(number):
    return ' '.join(dice.choices(WORDS, k=number))

  with path.open('w') as file:
    for row in range(rows):
      messages = [{'role': 'system', 'content': words(20)}]
      for turn in range(turns):
        call = {'name': 'look_up', 'arguments': json.dumps({'id': words(2)})}
        call = {'id': f'{turn}', 'type': 'function', 'function': call}
        messages += [
          {'role': 'user', 'content': words(10)},
          {'role': 'assistant', 'content': '', 'tool_calls': [call]},
          {'role': 'tool', 'tool_call_id': f'{turn}', 'content': words(20)},
          {'role': 'assistant', 'content': words(10)},
        ]
      file.write(json.dumps({'id': f'{row}', 'messages': messages}) + '\n')


def prepared(folder, source, workers):
  """Prepares in a process of its own; returns what it tells of itself."""
  output = tempfile.mkdtemp(dir=folder)
  script = pathlib.Path(folder) / 'measured.py'
  script.write_text(MEASURED)
  places = source, folder / 'tokenizer', TEMPLATE, f'{output}/records'
  done = subprocess.run(
    [sys.executable, script, *map(str, places), str(workers)],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int)
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--turns', type=int)
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--memory', action='store_true')
  args = parser.parse_args()
  rows = args.rows or (200_000 if args.memory else 2000)
  turns = args.turns or (1 if args.memory else 8)

  from isft_jax.data.rendering import tokenizer

  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write_rows(folder / 'some.jsonl', max(rows // 10, 1), turns)
    lines = (folder / 'some.jsonl').read_text().splitlines()[:50]
    encoder = tokenizer.train(lines, 2000)
    encoder.add_special_tokens(
      {'additional_special_tokens': ['<|im_start|>', '<|im_end|>']}
    )
    encoder.save_pretrained(folder / 'tokenizer')
    write_rows(folder / 'all.jsonl', rows, turns)
    if args.memory:
      for name in ('some', 'all'):
        told = prepared(folder, folder / f'{name}.jsonl', args.workers)
        count = rows if name == 'all' else max(rows // 10, 1)
        print(
          f'{count:9,} rows, {told["tokens"]:12,} tokens, '
          f'{told["tokens"] / told["seconds"]:9,.0f} tokens/s, peak '
          f'{told["MiB"][0]:,} MiB, of a worker {told["MiB"][1]:,} at most',
          flush=True,
        )
      return
    sums = {}
    for _ in range(args.rounds):  # the speed of a shared machine drifts
      for workers in (1, args.workers):
        told = prepared(folder, folder / 'all.jsonl', workers)
        sum = sums.setdefault(workers, dict.fromkeys(told, 0))
        for key in ('seconds', 'tokens', 'main', 'workers'):
          sum[key] += told[key]
        print(
          f'{workers} workers: {told["seconds"]:6.1f} s, '
          f'{told["tokens"] / told["seconds"]:9,.0f} tokens/s; processor time '
          f'of the main process {told["main"]:5.1f} s, of the workers '
          f'{told["workers"]:5.1f} s',
          flush=True,
        )
    one, many = sums[1], sums[args.workers]
    share = (many['main'] + many['workers']) / args.workers
    longest = max(many['main'], share)
    print(f'ratio of the times     {one["seconds"] / many["seconds"]:6.2f}')
    print(f'of processor time      {one["main"] / longest:6.2f}')
    print(f'of any workers at most {one["main"] / many["main"]:6.2f}')


if __name__ == '__main__':
  main()
