"""Rules in JSON that decide the author of a turn, and read unknown formats.

    {"rules": [{"when": {"role": "assistant", "row.source": "human"},
                "author": "DEMONSTRATION"},
               {"when": {"role": "user", "content": {"matches": "^Retry:"}},
                "author": "HARNESS"},
               {"when": {"role": "bot_reply"}, "role": "assistant"},
               {"when": {"role": "log"}, "drop": true}]}

The author is decided by the first of: the annotation of the message, the first
rule that matches, the format, the role. If none of them decides, the row is
malformed; nothing is guessed. The verdict is decided by the annotation, the
rules, or a flag of other trainers.

A rule with `role` renames the role, and a rule with `drop` leaves the message
out, before the format reads it. All rules test the name that the row has.
`layout` describes the other keys of a file.
"""

import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from isft_jax.data.files import strict_json
from isft_jax.data.messages import annotations, layout, predicates
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.messages.layout import Layout
from isft_jax.data.messages.predicates import Predicate
from isft_jax.types import Provenance, Segment, Trajectory, Verdict

# Authors by role, for turns without annotation, rule or format's answer.
ROLES = {
  'system': Provenance.CONTEXT,
  'developer': Provenance.CONTEXT,
  'user': Provenance.USER,
  'assistant': Provenance.AGENT,
  'tool': Provenance.TOOL,
  'function': Provenance.TOOL,
  'ipython': Provenance.TOOL,
  'environment': Provenance.TOOL,
}


# Keys of a rule besides `when`.
_ANSWERS = ('author', 'verdict', 'role', 'drop')
# Authors and verdicts are read in the same way.
Answer = TypeVar('Answer', Provenance, Verdict)


class Rule(NamedTuple):
  """Answers for messages that match."""

  when: tuple[Predicate, ...]  # all of them must hold
  author: Provenance | None
  verdict: Verdict | None
  role: str = ''  # the new name of the role; '' does not rename it
  drop: bool = False  # whether the message is left out


@dataclasses.dataclass(frozen=True)
class Rules:
  """Rules in order. The first match decides, for each answer apart.

  Attributes:
    rules: the rules.
    layout: where the messages are, for a format that no module reads.
  """

  rules: tuple[Rule, ...] = ()
  layout: Layout = dataclasses.field(default_factory=Layout)

  @property
  def edits(self) -> bool:
    """Whether a rule renames a role or leaves messages out."""
    return any(rule.role or rule.drop for rule in self.rules)

  def keys(self) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the keys of a row, and those of a message, that rules test."""
    paths = [p.path.split('.') for rule in self.rules for p in rule.when]
    row = {path[1] for path in paths if path[0] == 'row' and len(path) > 1}
    message = {path[0] for path in paths} | self.layout.message_keys()
    return frozenset(row), frozenset(message)

  @classmethod
  def default(cls) -> 'Rules':
    """Returns an empty list of rules: annotations, formats and roles decide."""
    return cls()

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'Rules':
    """Loads rules from a JSON file.

    Args:
      path: the file.

    Raises:
      ValueError: the file is not valid. The message has the file and the rule.
      OSError: the file cannot be opened.
    """
    try:
      content = strict_json.parse(pathlib.Path(path).read_text('utf-8-sig'))
      # Unknown keys are errors: a misspelt rule must not be ignored.
      if not isinstance(content, dict) or not content:
        raise ValueError('expected {"rules": [...]}')
      unknown = content.keys() - {'rules', *layout.KEYS}
      if unknown:
        raise ValueError(
          f'unknown {", ".join(sorted(unknown))}; expected '
          f'{", ".join(("rules", *layout.KEYS))}'
        )
      items = content.get('rules', [])
      if not isinstance(items, list):
        raise ValueError(f'rules is {kind(items)}, expected a list')
      rules = tuple(_rule(rule, i) for i, rule in enumerate(items, 1))
      return cls(rules, Layout.from_json(content))
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None

  def to_json(self) -> dict:
    """Returns the rules in the form of `load`, with normalised spelling."""
    rules = [_as_json(rule) for rule in self.rules]
    return {**self.layout.to_json(), 'rules': rules}

  def describe(self) -> str:
    """Returns all rules as text, one per line, in the order of precedence."""
    # The order in which they decide: annotations, rules, format, role.
    paths = self.layout.to_json()
    lines = [(f'{key} of the rules', path) for key, path in paths.items()]
    lines += [('annotations of the message', 'its author, verdict, spans')]
    for rule in self.rules:
      names = [m.name for m in (rule.author, rule.verdict) if m is not None]
      names += [f'the role {rule.role}'] if rule.role else []
      names += ['left out'] if rule.drop else []
      when = ' and '.join(map(str, rule.when)) or 'any message'
      lines.append((when, ', '.join(names)))
    lines.append(('the format', 'for example observations of swe_agent'))
    # Roles with the same author share a line.
    for author in dict.fromkeys(ROLES.values()):
      roles = [role for role, by in ROLES.items() if by == author]
      lines.append((f'role {", ".join(roles)}', author.name))
    lines.append(('any other role', 'the row is malformed'))
    # Align the second column.
    width = max(len(when) for when, _ in lines)
    return '\n'.join(f'{when:{width}}  {answer}' for when, answer in lines)

  def edited(
    self,
    messages: list,
    role_key: str,
    metadata: Mapping,
    names: Mapping[str, str],
  ) -> tuple[list, Counter[str]]:
    """Applies rules that rename roles and that leave messages out.

    Args:
      messages: the messages as they are in the row. They are not changed.
      role_key: key of the role in a message.
      metadata: all other fields of the row.
      names: names of roles in the format, by their names in chat templates.

    Returns:
      The messages, and the number of messages left out for each role.
    """
    edited, left_out = [], Counter[str]()
    for message in messages:
      # Formats report items that are no messages.
      matching = []
      if isinstance(message, dict):
        role = message.get(role_key)
        view = {**message, 'role': role, 'row': metadata}
        matching = self._matching(view)
      if any(rule.drop for rule in matching):
        left_out[_kind_of(role)] += 1
        continue
      # The format reads the new role. Later rules still see the original one.
      new = _new_role(matching)
      if new:
        message = {
          **message,
          annotations.ORIGINAL_ROLE: role,
          role_key: names.get(new, new),
        }
      edited.append(message)
    return edited, left_out

  def chat(self, chat: Chat) -> Chat:
    """Returns a row after the rules that test the names of chat templates.

    The rules of `edited` see a role as the format writes it, 'human', and these
    see it as chat templates do, 'user'.

    Args:
      chat: the row.
    """
    if not self.edits:
      return chat
    turns, left_out = [], Counter(chat.left_out)
    for turn in chat.turns:
      matching = self._matching(_view(turn, chat.metadata))
      if any(rule.drop for rule in matching):
        left_out[_kind_of(turn.message['role'])] += 1
        continue
      new = _new_role(matching)
      message = {**turn.message, 'role': new} if new else turn.message
      turns.append(turn._replace(message=message))
    return chat._replace(turns=turns, left_out=left_out)

  def trajectory(self, id: str, chat: Chat) -> Trajectory:
    """Returns the trajectory of a row, with the author of each turn.

    Args:
      id: id of the trajectory.
      chat: the turns of the row.

    Raises:
      Malformed: the author of a turn is unknown. The message has the turn.
    """
    segments = tuple(
      self._segment(turn, chat.metadata, i) for i, turn in enumerate(chat.turns)
    )
    tools = None if chat.tools is None else tuple(chat.tools)
    return Trajectory(id, segments, tools)

  def _matching(self, view: Mapping) -> list[Rule]:
    return [r for r in self.rules if all(p.holds(view) for p in r.when)]

  def _segment(self, turn: Turn, metadata: Mapping, i: int) -> Segment:
    fields = dict(turn.message)
    role, text = fields.pop('role'), fields.pop('content')
    # Author: annotation, rules, format, role.
    matching = self._matching(_view(turn, metadata)) if self.rules else []
    author = _first(
      annotations.author(turn.raw, i),
      *(rule.author for rule in matching),
      turn.author,
      ROLES.get(role),
    )
    if author is None:
      raise Malformed(
        f'turn {i}: the author of role {quoted(role)} is unknown; add a rule '
        'with --authors'
      )
    # Verdict: annotation, rules, flag; unknown by default. A flag says whether
    # to imitate the turn, which is a question only for the agent's turns.
    verdict = _first(
      annotations.verdict(turn.raw.get('verdict')),
      *(rule.verdict for rule in matching),
      annotations.flagged(turn.raw) if author == Provenance.AGENT else None,
    )
    verdict = Verdict.UNKNOWN if verdict is None else verdict
    parts = annotations.parts(turn.raw, text, i)
    return Segment(role, text, author, verdict, parts, fields)


def _kind_of(role: object) -> str:
  """Returns the name under which a message that is left out is counted."""
  return role[:40] if isinstance(role, str) else 'no role'


def _new_role(matching: list[Rule]) -> str:
  return next((rule.role for rule in matching if rule.role), '')


def _first(*answers: Answer | None) -> Answer | None:
  """Returns the first answer that is not None."""
  return next((answer for answer in answers if answer is not None), None)


def _view(turn: Turn, metadata: Mapping) -> dict:
  """Returns a message as predicates see it: all fields, and text as content."""
  view = {**turn.message, **turn.raw, 'row': metadata}
  # Rules test the role that the row has, even after a rule renamed it.
  if annotations.ORIGINAL_ROLE in turn.raw:
    view['role'] = turn.raw[annotations.ORIGINAL_ROLE]
  # A content of parts is joined, so that regular expressions can match it.
  if isinstance(turn.raw.get('content'), list):
    view['content'] = turn.message['content']
  return view


def _rule(rule: object, i: int) -> Rule:
  """Parses rule number i of a file."""
  try:
    if not isinstance(rule, dict) or not isinstance(rule.get('when'), dict):
      raise ValueError('expected {"when": {...}, "author": "..."}')
    # A misspelt key must not be ignored.
    unknown = rule.keys() - {'when', *_ANSWERS}
    if unknown:
      raise ValueError(
        f'unknown {", ".join(sorted(unknown))}; expected when, '
        f'{", ".join(_ANSWERS)}'
      )
    if rule.keys() == {'when'}:
      raise ValueError(f'has none of {", ".join(_ANSWERS)}')
    # A new role, or leaving the message out.
    role, drop = rule.get('role', ''), rule.get('drop', False)
    if not isinstance(role, str) or ('role' in rule and not role):
      raise ValueError(f'role is {kind(role)}, expected a name')
    if not isinstance(drop, bool):
      raise ValueError(f'drop is {kind(drop)}, expected true or false')
    return Rule(
      tuple(predicates.check(*item) for item in rule['when'].items()),
      _member(rule, 'author', annotations.AUTHORS),
      _member(rule, 'verdict', annotations.VERDICTS),
      role,
      drop,
    )
  except ValueError as error:
    raise ValueError(f'rule {i}: {error}') from None


def _member(
  rule: Mapping, key: str, members: Mapping[str, Answer]
) -> Answer | None:
  """Returns the author or verdict of a rule, or None if it has none."""
  if key not in rule:
    return None
  name = rule[key]
  if not isinstance(name, str) or name.upper() not in members:
    raise ValueError(
      f'{key} must be one of {", ".join(members)} (got {name!r})'
    )
  return members[name.upper()]


def _as_json(rule: Rule) -> dict:
  # Sorted predicates: equal rules have equal JSON, which data sets compare.
  answers = {'author': rule.author, 'verdict': rule.verdict}
  return {
    'when': dict(sorted(rule.when)),
    **{key: m.name for key, m in answers.items() if m is not None},
    **({'role': rule.role} if rule.role else {}),
    **({'drop': True} if rule.drop else {}),
  }
