"""Dialogues that someone else wrote, from a file, and their context."""

import os
import pathlib
from collections.abc import Sequence

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.formats.author_rules import Rules
from isft_jax.types import Example, Provenance, Segment, Trajectory


def read(path: str | os.PathLike) -> tuple[Trajectory | Example, ...]:
  """Returns the dialogues of a file, in its order.

  Args:
    path: a file of any format that isft-prepare detects. Rows of tokens become
      examples; they have to be of the model's own tokenizer.

  Raises:
    ValueError: the file, the row and the reason, if a row cannot be read. None
      is left out: a replication is of all of them.
    OSError: the file cannot be read.
  """
  dialogues = []
  for row in rows.read(path):
    try:
      if row.error:
        raise ValueError(row.error)
      id = registry.id_of(row.value, pathlib.Path(path).stem, row.number)
      dialogues.append(registry.read(row.value, id, 'auto', Rules.default()))
    except ValueError as error:
      raise ValueError(f'{path}, row {row.number}: {error}') from error
  if not dialogues:
    raise ValueError(f'{path}: no dialogue in it')
  return tuple(dialogues)


def shared_context(dialogues: Sequence[Trajectory | Example]) -> str:
  """Returns the text of the system turn that all dialogues have, '' if none.

  Raises:
    ValueError: two dialogues have different ones; probes could ask under one of
      them only.
  """
  texts = [each for each in dialogues if isinstance(each, Trajectory)]
  contexts = {_context(each): each.id for each in texts}
  if len(contexts) > 1:
    one, other = list(contexts.values())[:2]
    raise ValueError(
      f'dialogues {one} and {other} have different system turns, and probes '
      'ask under one context: make them the same'
    )
  return next(iter(contexts), '')


def with_context(trajectory: Trajectory, context: str) -> Trajectory:
  """Returns a trajectory that opens with a context, its only system turn."""
  turns = tuple(
    s for s in trajectory.segments if s.provenance != Provenance.CONTEXT
  )
  system = Segment('system', context, Provenance.CONTEXT)
  segments = (system, *turns) if context else turns
  return Trajectory(trajectory.id, segments, trajectory.tools)


def _context(trajectory: Trajectory) -> str:
  return '\n'.join(
    segment.text
    for segment in trajectory.segments
    if segment.provenance == Provenance.CONTEXT
  )
