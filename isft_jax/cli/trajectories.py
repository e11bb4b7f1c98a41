"""The flags that say which agent runs, whose words, and how they are rendered.

isft-prepare and isft-inspect share them.
"""

import itertools
import json
import pathlib
from typing import TYPE_CHECKING

from absl.flags import DEFINE_enum, DEFINE_string

if TYPE_CHECKING:
  from isft_jax.data.formats.author_rules import Rules
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.data.rendering.tokenizer import FastTokenizer
  from isft_jax.types import Example

INPUT = DEFINE_string(
  'input',
  '',
  'Agent runs: a file, a folder or a quoted glob, local or remote as in '
  'gs://BUCKET/RUNS; or hf://ORG/NAME[/CONFIG] on the Hugging Face hub.',
)
SPLIT = DEFINE_string(
  'split', '', 'Split of a data set on the hub (default train).'
)
FORMAT = DEFINE_enum(
  'format',
  'auto',
  [
    *('auto', 'tokens', 'swe_agent', 'sharegpt', 'turns', 'anthropic'),
    *('atif', 'react', 'openai'),
  ],
  'Format of the rows; auto detects it by the keys of each.',
)
TOKENIZER = DEFINE_string(
  'tokenizer',
  '',
  'Fast tokenizer: a folder, hub id, .gguf file or preset.',
)
CHAT_TEMPLATE = DEFINE_string(
  'chat_template',
  '',
  "File with a Jinja chat template, or 'plain' for the paper's format (default "
  "the tokenizer's own).",
)
TEMPLATE_KWARGS = DEFINE_string(
  'template_kwargs',
  '{}',
  'JSON object of values for the chat template, as in {"enable_thinking": '
  'false}.',
)
SPECIAL_TEXT = DEFINE_enum(
  'special_text',
  'reject',
  ['reject', 'escape'],
  'Treatment of messages that contain the text of a special token.',
)
AUTHORS = DEFINE_string(
  'authors',
  '',
  'JSON file of rules for the authors of messages (default none: formats and '
  'roles decide).',
)
FLAGS = (
  INPUT,
  SPLIT,
  FORMAT,
  TOKENIZER,
  CHAT_TEMPLATE,
  TEMPLATE_KWARGS,
  SPECIAL_TEXT,
  AUTHORS,
)


def input() -> str:
  """Returns --input. Raises ValueError if there is none."""
  if not INPUT.value:
    raise ValueError('name agent runs with --input=FILE_OR_FOLDER')
  return INPUT.value


def renderer() -> 'Renderer':
  """Returns the renderer that the flags ask for. Raises ValueError."""
  from isft_jax.data.rendering import chat_template, tokenizer
  from isft_jax.data.rendering.renderer import Renderer

  if not TOKENIZER.value:
    raise ValueError(
      'name a tokenizer with --tokenizer=PLACE: its folder, a hub id, a .gguf '
      'file or a preset'
    )
  encoder = tokenizer.load(TOKENIZER.value)
  template = None
  if CHAT_TEMPLATE.value == 'plain':
    template = chat_template.PLAIN
  elif CHAT_TEMPLATE.value:
    path = pathlib.Path(CHAT_TEMPLATE.value)
    if not path.is_file():
      raise ValueError(f"--chat_template={path}: no such file, nor 'plain'")
    template = path.read_text(encoding='utf-8')
  try:
    values = json.loads(TEMPLATE_KWARGS.value)
  except ValueError:
    values = None
  if not isinstance(values, dict):
    raise ValueError(
      f'--template_kwargs={TEMPLATE_KWARGS.value} is no JSON object, as '
      '{"enable_thinking": false} is'
    )
  return Renderer(encoder, template, values, SPECIAL_TEXT.value)


def rules() -> 'Rules':
  """Returns the rules of --authors, or none. Raises ValueError."""
  from isft_jax.data.formats.author_rules import Rules

  return Rules.load(AUTHORS.value) if AUTHORS.value else Rules.default()


def example(index: int) -> 'tuple[Example, FastTokenizer]':
  """Returns a row as an `Example`, and its tokenizer.

  Raises ValueError, with the reason, for one that would be set aside.
  """
  from isft_jax.data.files import rows
  from isft_jax.data.formats import registry
  from isft_jax.data.formats.conversation import Malformed
  from isft_jax.data.preparation import outcomes
  from isft_jax.data.rendering.rejection import Rejected
  from isft_jax.types import Example

  render, who = renderer(), rules()
  files = rows.files(input(), SPLIT.value)
  found = itertools.chain.from_iterable(map(rows.read, files))
  row = next(itertools.islice(found, max(index, 0), None), None)
  if row is None or index < 0:
    raise ValueError(f'--index={index}: there is no such row in {input()}')
  try:
    if row.error:
      raise Malformed(row.error)
    outcomes.check_text(row.value, FORMAT.value, render)
    id = registry.id_of(row.value, pathlib.Path(row.file).stem, row.number)
    read = registry.read(row.value, id, FORMAT.value, who)
    done = read if isinstance(read, Example) else render.example(read)
    return done, render.tokenizer
  except (Malformed, Rejected) as error:
    reason = getattr(error, 'reason', 'malformed')
    raise ValueError(
      f'{row.file}, row {row.number}, would be set aside as {reason}: {error}'
    ) from error
