"""Table of the sample replies of a run: a row per prompt, a column per step.

A run may have thousands of replies. The table has a few prompts, a few steps
and the beginning of each text, and samples.jsonl has everything.
"""

import json
import os
import pathlib
from collections.abc import Sequence

from etils import epath

from isft_jax import samples_file
from isft_jax.report.document import Block
from isft_jax.report.escapes import visible_line
from isft_jax.report.tables import Cell, Table

_PROMPTS, _STEPS = 12, 6
_CHARACTERS = 300  # of a prompt or a reply


def read(workdir: str | os.PathLike) -> Block | None:
  """Reads samples.jsonl of a workdir; None if it has no reply.

  Damaged lines are left out: a run may be writing the last one.

  Raises:
    OSError: the file cannot be read.
  """
  path = pathlib.Path(workdir) / samples_file.NAME
  if not path.is_file():
    return None
  # Prompt as JSON -> its cell, and step -> beginning of the reply.
  shown: dict[str, tuple[str | Cell, dict[int, str]]] = {}
  prompts, steps = set(), set()
  for line in samples_file.lines(epath.Path(path)):
    for row in line.rows:
      key = _key(row['prompt'])
      prompts.add(hash(key))
      steps.add(row['step'])
      if key not in shown and len(shown) < _PROMPTS:
        shown[key] = _prompt(row['prompt']), {}
      # A step that was sampled again counts once.
      if key in shown:
        shown[key][1][row['step']] = row['reply'][: _CHARACTERS + 1]
  if not shown:
    return None
  columns = spread(sorted(steps), _STEPS)
  rows = [
    (prompt, *(_reply(replies.get(step)) for step in columns))
    for prompt, replies in shown.values()
  ]
  header = ('prompt', *(f'step {step:,}' for step in columns))
  return Block(
    Table('Sample replies', header, rows),
    note=_note(len(prompts), len(shown), len(steps), len(columns)),
  )


def spread(values: Sequence[int], number: int) -> list[int]:
  """Returns up to `number` values, evenly spaced, with the first and last."""
  if len(values) <= number:
    return [*values]
  last = len(values) - 1
  return [values[round(i * last / (number - 1))] for i in range(number)]


def _key(prompt: str | list) -> str:
  """Returns what tells a prompt from others."""
  try:
    return json.dumps(prompt)
  except RecursionError:
    return 'lists in lists'


def _note(prompts: int, shown: int, steps: int, columns: int) -> str:
  note = 'Greedy replies to the prompts of --samples.'
  if shown < prompts or columns < steps:
    note += (
      f' Shown: {shown} of {prompts:,} prompts at {columns} of {steps:,} '
      f'steps; {samples_file.NAME} has all.'
    )
  return note


def _prompt(prompt: str | list) -> str | Cell:
  text = _beginning(samples_file.prompt_text(prompt))
  if isinstance(prompt, list) and len(prompt) > 1:
    return Cell(text, small=f'last of {len(prompt):,} messages')
  return text


def _reply(reply: str | None) -> str | Cell:
  if not reply:
    return Cell('', small='not asked' if reply is None else 'empty reply')
  return _beginning(reply)


def _beginning(text: str) -> str:
  if len(text) > _CHARACTERS:
    text = f'{text[:_CHARACTERS]}\N{HORIZONTAL ELLIPSIS}'
  return visible_line(text)
