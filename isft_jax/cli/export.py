"""Writes a checkpoint as a model folder, or records as labels.

  isft-export --checkpoint=WORKDIR --output=FOLDER [--dtype=bfloat16]
  isft-export --checkpoint=WORKDIR --output=FOLDER --adapter
  isft-export --records=DIR --labels=FILE.parquet [--objective=interventional]

The first form writes the newest checkpoint, or that of --step, as a folder that
transformers and vLLM load: the weights in safetensors, config.json, the
tokenizer with the run's chat template, and the ids that end a reply. Adapters
of a LoRA run are merged into their base. The second form writes only these
adapters, as a folder that peft loads beside the base.

The third form writes a row per record for other trainers, such as TRL:
`input_ids`, and `labels` that are -100 if the objective does not score the
token. If the objective has weights other than 0 and 1, there is a third column,
`weights`, that the trainer must use as well.
"""

from typing import TYPE_CHECKING

from absl.flags import DEFINE_boolean, DEFINE_enum, DEFINE_string

from isft_jax.cli import main, weights

if TYPE_CHECKING:
  from isft_jax.data.batching.labels import LabelCounts

CHECKPOINT = DEFINE_string(
  'checkpoint', '', 'Workdir of the run whose checkpoint is exported.'
)
OUTPUT = DEFINE_string('output', '', 'Folder to create for the model.')
DTYPE = DEFINE_enum(
  'dtype',
  '',
  ['', 'float32', 'bfloat16', 'float16'],
  'Data type of the exported weights (default that of the checkpoint).',
)
ADAPTER = DEFINE_boolean(
  'adapter',
  False,
  'Only the adapters of a LoRA run, as peft reads them, without their base.',
)
RECORDS = DEFINE_string(
  'records', '', 'Folder of records whose labels are written.'
)
LABELS = DEFINE_string('labels', '', 'Parquet file to write the labels to.')
OBJECTIVE = DEFINE_string(
  'objective',
  'interventional',
  'Objective that the labels follow (default interventional).',
)
SPLIT = DEFINE_string('split', 'train', 'Split of the records (default train).')
_FLAGS = (CHECKPOINT, OUTPUT, DTYPE, ADAPTER, RECORDS, LABELS, OBJECTIVE, SPLIT)


def _export() -> None:
  # Imported late: --help need not wait for jax.
  from isft_jax import api, files
  from isft_jax.cli import sources

  # The command has two forms; a mix of their flags is refused.
  for_model = (
    CHECKPOINT.value
    or OUTPUT.value
    or DTYPE.value
    or ADAPTER.value
    or weights.TOKENIZER.value
    or weights.BASE.value
    or weights.STEP.value is not None
  )
  for_labels = RECORDS.value or LABELS.value
  if for_model and for_labels:
    raise ValueError(
      '--checkpoint, --step, --tokenizer, --base, --adapter, --output and '
      '--dtype write a model, '
      '--records and --labels write labels; run the command once for each'
    )
  if for_labels:
    if not RECORDS.value or not LABELS.value:
      raise ValueError('name --records=DIR and --labels=FILE.parquet')
    sources.check_records_flag(RECORDS.value)
    files.check_output(LABELS.value)
    counts = api.write_labels(
      RECORDS.value,
      LABELS.value,
      objective=OBJECTIVE.value,
      split=SPLIT.value,
    )
    print(_describe(counts))
    return
  # Neither form is complete: name both.
  if not CHECKPOINT.value or not OUTPUT.value:
    raise ValueError(
      'name --checkpoint=WORKDIR and --output=FOLDER for a model, or '
      '--records=DIR and --labels=FILE.parquet for labels'
    )
  if ADAPTER.value and (DTYPE.value or weights.BASE.value):
    raise ValueError(
      '--adapter writes float32 adapters without their base; leave out --dtype '
      'and --base'
    )
  api.export(
    CHECKPOINT.value,
    OUTPUT.value,
    dtype=DTYPE.value,
    step=weights.STEP.value,
    tokenizer=weights.TOKENIZER.value,
    base=weights.BASE.value,
    adapter=ADAPTER.value,
  )
  print(f'the {"adapter" if ADAPTER.value else "model"} is in {OUTPUT.value}')


def _describe(counts: 'LabelCounts') -> str:
  """Returns the counts of a file of labels, and advice for the trainer."""
  lines = [
    f'{counts.records:,} records with {counts.tokens:,} tokens; '
    f'{counts.targets:,} are labels ({OBJECTIVE.value}), the others are -100'
  ]
  # Two facts that a trainer must handle, or its loss would be wrong.
  if counts.empty:
    lines.append(
      f'{counts.empty:,} records have no label: leave them out, because the '
      'mean loss of a batch without labels is not a number'
    )
  if counts.weighted:
    lines.append(
      'the objective has weights other than 0 and 1: multiply the loss of each '
      "token by its value in the column 'weights', and divide by their sum"
    )
  return '\n'.join([*lines, f'the labels are in {LABELS.value}'])


def run() -> None:
  """Runs the console script isft-export."""
  main.run(_export, __doc__, (*_FLAGS, *weights.FLAGS))
