"""Preparation on Apache Beam: the same records, on one machine or on many.

    files --rows--> tasks --Preparer--> outcomes --by shard--> Shard
                                            --by place--> rejected.jsonl
                                            --sum--> report

A trajectory's shard follows from where its row stands, and in a shard rows keep
their order: the files are those of `prepare.prepare` with as many shards.
"""

import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from isft_jax.data.formats.author_rules import Rules
from isft_jax.data.preparation import outcomes
from isft_jax.data.preparation import prepare as plain
from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.outcomes import Outcome, Preparer, Task
from isft_jax.data.records import dataset, shards
from isft_jax.data.rendering.renderer import Renderer

_COUNTS = 'counts.json'


def prepare(
  settings: plain.Settings,
  renderer: Renderer,
  rules: Rules,
  output: str,
  runner: str = 'DirectRunner',
  options: str = '',
) -> tuple[dict, bool]:
  """Prepares a data set; returns its report, and whether it was there before.

  settings: `num_shards` of 0 gives each split a shard for 8,192 records.
  output: a folder that the runner's machines can write to.
  runner: as Beam names it. options: of the runner, as on a command line.

  Raises ValueError if output holds something else, or if no row is written.
  """
  begun = plain.begin(settings, renderer, rules, output)
  if begun.report:
    return begun.report, True
  scratch = begun.part / 'scratch'
  scratch.mkdir()
  writer = dataset.Writer(
    str(begun.part),
    renderer.metadata(),
    extends=settings.extends,
  )
  pipeline = beam.Pipeline(
    runner=runner, options=PipelineOptions(shlex.split(options))
  )
  with pipeline:
    done = (
      pipeline
      | 'files' >> beam.Create([*outcomes.files(begun.files, begun.held)])
      | 'rows' >> beam.FlatMap(outcomes.tasks)
      | 'spread' >> beam.Reshuffle()
      | 'prepare'
      >> beam.ParDo(_Prepare(Preparer(settings, renderer, rules))).with_outputs(
        'notes', 'tallies', main='outcomes'
      )
    )
    counts = beam.pvalue.AsDict(
      done.outcomes
      | 'records' >> beam.Map(lambda o: (o.split, len(o.records)))
      | 'count' >> beam.CombinePerKey(sum)
    )
    _ = (
      done.outcomes
      | 'shard' >> beam.Map(_by_shard, counts, settings.num_shards)
      | 'by shard' >> beam.GroupByKey()
      | 'write'
      >> beam.Map(_write, folder=str(writer.staging), first=writer.first)
      | 'told' >> beam.Map(_tell, folder=str(scratch))
    )
    _ = (
      done.notes
      | 'by place' >> beam.GroupByKey()
      | 'set aside' >> beam.Map(_set_aside, folder=str(scratch))
    )
    _ = (
      done.tallies
      | 'sum' >> beam.CombineGlobally(_Sum())
      | 'report' >> beam.Map(_report, folder=str(scratch))
    )

  counted = json.loads((scratch / _COUNTS).read_text())
  with (begun.part / plain.REJECTED).open('w') as rejected:
    for notes in sorted(scratch.glob('rejected-*')):
      with notes.open() as lines:
        rejected.writelines(lines)
  for told in sorted(scratch.glob('shard-*')):
    writer.infos.append(shards.Info(*json.loads(told.read_text())))
  scratch.rmtree()
  plain.check_written(counted, begun)
  writer.finish()
  return plain.finish(begun, renderer, counted), False


class _Prepare(beam.DoFn):
  """Tasks to outcomes; notes and counts go aside."""

  def __init__(self, preparer: Preparer) -> None:
    self._preparer = preparer

  def process(self, task: Task) -> Iterator[Any]:
    # Any: Beam would take outcomes and tagged outputs for one type.
    tally = Tally()
    outcome = self._preparer(task, tally)
    yield beam.pvalue.TaggedOutput('tallies', tally)
    if outcome.note:
      place = task.file, task.row.number // dataset.SHARD_RECORDS
      line = outcome.key, json.dumps(outcome.note)
      yield beam.pvalue.TaggedOutput('notes', (place, line))
    else:
      yield outcome


class _Sum(beam.CombineFn):
  """The sum of tallies."""

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
  split = outcome.split
  several = num_shards or -(-counts[split] // dataset.SHARD_RECORDS)
  return (split, dataset.shard_of(outcome.key, several)), outcome


def _write(
  placed: tuple[tuple[str, int], Iterable[Outcome]], folder: str, first: dict
) -> shards.Info:
  (split, number), found = placed
  shard = shards.Shard(epath.Path(folder), split, first[split] + number)
  for outcome in sorted(found):
    for record in outcome.records:
      shard.add(record)
  return shard.close(shards.Codec())


def _tell(info: shards.Info, folder: str) -> None:
  path = epath.Path(folder) / f'shard-{info.split}-{info.number:05d}'
  path.write_text(json.dumps(info))


def _set_aside(notes: tuple[tuple[int, int], Iterable], folder: str) -> None:
  (file, block), lines = notes
  path = epath.Path(folder) / f'rejected-{file:08d}-{block:08d}'
  path.write_text(''.join(f'{line}\n' for _, line in sorted(lines)))


def _report(tally: Tally, folder: str) -> None:
  (epath.Path(folder) / _COUNTS).write_text(json.dumps(tally.report()))
