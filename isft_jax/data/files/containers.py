"""Splits JSON documents and archives that hold many runs into rows.

    tau2-bench   {"info": ..., "tasks": ..., "simulations": [...]}
    inspect_ai   {"version": 2, "status": ..., "eval": ..., "samples": [...]},
                 or a .eval archive with samples/*.json and header.json

A row is one run, with the field `info` or `eval` of the whole file.
"""

import itertools
from collections.abc import Iterator

from isft_jax.data.files import archives, json_stream

EVAL = '.eval'  # suffix of inspect_ai's archives
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
  # Without other fields of the format, a list of this name may be anything.
  if {'info', 'tasks'} & document.keys():
    return _split(document, 'simulations', 'info')
  if 'eval' in document or {'version', 'status'} <= document.keys():
    return _split(document, 'samples', 'eval')
  return None


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
  names = [info.filename for info in archives.members(place)]
  header = next((name for name in _HEADERS if name in names), '')
  shared: object = None
  if header:
    shared, error = _member(place, header)
    if error:
      yield None, error
  for name in names:
    match name.split('/'):
      case ['samples', file] if file.endswith('.json'):
        sample, error = _member(place, name)
        yield _with(sample, shared, 'eval'), error
      case ['samples', _, 'sample.json']:
        yield None, f'{name}: samples in chunks are not supported'


def _split(document: dict, runs: str, shared: str) -> list | None:
  items = document.get(runs)
  if not isinstance(items, list):
    return None
  if not any(isinstance(item, dict) for item in items):
    return None
  return [_with(item, document, shared) for item in items]


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
