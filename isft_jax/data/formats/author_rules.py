"""Who wrote a turn, by rules that are data.

    {"rules": [{"when": {"role": "assistant", "row.source": "human"},
                "author": "DEMONSTRATION"},
               {"when": {"role": "user", "content": {"matches": "^Retry:"}},
                "author": "HARNESS"}]}

In order: what the message says itself, the first rule that matches, what the
format knows, the role. Nothing is guessed: a turn that none of them decides
makes its row malformed.
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


Answer = TypeVar('Answer', Provenance, Verdict)


class Rule(NamedTuple):
  """What it says of the messages for which every predicate holds."""

  when: tuple[Predicate, ...]
  author: Provenance | None
  verdict: Verdict | None


@dataclasses.dataclass(frozen=True)
class Rules:
  """Rules, first to last: the first that decides a question decides it."""

  rules: tuple[Rule, ...] = ()

  @classmethod
  def default(cls) -> 'Rules':
    """Returns no rules: messages, formats and roles decide."""
    return cls()

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'Rules':
    """Returns the rules of a JSON file.

    Raises ValueError that names the file and the rule; OSError if it cannot be
    opened.
    """
    try:
      content = strict_json.parse(pathlib.Path(path).read_text('utf-8-sig'))
      if not isinstance(content, dict) or content.keys() != {'rules'}:
        raise ValueError('expected {"rules": [...]} and no other key')
      if not isinstance(content['rules'], list):
        raise ValueError(f'rules is {kind(content["rules"])}, expected a list')
      return cls(tuple(_rule(r, i) for i, r in enumerate(content['rules'], 1)))
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None

  def to_json(self) -> dict:
    """Returns the rules as `load` takes them, in one spelling."""
    return {'rules': [_as_json(rule) for rule in self.rules]}

  def describe(self) -> str:
    """Returns the rules in force, a line each, the first to decide first."""
    lines = [('a message says so', 'its author, verdict, spans')]
    for rule in self.rules:
      said = [m.name for m in (rule.author, rule.verdict) if m is not None]
      when = ' and '.join(map(str, rule.when)) or 'any message'
      lines.append((when, ', '.join(said)))
    lines.append(('the format knows', 'as swe_agent of observations and demos'))
    for author in dict.fromkeys(ROLES.values()):
      roles = [role for role, by in ROLES.items() if by == author]
      lines.append((f'role {", ".join(roles)}', author.name))
    lines.append(('any other role', 'the row is malformed'))
    width = max(len(when) for when, _ in lines)
    return '\n'.join(f'{when:{width}}  {said}' for when, said in lines)

  def trajectory(self, id: str, chat: Chat) -> Trajectory:
    """Returns the trajectory of a row, each turn with its author.

    Raises Malformed, naming the turn, where an author would be a guess.
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
    matching = [r for r in self.rules if all(p.holds(view) for p in r.when)]
    author = _first(
      annotations.author(turn.found, i),
      *(rule.author for rule in matching),
      turn.author,
      ROLES.get(role),
    )
    if author is None:
      raise Malformed(
        f'turn {i}: no author for role {quoted(role)}; give a rule in --authors'
      )
    verdict = _first(
      annotations.verdict(turn.found.get('verdict')),
      *(rule.verdict for rule in matching),
    )
    verdict = Verdict.UNKNOWN if verdict is None else verdict
    parts = annotations.parts(turn.found, text, i)
    return Segment(role, text, author, verdict, parts, fields)


def _first(*answers: Answer | None) -> Answer | None:
  return next((answer for answer in answers if answer is not None), None)


def _view(turn: Turn, metadata: Mapping) -> dict:
  """What predicates see: the message as found, with role and text always."""
  view = {**turn.message, **turn.found, 'row': metadata}
  if isinstance(turn.found.get('content'), list):
    view['content'] = turn.message['content']
  return view


def _rule(rule: object, i: int) -> Rule:
  try:
    if not isinstance(rule, dict) or not isinstance(rule.get('when'), dict):
      raise ValueError('expected {"when": {...}, "author": "..."}')
    unknown = rule.keys() - {'when', 'author', 'verdict'}
    if unknown:
      raise ValueError(
        f'unknown {", ".join(sorted(unknown))}; expected when, author, verdict'
      )
    if rule.keys() == {'when'}:
      raise ValueError('gives neither author nor verdict')
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
  if key not in rule:
    return None
  name = rule[key]
  if not isinstance(name, str) or name.upper() not in members:
    raise ValueError(f'{key} {name!r}; expected one of {", ".join(members)}')
  return members[name.upper()]


def _as_json(rule: Rule) -> dict:
  said = {'author': rule.author, 'verdict': rule.verdict}
  return {
    'when': dict(sorted(rule.when)),
    **{key: m.name for key, m in said.items() if m is not None},
  }
