"""Prepares one row: returns its records, or the reason for its rejection.

    row --format, rules--> Trajectory --render--> Example --windows--> records

The same `Preparer` runs in this process, in worker processes and on Beam. It is
pickled as the arguments of its constructor.
"""

import dataclasses
import hashlib
import traceback
from collections import Counter
from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, NamedTuple

import numpy as np

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.data.preparation import windows
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.settings import Settings
from isft_jax.data.records import shards
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Rendered, Renderer
from isft_jax.data.rendering.template_names import template_names
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.types import Example, Provenance, Trajectory

# Characters of the messages and tools of a row. Rendering takes about 200 bytes
# of memory for each. A model's context of a million tokens has five million.
LONGEST_ROW = 1 << 24
_GONE = 'the rest of the file is not read'
_LONGEST_ERROR = 200  # characters of the text of an unexpected error
# A row whose tokens all have these authors is rejected.
_FRAME = {Provenance.PAD, Provenance.TEMPLATE, Provenance.CONTEXT}


class Task(NamedTuple):
  """A row to prepare."""

  file: int  # number of its file
  stem: str  # of its file, for ids of rows; see `rows.stems`
  row: rows.Row
  # Name of the exception if the row has an error because of a bug.
  bug: str = ''

  @property
  def key(self) -> tuple[int, int]:
    """A unique key; keys sort in the order of the input."""
    return self.file, self.row.number


class Outcome(NamedTuple):
  """Result of preparing a row."""

  key: tuple[int, int]  # of its task
  split: str
  records: list[bytes]  # empty if the row is rejected
  note: dict | None  # the reason of a rejection, for rejected.jsonl


def files(
  paths: Sequence[str], old_files: Collection[str] = ()
) -> Iterator[tuple[int, str, str]]:
  """Yields (number, path, stem) of the files to prepare.

  Args:
    paths: all files of the input.
    old_files: files to leave out, because the extended data set has them. They
      keep their numbers.
  """
  # Numbers are part of the keys of rows. They count old files too.
  for number, (path, stem) in enumerate(
    zip(paths, rows.stems(paths), strict=True)
  ):
    if path not in old_files:
      yield number, path, stem


def tasks(file: tuple[int, str, str]) -> Iterator[Task]:
  """Yields the rows of one element of `files`, in order."""
  number, path, stem = file
  # Number of the last row that was read, for the note of a damaged file.
  last = 0
  try:
    for row in rows.read(path):
      last = row.number
      yield Task(number, stem, row)
  except (MemoryError, OSError):
    raise
  except Exception as error:
    # A stream from the hub that breaks off is no damaged file.
    if path.startswith(rows.HUB):
      raise
    message = f'{_bug(error)}; {_GONE}'
    row = rows.Row(path, last + 1, None, message)
    yield Task(number, stem, row, type(error).__name__)


def _bug(error: Exception) -> str:
  """Returns one line about an error that no code expects."""
  # The last line of this package that the error passed.
  where = ''
  for frame, line in traceback.walk_tb(error.__traceback__):
    module = frame.f_globals.get('__name__', '')
    if module.startswith('isft_jax.'):
      where = f' at {module}:{line}'
  text = ' '.join(str(error).split())
  text = text[:_LONGEST_ERROR] + ('...' if len(text) > _LONGEST_ERROR else '')
  return (
    f'a bug of isft_jax: {type(error).__name__}{where}: {text} (please report '
    'it with the row)'
  )


def check_text(value: object, format: str, renderer: Renderer) -> None:
  """Checks that a ReAct text is rendered with the plain format.

  A chat template would put headers and markers between lines that the agent
  wrote in one go.

  Args:
    value: the value of a row.
    format: one of `registry.NAMES`.
    renderer: the renderer to use.

  Raises:
    Rejected: the row is a ReAct text and the template is another one.
  """
  # The plain format renders each line as a turn.
  if renderer.rendering['template'] == chat_template.PLAIN:
    return
  if registry.is_text(value, format):
    raise Rejected(
      'template_raises',
      'ReAct text needs the plain format; use --chat_template=plain',
    )


def check_length(trajectory: Trajectory) -> None:
  """Checks the length of a row before it is rendered, which takes memory.

  Args:
    trajectory: the row.

  Raises:
    Rejected: it has more than `LONGEST_ROW` characters.
  """
  length = _length(trajectory)
  if length > LONGEST_ROW:
    raise Rejected(
      'too_long',
      f'{length:,} characters in messages and tools; the limit is '
      f'{LONGEST_ROW:,}',
    )


class Preparer:
  """Maps tasks to outcomes. It can be pickled."""

  def __init__(
    self, settings: Settings, renderer: Renderer, rules: Rules
  ) -> None:
    # Arguments of `_make`. A compiled template cannot be pickled.
    self._arguments = (
      settings,
      renderer.tokenizer,
      renderer.rendering,
      rules,
    )
    self._settings = settings
    self._renderer = renderer
    self._rules = rules
    # Names in the template, which decide the keys of messages that it shows.
    self._names = template_names(renderer.rendering['template'])
    self._ids = tokenizer_lib.size(renderer.tokenizer)  # limit of token ids
    self._codec = shards.Codec()

  def __reduce__(self) -> tuple[Callable[..., 'Preparer'], tuple]:
    return _make, self._arguments

  def __call__(self, task: Task, tally: Tally) -> Outcome:
    """Prepares a row and counts it.

    Args:
      task: the row.
      tally: counts to update.

    Returns:
      The records of the row, or the note of its rejection.
    """
    row = task.row
    tally.read += 1
    # Rejected rows need an id too, for their notes.
    id, split = f'{task.stem}:{row.number}', 'train'
    counts = Tally()  # of this row, if it is written
    try:
      id = registry.id_of(row.value, task.stem, row.number)
      split = self._split_of(id, row)
      examples = self._examples(row, id, split, counts)
      # Encoded in the worker, so that the main process only writes.
      records = [*map(self._encode, examples)]
    except (Rejected, Malformed) as error:
      # Malformed has no reason of its own.
      reason = getattr(error, 'reason', 'malformed')
      message = ' '.join(str(error).split())
      bug = task.bug
    # No row is to blame for a full memory or disk.
    except (MemoryError, OSError):
      raise
    # Any other error is a bug. It must not cost the other rows of a night.
    except Exception as error:
      reason, message = 'malformed', _bug(error)
      bug = type(error).__name__
    else:
      tally.merge(counts)
      return Outcome(task.key, split, records, None)
    # The row is rejected: it counts by its reason and leaves a note.
    tally.rejected[reason] += 1
    if bug:
      tally.unexpected_errors[bug] += 1
    note = {
      'file': row.file,
      'row': row.number,
      'id': id,
      'reason': reason,
      'message': message,
    }
    return Outcome(task.key, split, [], note)

  def _encode(self, example: Example) -> bytes:
    return self._codec.write(example)

  def _split_of(self, id: str, row: rows.Row) -> str:
    # A hash of the id: the split of a row does not depend on other rows.
    if not self._settings.heldout or row.error:
      return 'train'
    digest = hashlib.sha256(id.encode('utf-8', 'surrogatepass')).digest()
    # A number from 0 to 1, uniform over ids.
    share = int.from_bytes(digest[:8], 'big') / 2**64
    return 'heldout' if share < self._settings.heldout else 'train'

  def _examples(
    self, row: rows.Row, id: str, split: str, tally: Tally
  ) -> list[Example]:
    """Returns the records of a row, and counts the row if it is accepted."""
    # Read the row in its format.
    if row.error:
      raise Malformed(row.error)
    check_text(row.value, self._settings.format, self._renderer)
    parsed = registry.parse(
      row.value, id, self._settings.format, self._rules, self._names
    )

    # Render it, unless it is tokens already.
    lost: Counter[str] = Counter()
    straddling = 0
    result = parsed.result
    if isinstance(result, Trajectory):
      whole = self._render(result)
      examples = [rendered.example for rendered in whole]
      straddling = sum(rendered.straddling for rendered in whole)
      # The last example has all turns. With several, thinking that it hides is
      # in an earlier one.
      lost.update(whole[-1].lost)
      if len(whole) > 1:
        lost['thinking'] = 0
    else:
      examples = [result]
      if result.tokens_T.max() >= self._ids:
        raise Malformed(
          f'id {result.tokens_T.max()}; the tokenizer has ids below {self._ids}'
        )
    # The first token is never a target.
    authors = {a for e in examples for a in np.unique(e.provenance_T[1:])}
    if authors <= _FRAME:
      raise Rejected(
        'no_targets', 'all tokens are context or protocol: no turn has text'
      )

    # Cut it into windows. Count it last, because all steps above may reject it.
    records: list[Example] = []
    for example in examples:
      records += self._fit(
        dataclasses.replace(example, window=len(records))
        if len(examples) > 1
        else example
      )
    tally.add(split, examples, len(records))
    tally.add_unused(parsed.unused, parsed.left_out, parsed.misread)
    tally.lost.update(lost)
    tally.straddling += straddling
    return records

  def _render(self, trajectory: Trajectory) -> list[Rendered]:
    """Renders a trajectory as one example, or as one per turn of the agent."""
    check_length(trajectory)
    # With 'split', a row is rendered once per turn of the agent if rendering it
    # at once leaves out words or thinking.
    on_dropped = self._settings.on_dropped
    try:
      rendered = self._renderer.render(trajectory, on_dropped == 'keep')
    except Rejected as error:
      if on_dropped != 'split' or error.reason != 'content_dropped':
        raise
    else:
      if on_dropped != 'split' or not rendered.lost['thinking']:
        return [rendered]
    return self._renderer.render_turns(trajectory)

  def _fit(self, example: Example) -> list[Example]:
    """Returns an example as records of at most `max_length` tokens."""
    limit, length = self._settings.max_length, len(example.tokens_T)
    if not limit or length <= limit:
      return [example]
    # By default, long rows become windows.
    if self._settings.overlong == 'reject':
      raise Rejected('too_long', f'{length} tokens; --max_length is {limit}')
    return windows.split(example, limit, self._settings.context)


def _length(trajectory: Trajectory) -> int:
  """Returns the number of characters that a template may render."""
  segments = trajectory.segments
  length = sum(len(s.text) + len(s.role) for s in segments)
  # Keys and texts at any depth.
  values: list[object] = [s.fields for s in segments if s.fields]
  values += trajectory.tools or ()
  while values:
    value = values.pop()
    if isinstance(value, str):
      length += len(value)
    elif isinstance(value, Mapping):
      values += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple)):
      values += value
    else:
      # Numbers, true, false and null.
      length += 1
  return length


def _make(
  settings: Settings,
  tokenizer: FastTokenizer,
  rendering: dict[str, Any],
  rules: Rules,
) -> Preparer:
  """Rebuilds a pickled preparer."""
  renderer = Renderer.from_rendering(tokenizer, rendering)
  return Preparer(settings, renderer, rules)
