"""Writes report.html of a followed folder, from its follow.jsonl."""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isft_jax import files, follow_file
from isft_jax.follow_file import Event
from isft_jax.report import document, plots
from isft_jax.report.escapes import visible_line
from isft_jax.report.tables import Cell, Table
from isft_jax.report.training import charts
from isft_jax.report.training.runs import Curve

NAME = 'report.html'
_UNIT = 'nats per token'
_MOST = 200  # rows of a table
_WORDS = {
  'accepted': 'accepted',
  'rolled_back': 'rolled back',
  'skipped': 'skipped',
}


def write(
  workdir: str | os.PathLike, output: str | os.PathLike = ''
) -> pathlib.Path:
  """Writes report.html of a followed folder; returns its path.

  Args:
    workdir: folder with follow.jsonl.
    output: folder of the page; '' means the workdir.

  Raises:
    ValueError: the file is damaged.
  """
  folder = pathlib.Path(workdir)
  path = pathlib.Path(output or folder) / NAME
  path.parent.mkdir(parents=True, exist_ok=True)
  events = follow_file.read(folder / follow_file.NAME)
  files.write_atomically(path, page(events, folder.resolve().name))
  return path


def page(events: Sequence[Event], name: str) -> bytes:
  """Returns the page in UTF-8.

  Args:
    events: content of follow.jsonl.
    name: name of the workdir.
  """
  increments = follow_file.by_increment(events)
  start = increments.pop(0, [])
  aside = [*_set_aside(events)]
  return document.page(
    'following/page.html.j2',
    f'Following of {visible_line(name)}',
    answer=answer(start, increments),
    charts=[*filter(None, (_prequential(increments), _heldout(events)))],
    increments=Table('Increments', _HEADER, _rows(start, increments)),
    set_aside=Table(
      'Transcripts set aside', ('transcript', 'increment', 'why'), aside[:_MOST]
    ),
    left_out=f'{len(aside) - _MOST:,}' if len(aside) > _MOST else '',
    changed=Table(
      'Transcripts that changed',
      ('transcript', 'when'),
      [
        (visible_line(e['file']), e['time'])
        for e in start
        if e['event'] == 'changed'
      ],
    ),
  )


def answer(
  start: Sequence[Event], increments: Mapping[int, Sequence[Event]]
) -> str:
  """Returns what happened, in a few sentences."""
  kinds = [e['event'] for each in increments.values() for e in each]
  found = sum(len(e['files']) for e in _all(increments, 'found'))
  parts = [
    f'{kinds.count(kind):,} {words}'
    for kind, words in _WORDS.items()
    if kind in kinds
  ]
  folder = next((e['folder'] for e in start if e['event'] == 'begun'), '')
  said = f'{found:,} transcripts of {visible_line(folder)} were taken'
  return f'{said}; increments: {", ".join(parts) or "none yet"}.'


# Words of the legend -> decisions; a start has none.
_LINES = {'accepted': ('accepted', ''), 'rolled back': ('rolled_back',)}
_HEADER = (
  'increment',
  'transcripts',
  'set aside',
  'loss before learning',
  'held-out loss',
  'probe margin',
  'decision',
)


def _rows(
  start: Sequence[Event], increments: Mapping[int, Sequence[Event]]
) -> list[tuple[str | Cell, ...]]:
  rows = [_row('start', start)] if start else []
  rows += [_row(str(number), each) for number, each in increments.items()]
  # The newest are the ones to look at.
  return rows[-_MOST:]


def _row(name: str, events: Sequence[Event]) -> tuple[str | Cell, ...]:
  def number(values: Mapping[str, Any], key: str) -> str:
    return f'{values[key]:.4f}' if key in values else '-'

  by_kind: dict[str, list[Event]] = {}
  for event in events:
    by_kind.setdefault(event['event'], []).append(event)
  found = sum(len(e['files']) for e in by_kind.get('found', ()))
  measured = by_kind.get('measured', [{}])[0]
  total, count = (
    sum(
      sums[k]
      for e in by_kind.get('scored', ())
      for sums in e['nll_by_author'].values()
    )
    for k in (0, 1)
  )
  end = next((e for e in events if e['event'] in _WORDS), None)
  return (
    name,
    f'{found:,}' if found else '-',
    f'{len({e["file"] for e in by_kind.get("set_aside", ())}):,}',
    f'{total / count:.4f}' if count else '-',
    number(measured, 'heldout_loss'),
    number(measured.get('probe', {}), 'mean_margin'),
    Cell(_WORDS[end['event']], small=visible_line(end.get('because', '')))
    if end
    else '-',
  )


def _prequential(
  increments: Mapping[int, Sequence[Event]],
) -> plots.Chart | None:
  """Returns the chart of the loss before learning, by author."""
  sums: dict[str, dict[int, list[float]]] = {}
  for number, events in increments.items():
    for event in events:
      for author, (total, count) in event.get('nll_by_author', {}).items():
        each = sums.setdefault(author, {}).setdefault(number, [0.0, 0.0])
        each[0] += total
        each[1] += count
  lines: dict[str, Curve] = {
    author: ([*each], [total / count for total, count in each.values()])
    for author, each in sums.items()
  }
  return charts.curves(
    'prequential',
    'Loss of transcripts before they are learned',
    lines,
    charts.author_styles(lines),
    _UNIT,
    'Loss of the transcripts of each increment with the parameters before it, '
    'by the author of the predicted token.',
    'increment',
  )


def _heldout(events: Sequence[Event]) -> plots.Chart | None:
  """Returns the chart of the held-out loss after each increment."""
  measured = {
    e['increment']: e['heldout_loss']
    for e in events
    if e['event'] == 'measured' and 'heldout_loss' in e
  }
  ends = {e['increment']: e['event'] for e in events if e['event'] in _WORDS}
  lines: dict[str, Curve] = {}
  for name, kinds in _LINES.items():
    numbers = [n for n in measured if ends.get(n, '') in kinds]
    lines[name] = numbers, [measured[n] for n in numbers]
  styles = plots.arm_styles(lines)
  # Points: the parameters of one are not the start of the next.
  rolled_back = styles['rolled back']._replace(dashes='')
  return charts.curves(
    'heldout',
    'Held-out loss after each increment',
    lines,
    styles | {'rolled back': rolled_back},
    _UNIT,
    'Loss of the objective on held-out records. Increment 0 is the start.',
    'increment',
  )


def _set_aside(events: Sequence[Event]) -> Iterator[tuple[str, str, str]]:
  """Yields (transcript, increment, reason) of all that was not learned."""
  files_of = {
    event['increment']: [each['file'] for each in event['files']]
    for event in events
    if event['event'] == 'found'
  }
  # Files with a reason of their own.
  gone = {
    (event['file'], event['increment'])
    for event in events
    if event['event'] == 'set_aside'
  }
  for event in events:
    number = str(event['increment'])
    if event['event'] == 'set_aside':
      rows = event['rows']
      count = f'{rows:,} row{"s" * (rows != 1)}, ' if rows else ''
      yield (
        visible_line(event['file']),
        number,
        visible_line(f'{count}{event["reason"]}: {event["message"]}'),
      )
    elif event['event'] in ('rolled_back', 'skipped'):
      because = f'{_WORDS[event["event"]]}: {event.get("because", "")}'
      left = [
        file
        for file in files_of.get(event['increment'], ())
        if (file, event['increment']) not in gone
      ]
      if left:
        more = f', and {len(left) - 1:,} more' if left[1:] else ''
        yield f'{visible_line(left[0])}{more}', number, visible_line(because)


def _all(
  increments: Mapping[int, Sequence[Event]], kind: str
) -> Iterator[Event]:
  for events in increments.values():
    yield from (event for event in events if event['event'] == kind)
