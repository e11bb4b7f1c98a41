"""What becomes of a row: records, or the reason why there are none.

    row --format, rules--> Trajectory --render--> Example --windows-->

The same function prepares rows here, in worker processes and on Beam: it
travels as what it is made of, and is made anew where it arrives.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.formats.author_rules import Rules
from isft_jax.data.formats.conversation import Malformed
from isft_jax.data.preparation import windows
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.settings import Settings
from isft_jax.data.records import shards
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.types import Example, Provenance, Trajectory

# Tokens of these authors alone are nothing to learn from.
_FRAME = {Provenance.PAD, Provenance.TEMPLATE, Provenance.CONTEXT}


class Task(NamedTuple):
  """A row to prepare. file: the number of its file. stem: of its name."""

  file: int
  stem: str
  row: rows.Row

  @property
  def key(self) -> tuple[int, int]:
    """What no other row has; in the order of the input."""
    return self.file, self.row.number


class Outcome(NamedTuple):
  """The bytes of a row's records, or the note that tells why it has none."""

  key: tuple[int, int]
  split: str
  records: list[bytes]
  note: dict | None


def files(
  paths: Sequence[str], held: Collection[str] = ()
) -> Iterator[tuple[int, str, str]]:
  """Yields number, path and stem of files. held: those to leave out."""
  for number, (path, stem) in enumerate(
    zip(paths, rows.stems(paths), strict=True)
  ):
    if path not in held:
      yield number, path, stem


def tasks(file: tuple[int, str, str]) -> Iterator[Task]:
  """Yields the rows of one of `files`, in their order."""
  number, path, stem = file
  for row in rows.read(path):
    yield Task(number, stem, row)


def check_text(value: object, format: str, renderer: Renderer) -> None:
  """Raises Rejected for a text that the template would show as another.

  Its lines are turns to the plain format alone; a chat template would put
  headers and markers between those that the agent wrote in one go.

  value: of a row. format: one of `formats.NAMES`.
  """
  if renderer.rendering['template'] == chat_template.PLAIN:
    return
  if registry.is_text(value, format):
    raise Rejected(
      'template_raises',
      'ReAct text is proved under the plain format alone; give '
      '--chat_template=plain',
    )


class Preparer:
  """Tasks to outcomes. It can be pickled."""

  def __init__(
    self, settings: Settings, renderer: Renderer, rules: Rules
  ) -> None:
    self._made_of = (
      settings,
      renderer.tokenizer,
      renderer.rendering,
      rules,
    )
    self._settings = settings
    self._renderer = renderer
    self._rules = rules
    self._ids = tokenizer.size(renderer.tokenizer)
    self._codec = shards.Codec()

  def __reduce__(self) -> tuple[Callable[..., 'Preparer'], tuple]:
    return _make, self._made_of

  def __call__(self, task: Task, tally: Tally) -> Outcome:
    """Prepares a row, and counts it."""
    row = task.row
    id = registry.id_of(row.value, task.stem, row.number)
    split = self._split_of(id, row)
    tally.read += 1
    try:
      examples = self._examples(row, id, split, tally)
    except (Rejected, Malformed) as error:
      reason = getattr(error, 'reason', 'malformed')
      tally.rejected[reason] += 1
      note = {
        'file': row.file,
        'row': row.number,
        'id': id,
        'reason': reason,
        'message': ' '.join(str(error).split()),
      }
      return Outcome(task.key, split, [], note)
    records = [self._codec.write(example) for example in examples]
    return Outcome(task.key, split, records, None)

  def _split_of(self, id: str, row: rows.Row) -> str:
    if not self._settings.heldout or row.error:
      return 'train'
    digest = hashlib.sha256(id.encode('utf-8', 'surrogatepass')).digest()
    share = int.from_bytes(digest[:8], 'big') / 2**64
    return 'heldout' if share < self._settings.heldout else 'train'

  def _examples(
    self, row: rows.Row, id: str, split: str, tally: Tally
  ) -> list[Example]:
    """Returns the records of a row; counts it once it is sure to be written."""
    if row.error:
      raise Malformed(row.error)
    check_text(row.value, self._settings.format, self._renderer)
    found = registry.read(row.value, id, self._settings.format, self._rules)
    lost: Mapping[str, int] = {}
    straddling = 0
    if isinstance(found, Trajectory):
      rendered = self._renderer.render(found)
      found = rendered.example
      lost, straddling = rendered.lost, rendered.straddling
    elif found.tokens_T.max() >= self._ids:
      raise Malformed(
        f'id {found.tokens_T.max()}; the tokenizer has ids below {self._ids}'
      )
    if set(np.unique(found.provenance_T[1:]).tolist()) <= _FRAME:
      raise Rejected(
        'no_targets', 'only context and protocol: nobody says anything'
      )
    parts = self._fit(found)
    tally.add(split, found, len(parts))
    tally.lost.update(lost)
    tally.straddling += straddling
    return parts

  def _fit(self, example: Example) -> list[Example]:
    limit, length = self._settings.max_length, len(example.tokens_T)
    if not limit or length <= limit:
      return [example]
    if self._settings.overlong == 'reject':
      raise Rejected('too_long', f'{length} tokens; --max_length is {limit}')
    return windows.split(example, limit, self._settings.context)


def _make(
  settings: Settings,
  encoder: FastTokenizer,
  rendering: dict[str, Any],
  rules: Rules,
) -> Preparer:
  renderer = Renderer.from_rendering(encoder, rendering)
  return Preparer(settings, renderer, rules)
