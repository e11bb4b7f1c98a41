"""Attacks runs, records and files at random, and counts what becomes of them.

  python tests/benchmarks/chaos.py [--seed=0] [--tries=20] [--only=kills,races]

Each attack damages something that a user could lose: it kills a command, fills
its disk, flips bits of its files, starts it twice at once, or gives it rows,
tables, model folders and results that are broken. Good outcomes are the result
of an undisturbed command, and one line that says what is wrong. Bad ones are
another result, a traceback, an unclear end, and a command that hangs. The
program exits with 1 if there was a bad one; the same seed makes the same tries.
"""

import argparse
import collections
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from tests import commands

GOOD = ('same result', 'one line', 'read or set aside', 'same or refused')
BAD = ('OTHER RESULT', 'TRACEBACK', 'UNCLEAR END', 'HANGS')
LONGEST = 300  # seconds until a command counts as hanging
DIALOGUES = 300
TRAIN = (
  *('--config=train_tiny', '--config.steps=6', '--config.seq_len=512'),
  *('--config.model.width=16', '--config.model.layers=1'),
  *('--config.model.head_size=4', '--config.model.mlp_width=32'),
  *('--config.checkpoint_every=2', '--config.keep_last=3'),
)


def judge(done: subprocess.CompletedProcess) -> str:
  """Returns '' for a command that succeeded, otherwise its outcome."""
  outcome = _judge(done)
  if outcome in BAD:
    print(done.stderr[-2000:], file=sys.stderr)
  return outcome


def _judge(done: subprocess.CompletedProcess) -> str:
  if 'Traceback (most recent call last)' in done.stdout + done.stderr:
    return 'TRACEBACK'
  if done.returncode == 0:
    return ''
  # Warnings may come before the line that says why the command ended.
  last = done.stderr.strip().rpartition('\n')[2]
  return 'one line' if last.startswith('error: ') else 'UNCLEAR END'


class World:
  """Input, undisturbed records and run, and how to make them."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.runs = folder / 'runs.jsonl'
    self.tokenizer = folder / 'tokenizer'
    commands.in_process(_write_input, self.runs, self.tokenizer)
    # As long as these take, an attack may wait.
    began = time.monotonic()
    self.records = folder / 'records'
    self._must_succeed(self.prepare(self.records))
    self.prepare_seconds, began = time.monotonic() - began, time.monotonic()
    self.run = folder / 'run'
    self._must_succeed(self.train(self.run))
    self.train_seconds = time.monotonic() - began

  def prepare(self, output) -> commands.Running:
    """Starts a preparation of the whole input."""
    return commands.start(
      *('prepare', f'--input={self.runs}', f'--tokenizer={self.tokenizer}'),
      *(f'--output={output}', '--heldout=0.1', '--num_shards=4'),
    )

  def train(self, workdir, records=None) -> commands.Running:
    """Starts a training of six steps, which saves every second one."""
    records = records or self.records
    return commands.start(
      'train', *TRAIN, f'--config.records={records}', f'--workdir={workdir}'
    )

  def _must_succeed(self, running):
    with running:
      done = running.wait(LONGEST)
    if judge(done) or done.returncode:
      raise RuntimeError(f'nothing was attacked yet:\n{done.stderr}')

  def is_same(self, result: pathlib.Path) -> bool:
    """Returns whether records or a run are the undisturbed ones."""
    if (result / 'metrics.jsonl').exists():
      return losses(result) == losses(self.run)
    found, whole = digests(result), digests(self.records)
    others = [
      name for name in found | whole if found.get(name) != whole.get(name)
    ]
    if others:
      print(f'other files: {others}', file=sys.stderr)
    return not others


def _write_input(runs: pathlib.Path, tokenizer: pathlib.Path) -> None:
  """Writes dialogues of the lying agent, and a tokenizer with a template."""
  from isft_jax.worlds.lying_agent import generator
  from tests.dialogues import chatml_tokenizer

  found = generator.dialogues(DIALOGUES, p_lie=0.6, p_chitchat=0.5, seed=0)
  with runs.open('w') as file:
    for each in found:
      turns = [segment.message() for segment in each.segments]
      file.write(json.dumps({'messages': turns}) + '\n')
  chatml_tokenizer().save_pretrained(tokenizer)


def digests(records: pathlib.Path) -> dict[str, str]:
  """Returns SHA-256 by file of a folder of records, its lock left out."""
  found = {}
  for path in sorted(records.rglob('*')):
    if path.is_dir() or path.name.startswith('.'):
      continue
    content = path.read_bytes()
    if path.name == 'prepare_report.json':
      report = json.loads(content)
      del report['seconds']  # no two preparations share them
      content = json.dumps(report).encode()
    name = path.relative_to(records).as_posix()
    found[name] = hashlib.sha256(content).hexdigest()
  return found


def losses(workdir: pathlib.Path) -> list[tuple]:
  """Returns what a run has logged of each step, without times."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [
    (row['step'], row['loss'], row['targets']) for row in rows if 'loss' in row
  ]


def finished(world: World, start, result: pathlib.Path, is_same=None) -> str:
  """Runs a command to its end, and returns the outcome.

  is_same: (how the command ended) -> whether its result is right; by default
    the result must be that of an undisturbed command.
  """
  with start(result) as running:
    try:
      done = running.wait(LONGEST)
    except subprocess.TimeoutExpired:
      return 'HANGS'
  outcome = judge(done)
  if not outcome:
    same = is_same(done) if is_same else world.is_same(result)
    outcome = 'same result' if same else 'OTHER RESULT'
  return outcome


# Attacks: each takes the world, an empty folder and dice, and returns the
# outcome of one try.


def kill(world, folder, dice, start, seconds) -> str:
  """SIGKILL at a random moment, up to three times; then it runs to its end."""
  result = folder / 'result'
  for _ in range(dice.randint(1, 3)):
    # Whatever still runs at the end of the block is killed.
    with (
      start(result) as running,
      contextlib.suppress(subprocess.TimeoutExpired),
    ):
      running.wait(dice.uniform(0, seconds))
  return finished(world, start, result)


def fill_disk(world, folder, dice, start) -> str:
  """A small file system is too full; then it gets enough space."""
  disk = folder / 'disk'
  disk.mkdir()
  size = int(10 ** dice.uniform(3.6, 5.6))  # 4 kB to 400 kB
  _mount(disk, size)
  try:
    first = finished(world, start, disk / 'result')
    if first in BAD:
      return first
    _mount(disk, 100_000_000, 'remount')
    return finished(world, start, disk / 'result')
  finally:
    subprocess.run(['umount', '--lazy', disk], check=True)


def _mount(disk, size, *options):
  option = ','.join((*options, f'size={size}'))
  subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', option, 'tmpfs', disk], check=True
  )


def race(world, folder, dice, start) -> str:
  """Two or three at once: one does the work, the others end with a line."""
  result = folder / 'result'
  with contextlib.ExitStack() as stack:
    rivals = []
    for _ in range(dice.randint(2, 3)):
      rivals.append(stack.enter_context(start(result)))
      time.sleep(dice.choice((0, 0, dice.uniform(0, 1))))
    try:
      outcomes = [judge(each.wait(LONGEST)) for each in rivals]
    except subprocess.TimeoutExpired:
      return 'HANGS'
  bad = [each for each in outcomes if each in BAD]
  if bad or '' not in outcomes:
    return bad[0] if bad else 'UNCLEAR END'
  return 'same result' if world.is_same(result) else 'OTHER RESULT'


def damage(path: pathlib.Path, dice: random.Random) -> str:
  """Damages a file as disks, networks and people do; returns how."""
  content = bytearray(path.read_bytes())
  kinds = ('flip', 'cut', 'zeros', 'delete', 'swap') if content else ('delete',)
  kind = dice.choice(kinds)
  at = dice.randrange(max(len(content), 1))
  if kind == 'delete':
    path.unlink()
    return kind
  if kind == 'flip':
    content[at] ^= 1 << dice.randrange(8)
  elif kind == 'cut':
    del content[at:]
  elif kind == 'zeros':
    end = min(at + dice.randrange(1, 512), len(content))
    content[at:end] = bytes(end - at)
  else:
    content[at:] = content[:at]
  path.write_bytes(content)
  return f'{kind} at {at}'


def damage_checkpoint(world, folder, dice) -> str:
  """One file of the newest checkpoint; the run goes on from one it can read."""
  result = folder / 'result'
  shutil.copytree(world.run, result)
  steps = sorted((result / 'checkpoints').glob('step_*'))
  if dice.random() < 0.5:
    shutil.rmtree(steps.pop())  # as if it had been stopped before the end
  files = [path for path in steps[-1].rglob('*') if path.is_file()]
  damage(dice.choice(files), dice)
  return finished(world, world.train, result)


def damage_run(world, folder, dice) -> str:
  """One file of the workdir that is no checkpoint."""
  result = folder / 'result'
  shutil.copytree(world.run, result)
  shutil.rmtree(max((result / 'checkpoints').glob('step_*')))
  files = [
    path
    for path in result.rglob('*')
    if path.is_file() and 'checkpoints' not in path.parts
  ]
  file = dice.choice(files)
  how = damage(file, dice)
  is_same = None
  if file.name == 'metrics.jsonl':
    is_same = functools.partial(_lost_with_a_warning, world, result)
  outcome = finished(world, world.train, result, is_same)
  if outcome in BAD:
    print(f'{file.relative_to(result)}: {how}', file=sys.stderr)
  return outcome


def _lost_with_a_warning(world, result, done) -> bool:
  """Returns whether all rows are there, or a warning says that some are not."""
  found, whole = losses(result), losses(world.run)
  is_rest = {*found} <= {*whole} and found[-2:] == whole[-2:]
  return found == whole or (is_rest and 'metrics.jsonl' in done.stdout)


def damage_records(world, folder, dice) -> str:
  """One file of the records; nobody trains on others without being told."""
  records, result = folder / 'records', folder / 'result'
  shutil.copytree(world.records, records)
  files = [path for path in records.rglob('*') if path.is_file()]
  damage(dice.choice(files), dice)
  start = functools.partial(world.train, records=records)
  return finished(world, start, result)


def break_rows(world, folder, dice) -> str:
  """Rows of all formats, mutated; each is written, or set aside and counted."""
  done = commands.in_process(_prepare_mutated, dice.random(), str(folder))
  return judge(done) or 'read or set aside'


def _prepare_mutated(seed, folder):
  from tests.data.chat_tokenizer import NAMES
  from tests.data.formats import examples
  from tests.data.formats.test_mutations import VALID
  from tests.data.preparation.test_prepare_mutated import check

  dice = random.Random(seed)
  # ReAct is plain text, which has no places to mutate.
  others = (row for row in examples.ROWS.values() if not isinstance(row, str))
  valid = [*VALID, *others]
  check(
    200,
    dice.randrange(2**32),
    dice.choice(NAMES),
    pathlib.Path(folder),
    valid=valid,
  )


def break_table(world, folder, dice) -> str:
  """A file of rows, damaged; what can be read is read, the rest is reported."""
  done = commands.in_process(_read_damaged, dice.random(), str(folder))
  return judge(done) or 'read or set aside'


def _read_damaged(seed, folder):
  import gzip
  import zipfile

  import pyarrow
  import pyarrow.parquet

  from isft_jax.data.files import rows

  dice, folder = random.Random(seed), pathlib.Path(folder)
  turns = [{'role': 'user', 'content': 'a'}, {'role': 'assistant'}]
  values = [{'id': f'{i}', 'messages': turns} for i in range(40)]
  lines = ''.join(json.dumps(value) + '\n' for value in values)
  table = pyarrow.Table.from_pylist(values)
  kind = dice.choice(('parquet', 'arrow', 'jsonl.gz', 'zip', 'json', 'csv'))
  path = folder / f'a.{kind}'
  if kind == 'parquet':
    pyarrow.parquet.write_table(table, path, row_group_size=10)
  elif kind == 'arrow':
    with pyarrow.ipc.new_file(path, table.schema) as writer:
      writer.write_table(table, max_chunksize=10)
  elif kind == 'jsonl.gz':
    path.write_bytes(gzip.compress(lines.encode()))
  elif kind == 'zip':
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('b.jsonl', lines)
  elif kind == 'json':
    path.write_text(json.dumps(values))
  else:
    path.write_text('messages\n' + '"[]"\n' * 40)
  for _ in range(50):
    whole = path.read_bytes()
    if damage(path, dice) != 'delete':
      for row in rows.read(path):
        assert row.error or row.value is not None
    path.write_bytes(whole)


def break_model(world, folder, dice) -> str:
  """A model folder with a damaged file, through three entrances."""
  done = commands.in_process(_enter_damaged, dice.random(), str(folder))
  return judge(done) or 'same or refused'


def _enter_damaged(seed, folder):
  from tests.hf import damaged_folders
  from tests.hf.damaged_folders import flaw_of
  from tests.hf.test_damaged_folders import ENTRANCES, may_differ

  dice, folder = random.Random(seed), pathlib.Path(folder)
  whole = damaged_folders.write_folder(folder / 'whole')
  expected = {name: enter(str(whole)) for name, enter in ENTRANCES.items()}
  for number in range(10):
    copied = shutil.copytree(whole, folder / str(number))
    file, what = damaged_folders.damage(copied, dice.randrange(2**32))
    for name, enter in ENTRANCES.items():
      try:
        result, flaw = enter(str(copied)), ''
      except BaseException as error:  # panics of Rust are no Exceptions
        result, flaw = None, flaw_of(error, str(copied))
      assert not flaw, (file, what, name, flaw)
      same = result in (None, expected[name]) or may_differ(file, what)
      assert same, (file, what, name, 'loads as another model')


def break_page(world, folder, dice) -> str:
  """Published results in which someone has put HTML; the page runs none."""
  done = commands.in_process(_write_hostile, dice.random(), str(folder))
  return judge(done) or 'same or refused'


def _write_hostile(seed, folder):
  from tests.report import test_hostile

  dice, folder = random.Random(seed), pathlib.Path(folder)
  for _ in range(3):
    file, write = test_hostile.PAGES[dice.choice([*test_hostile.PAGES])]
    results = test_hostile.read(file)
    path = dice.choice([*test_hostile.leaves(results)])
    value = dice.choice(test_hostile.HOSTILE)
    try:
      page = write(folder, test_hostile.replaced(results, path, value))
    except ValueError as error:
      assert '\n' not in str(error) and '.json' in str(error), path
    else:
      test_hostile.check(page)


def attacks(world: World) -> dict:
  """Returns each attack by its name: a function of a folder and dice."""
  prepare, train = world.prepare, world.train
  found = {
    'kills: prepare': functools.partial(
      kill, start=prepare, seconds=world.prepare_seconds
    ),
    'kills: train': functools.partial(
      kill, start=train, seconds=world.train_seconds
    ),
    'full disk: prepare': functools.partial(fill_disk, start=prepare),
    'full disk: train': functools.partial(fill_disk, start=train),
    'races: prepare': functools.partial(race, start=prepare),
    'races: train': functools.partial(race, start=train),
    'damage: checkpoint': damage_checkpoint,
    'damage: workdir': damage_run,
    'damage: records': damage_records,
    'broken rows (x 200)': break_rows,
    'broken tables (x 50)': break_table,
    'broken models (x 10)': break_model,
    'hostile pages (x 3)': break_page,
  }
  return {name: functools.partial(each, world) for name, each in found.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--tries', type=int, default=20)
  parser.add_argument('--only', default='', help='names of attacks, or parts')
  args = parser.parse_args()
  wanted = args.only.split(',')
  counts = {}
  with tempfile.TemporaryDirectory(prefix='isft-chaos-') as name:
    world = World(pathlib.Path(name))
    for attack, attempt in attacks(world).items():
      if not any(each in attack for each in wanted):
        continue
      counts[attack] = collections.Counter()
      for number in range(args.tries):
        # The same seed, attack and number give the same try.
        dice = random.Random(f'{args.seed} {attack} {number}')
        folder = pathlib.Path(tempfile.mkdtemp(dir=name))
        outcome = attempt(folder, dice)
        counts[attack][outcome] += 1
        if outcome in BAD:
          print(f'{attack}, try {number}: {outcome}', file=sys.stderr)
        shutil.rmtree(folder)
      print(f'{attack:22}{table_row(counts[attack])}', flush=True)
  if any(count[outcome] for count in counts.values() for outcome in BAD):
    sys.exit(1)


def table_row(count: collections.Counter) -> str:
  """Returns tries and outcomes of an attack as one line."""
  outcomes = (f'{count[each]:4} {each}' for each in GOOD + BAD if count[each])
  return f'{sum(count.values()):4} tries' + ''.join(outcomes)


if __name__ == '__main__':
  main()
