"""Prepares the transcripts of an increment as records.

    copies of files --rows--> records/NNNN, in the order of the files
                              rejected.jsonl and prepare_report.json beside them

Unlike isft-prepare, it does not fail if no row can be written. A row that
cannot be written is set aside with its reason.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from isft_jax import files
from isft_jax.data.files import rows
from isft_jax.data.preparation import outcomes, prepare
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.records import dataset
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.following.transcripts import LARGEST

MOST_ROWS = 100_000  # of a file. A compressed file may have very many.


def prepare_increment(
  preparer: outcomes.Preparer,
  renderer: Renderer,
  incoming: epath.Path,
  entries: Iterable[Mapping[str, Any]],
  same: Mapping[str, str],
  output: epath.Path,
) -> dict[str, Any]:
  """Writes the records of an increment, unless they are complete already.

  Args:
    preparer: prepares a row.
    renderer: its renderer.
    incoming: folder with the copies of the files.
    entries: the files of the increment; see `Folder.copy`.
    same: name -> earlier file with the same content.
    output: folder of the records, which is complete once it has a report.

  Returns:
    The report: `files` has the number of records of each file, in the order of
    the records; `set_aside` has a `file`, `reason`, `message`, and the number
    of `rows` with this reason.
  """
  report = output / prepare.REPORT
  if report.exists():
    return json.loads(report.read_text())
  if output.exists():
    output.rmtree()
  output.mkdir(parents=True)
  tally, number = Tally(), 0
  records: dict[str, int] = {}
  aside: dict[tuple[str, str], dict[str, Any]] = {}

  def set_aside(file: str, reason: str, message: str, rows: int = 1) -> None:
    each = aside.setdefault(
      (file, reason),
      {'file': file, 'reason': reason, 'message': message, 'rows': 0},
    )
    each['rows'] += rows

  writer = None  # no data set without a record
  with (output / prepare.REJECTED).open('w') as rejected:
    for entry in entries:
      name = entry['file']
      if not entry['sha256']:
        message = f'{entry["bytes"]:,} bytes; the limit is {LARGEST:,}'
        set_aside(name, 'too_large', message, 0)
        continue
      if name in same:
        message = f'the content is that of {files.shown(same[name])}'
        set_aside(name, 'duplicate', message, 0)
        continue
      before = tally.read
      for task in _tasks(incoming, name, number):
        number = task.file + 1
        if tally.read - before >= MOST_ROWS:
          message = f'only the first {MOST_ROWS:,} rows are read'
          set_aside(name, 'too_large', message, 0)
          break
        outcome = preparer(task, tally)
        if outcome.records:
          writer = writer or dataset.Writer(str(output), renderer.metadata())
          writer.add('train', outcome.records, outcome.key)
          records[name] = records.get(name, 0) + len(outcome.records)
        if note := outcome.note:
          rejected.write(json.dumps(note | {'file': name}) + '\n')
          message = f'row {note["row"]}: {note["message"]}'
          set_aside(name, note['reason'], files.one_line(message))
      if tally.read == before:
        set_aside(name, 'empty', 'no row in the file', 0)
  if writer:
    writer.finish()
  content = {
    **tally.report(),
    'files': [{'file': name, 'records': n} for name, n in records.items()],
    'set_aside': [*aside.values()],
  }
  # The report is written last: a folder with a report is complete.
  files.write_atomically(report, json.dumps(content, indent=2) + '\n')
  return content


def _tasks(
  incoming: epath.Path, name: str, number: int
) -> Iterator[outcomes.Task]:
  """Yields the rows of a file, or of the members of an archive."""
  folder = os.fspath(incoming)
  try:
    places = rows.files(f'{folder}/{name}')
  except ValueError:
    return  # an archive without a file to read
  for place in places:
    # The id of a row that has none is unique over all increments.
    stem = place.removeprefix(folder).lstrip('/')
    yield from outcomes.tasks((number, place, stem))
    number += 1
