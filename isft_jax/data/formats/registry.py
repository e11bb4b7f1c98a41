"""The formats, and the one door to them.

A format is a module with `matches(value)`, `read(value)` and `WANTS`, a line
for messages. To add one, write it beside `sharegpt.py` and list it here. A row
that two formats match is of neither, unless its `--format` is named: only the
plainest, of which others are made, give way to those.
"""

from isft_jax.data.formats import (
  anthropic,
  atif,
  openai,
  react,
  sharegpt,
  swe_agent,
  token_ids,
  turns,
)
from isft_jax.data.formats.author_rules import Rules
from isft_jax.data.formats.conversation import Malformed, outline
from isft_jax.types import Example, Trajectory

FORMATS = {
  'tokens': token_ids,
  'swe_agent': swe_agent,
  'sharegpt': sharegpt,
  'turns': turns,
  'anthropic': anthropic,
  'atif': atif,
  'react': react,
  'openai': openai,
}
NAMES = ('auto', *FORMATS)
_PLAINEST = ('react', 'openai')
_IDS = ('id', 'instance_id', 'trajectory_id', 'traj_id', 'uuid')


def read(
  value: object, id: str, format: str, rules: Rules
) -> Trajectory | Example:
  """Returns what a row holds: a trajectory, or tokens as they are.

  value: of the row. id: of the result. format: one of NAMES.
  Raises Malformed where the row would have to be guessed, ValueError for a
  format that there is not.
  """
  if format not in NAMES:
    raise ValueError(f'format {format!r}; expected one of {", ".join(NAMES)}')
  if format == 'auto':
    format = _detect(value)
  if format == 'tokens':
    return token_ids.read(value, id)
  return rules.trajectory(id, FORMATS[format].read(value))


def id_of(value: object, stem: str, number: int) -> str:
  """Returns a row's own id, or 'stem:number'.

  value: of the row. stem: of the file's name. number: of the row.
  """
  row = value if isinstance(value, dict) else {}
  for key in _IDS:
    own = row.get(key)
    if type(own) is int or (isinstance(own, str) and own):
      return str(own)
  return f'{stem}:{number}'


def is_text(value: object, format: str) -> bool:
  """Whether a row is one text, whose lines are turns. format: one of NAMES."""
  if format != 'auto':
    return format == 'react'
  return react.matches(value) and matching(value) == ['react']


def matching(value: object) -> list[str]:
  """Returns the formats that a row fits: one, if it can be told."""
  found = [name for name, adapter in FORMATS.items() if adapter.matches(value)]
  return [name for name in found if name not in _PLAINEST] or found


def _detect(value: object) -> str:
  found = matching(value)
  if len(found) == 1:
    return found[0]
  if found:
    raise Malformed(
      f'it fits {" and ".join(found)}; name one of them with --format'
    )
  wants = '; '.join(f'{name} wants {a.WANTS}' for name, a in FORMATS.items())
  raise Malformed(f'no format fits: {wants}. The row has {outline(value)}')
