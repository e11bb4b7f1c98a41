"""Flags for agent runs, their authors and their rendering.

isft-prepare and isft-inspect share them. Functions return the values that the
flags select, and raise ValueError with the remedy if they cannot.
"""

import itertools
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from absl.flags import DEFINE_enum, DEFINE_integer, DEFINE_string

if TYPE_CHECKING:
  from isft_jax.data.messages.author_rules import Rules
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
FORMAT = DEFINE_string(
  'format',
  'auto',
  'Format of the rows, as openai or anthropic; auto detects it by the keys of '
  'each row.',
)
TOKENIZER = DEFINE_string(
  'tokenizer',
  '',
  'Fast tokenizer: a folder, hub id, .gguf file or preset.',
)
CHAT_TEMPLATE = DEFINE_string(
  'chat_template',
  '',
  "File with a Jinja chat template, 'plain' for the paper's format, or a name "
  'if the tokenizer has several (default its own, as transformers chooses).',
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
CALL_ID_DIGITS = DEFINE_integer(
  'call_id_digits',
  0,
  'Number of digits to which ids of tool calls are renumbered; templates of '
  'Mistral demand 9. 0 keeps the ids.',
)
ON_DROPPED = DEFINE_enum(
  'on_dropped',
  'reject',
  ['reject', 'keep', 'split'],
  'Treatment of conversations in which the template leaves out words of a '
  'message, as Llama 3 does beside a tool call. keep writes them without these '
  "words. split writes one example per agent's turn, as the agent saw it, also "
  'if the template hides earlier thinking.',
)
AUTHORS = DEFINE_string(
  'authors',
  '',
  'JSON file of rules for the authors and roles of messages, and for the place '
  'of messages in rows (default none: formats and roles decide).',
)
FLAGS = (
  INPUT,
  SPLIT,
  FORMAT,
  TOKENIZER,
  CHAT_TEMPLATE,
  TEMPLATE_KWARGS,
  SPECIAL_TEXT,
  CALL_ID_DIGITS,
  ON_DROPPED,
  AUTHORS,
)


def input() -> str:
  """Returns --input. Raises ValueError if it is empty."""
  if not INPUT.value:
    raise ValueError('name agent runs with --input=FILE_OR_FOLDER')
  return INPUT.value


def renderer() -> 'Renderer':
  """Returns a renderer with the tokenizer and template of the flags.

  Raises:
    ValueError: a flag is missing or wrong, or a file does not exist.
  """
  from isft_jax import files
  from isft_jax.data.rendering import chat_template
  from isft_jax.data.rendering import tokenizer as tokenizer_lib
  from isft_jax.data.rendering.renderer import Renderer

  if not TOKENIZER.value:
    raise ValueError(
      'name a tokenizer with --tokenizer=PLACE: its folder, a hub id, a .gguf '
      'file or a preset'
    )
  tokenizer = tokenizer_lib.load(TOKENIZER.value)
  # A template from a file, the paper's, or the tokenizer's own (None).
  template = None
  if CHAT_TEMPLATE.value == 'plain':
    template = chat_template.PLAIN
  elif CHAT_TEMPLATE.value:
    named = tokenizer.chat_template
    named = named if isinstance(named, dict) else {}
    path = pathlib.Path(CHAT_TEMPLATE.value)
    if CHAT_TEMPLATE.value not in named and not path.is_file():
      choices = ' or '.join(map(repr, ['plain', *named]))
      raise ValueError(
        f'--chat_template must be a file or {choices} (got {str(path)!r})'
      )
    template = named.get(CHAT_TEMPLATE.value) or files.read_text(path)
  # Values for the template, such as enable_thinking.
  try:
    values = json.loads(TEMPLATE_KWARGS.value)
  except ValueError:
    values = None
  if not isinstance(values, dict):
    raise ValueError(
      '--template_kwargs must be a JSON object, as in {"enable_thinking": '
      f'false}} (got {TEMPLATE_KWARGS.value!r})'
    )
  return Renderer(
    tokenizer,
    template,
    values,
    SPECIAL_TEXT.value,
    call_id_digits=CALL_ID_DIGITS.value,
  )


def rules() -> 'Rules':
  """Returns the rules of --authors, or the default rules."""
  from isft_jax.data.messages.author_rules import Rules

  return Rules.load(AUTHORS.value) if AUTHORS.value else Rules.default()


class Inspected(NamedTuple):
  """A row of --input."""

  example: 'Example'
  tokenizer: 'FastTokenizer'
  # Paths of keys that nothing used, and marks whose values have no meaning.
  unused: Collection[str]
  left_out: Mapping[str, int]  # turns left out on purpose, by kind


def inspected(index: int) -> Inspected:
  """Returns a row of --input as an `Example`, with what was not read of it.

  Args:
    index: of the row, from 0, over all files.

  Raises:
    ValueError: the row does not exist, or isft-prepare would reject it; the
      message has the reason.
  """
  from isft_jax.data.files import rows
  from isft_jax.data.formats import registry
  from isft_jax.data.messages.conversation import Malformed
  from isft_jax.data.preparation import outcomes
  from isft_jax.data.rendering.rejection import Rejected
  from isft_jax.data.rendering.template_names import template_names
  from isft_jax.types import Example

  render, author_rules = renderer(), rules()
  # Files are read lazily, so that the first row of a large data set is quick.
  files = rows.files(input(), SPLIT.value)
  all_rows = itertools.chain.from_iterable(map(rows.read, files))
  row = next(itertools.islice(all_rows, max(index, 0), None), None)
  if row is None or index < 0:
    raise ValueError(f'--index={index}: {input()} has no row of this index')
  # The same checks as in isft-prepare, in the same order.
  try:
    if row.error:
      raise Malformed(row.error)
    outcomes.check_text(row.value, FORMAT.value, render)
    id = registry.id_of(row.value, rows.stems([row.file])[0], row.number)
    names = template_names(render.rendering['template'])
    parsed = registry.parse(row.value, id, FORMAT.value, author_rules, names)
    # Rows of token ids are examples already; others are trajectories.
    done = parsed.result
    if not isinstance(done, Example):
      outcomes.check_length(done)
      done = render.render(done, ON_DROPPED.value != 'reject').example
    unused = parsed.unused | parsed.misread
    return Inspected(done, render.tokenizer, unused, parsed.left_out)
  except (Malformed, Rejected) as error:
    reason = getattr(error, 'reason', 'malformed')
    raise ValueError(
      f'{row.file}, row {row.number}, would be set aside as {reason}: {error}'
    ) from error
