"""Splits JSON documents and archives that hold many runs into rows.

    tau2-bench   {"info": ..., "tasks": ..., "simulations": [...]}
    inspect_ai   {"version": 2, "status": ..., "eval": ..., "samples": [...]},
                 or a .eval archive with samples/*.json and header.json

A row is one run, with the field `info` or `eval` of the whole file.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Set
from typing import NamedTuple, TextIO

from isft_jax.data.files import archives, json_stream

EVAL = '.eval'  # suffix of inspect_ai's archives


class _Log(NamedTuple):
  """A kind of JSON log."""

  runs: str  # key of the list of runs
  shared: str  # key of a field that every run gets
  has: tuple[set[str], ...]  # other keys, of which one set is there


# Logs of tau2-bench, and JSON logs of Inspect.
_LOGS = (
  _Log('simulations', 'info', ({'info'}, {'tasks'})),
  _Log('samples', 'eval', ({'eval'}, {'version', 'status'})),
)
# Members with the field `eval`: of a finished log, of one that was interrupted,
# and of the first versions.
_HEADERS = ('header.json', '_journal/start.json', 'start.json')


def runs(document: object) -> list | None:
  """Returns the rows of a document; None if it does not hold runs.

  Args:
    document: the value of a JSON file.
  """
  if not isinstance(document, dict):
    return None
  log = _log({key for key in document if _has_object(document[key])}, document)
  if log is None:
    return None
  return [_with(run, document, log.shared) for run in document[log.runs]]


def stream(
  opened: Callable[[], TextIO],
) -> Iterator[tuple[object, str]] | None:
  """Reads a large document, with one run in memory at a time.

  Args:
    opened: opens the document, which is an object. It is read twice.

  Returns:
    The rows and their errors; None if the document does not hold runs.
  """
  # One pass collects the fields beside the runs, which each run gets.
  names = {log.runs for log in _LOGS}
  document: dict = {}
  filled: set[str] = set()
  try:
    with opened() as text:
      for key, value, error in json_stream.fields(text, names):
        if key in names and isinstance(value, dict):
          filled.add(key)
        elif key and not error:
          document[key] = value
  except archives.Damaged:
    pass  # the rows before the damage are read
  log = _log(filled, document)
  return log and _runs(opened, log, document)


def _runs(
  opened: Callable[[], TextIO], log: _Log, document: dict
) -> Iterator[tuple[object, str]]:
  with opened() as text:
    for key, value, error in json_stream.fields(text, {log.runs}):
      if key == log.runs:
        yield _with(value, document, log.shared), error
      elif error:
        yield None, error


def samples(place: str) -> Iterator[tuple[object, str]]:
  """Reads the samples of a .eval archive, in its order.

  Args:
    place: path of the archive.

  Yields:
    (sample, '') or (None, error).

  Raises:
    archives.Damaged: the archive is damaged.
    OSError: the file cannot be opened.
  """
  # The header has the settings of the evaluation, which all samples share.
  names = [info.filename for info in archives.members(place)]
  header = next((name for name in _HEADERS if name in names), '')
  shared: object = None
  if header:
    shared, error = _member(place, header)
    if error:
      yield None, error
  # Each sample is a separate file.
  for name in names:
    match name.split('/'):
      case ['samples', file] if file.endswith('.json'):
        sample, error = _member(place, name)
        yield _with(sample, shared, 'eval'), error
      case ['samples', _, 'sample.json']:
        yield None, f'{name}: samples in chunks are not supported'


def _log(filled: Set[str], document: Mapping) -> _Log | None:
  """Returns the kind of a log.

  Args:
    filled: keys of lists with objects.
    document: the other fields. Without those of the format, a list of this name
      may be anything.
  """
  for log in _LOGS:
    if log.runs in filled and any(has <= document.keys() for has in log.has):
      return log
  return None


def _has_object(value: object) -> bool:
  return isinstance(value, list) and any(isinstance(v, dict) for v in value)


def _with(run: object, document: object, key: str) -> object:
  """Returns a run with a field of its document."""
  if isinstance(run, dict) and isinstance(document, dict) and key in document:
    return {**run, key: document[key]}
  return run


def _member(place: str, name: str) -> tuple[object, str]:
  """Returns the object in a member of an archive, and its error."""
  try:
    with archives.open_text(f'{place}/{name}') as stream:
      pairs = [*itertools.islice(json_stream.values(stream), 2)]
  except archives.Damaged as damage:
    return None, f'{name}: {damage}'
  # More than one value: text after the object, or the elements of an array.
  flaw = next(filter(None, (flaw for _, flaw in pairs)), '')
  if not flaw and (len(pairs) != 1 or not isinstance(pairs[0][0], dict)):
    flaw = 'expected an object'
  return (None, f'{name}: {flaw}') if flaw else pairs[0]
