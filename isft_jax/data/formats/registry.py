"""Detects the format of a row and reads it.

A format is a module with `matches(value)`, `read(value)`, `WANTS`, a line for
error messages, and `USES`, the keys of a message that `read` uses. To add a
format, write a module like `sharegpt.py` and list it here. Formats are detected
by their keys; `--format` overrides. A row that matches two formats is
malformed, except that some formats yield to more specific ones.
"""

from isft_jax.data.formats import (
  anthropic,
  atif,
  atif_tokens,
  autogen,
  bedrock,
  claude_code,
  codex,
  completion_log,
  gemini,
  inspect_ai,
  langchain,
  llama_factory,
  mini_swe_agent,
  nebius,
  nemotron,
  openai,
  openhands,
  openhands_sdk,
  react,
  responses,
  rollout_ids,
  sharegpt,
  swe_agent,
  tau2,
  tinker,
  token_ids,
  turns,
  verifiers,
)
from isft_jax.data.formats.author_rules import Rules
from isft_jax.data.formats.conversation import Malformed, outline
from isft_jax.types import Example, Trajectory

# Names for --format. The order matters only in error messages.
FORMATS = {
  'anthropic': anthropic,
  'atif': atif,
  'atif_tokens': atif_tokens,
  'autogen': autogen,
  'bedrock': bedrock,
  'claude_code': claude_code,
  'codex': codex,
  'completion_log': completion_log,
  'gemini': gemini,
  'inspect': inspect_ai,
  'langchain': langchain,
  'llama_factory': llama_factory,
  'mini_swe_agent': mini_swe_agent,
  'nebius': nebius,
  'nemotron': nemotron,
  'openai': openai,
  'openhands': openhands,
  'openhands_sdk': openhands_sdk,
  'react': react,
  'responses': responses,
  'rollout_ids': rollout_ids,
  'sharegpt': sharegpt,
  'swe_agent': swe_agent,
  'tau2': tau2,
  'tinker': tinker,
  'tokens': token_ids,
  'turns': turns,
  'verifiers': verifiers,
}
NAMES = ('auto', *FORMATS)  # values of --format
# Formats whose keys are also keys of more specific formats.
_PLAINEST = ('react', 'openai')
# Formats that yield to others, because their keys are also keys of these.
_YIELDS = {
  'anthropic': ('completion_log', 'inspect', 'mini_swe_agent'),
  'atif': ('atif_tokens',),
  'completion_log': ('mini_swe_agent', 'inspect', 'tau2'),
  'nemotron': ('responses',),
  'prompt_completion': ('completion_log', 'rollout_ids'),
  'responses': ('mini_swe_agent',),
  'turns': ('rollout_ids',),
}
# Keys of a row's own id; the first that is present counts.
_IDS = ('id', 'instance_id', 'trajectory_id', 'traj_id', 'uuid')


def read(
  value: object, id: str, format: str, rules: Rules
) -> Trajectory | Example:
  """Reads a row.

  Args:
    value: the JSON value of the row.
    id: id of the result.
    format: one of `NAMES`; 'auto' detects the format.
    rules: rules for authors.

  Returns:
    A trajectory, or an example if the row has tokens.

  Raises:
    Malformed: the row does not follow its format, or an author is unknown.
    ValueError: the format does not exist.
  """
  if format not in NAMES:
    raise ValueError(
      f'format must be one of {", ".join(NAMES)} (got {format!r})'
    )
  if format == 'auto':
    format = _detect(value)
  # Token ids have no turns, so that no rules apply to them.
  if format == 'tokens':
    return token_ids.read(value, id)
  row = FORMATS[format].read(value)
  # The tokens are given, but rules decide the authors of their turns.
  if isinstance(row, token_ids.TokenChat):
    return token_ids.example(id, row, rules.trajectory(id, row.chat))
  return rules.trajectory(id, row)


def id_of(value: object, stem: str, number: int) -> str:
  """Returns a row's own id, or 'stem:number'.

  Args:
    value: the JSON value of the row.
    stem: stem of the file's name.
    number: number of the row.
  """
  row = value if isinstance(value, dict) else {}
  # Numbers are accepted, because ids of tables are often integers.
  for key in _IDS:
    own = row.get(key)
    if type(own) is int or (isinstance(own, str) and own):
      return str(own)
  return f'{stem}:{number}'


def is_text(value: object, format: str) -> bool:
  """Returns whether a row is read as one text with a turn per line.

  Args:
    value: the JSON value of the row.
    format: one of `NAMES`.
  """
  if format != 'auto':
    return format == 'react'
  # The same rule as in `_detect`: react must be the only match.
  return react.matches(value) and matching(value) == ['react']


def matching(value: object) -> list[str]:
  """Returns the formats that match a row; exactly one if it is detected."""
  names = [name for name, adapter in FORMATS.items() if adapter.matches(value)]
  names = [
    name
    for name in names
    if not any(other in names for other in _YIELDS.get(name, ()))
  ]
  return [name for name in names if name not in _PLAINEST] or names


def _detect(value: object) -> str:
  names = matching(value)
  if len(names) == 1:
    return names[0]
  if names:
    raise Malformed(
      f'the row fits {" and ".join(names)}; name one of them with --format'
    )
  # What each format wants is too long; `--format` tells it for one of them.
  raise Malformed(
    f'no format fits: the row has {outline(value)}. The formats are '
    f'{", ".join(FORMATS)}; name one with --format to see what it wants'
  )
