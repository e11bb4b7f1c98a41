"""Time and memory that a host needs before its first step.

  python tests/benchmarks/plan_scale.py [--records=10000000] [--shards=10000]
  python tests/benchmarks/plan_scale.py --records=200000 --against=CHECKOUT

Writes a data set whose shards are hard links to one file of some thousand
records, so that it takes little more space than its index (200 bytes per
record). Lengths are log-normal, from 50 to 4,096 tokens, and half of the
tokens are scored. Then a new process opens the data set, plans its rows, and
reads the first batch and that of step 1,000,000. It reports the seconds of
each part and the peak of its memory (MiB). The bytes of a mapped index count in
it as far as they are loaded, although the system can drop them at any time.

With --against, another checkout of this package does the same in turns.

Ten million records took 33 s until the first batch, on two cores with a load of
ten, and 922 MiB. Each part grows in proportion to the records. Planning takes
66 bytes per record, and the finished plan 14. A hundred million records
therefore take five to six minutes there, 6.4 GiB, and an index file of 20 GB.
It is read about three times: for its checksum, for the digest, and for the
targets and columns of records. A disk that is slower than that adds its time if
the system's cache of files cannot hold the index.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

LATE_STEP = 1_000_000

MEASURED = """
import json, resource, sys, time
from isft_jax.config import RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records import dataset

folder, settings = sys.argv[1], json.loads(sys.argv[2])
figures, start = {}, time.perf_counter()

def note(name):
  global start
  figures[name] = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
  print(f'    {name:12} {figures[name]:6.2f} s, peak {peak:6,} MiB',
        file=sys.stderr, flush=True)
  start = time.perf_counter()

records = dataset.Records(folder)
note('open')
digest = records.digest()
note('digest')
known = {}
config = RunConfig(seq_len=4096, batch_size=64, steps=2 * STEP, **settings)
source = pipeline.BatchSource(records, config, known=known)
note('plan')
source[0]
note('first batch')
batches = pipeline.batches(source)
batches.set_state({'next_index': STEP})
next(batches)
note('late batch')
batches.close()
plan = source.plan.plans[0]
start = time.perf_counter()
again = pipeline.BatchSource(records, config, known=known).plan
note('plan again')
print(json.dumps({
  'figures': figures,
  'rows': len(plan), 'columns_used': plan.tokens / len(plan) / 4096,
  'targets_per_row': plan.targets_per_row,
  'split': plan.split, 'digest': plan.digest(),
}))
""".replace('STEP', str(LATE_STEP))


def write_data_set(folder, records, num_shards, seed=0):
  """Writes a data set of which every shard has the same records."""
  import numpy as np
  from etils import epath

  from isft_jax.data.records import index as index_lib
  from isft_jax.data.records import shards
  from isft_jax.types import Example, Provenance

  rng = np.random.default_rng(seed)
  codec = shards.Codec()
  builder = shards.Trajectories(metadata={}, data_dir=os.fspath(folder))
  path = epath.Path(builder.data_path)
  path.mkdir(parents=True)
  # One shard. Turns of users and agents have the same mean length.
  shard = shards.Shard(path, 'train', 0)
  for record in range(records // num_shards):
    length = int(np.clip(rng.lognormal(6.3, 0.9), 50, 4096))
    turns = rng.random(length) < 1 / 40  # begins a turn
    authors = (Provenance.USER, Provenance.AGENT)
    author_T = np.array(authors, np.uint8)[np.cumsum(turns) % 2]
    author_T[:20] = Provenance.CONTEXT
    example = Example(
      id=f'record-{record}',
      tokens_T=rng.integers(0, 32_000, length).astype(np.int32),
      provenance_T=author_T,
      segment_T=np.cumsum(turns).astype(np.int32),
      verdict_T=np.zeros(length, np.uint8),
    )
    shard.add(codec.write(example))
  info = shard.close(codec)
  # All others are links to it.
  first = path / shards.name('train', 0)
  section = shards.index_section(first)
  for number in range(1, num_shards):
    os.link(first, path / shards.name('train', number))
  part = index_lib.read(section, info.records)
  section.unlink()
  tiled = index_lib.Index(
    *(np.tile(array, (num_shards, *[1] * (array.ndim - 1))) for array in part)
  )
  tiled.trajectory_N[:] = np.arange(1, len(tiled.length_N) + 1)
  index = epath.Path(folder) / 'index.npz'
  index_lib.save(index, tiled)
  infos = [info._replace(number=number) for number in range(num_shards)]
  shards.assemble(builder, path, infos, {'train': index})
  index.unlink()


def measure(checkout, folder, settings):
  """Returns what a new process says of its start."""
  done = subprocess.run(
    [sys.executable, '-c', MEASURED, folder, json.dumps(settings)],
    env=os.environ | {'PYTHONPATH': str(checkout)},
    cwd=checkout,  # the first place that Python imports from
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return json.loads(done.stdout)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--records', type=int, default=10_000_000)
  parser.add_argument('--shards', type=int, default=10_000)
  parser.add_argument('--against', type=pathlib.Path)
  parser.add_argument('--rounds', type=int, default=1)
  parser.add_argument('--folder', help='keeps the data set here')
  parser.add_argument(
    '--settings', type=json.loads, default={}, help='of the config, as JSON'
  )
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    folder = args.folder or scratch
    if not (pathlib.Path(folder) / 'trajectories').exists():
      write = 'from tests.benchmarks import plan_scale as b; b.write_data_set'
      write += f'({folder!r}, {args.records}, {args.shards})'
      subprocess.run([sys.executable, '-c', write], check=True, cwd=ROOT)
    checkouts = {'this': ROOT}
    if args.against:
      checkouts['other'] = args.against
    seconds = {}
    for _ in range(args.rounds):
      for name, checkout in checkouts.items():
        result = measure(checkout, folder, args.settings)
        figures = result.pop('figures')
        total = sum(figures.values())
        print(f'{name}: {total:.1f} s, {result}', flush=True)
        for part, each in figures.items():
          seconds.setdefault(part, {}).setdefault(name, []).append(each)
    if args.against:
      for part, times in seconds.items():
        ratio = sum(times['other']) / sum(times['this'])
        print(f'{part:12} other / this {ratio:6.2f}')


if __name__ == '__main__':
  main()
