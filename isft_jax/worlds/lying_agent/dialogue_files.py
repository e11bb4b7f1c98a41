"""Reads dialogues from a file, and finds and replaces their system prompt."""

import os
from collections.abc import Sequence

from isft_jax.data.files import rows
from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.types import Example, Provenance, Segment, Trajectory


def read(path: str | os.PathLike) -> tuple[Trajectory | Example, ...]:
  """Returns the dialogues of a file, in file order.

  Args:
    path: a file of any format that isft-prepare detects. Rows of token ids
      become examples; the ids must be of the model's own tokenizer.

  Returns:
    One trajectory or example per row. No row is skipped, because a replication
    needs all of them.

  Raises:
    ValueError: a row cannot be read, or the file has no rows. The message names
      the file, the row and the reason.
    OSError: the file cannot be read.
  """
  dialogues = []
  for row in rows.read(path):
    try:
      # A damaged row is reported in the same form as an unknown format.
      if row.error:
        raise ValueError(row.error)
      id = registry.id_of(row.value, rows.stems([row.file])[0], row.number)
      dialogues.append(registry.read(row.value, id, 'auto', Rules.default()))
    except ValueError as error:
      raise ValueError(f'{path}, row {row.number}: {error}') from error
  if not dialogues:
    raise ValueError(f'{path}: has no dialogues')
  return tuple(dialogues)


def shared_context(dialogues: Sequence[Trajectory | Example]) -> str:
  """Returns the system prompt that all dialogues share, '' if none has one.

  Args:
    dialogues: the dialogues. Examples are ignored: they have no text.

  Raises:
    ValueError: two dialogues have different system prompts. The probes ask all
      their questions under a single one.
  """
  # Context -> a dialogue that has it, for the error message.
  texts = [each for each in dialogues if isinstance(each, Trajectory)]
  contexts = {_context(each): each.id for each in texts}
  if len(contexts) > 1:
    one, other = list(contexts.values())[:2]
    raise ValueError(
      f'dialogues {one} and {other} have different system turns, but the '
      'probes use a single one: give all dialogues the same system turn'
    )
  return next(iter(contexts), '')


def with_context(trajectory: Trajectory, context: str) -> Trajectory:
  """Returns a trajectory with its system turns replaced by a context.

  Args:
    trajectory: a dialogue.
    context: system prompt, or '' for none.
  """
  # Remove the old system turns, wherever they are.
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
