"""Detects the format of a row and reads it.

A format is a module with `matches(value)`, `read(value)`, `WANTS`, a line for
error messages, and `USES`, the keys of a message that `read` uses. It may have
`PARTS`, the keys that it uses of each part of a list of content.

To add a format, write a module like `sharegpt.py` and list it here. Formats are
detected by their keys; `--format` overrides. A row that matches two formats is
malformed, except that some formats yield to more specific ones.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Set
from types import ModuleType
from typing import NamedTuple

from isft_jax.data.files import strict_json
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
  prompt_completion,
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
from isft_jax.data.messages import media, usage
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed, kind, outline
from isft_jax.data.messages.normalize import find
from isft_jax.data.messages.tools import json_or_text
from isft_jax.types import Example, Trajectory

# Names for --format, in the order of error messages.
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
  'prompt_completion': prompt_completion,
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
# Key of a row's own values for the chat template.
_TEMPLATE_VALUES = 'chat_template_kwargs'
# Keys of a row's own id; the first that is present counts.
_IDS = ('id', 'instance_id', 'trajectory_id', 'traj_id', 'uuid')


class Parsed(NamedTuple):
  """A row that was read, with what was not read of it."""

  result: Trajectory | Example  # an example if the row has tokens
  unused: frozenset[str]  # paths of keys that nothing used; see `usage`
  left_out: Mapping[str, int]  # turns left out on purpose, by kind
  # Marks with values that have no meaning; see `usage.misread`.
  misread: frozenset[str] = frozenset()


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
  return parse(value, id, format, rules).result


def parse(
  value: object,
  id: str,
  format: str,
  rules: Rules,
  template_names: Set[str] = frozenset(),
) -> Parsed:
  """Reads a row, and finds its keys that nothing uses.

  Args:
    value: the JSON value of the row.
    id: as in `read`.
    format: as in `read`.
    rules: as in `read`.
    template_names: names in the chat template, which uses keys of messages.

  Returns:
    The result of `read`, with what was not read.

  Raises:
    Malformed: as in `read`.
    ValueError: as in `read`.
  """
  if format not in NAMES:
    raise ValueError(
      f'format must be one of {", ".join(NAMES)} (got {format!r})'
    )
  media.check_row(value)
  id_key = _id_key(value)
  # A rules file may describe a layout that no format has.
  left_out = Counter[str]()
  if rules.layout.messages:
    value = rules.layout.moved(value)
    # Formats are detected by the roles, which rules may give.
    others = {k: v for k, v in value.items() if k != 'messages'}
    messages, dropped = rules.edited(value['messages'], 'role', others, {})
    value = {**others, 'messages': messages}
    left_out.update(dropped)
  if format == 'auto':
    format = _detect(value)
  # Token ids have no turns, so that no rules apply to them.
  if format == 'tokens':
    used = usage.Used(token_ids.USES | {id_key})
    example = token_ids.read(value, id)
    fields = value if isinstance(value, dict) else {}
    return Parsed(example, usage.unused(fields, (), used), left_out)
  adapter = FORMATS[format]
  # Edits come first, because they give the roles that the format expects.
  if rules.edits and not rules.layout.messages:
    value = _edited(value, adapter, rules, left_out)
  # Read the turns, then apply the rules for authors.
  row = adapter.read(value)
  has_ids = isinstance(row, token_ids.TokenChat)
  read_turns = row.chat if has_ids else row
  chat = rules.chat(read_turns)
  # Tokens that are given cannot be left out without changing the sequence.
  if has_ids and len(chat.turns) < len(read_turns.turns):
    raise Malformed('a rule leaves out a turn, but the row has its token ids')
  left_out.update(chat.left_out)
  trajectory = rules.trajectory(id, chat)

  # The row's own values for the chat template.
  values = _template_values(chat.metadata)
  if values:
    trajectory = dataclasses.replace(trajectory, template_values=values)
  # Keys that nothing uses.
  row_keys, message_keys = rules.keys()
  used = usage.Used(
    row_keys | {id_key, _TEMPLATE_VALUES},
    adapter.USES | message_keys,
    getattr(adapter, 'PARTS', frozenset()),
    template_names,
  )
  authors = [segment.provenance for segment in trajectory.segments]
  turns = [*zip(chat.turns, authors, strict=True)]
  unused = usage.unused(chat.metadata, turns, used)
  misread = usage.misread(turns, used.message)
  unused |= {
    f'row.{_TEMPLATE_VALUES}.{name}' for name in values.keys() - template_names
  }
  _check_json(trajectory)
  # A trajectory to render, or an example with the tokens of the row.
  result: Trajectory | Example = trajectory
  if has_ids:
    result = token_ids.example(id, row, trajectory)
  return Parsed(result, unused, left_out, misread)


def id_of(value: object, stem: str, number: int) -> str:
  """Returns a row's own id, or 'stem:number'.

  Args:
    value: the JSON value of the row.
    stem: stem of the file's name.
    number: number of the row.
  """
  key = _id_key(value)
  row = value if isinstance(value, dict) else {}
  return str(row[key]) if key else f'{stem}:{number}'


def _id_key(value: object) -> str:
  """Returns the key of a row's own id, or ''."""
  row = value if isinstance(value, dict) else {}
  # Numbers are accepted, because ids of tables are often integers.
  for key in _IDS:
    own = row.get(key)
    if type(own) is int or (isinstance(own, str) and own):
      return key
  return ''


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


def _check_json(trajectory: Trajectory) -> None:
  """Raises Malformed for values that templates cannot write as JSON."""
  for i, segment in enumerate(trajectory.segments):
    if what := strict_json.first_no_json(segment.fields):
      raise Malformed(f'turn {i}: holds {what}')
  if what := strict_json.first_no_json([*(trajectory.tools or ())]):
    raise Malformed(f'a tool holds {what}')


def _detect(value: object) -> str:
  names = matching(value)
  if len(names) == 1:
    return names[0]
  if names:
    raise Malformed(
      f'the row fits {" and ".join(names)}; name one of them with --format'
    )
  # Such a CSV or table is common, and may be a text of a base model.
  if prompt_completion.is_of_texts(value):
    raise Malformed(
      f'no format fits: the row has {outline(value)}; '
      '--format=prompt_completion reads two texts as a question and its answer'
    )
  # What each format wants is too long; `--format` tells it for one of them.
  raise Malformed(
    f'no format fits: the row has {outline(value)}. The formats are '
    f'{", ".join(FORMATS)}; name one with --format to see what it wants'
  )


def _edited(
  value: object, adapter: ModuleType, rules: Rules, left_out: Counter[str]
) -> object:
  """Returns a row after rules that rename roles and leave messages out.

  Args:
    value: the JSON value of the row. It is not changed.
    adapter: its format. A format without a list of messages is left to
      `Rules.chat`.
    rules: the rules.
    left_out: counts of messages left out; it is updated.
  """
  # Only formats with one list of messages can be edited here.
  keys: tuple[str, ...] = getattr(adapter, 'KEYS', ())
  has: tuple[str, ...] = getattr(adapter, 'HAS', ())
  match = find(value, keys, has) if keys and has else None
  if not match:
    return value
  key, messages = match
  metadata = value if isinstance(value, dict) else {}
  metadata = {k: v for k, v in metadata.items() if k != key}
  # A format may have names of its own for the roles of chat templates.
  roles = getattr(adapter, 'ROLES', {})
  roles = roles if isinstance(roles, Mapping) else {}
  names = {own: name for name, own in roles.items() if own not in roles}
  edited, dropped = rules.edited(messages, has[0], metadata, names)
  left_out.update(dropped)
  return {**metadata, key: edited} if isinstance(value, dict) else edited


def _template_values(metadata: Mapping) -> dict:
  """Returns a row's own values for the chat template, as TRL reads them."""
  values = json_or_text(metadata.get(_TEMPLATE_VALUES))
  if not values:
    return {}
  if not isinstance(values, dict):
    raise Malformed(
      f'{_TEMPLATE_VALUES} is {kind(values)}, expected an object of values for '
      'the chat template'
    )
  if what := strict_json.first_no_json(values):
    raise Malformed(f'{_TEMPLATE_VALUES} holds {what}')
  # Tables store absent values as null.
  return {key: v for key, v in values.items() if v is not None}
