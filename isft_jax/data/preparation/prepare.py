"""Prepares TFDS records from files of agent runs.

    files --rows--> tasks --workers--> outcomes --Writer--> records
                                            or a note with the reason, in
                                            rejected.jsonl

Every row is read, rendered and encoded once. It is either written or set aside
with a reason. The data set is built in a folder `NAME.part` and renamed when it
is complete. A finished data set is never changed: to add runs, prepare another
data set that extends it and shares its shards.
"""

import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from etils import epath

from isft_jax.data.files import rows
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import lock, outcomes, workers
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.settings import Settings
from isft_jax.data.records import dataset
from isft_jax.data.rendering.renderer import Renderer

REPORT = 'prepare_report.json'  # counts and settings of a data set
REJECTED = 'rejected.jsonl'  # notes of rejected rows


def prepare(
  settings: Settings,
  renderer: Renderer,
  rules: Rules,
  output: epath.PathLike,
  progress: Callable[[Tally], None] = lambda tally: None,
  num_workers: int = 1,
) -> tuple[dict, bool]:
  """Prepares a data set.

  Args:
    settings: the settings.
    renderer: renders the trajectories.
    rules: rules for authors.
    output: the folder of the data set.
    progress: called from time to time with the counts so far.
    num_workers: number of rendering processes. The data set does not depend on
      it.

  Returns:
    The report, and whether the data set existed before.

  Raises:
    ValueError: `output` holds something else, another process writes it, or no
      row can be written.
  """
  if num_workers < 1:
    raise ValueError(f'--num_workers={num_workers} must be 1 or more')
  with lock.locked(output):
    return _prepare(settings, renderer, rules, output, progress, num_workers)


def _prepare(
  settings: Settings,
  renderer: Renderer,
  rules: Rules,
  output: epath.PathLike,
  progress: Callable[[Tally], None],
  num_workers: int,
) -> tuple[dict, bool]:
  # An equal data set is not prepared again.
  begun = begin(settings, renderer, rules, output)
  if begun.report:
    return begun.report, True

  # All steps are lazy: memory does not grow with the number of rows.
  preparer = outcomes.Preparer(settings, renderer, rules)
  files = outcomes.files(begun.files, begun.old_files)
  tasks = itertools.chain.from_iterable(map(outcomes.tasks, files))
  tally = Tally()
  with (begun.part / REJECTED).open('w') as rejected:
    writer = dataset.Writer(
      str(begun.part),
      renderer.metadata(),
      settings.num_shards,
      settings.extends,
    )
    # Outcomes arrive in the order of the input.
    for done, counts in workers.outcomes(preparer, tasks, num_workers):
      tally.merge(counts)
      for outcome in done:
        if outcome.note:
          rejected.write(json.dumps(outcome.note) + '\n')
        writer.add(outcome.split, outcome.records, outcome.key)
      progress(tally)

  # Complete the data set, or fail with the reasons.
  counted = tally.report()
  check_written(counted, begun)
  writer.finish()
  return finish(begun, renderer, counted), False


class Begun(NamedTuple):
  """State of a preparation that has begun, or whose data set exists."""

  report: dict | None  # of the existing data set, if there is one
  asked: dict  # everything that determines the data set
  output: epath.Path
  part: epath.Path  # the folder that is renamed to `output` at the end
  files: list[str]  # of the input
  old_files: Collection[str]  # files that the extended data set has already
  digests: dict[str, str | None]  # of the contents of all files
  start: float  # time.perf_counter()


def begin(
  settings: Settings, renderer: Renderer, rules: Rules, output: epath.PathLike
) -> Begun:
  """Looks for an existing data set, or makes an empty folder for a new one.

  Args:
    settings: the settings.
    renderer: renders the trajectories.
    rules: rules for authors.
    output: the folder of the data set.

  Returns:
    The state, with the report if the data set exists.

  Raises:
    ValueError: `output` holds something else, or cannot be extended.
  """
  start = time.perf_counter()
  output = epath.Path(output)
  files = rows.files(settings.input, settings.split)
  # Sizes and digests detect files that have changed since an earlier
  # preparation, or that change from now on.
  sizes = {file: rows.size(file) for file in files}
  digests = {file: rows.digest(file) for file in files}
  old_files, old_digests = {}, {}
  # Rows of the extended data set are not prepared again.
  if settings.extends:
    base = report_of(epath.Path(settings.extends))
    old_files, old_digests = base['asked']['files'], base.get('digests', {})
  # Everything that determines the data set, for comparison with a later call.
  asked = {
    'settings': dataclasses.asdict(settings),
    'files': old_files | sizes,
    'authors': rules.to_json(),
    **renderer.metadata(),
  }

  # Compare with the existing data set, or start from an empty folder.
  report = None
  part = output.with_name(output.name + '.part')
  if output.exists():
    report = find_report(output, asked, digests)
  else:
    if settings.extends:
      check_extends(settings, sizes, digests, asked)
    clear(part)
  digests = old_digests | digests
  return Begun(report, asked, output, part, files, old_files, digests, start)


def clear(part: epath.Path) -> None:
  """Makes an empty folder, in place of one that an interrupted run left.

  Args:
    part: the folder.

  Raises:
    ValueError: the folder has contents that no run of this package left.
  """
  if part.exists():
    # Only folders with our marker are deleted.
    if any(part.iterdir()) and not (part / REJECTED).exists():
      raise ValueError(
        f'{part} exists and was not made by isft-prepare; name another --output'
      )
    part.rmtree()
  part.mkdir(parents=True)
  (part / REJECTED).touch()  # marks the folder as ours


def check_written(counted: dict, begun: Begun) -> None:
  """Checks that there is a row to train on.

  Args:
    counted: the report of the tally.
    begun: the state of the preparation.

  Raises:
    ValueError: no row is in the split 'train'. The message has the reasons.
  """
  # Added rows may all be held out, because the extended data set has others.
  if 'train' in counted['splits'] or (begun.old_files and counted['splits']):
    return
  if counted['splits']:
    raise ValueError(
      'no row is left to train on: all are held out or rejected; lower '
      '--heldout'
    )
  # The input is empty.
  if not counted['rows']['read']:
    raise ValueError(f'no rows in {begun.asked["settings"]["input"]}')
  # All rows were rejected.
  reasons = ', '.join(f'{n} {key}' for key, n in counted['rejected'].items())
  # A thousand rows of an unknown format have the same reason.
  notes = begun.part / REJECTED
  with notes.open() as file:
    first = json.loads(file.readline())
  raise ValueError(
    f'none of {counted["rows"]["read"]} rows could be written ({reasons}); the '
    f'first, row {first["row"]} of {first["file"]}: {first["message"]}; the '
    f'reason of each row is in {notes}'
  )


def finish(begun: Begun, renderer: Renderer, counted: dict) -> dict:
  """Saves tokenizer and report beside the records, and renames the folder.

  Args:
    begun: the state of the preparation.
    renderer: its tokenizer is saved.
    counted: the report of the tally.

  Returns:
    The complete report.
  """
  # transformers writes only to local folders; the output may be in a bucket.
  with tempfile.TemporaryDirectory() as local:
    renderer.save_tokenizer(local)
    (begun.part / 'tokenizer').mkdir()
    for file in epath.Path(local).iterdir():
      file.copy(begun.part / 'tokenizer' / file.name)
  report = {
    **counted,
    'seconds': round(time.perf_counter() - begun.start, 2),
    'asked': begun.asked,
    'digests': begun.digests,
  }
  # The report is written last: a folder with a report is complete.
  (begun.part / REPORT).write_text(json.dumps(report, indent=2) + '\n')
  begun.part.rename(begun.output)
  return report


def find_report(
  output: epath.Path,
  asked: dict,
  digests: Mapping[str, str | None],
) -> dict:
  """Returns the report of an existing data set with equal settings.

  Args:
    output: the folder of the data set.
    asked: everything that determines the wanted data set.
    digests: of each file of the input.

  Raises:
    ValueError: the folder holds another data set, or none.
  """
  report = report_of(output)
  existing = report['asked']
  # Older reports lack newer settings, which then had their defaults.
  defaults = dataclasses.asdict(Settings(input=''))
  existing['settings'] = defaults | existing['settings']
  # The message has the names of all groups of settings that differ.
  differ = [key for key in asked if existing.get(key) != _as_json(asked[key])]
  # Files of the same sizes may have other contents.
  if 'files' not in differ:
    differ += [f'contents of {file}' for file in _changed(report, digests)[:1]]
  if differ:
    raise ValueError(
      f'{output} was prepared differently (other {" and ".join(differ)}); name '
      'another --output, or remove that one; --extends adds new files to it'
    )
  return report


def report_of(folder: epath.Path) -> dict:
  """Returns the report of a data set.

  Args:
    folder: the folder of the data set.

  Raises:
    ValueError: the folder has no report.
  """
  try:
    return json.loads((folder / REPORT).read_text())
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{folder} is not a prepared data set: {REPORT} is missing or damaged; '
      'name another folder'
    ) from error


def _changed(report: Mapping, digests: Mapping[str, str | None]) -> list[str]:
  """Returns the files whose contents differ from those of a data set."""
  # Older reports have no digests.
  old = report.get('digests', {})
  return [
    file for file in digests if old.get(file, digests[file]) != digests[file]
  ]


def check_extends(
  settings: Settings,
  sizes: dict,
  digests: Mapping[str, str | None],
  asked: dict,
) -> None:
  """Checks that the input can be added to the data set `settings.extends`.

  Args:
    settings: the settings.
    sizes: bytes of each file of the input.
    digests: of each file of the input.
    asked: everything that determines the new data set.

  Raises:
    ValueError: tokenizers or templates differ, an old file has changed, or
      there is no new file.
  """
  base = settings.extends
  report = report_of(epath.Path(base))
  existing = report['asked']
  # Ids mean the same text only with the same tokenizer and template.
  if existing['fingerprint'] != asked['fingerprint']:
    raise ValueError(
      f'{base} was rendered with another tokenizer or template, so that its '
      'ids mean something else; prepare all runs again'
    )
  # A changed file may repeat rows that the data set has already.
  old_files = existing['files']
  changed = _changed(report, digests)
  for file, size in sizes.items():
    if old_files.get(file, size) != size or file in changed:
      raise ValueError(
        f'{file} has changed since {base} was made from it; prepare all runs '
        'again, or put the new ones into a separate file'
      )
  if sizes.keys() <= old_files.keys():
    raise ValueError(f'{base} already has all files of {settings.input}')


def _as_json(value: object) -> object:
  """Returns a value after a round trip through JSON: tuples become lists."""
  return json.loads(json.dumps(value))
