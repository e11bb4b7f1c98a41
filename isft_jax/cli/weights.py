"""Flags of the commands that load a model: which checkpoint and tokenizer."""

from absl.flags import DEFINE_integer, DEFINE_string

STEP = DEFINE_integer(
  'step',
  None,
  'Step of the checkpoint of --checkpoint (default the newest one).',
  1,
)
TOKENIZER = DEFINE_string(
  'tokenizer',
  '',
  'Fast tokenizer: a folder, hub id, .gguf file or preset (default that of the '
  'run or model).',
)
FLAGS = (STEP, TOKENIZER)
