"""Tables of probes.json, which isft-probe has written into a workdir."""

import os
import pathlib

from isft_jax import files
from isft_jax.report import probes, shapes
from isft_jax.report.document import Block
from isft_jax.report.escapes import visible_line

NAME = 'probes.json'
_FACTS = 100  # rows

# The results of isft-probe, as far as they are shown.
_SHAPE = {
  'model?': str,
  'step?': (int, str),
  'mean_margin': float,
  'prefers_lie': int,
  'paper_mean_margin': float,
  'paper_prefers_lie': int,
  'truth_probe': {...: int},
  'lie_probe': {...: int},
  'contradicts': int,
  'talks_like_user': int,
  'facts': [
    {'topic': str, 'margin': float, 'truth_verdict': str, 'lie_verdict': str}
  ],
}


def read(workdir: str | os.PathLike) -> list[Block]:
  """Reads the probes in a workdir; [] if it has none.

  Raises:
    ValueError: the file is damaged; the message names it.
    OSError: the file cannot be read.
  """
  path = pathlib.Path(workdir) / NAME
  if not path.is_file():
    return []
  results = files.read_json(path)
  shapes.check(results, _SHAPE, str(path))
  with shapes.readable(str(path)):
    facts, counts = probes.tables(results)
  # A file of facts may be long.
  number = len(facts.rows)
  note = f'{facts.title}.'
  if number > _FACTS:
    note += f' Shown: {_FACTS} of {number:,} facts; {NAME} has all.'
  source = str(results.get('model', ''))
  if 'step' in results:
    source += f', step {results["step"]}'
  return [
    Block(counts, note=visible_line(f'Probed: {source}') if source else ''),
    Block(facts._replace(rows=facts.rows[:_FACTS]), note=note),
  ]
