"""The story of preparation: from files of agent runs to TFDS records.

    files --rows--> row --format, rules--> Trajectory --render, prove--> Example
      --windows--> records          or one of a few reasons, in rejected.jsonl

Every row is read once, rendered once and encoded once, and either is written or
is set aside with its reason. The data set appears under its name when it is
whole: until then all is in a folder beside it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

import numpy as np

from isft_jax.data import records, tokenizer, windows
from isft_jax.data.rejection import Rejected
from isft_jax.data.render import Renderer
from isft_jax.data.sources import formats, rows
from isft_jax.data.sources.authors import Rules
from isft_jax.data.sources.chat import Malformed
from isft_jax.data.tally import Tally
from isft_jax.types import Example, Provenance, Trajectory

REPORT = 'prepare_report.json'
REJECTED = 'rejected.jsonl'
OVERLONG = ('window', 'reject')
# Tokens of these authors alone are nothing to learn from.
_FRAME = {Provenance.PAD, Provenance.TEMPLATE, Provenance.CONTEXT}


@dataclasses.dataclass(frozen=True)
class Settings:
  """What to prepare, and how. See `isft-prepare --help`."""

  input: str
  format: str = 'auto'
  heldout: float = 0.0  # of the rows, by hash of their ids
  max_length: int = 0  # tokens; 0: as long as they are
  overlong: str = 'window'
  overlap: int = 0  # tokens; 0: a quarter of max_length

  def __post_init__(self):
    if self.format not in formats.NAMES:
      raise ValueError(
        f'--format={self.format} is none of {", ".join(formats.NAMES)}'
      )
    if self.overlong not in OVERLONG:
      raise ValueError(
        f'--overlong={self.overlong} is none of {", ".join(OVERLONG)}'
      )
    if not 0 <= self.heldout < 1:
      raise ValueError(f'--heldout={self.heldout} must be 0 or more, below 1')
    if self.max_length < 0:
      raise ValueError(f'--max_length={self.max_length} must not be negative')
    if self.max_length and self.overlong == 'window':
      windows.check(self.max_length, self.context)

  @property
  def context(self) -> int:
    """Tokens of context that a window has at least."""
    return self.overlap or self.max_length // 4


def prepare(
  settings: Settings,
  renderer: Renderer,
  rules: Rules,
  output: str,
  progress: Callable[[Tally], None] = lambda tally: None,
) -> tuple[dict, bool]:
  """Prepares a data set; returns its report, and whether it was there before.

  progress: called after every row.

  Raises ValueError if output holds something else, or if no row is written.
  """
  output = pathlib.Path(output)
  files = rows.files(settings.input)
  asked = {
    'settings': dataclasses.asdict(settings),
    'files': {str(path): path.stat().st_size for path in files},
    'authors': rules.to_json(),
    **renderer.metadata(),
  }
  if output.exists():
    return _found(output, asked), True

  part = output.with_name(output.name + '.part')
  if part.exists():  # of a run that was cut
    if any(part.iterdir()) and not (part / REJECTED).exists():
      raise ValueError(
        f'{part} is in the way, and not ours; name another --output'
      )
    shutil.rmtree(part)
  part.mkdir(parents=True)
  start = time.perf_counter()
  tally = Tally()
  with open(part / REJECTED, 'w', encoding='utf-8') as rejected:
    preparation = _Preparation(
      settings, renderer, rules, files, tally, rejected, progress
    )
    _write(part, preparation, renderer)
  renderer.save_tokenizer(part / 'tokenizer')
  report = {
    **tally.report(),
    'seconds': round(time.perf_counter() - start, 2),
    'asked': asked,
  }
  (part / REPORT).write_text(json.dumps(report, indent=2) + '\n')
  part.rename(output)
  return report, False


def _write(part: pathlib.Path, preparation: '_Preparation', renderer) -> None:
  heldout = None
  if preparation.settings.heldout:
    heldout = lambda: preparation.examples('heldout')  # noqa: E731
  try:
    records.write(
      str(part),
      lambda: preparation.examples('train'),
      renderer.metadata(),
      heldout,
    )
  except ValueError as error:
    tally = preparation.tally
    if tally.written['train']:
      raise
    if tally.written['heldout']:
      raise ValueError(
        'no row is left to train on: all are held out or set aside; lower '
        '--heldout'
      ) from error
    why = ', '.join(f'{n} {reason}' for reason, n in tally.rejected.items())
    raise ValueError(
      f'none of {tally.read} rows could be written ({why}); '
      f'{part / REJECTED} has the reason of each'
    ) from error


def _found(output: pathlib.Path, asked: dict) -> dict:
  try:
    report = json.loads((output / REPORT).read_text())
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{output} is there, and is no prepared data set; name another --output'
    ) from error
  theirs = report['asked']
  differ = [key for key in asked if theirs.get(key) != _as_json(asked[key])]
  if differ:
    raise ValueError(
      f'{output} was prepared otherwise (other {" and ".join(differ)}); name '
      'another --output, or remove that one'
    )
  return report


def _as_json(value):
  return json.loads(json.dumps(value))


class _Preparation:
  """One pass over the rows for each split; each row belongs to one of them."""

  def __init__(
    self, settings, renderer, rules, files, tally, rejected, progress
  ):
    self.settings = settings
    self.tally = tally
    self._renderer = renderer
    self._rules = rules
    self._files = files
    self._rejected = rejected
    self._progress = progress
    self._ids = tokenizer.size(renderer.tokenizer)
    self._root = os.path.commonpath([path.parent for path in files])

  def examples(self, split: str) -> Iterator[Example]:
    for path in self._files:
      stem = os.path.relpath(path.with_suffix(''), self._root)
      for row in rows.read(path):
        id = formats.id_of(row.value, stem, row.number)
        if self._split_of(id, row) != split:
          continue
        self.tally.read += 1
        try:
          parts = self._parts(row, id, split)
        except (Rejected, Malformed) as error:
          self._set_aside(row, id, error)
          parts = []
        self._progress(self.tally)
        yield from parts

  def _split_of(self, id: str, row) -> str:
    if not self.settings.heldout or row.error:
      return 'train'
    digest = hashlib.sha256(id.encode('utf-8', 'surrogatepass')).digest()
    share = int.from_bytes(digest[:8], 'big') / 2**64
    return 'heldout' if share < self.settings.heldout else 'train'

  def _parts(self, row, id: str, split: str) -> list[Example]:
    """Returns the records of a row; counts it once it is sure to be written."""
    if row.error:
      raise Malformed(row.error)
    found = formats.read(row.value, id, self.settings.format, self._rules)
    lost, straddling = {}, 0
    if isinstance(found, Trajectory):
      proved = self._renderer.prove(found)
      lost = proved.lost
      encoded = self._renderer.encode_proved(found, proved)
      found, straddling = encoded.example, encoded.straddling
    elif found.tokens_T.max() >= self._ids:
      raise Malformed(
        f'id {found.tokens_T.max()}; the tokenizer has ids below {self._ids}'
      )
    if set(np.unique(found.provenance_T[1:]).tolist()) <= _FRAME:
      raise Rejected(
        'no_targets', 'only context and protocol: nobody says anything'
      )
    parts = self._fit(found)
    self.tally.add(split, found, len(parts))
    self.tally.lost.update(lost)
    self.tally.straddling += straddling
    return parts

  def _fit(self, example: Example) -> list[Example]:
    limit, length = self.settings.max_length, len(example.tokens_T)
    if not limit or length <= limit:
      return [example]
    if self.settings.overlong == 'reject':
      raise Rejected('too_long', f'{length} tokens; --max_length is {limit}')
    return windows.split(example, limit, self.settings.context)

  def _set_aside(self, row, id: str, error: Exception) -> None:
    reason = getattr(error, 'reason', 'malformed')
    self.tally.rejected[reason] += 1
    note = {
      'file': row.file,
      'row': row.number,
      'id': id,
      'reason': reason,
      'message': ' '.join(str(error).split()),
    }
    self._rejected.write(json.dumps(note) + '\n')
