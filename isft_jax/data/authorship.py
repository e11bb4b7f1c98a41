"""Who wrote each stretch of a rendered conversation.

A message's words belong to whoever wrote the message. Of the template's own
text, an agent's turn is everything from the end of the generation header to the
end-of-turn marker: the syntax of a tool call is the agent's, whoever typed it.

    <|im_start|>assistant\\n  <tool_call>{"name": "f"}<|im_end|>  \\n
    t                        a                                  t

Else L_do would teach the model when to call a tool, and when to stop.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from isft_jax.data.chat import Stretch
from isft_jax.types import Provenance, Segment, Trajectory, Verdict


class Span(NamedTuple):
  """Characters with one author, of one turn.

  written: whether a message holds them, and not only the template.
  """

  text: str
  provenance: Provenance
  segment: int
  verdict: Verdict = Verdict.UNKNOWN
  written: bool = False


# Markers that a tokenizer does not have as special tokens: <|im_end|>, <turn|>.
_LIKE_A_MARKER = r'<[|\uff5c][^<>\s]{1,40}>|<[^<>\s]{1,40}[|\uff5c]>'
_ROLES = 'system|developer|user|assistant|tool|model|human|environment|ipython'


class Authorship:
  """The rules, for one template.

  ended, open: a conversation as the template renders it, and the same where
    the agent is to write next. What is added is the generation prompt.
  special: finds the texts of the tokenizer's special tokens.
  """

  def __init__(self, ended: str, open: str, special: re.Pattern):
    marker = f'{special.pattern}|{_LIKE_A_MARKER}'
    # A marker, with the role that it announces and the white space after it.
    self._protocol = re.compile(rf'(?:{marker})(?:[ \t]*(?:{_ROLES})\b)?\s*')
    self._context = re.compile(
      rf'(?:{marker})[ \t]*(?:system|developer)\b\s*(?:(?:{marker})\s*)?'
      rf'(.*?)(?={marker}|\Z)',
      re.DOTALL,
    )
    # Where text may be cut: not inside of a word or of a marker.
    bounds = re.compile(rf'{marker}|(?<=\S)\s+')
    shared = ended[: _same(ended, open)]
    if shared != ended:  # the template closes what the agent does not continue
      cuts = [m.end() for m in bounds.finditer(shared)]
      shared = shared[: max(cuts, default=0)]
    self.prompt = prompt = open[len(shared) :]
    self._cuts = {len(prompt)} | {m.end() for m in bounds.finditer(prompt)}

  def spans(
    self, trajectory: Trajectory, stretches: Sequence[Stretch]
  ) -> list[Span]:
    """Returns the rendered text as spans, in order."""
    first, last = {}, {}
    for i, (_, origin, _) in enumerate(stretches):
      first.setdefault(origin.turn, i)
      last[origin.turn] = i

    spans, turn = [], 0
    for i, (text, origin, _) in enumerate(stretches):
      if origin.turn < 0:
        spans += self._outside(text, origin.field == 'tools', turn)
        continue
      turn = origin.turn
      segment = trajectory.segments[turn]
      if origin.field != 'literal':
        spans.append(_written(text, segment, origin, turn))
      elif segment.role in ('system', 'developer'):
        spans += self._outside(text, False, turn)
      elif segment.role == 'assistant':
        start = self._header(text) if i == first[turn] else 0
        stop = _end(text, start) if i == last[turn] else len(text)
        author, verdict = segment.provenance, segment.verdict
        spans += [
          Span(text[:start], Provenance.TEMPLATE, turn),
          Span(text[start:stop], author, turn, verdict),
          Span(text[stop:], Provenance.TEMPLATE, turn),
        ]
      else:
        spans += self._around(text, turn)
    return [span for span in spans if span.text]

  def _header(self, text: str) -> int:
    """Returns where the generation header ends in the head of a turn."""
    for cut in sorted(self._cuts, reverse=True):
      start = text.find(self.prompt[:cut]) if cut else -1
      if start >= 0:
        return start + cut
    return 0

  def _outside(self, text: str, written: bool, turn: int) -> list[Span]:
    """A system turn, or no turn: context, but for the protocol's markers."""
    if written:
      return [Span(text, Provenance.CONTEXT, turn, written=True)]
    markers = [match.span() for match in self._protocol.finditer(text)]
    return _split(text, markers, Provenance.TEMPLATE, Provenance.CONTEXT, turn)

  def _around(self, text: str, turn: int) -> list[Span]:
    """Around the world's words: protocol, but for a default system prompt."""
    defaults = [match.span(1) for match in self._context.finditer(text)]
    return _split(text, defaults, Provenance.CONTEXT, Provenance.TEMPLATE, turn)


def _same(a: str, b: str) -> int:
  """Returns how many first characters are the same."""
  pairs = enumerate(zip(a, b, strict=False))
  return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _end(text: str, start: int) -> int:
  """Returns where the end-of-turn marker ends in the tail of a turn.

  White space after a marker is protocol; where there is nothing else, it is
  the marker, as the newline of the plain format.
  """
  stop = len(text.rstrip())
  return stop if stop > start else len(text)


def _split(text, found, inside, outside, turn) -> list[Span]:
  spans, done = [], 0
  for start, stop in found:
    spans.append(Span(text[done:start], outside, turn))
    spans.append(Span(text[start:stop], inside, turn))
    done = stop
  return [*spans, Span(text[done:], outside, turn)]


def _written(text: str, segment: Segment, origin, turn: int) -> Span:
  author = segment
  if origin.field == 'content' and origin.number:
    author = segment.parts[origin.number - 1]
  return Span(text, author.provenance, turn, author.verdict, written=True)
