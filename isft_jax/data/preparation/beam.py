"""Prepares records on Apache Beam, on one machine or on many.

    files --rows--> tasks --Preparer--> outcomes --by shard--> Shard
                                            --by place--> rejected.jsonl
                                            --sum--> report

The file and number of a row determine the shard of its trajectory, and rows
keep their order in a shard. The files therefore equal those of
`prepare.prepare` with the same number of shards.
"""

import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import lock, outcomes
from isft_jax.data.preparation import prepare as plain
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.outcomes import Outcome, Preparer, Task
from isft_jax.data.records import dataset, shards
from isft_jax.data.rendering.renderer import Renderer

_COUNTS = 'counts.json'  # the report of all tallies, in the scratch folder


def prepare(
  settings: plain.Settings,
  renderer: Renderer,
  rules: Rules,
  output: str,
  runner: str = 'DirectRunner',
  options: str = '',
) -> tuple[dict, bool]:
  """Prepares a data set with a Beam pipeline.

  Args:
    settings: the settings. `num_shards` of 0 gives each split one shard per
      8,192 records.
    renderer: renders the trajectories.
    rules: rules for authors.
    output: a folder that the runner's machines can write to.
    runner: the name of a Beam runner.
    options: options of the runner, as on a command line.

  Returns:
    The report, and whether the data set existed before.

  Raises:
    ValueError: `output` holds something else, another process writes it, or no
      row can be written.
  """
  with lock.locked(output):
    return _run(settings, renderer, rules, output, runner, options)


def _run(
  settings: plain.Settings,
  renderer: Renderer,
  rules: Rules,
  output: str,
  runner: str,
  options: str,
) -> tuple[dict, bool]:
  # The same checks as without Beam. An equal data set is not prepared again.
  begun = plain.begin(settings, renderer, rules, output)
  if begun.report:
    return begun.report, True
  # Workers leave counts, rejected rows and descriptions of shards here.
  scratch = begun.part / 'scratch'
  scratch.mkdir()
  # The writer assembles the data set; the workers write its shards.
  writer = dataset.Writer(
    str(begun.part),
    renderer.metadata(),
    extends=settings.extends,
  )
  pipeline = beam.Pipeline(
    runner=runner, options=PipelineOptions(shlex.split(options))
  )
  # The pipeline runs when this block ends.
  with pipeline:
    # Rows to records. The reshuffle spreads the rows of large files.
    prepared = (
      pipeline
      | 'files' >> beam.Create([*outcomes.files(begun.files, begun.old_files)])
      | 'rows' >> beam.FlatMap(outcomes.tasks)
      | 'spread' >> beam.Reshuffle()
      | 'prepare'
      >> beam.ParDo(_Prepare(Preparer(settings, renderer, rules))).with_outputs(
        'notes', 'tallies', main='outcomes'
      )
    )
    # Records per split, from which the automatic number of shards follows.
    counts = beam.pvalue.AsDict(
      prepared.outcomes
      | 'records' >> beam.Map(lambda o: (o.split, len(o.records)))
      | 'count' >> beam.CombinePerKey(sum)
    )
    # Records to shards.
    _ = (
      prepared.outcomes
      | 'shard' >> beam.Map(_by_shard, counts, settings.num_shards)
      | 'by shard' >> beam.GroupByKey()
      | 'write'
      >> beam.Map(_write, folder=str(writer.staging), first=writer.first)
      | 'save info' >> beam.Map(_save_info, folder=str(scratch))
    )
    # Rejected rows, grouped into files of bounded size.
    _ = (
      prepared.notes
      | 'by place' >> beam.GroupByKey()
      | 'set aside' >> beam.Map(_set_aside, folder=str(scratch))
    )
    # Counts of all rows.
    _ = (
      prepared.tallies
      | 'sum' >> beam.CombineGlobally(_Sum())
      | 'report' >> beam.Map(_report, folder=str(scratch))
    )

  # Assemble the data set from the files of the workers, in their order.
  counted = json.loads((scratch / _COUNTS).read_text())
  with (begun.part / plain.REJECTED).open('w') as rejected:
    for notes in sorted(scratch.glob('rejected-*')):
      with notes.open() as lines:
        rejected.writelines(lines)
  for info in sorted(scratch.glob('shard-*')):
    writer.infos.append(shards.Info(*json.loads(info.read_text())))
  scratch.rmtree()
  # The rest is the same as without Beam.
  plain.check_written(counted, begun)
  writer.finish()
  return plain.finish(begun, renderer, counted), False


class _Prepare(beam.DoFn):
  """Maps tasks to outcomes; notes and counts are side outputs."""

  def __init__(self, preparer: Preparer) -> None:
    self._preparer = preparer

  def process(self, task: Task) -> Iterator[Any]:
    # Any: Beam would take outcomes and tagged outputs for one type.
    tally = Tally()
    outcome = self._preparer(task, tally)
    yield beam.pvalue.TaggedOutput('tallies', tally)
    # A rejected row has a note and no records.
    if outcome.note:
      # A file of notes covers 8,192 rows, so that none grows without bound.
      place = task.file, task.row.number // dataset.SHARD_RECORDS
      line = outcome.key, json.dumps(outcome.note)
      yield beam.pvalue.TaggedOutput('notes', (place, line))
    else:
      yield outcome


# Beam adds the tallies of a worker before it sends them.
class _Sum(beam.CombineFn):
  """Sums tallies."""

  def create_accumulator(self) -> Tally:
    return Tally()

  def add_input(self, sum: Tally, tally: Tally) -> Tally:
    return sum.merge(tally)

  def merge_accumulators(self, sums: Iterable[Tally]) -> Tally:
    total = Tally()
    for sum in sums:
      total.merge(sum)
    return total

  def extract_output(self, sum: Tally) -> Tally:
    return sum


def _by_shard(
  outcome: Outcome, counts: dict[str, int], num_shards: int
) -> tuple[tuple[str, int], Outcome]:
  """Returns an outcome with its split and the number of its shard."""
  split = outcome.split
  # By default, as many shards as 8,192 records each would need.
  total = num_shards or -(-counts[split] // dataset.SHARD_RECORDS)
  return (split, dataset.choose_shard(outcome.key, total)), outcome


def _write(
  group: tuple[tuple[str, int], Iterable[Outcome]], folder: str, first: dict
) -> shards.Info:
  """Writes one shard; rows keep the order of the input."""
  (split, number), shard_outcomes = group
  shard = shards.Shard(epath.Path(folder), split, first[split] + number)
  # Outcomes sort by their keys, and keys are in the order of the input.
  for outcome in sorted(shard_outcomes):
    for record in outcome.records:
      shard.add(record)
  return shard.close(shards.Codec())


def _save_info(info: shards.Info, folder: str) -> None:
  """Saves the description of a shard for the main process."""
  path = epath.Path(folder) / f'shard-{info.split}-{info.number:05d}'
  path.write_text(json.dumps(info))


def _set_aside(notes: tuple[tuple[int, int], Iterable], folder: str) -> None:
  """Writes the notes of one block of rows, in the order of the input."""
  (file, block), lines = notes
  path = epath.Path(folder) / f'rejected-{file:08d}-{block:08d}'
  # The lines are pairs of a key and a note.
  path.write_text(''.join(f'{line}\n' for _, line in sorted(lines)))


def _report(tally: Tally, folder: str) -> None:
  (epath.Path(folder) / _COUNTS).write_text(json.dumps(tally.report()))
