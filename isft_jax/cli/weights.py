"""Flags of the commands that load a model: its checkpoint, tokenizer, base."""

from typing import Literal

from absl.flags import DEFINE, ArgumentParser, DEFINE_string


class _StepParser(ArgumentParser):
  """Parses the number of a step, or best."""

  syntactic_help = "a whole number of at least 1, or 'best'"

  def parse(self, argument: str | int) -> int | Literal['best']:
    if argument == 'best':
      return 'best'
    # int() would also take '1_0' and ' 1'.
    text = str(argument)
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
      raise ValueError(f'must be {self.syntactic_help} (got {text!r})')
    return int(text)

  def flag_type(self) -> str:
    return 'step'


STEP = DEFINE(
  _StepParser(),
  'step',
  None,
  'Step of the checkpoint of --checkpoint, or best for the one that '
  'config.keep_best kept (default the newest one).',
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
