"""Writes a checkpoint as a folder that transformers and vLLM load.

  isft-export --checkpoint=WORKDIR --output=FOLDER [--dtype=bfloat16]

The newest checkpoint is taken. Beside the weights, in safetensors, the folder
gets config.json, the tokenizer with the run's chat template, and the ids that
end a reply.
"""

from absl.flags import DEFINE_enum, DEFINE_string

from isft_jax.cli import main

CHECKPOINT = DEFINE_string(
  'checkpoint', '', 'Workdir of the run whose newest checkpoint is exported.'
)
OUTPUT = DEFINE_string('output', '', 'Folder to create for the model.')
DTYPE = DEFINE_enum(
  'dtype',
  '',
  ['', 'float32', 'bfloat16', 'float16'],
  'Data type of the exported weights (default that of the checkpoint).',
)


def _export() -> None:
  # Imported late: --help need not wait for jax.
  from isft_jax.train import export

  if not CHECKPOINT.value or not OUTPUT.value:
    raise ValueError('name --checkpoint=WORKDIR and --output=FOLDER')
  export.export(CHECKPOINT.value, OUTPUT.value, DTYPE.value)
  print(f'the model is in {OUTPUT.value}')


def run() -> None:
  """The console script isft-export."""
  main.run(_export, __doc__, (CHECKPOINT, OUTPUT, DTYPE))
