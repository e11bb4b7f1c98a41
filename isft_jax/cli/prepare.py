"""Prepares TFDS records from agent runs, with the author of every token.

  isft-prepare --input=RUNS --tokenizer=PLACE --output=DIR
  isft-prepare --input=MORE ... --extends=DIR --output=DIR2
  isft-prepare --verify=DIR

RUNS is a file, a folder or a quoted glob, or hf://ORG/NAME. Suffixes of files
are .json, .jsonl, .traj, .csv, .tsv (and .gz or .zst after these), .parquet,
.arrow, .eval and .zip. The ids are exactly those of the tokenizer's chat
template. Rows whose authors cannot be verified are rejected: DIR/rejected.jsonl
lists them with the reasons, and DIR/prepare_report.json has all counts. To look
at a row first:

  isft-inspect --input=RUNS --tokenizer=PLACE --index=0

The records are the same for any number of processes, and with Beam.
"""

import itertools
import pathlib
import shlex
import textwrap
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl.flags import (
  DEFINE_enum,
  DEFINE_float,
  DEFINE_integer,
  DEFINE_string,
)

from isft_jax import places, progress_bar
from isft_jax.cli import main, trajectories

if TYPE_CHECKING:
  from isft_jax.data.preparation.counters import Tally

OUTPUT = DEFINE_string('output', '', 'Folder to create for the records.')
HELDOUT = DEFINE_float(
  'heldout',
  0.0,
  "Share of the rows for the split 'heldout', chosen by a hash of their ids.",
)
MAX_LENGTH = DEFINE_integer(
  'max_length', 0, 'Maximum tokens per record; 0 means no limit.'
)
OVERLONG = DEFINE_enum(
  'overlong',
  'window',
  ['window', 'reject'],
  'Treatment of rows of more than --max_length tokens.',
)
OVERLAP = DEFINE_integer(
  'overlap',
  0,
  'Minimum tokens of context that a window repeats from the one before; 0 '
  'means a quarter of --max_length.',
)
NUM_WORKERS = DEFINE_integer(
  'num_workers', 1, 'Number of processes that render rows.'
)
NUM_SHARDS = DEFINE_integer(
  'num_shards', 0, 'Maximum files per split; 0 means one per 8,192 records.'
)
EXTENDS = DEFINE_string(
  'extends',
  '',
  'Folder of records that the new ones are added to, in --output; its input '
  'files are not read again.',
)
VERIFY = DEFINE_string(
  'verify', '', 'Folder of records to verify byte by byte, and nothing else.'
)
BEAM_RUNNER = DEFINE_string(
  'beam_runner',
  '',
  'Apache Beam runner that prepares the records: DirectRunner, DataflowRunner, '
  'FlinkRunner or SparkRunner.',
)
BEAM_OPTIONS = DEFINE_string(
  'beam_options',
  '',
  "Options of the Beam runner, as in '--region=R --temp_location=gs://T'.",
)


def _verify(folder: str) -> None:
  from isft_jax.data.preparation import verify

  # Damages are printed as they are found: a large data set takes a while.
  number = 0
  with progress_bar.Bar('verifying', unit='files') as bar:
    names = itertools.count(1)
    for damage in verify.damages(
      folder, lambda name: bar.update(next(names), name)
    ):
      print(damage, flush=True)
      number += 1
  if number:
    raise ValueError(
      f'{folder} is damaged in {number} places; prepare or copy it again'
    )
  print(f'{folder} is complete and undamaged')


def _prepare() -> None:
  # Imported late: --help need not wait for them.
  from isft_jax.data.files import rows
  from isft_jax.data.preparation import prepare
  from isft_jax.report import preparation, tables

  # Verification writes nothing, and ignores the other flags.
  if VERIFY.value:
    _verify(VERIFY.value)
    return
  if not OUTPUT.value:
    raise ValueError('name the folder to create with --output=DIR')
  # Read all flags and files before the first row is rendered.
  settings = prepare.Settings(
    input=trajectories.input(),
    format=trajectories.FORMAT.value,
    heldout=HELDOUT.value,
    max_length=MAX_LENGTH.value,
    overlong=OVERLONG.value,
    overlap=OVERLAP.value,
    split=trajectories.SPLIT.value,
    num_shards=NUM_SHARDS.value,
    extends=EXTENDS.value,
    on_dropped=trajectories.ON_DROPPED.value,
  )
  renderer, rules = trajectories.renderer(), trajectories.rules()
  print('Authors, by the first line that fits a message:')
  print(textwrap.indent(rules.describe(), '  '))
  if left := preparation.unread(rows.unread(settings.input)):
    print(left)
  start = time.perf_counter()

  def progress(tally: 'Tally') -> None:
    rejected, tokens = tally.rejected.total(), int(tally.tokens_P.sum())
    seconds = time.perf_counter() - start
    bar.update(tally.read, preparation.progress(rejected, tokens, seconds))

  # Prepare with Beam, or with processes on this machine.
  arguments = settings, renderer, rules, OUTPUT.value
  if BEAM_RUNNER.value:
    try:
      from isft_jax.data.preparation import beam
    except ImportError as error:
      raise ValueError(
        f"--beam_runner needs pip install -e '.[beam]' ({error})"
      ) from error
    options = BEAM_RUNNER.value, BEAM_OPTIONS.value
    report, existed = beam.prepare(*arguments, *options)
  else:
    with progress_bar.Bar('records', unit='rows read') as bar:
      report, existed = prepare.prepare(*arguments, progress, NUM_WORKERS.value)
  # Show the counts, and the next command.
  tables.show(preparation.table(report), *preparation.unread_tables(report))
  state = 'existed already' if existed else 'are ready'
  print(f'The records in {OUTPUT.value} {state}. To train on them:')
  print(_next_command(OUTPUT.value, trajectories.TOKENIZER.value, report))


def _next_command(
  records: str, tokenizer: str, report: Mapping[str, Any]
) -> str:
  """Returns a command that trains on the records, with rows for the longest.

  It starts from the model that the tokenizer came with. A tokenizer without
  weights gets a small random model.
  """
  longest = int(report['length_quantiles']['1'])
  # A multiple of 128 tokens, as kernels like it.
  seq_len = max(512, -(-longest // 128) * 128)
  config, more = 'train_tiny', ''
  if _has_weights(tokenizer):
    config, more = (
      'finetune',
      f' \\\n    --config.model.init_from={shlex.quote(tokenizer)}',
    )
  return (
    f'  isft-train --config={config} --config.records={shlex.quote(records)} '
    f'\\\n    --config.seq_len={seq_len}{more}'
  )


def _has_weights(place: str) -> bool:
  """Returns whether a place of a tokenizer is also that of a model."""
  folder = pathlib.Path(place)
  if folder.is_dir():
    has_config = (folder / 'config.json').is_file()
    return has_config and any(folder.glob('*.safetensors'))
  return places.is_gguf(place) or places.is_hub_id(place)


def run() -> None:
  """Runs the console script isft-prepare."""
  ours = (
    *(OUTPUT, HELDOUT, MAX_LENGTH, OVERLONG, OVERLAP),
    *(NUM_WORKERS, NUM_SHARDS, EXTENDS, VERIFY, BEAM_RUNNER, BEAM_OPTIONS),
  )
  holders = *trajectories.FLAGS, *ours
  main.run(_prepare, __doc__, holders, is_lasting=True)
