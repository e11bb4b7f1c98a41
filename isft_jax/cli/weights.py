"""Flags of the commands that load a model: its checkpoint, tokenizer, base."""

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
BASE = DEFINE_string(
  'base',
  '',
  'Base of the adapters in --checkpoint, if it has moved: a folder, hub id, '
  '.gguf file, preset or workdir (default where the run had it).',
)
FLAGS = (STEP, TOKENIZER, BASE)
