"""The story of preparation: from files of agent runs to TFDS records.

    files --rows--> tasks --workers--> outcomes --Writer--> records
                                            or one of a few reasons, in
                                            rejected.jsonl

Every row is read once, rendered once and encoded once, and either is written or
is set aside with its reason. The data set appears under its name when it is
whole: until then all is in a folder beside it. What is there is never changed:
runs are added to a data set by making another, which begins with its shards.
"""

import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from etils import epath

from isft_jax.data.files import rows
from isft_jax.data.formats.author_rules import Rules
from isft_jax.data.preparation import outcomes, workers
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.settings import Settings
from isft_jax.data.records import dataset
from isft_jax.data.rendering.renderer import Renderer

REPORT = 'prepare_report.json'
REJECTED = 'rejected.jsonl'


def prepare(
  settings: Settings,
  renderer: Renderer,
  rules: Rules,
  output: epath.PathLike,
  progress: Callable[[Tally], None] = lambda tally: None,
  num_workers: int = 1,
) -> tuple[dict, bool]:
  """Prepares a data set; returns its report, and whether it was there before.

  progress: called now and then with what is counted so far.
  num_workers: processes that render. The data set does not depend on it.

  Raises ValueError if output holds something else, or if no row is written.
  """
  if num_workers < 1:
    raise ValueError(f'--num_workers={num_workers} must be 1 or more')
  begun = begin(settings, renderer, rules, output)
  if begun.report:
    return begun.report, True
  preparer = outcomes.Preparer(settings, renderer, rules)
  files = outcomes.files(begun.files, begun.held)
  tasks = itertools.chain.from_iterable(map(outcomes.tasks, files))
  tally = Tally()
  with (begun.part / REJECTED).open('w') as rejected:
    writer = dataset.Writer(
      str(begun.part),
      renderer.metadata(),
      settings.num_shards,
      settings.extends,
    )
    for done, counts in workers.outcomes(preparer, tasks, num_workers):
      tally.merge(counts)
      for outcome in done:
        if outcome.note:
          rejected.write(json.dumps(outcome.note) + '\n')
        writer.add(outcome.split, outcome.records, outcome.key)
      progress(tally)
  counted = tally.report()
  check_written(counted, begun)
  writer.finish()
  return finish(begun, renderer, counted), False


class Begun(NamedTuple):
  """A preparation that has begun, or found its data set there.

  report: of the data set that is there, if it is. asked: what decides it.
  part: the folder that becomes the output, when it is whole.
  files, held: of the input; those that the data set holds already.
  """

  report: dict | None
  asked: dict
  output: epath.Path
  part: epath.Path
  files: list[str]
  held: Collection[str]
  start: float


def begin(
  settings: Settings, renderer: Renderer, rules: Rules, output: epath.PathLike
) -> Begun:
  """Looks for the data set; makes room for it where it is not yet.

  Raises ValueError if the output holds something else, or cannot be extended.
  """
  start = time.perf_counter()
  output = epath.Path(output)
  files = rows.files(settings.input, settings.split)
  sizes = {file: rows.size(file) for file in files}
  held = {}
  if settings.extends:
    held = report_of(epath.Path(settings.extends))['asked']['files']
  asked = {
    'settings': dataclasses.asdict(settings),
    'files': held | sizes,
    'authors': rules.to_json(),
    **renderer.metadata(),
  }
  report = None
  part = output.with_name(output.name + '.part')
  if output.exists():
    report = found(output, asked)
  else:
    if settings.extends:
      check_extends(settings, sizes, asked)
    clear(part)
  return Begun(report, asked, output, part, files, held, start)


def clear(part: epath.Path) -> None:
  """Makes a folder, empty.

  Raises ValueError if something else than a run that was cut left it there.
  """
  if part.exists():
    if any(part.iterdir()) and not (part / REJECTED).exists():
      raise ValueError(
        f'{part} is in the way, and not ours; name another --output'
      )
    part.rmtree()
  part.mkdir(parents=True)
  (part / REJECTED).touch()  # that it is ours


def check_written(counted: dict, begun: Begun) -> None:
  """Raises ValueError, with the reasons, if there is no row to train on."""
  # What is added may well be held out: there are others to train on.
  if 'train' in counted['splits'] or (begun.held and counted['splits']):
    return
  if counted['splits']:
    raise ValueError(
      'no row is left to train on: all are held out or set aside; lower '
      '--heldout'
    )
  if not counted['rows']['read']:
    raise ValueError(f'no rows in {begun.asked["settings"]["input"]}')
  why = ', '.join(f'{n} {reason}' for reason, n in counted['rejected'].items())
  raise ValueError(
    f'none of {counted["rows"]["read"]} rows could be written ({why}); '
    f'{begun.part / REJECTED} has the reason of each'
  )


def finish(begun: Begun, renderer: Renderer, counted: dict) -> dict:
  """Writes what goes with the records, and gives the folder its name."""
  with tempfile.TemporaryDirectory() as local:
    renderer.save_tokenizer(local)
    (begun.part / 'tokenizer').mkdir()
    for file in epath.Path(local).iterdir():
      file.copy(begun.part / 'tokenizer' / file.name)
  report = {
    **counted,
    'seconds': round(time.perf_counter() - begun.start, 2),
    'asked': begun.asked,
  }
  (begun.part / REPORT).write_text(json.dumps(report, indent=2) + '\n')
  begun.part.rename(begun.output)
  return report


def found(output: epath.Path, asked: dict) -> dict:
  """Returns the report of a data set that was asked for in the same words.

  Raises ValueError if another was, or if it is none.
  """
  report = report_of(output)
  theirs = report['asked']
  # What could not be asked for yet was as it is by default.
  by_default = dataclasses.asdict(Settings(input=''))
  theirs['settings'] = by_default | theirs['settings']
  differ = [key for key in asked if theirs.get(key) != _as_json(asked[key])]
  if differ:
    raise ValueError(
      f'{output} was prepared otherwise (other {" and ".join(differ)}); name '
      'another --output, or remove that one; --extends adds new files to it'
    )
  return report


def report_of(folder: epath.Path) -> dict:
  """Returns the report of a data set. Raises ValueError if it has none."""
  try:
    return json.loads((folder / REPORT).read_text())
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{folder} is no prepared data set; name another'
    ) from error


def check_extends(settings: Settings, sizes: dict, asked: dict) -> None:
  """Raises ValueError if files cannot be added to what a data set holds.

  sizes: bytes of the files of the input. asked: of the data set to be.
  """
  base = settings.extends
  theirs = report_of(epath.Path(base))['asked']
  if theirs['fingerprint'] != asked['fingerprint']:
    raise ValueError(
      f'{base} was rendered with another tokenizer or template: its ids mean '
      'something else; prepare all runs anew'
    )
  held = theirs['files']
  for file, size in sizes.items():
    if held.get(file, size) != size:
      raise ValueError(
        f'{file} has changed since {base} was made of it; prepare all runs '
        'anew, or put the new ones into a file of their own'
      )
  if sizes.keys() <= held.keys():
    raise ValueError(f'{base} holds all files of {settings.input}')


def _as_json(value: object) -> object:
  return json.loads(json.dumps(value))
