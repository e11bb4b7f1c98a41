"""Rules in JSON that decide the author of a turn.

    {"rules": [{"when": {"role": "assistant", "row.source": "human"},
                "author": "DEMONSTRATION"},
               {"when": {"role": "user", "content": {"matches": "^Retry:"}},
                "author": "HARNESS"}]}

The author is decided by the first of: the annotation of the message, the first
rule that matches, the format, the role. If none of them decides, the row is
malformed; nothing is guessed.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from isft_jax.data.files import strict_json
from isft_jax.data.formats import annotations, predicates
from isft_jax.data.formats.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.formats.predicates import Predicate
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


# Rules decide two questions.
Answer = TypeVar('Answer', Provenance, Verdict)


class Rule(NamedTuple):
  """An author, a verdict or both, for messages that match."""

  when: tuple[Predicate, ...]  # all of them must hold
  author: Provenance | None
  verdict: Verdict | None


@dataclasses.dataclass(frozen=True)
class Rules:
  """Rules in order. The first match decides, for author and verdict apart."""

  rules: tuple[Rule, ...] = ()

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
      if not isinstance(content, dict) or content.keys() != {'rules'}:
        raise ValueError('expected {"rules": [...]} and no other key')
      if not isinstance(content['rules'], list):
        raise ValueError(f'rules is {kind(content["rules"])}, expected a list')
      return cls(tuple(_rule(r, i) for i, r in enumerate(content['rules'], 1)))
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None

  def to_json(self) -> dict:
    """Returns the rules in the form of `load`, with normalised spelling."""
    return {'rules': [_as_json(rule) for rule in self.rules]}

  def describe(self) -> str:
    """Returns all rules as text, one per line, in the order of precedence."""
    lines = [('annotations of the message', 'its author, verdict, spans')]
    for rule in self.rules:
      names = [m.name for m in (rule.author, rule.verdict) if m is not None]
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

  def _segment(self, turn: Turn, metadata: Mapping, i: int) -> Segment:
    fields = dict(turn.message)
    role, text = fields.pop('role'), fields.pop('content')
    view = _view(turn, metadata)
    # Author: annotation, rules, format, role.
    matching = [r for r in self.rules if all(p.holds(view) for p in r.when)]
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
    # Verdict: annotation, rules; unknown by default.
    verdict = _first(
      annotations.verdict(turn.raw.get('verdict')),
      *(rule.verdict for rule in matching),
    )
    verdict = Verdict.UNKNOWN if verdict is None else verdict
    parts = annotations.parts(turn.raw, text, i)
    return Segment(role, text, author, verdict, parts, fields)


def _first(*answers: Answer | None) -> Answer | None:
  """Returns the first answer that is not None."""
  return next((answer for answer in answers if answer is not None), None)


def _view(turn: Turn, metadata: Mapping) -> dict:
  """Returns a message as predicates see it: all fields, and text as content."""
  view = {**turn.message, **turn.raw, 'row': metadata}
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
    unknown = rule.keys() - {'when', 'author', 'verdict'}
    if unknown:
      raise ValueError(
        f'unknown {", ".join(sorted(unknown))}; expected when, author, verdict'
      )
    if rule.keys() == {'when'}:
      raise ValueError('has neither author nor verdict')
    return Rule(
      tuple(predicates.check(*item) for item in rule['when'].items()),
      _member(rule, 'author', annotations.AUTHORS),
      _member(rule, 'verdict', annotations.VERDICTS),
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
  }
