"""Who wrote each stretch of a rendered conversation.

A message's words belong to whoever wrote the message. Of the template's own
text, an agent's turn is everything from the end of the generation header to the
end-of-turn marker: the syntax of a tool call is the agent's, whoever typed it.

    <|im_start|>assistant\\n  <tool_call>{"name": "f"}<|im_end|>  \\n
    t                        a                                  t

Else L_do would teach the model when to call a tool, and when to stop.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from isft_jax.data.rendering.chat_template import Origin, Stretch
from isft_jax.types import Part, Provenance, Segment, Trajectory, Verdict


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


# The agent's words in the conversations that a template is learned from.
WORD = 'zqj'


class TemplateProfile:
  """How one template opens and closes the agent's turns, and who wrote what."""

  def __init__(
    self, ended: str, open: str, special: re.Pattern, closer: str = ''
  ) -> None:
    """Takes apart what the template renders; `learn` renders it.

    Args:
      ended: a conversation.
      open: the same conversation where the agent is to write next. The text
        that it adds to `ended` is the generation prompt.
      special: finds the texts of the tokenizer's special tokens.
      closer: the text after the agent's words, whatever follows them.
    """
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
    shared = ended[: common_prefix(ended, open)]
    if shared != ended:  # the template closes what the agent does not continue
      cuts = [m.end() for m in bounds.finditer(shared)]
      shared = shared[: max(cuts, default=0)]
    self.prompt = prompt = open[len(shared) :]
    self._closer = closer.rstrip()
    self._marker = re.compile(marker)
    self._cuts = {len(prompt)} | {m.end() for m in bounds.finditer(prompt)}

  @classmethod
  def learn(
    cls,
    apply: Callable[..., str],
    before: list[dict],
    special: re.Pattern,
    tools: Sequence[Mapping] | None = None,
  ) -> 'TemplateProfile | None':
    """Learns from how the template renders a short conversation.

    Args:
      apply: (messages, tools, **arguments) -> text, by transformers.
      before: messages after which the agent may write.
      special: finds the texts of the tokenizer's special tokens.
      tools: schemas of the tools.

    Returns:
      None if the template refuses the conversation.
    """
    agent = Segment('assistant', WORD, Provenance.AGENT).message()
    try:
      ended = apply(before, tools)
      open = apply(before, tools, add_generation_prompt=True)
    except Exception:  # templates are programs that anyone wrote
      return None
    closer = ''
    with contextlib.suppress(Exception):
      last, followed = (
        apply([*before, agent, *more], tools) for more in ([], before)
      )
      # The text after the agent's words, if it is the same before another turn.
      words = ended.count(WORD) + 1
      if last.count(WORD) == words:
        rest = [text.split(WORD, words)[-1] for text in (last, followed)]
        closer = rest[0] if rest[1].startswith(rest[0]) else ''
    return cls(ended, open, special, closer)

  def spans(
    self, trajectory: Trajectory, stretches: Sequence[Stretch]
  ) -> list[Span]:
    """Returns the rendered text as spans, in order."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, (_, origin, home) in enumerate(stretches):
      assert origin is not None  # as `fidelity` has checked
      turn = home if origin.field == 'name' else origin.turn
      first.setdefault(turn, i)
      last[turn] = i

    spans, turn = [], 0
    open_turn = None  # of the agent, whose end is not written yet
    for i, (text, origin, home) in enumerate(stretches):
      assert origin is not None
      is_literal = origin.field == 'literal'
      if open_turn is not None and is_literal:
        segment = trajectory.segments[open_turn]
        ending, text = self._late_end(text, segment, open_turn)
        spans += ending
      open_turn = None
      if origin.field == 'name' and home != origin.turn:
        # The name of another turn's call: as good as a literal of this one.
        origin, is_literal = Origin(home, 'literal'), True
      if origin.turn < 0:
        spans += self._outside(text, origin.field == 'tools', turn)
        continue
      turn = origin.turn
      segment = trajectory.segments[turn]
      if not is_literal:
        spans.append(_written(text, segment, origin, turn))
        if segment.in_agents_slot and i == last[turn]:
          open_turn = turn
      elif segment.role in ('system', 'developer'):
        spans += self._outside(text, False, turn)
      elif segment.in_agents_slot:
        start = self._header(text) if i == first[turn] else 0
        stop = _end(text, start) if i == last[turn] else len(text)
        spans += self._around(text[:start], turn)
        spans.append(_all_of(text[start:stop], segment, turn))
        spans.append(Span(text[stop:], Provenance.TEMPLATE, turn))
        is_open = not self._marker.search(text, start)
        open_turn = turn if is_open and i == last[turn] else None
      else:
        spans += self._around(text, turn)
    return [span for span in spans if span.text]

  def _header(self, text: str) -> int:
    """Returns where the generation header ends in the head of a turn."""
    for cut in sorted(self._cuts - {0}, reverse=True):
      head = self.prompt[:cut]
      start = text.find(head)
      if start >= 0:
        return start + cut
      # What separates turns is missing before the first.
      if head.strip() and text.startswith(head.lstrip()):
        return len(head.lstrip())
    return 0

  def _late_end(
    self, text: str, segment: Segment, turn: int
  ) -> tuple[list[Span], str]:
    """Returns the end of a turn that what follows it writes, and the rest."""
    start = len(text) - len(text.lstrip())
    if not self._closer or not text.startswith(self._closer, start):
      return [], text
    stop = start + len(self._closer)
    rest = text[stop:].lstrip()
    space = text[stop : len(text) - len(rest)]
    return [
      _all_of(text[:stop], segment, turn),
      Span(space, Provenance.TEMPLATE, turn),
    ], rest

  def _outside(self, text: str, written: bool, turn: int) -> list[Span]:
    """A system turn, or no turn: context, but for the protocol's markers."""
    if written:
      return [Span(text, Provenance.CONTEXT, turn, written=True)]
    markers = [match.span() for match in self._protocol.finditer(text)]
    return _split(text, markers, Provenance.TEMPLATE, Provenance.CONTEXT, turn)

  def _around(self, text: str, turn: int) -> list[Span]:
    """Around the world's words: protocol, but for a default system prompt."""
    if 'system' not in text and 'developer' not in text:
      return [Span(text, Provenance.TEMPLATE, turn)]
    defaults = [match.span(1) for match in self._context.finditer(text)]
    return _split(text, defaults, Provenance.CONTEXT, Provenance.TEMPLATE, turn)


def common_prefix(a: str, b: str) -> int:
  """Returns how many characters two texts share at their beginnings."""
  pairs = enumerate(zip(a, b, strict=False))
  return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _end(text: str, start: int) -> int:
  """Returns where the end-of-turn marker ends in the tail of a turn.

  White space after a marker is protocol; where there is nothing else, it is
  the marker, as the newline of the plain format.
  """
  stop = len(text.rstrip())
  return stop if stop > start else len(text)


def _split(
  text: str,
  found: Iterable[tuple[int, int]],
  inside: Provenance,
  outside: Provenance,
  turn: int,
) -> list[Span]:
  spans, done = [], 0
  for start, stop in found:
    spans.append(Span(text[done:start], outside, turn))
    spans.append(Span(text[start:stop], inside, turn))
    done = stop
  return [*spans, Span(text[done:], outside, turn)]


def _all_of(text: str, segment: Segment, turn: int) -> Span:
  return Span(text, segment.provenance, turn, segment.verdict)


def _written(text: str, segment: Segment, origin: Origin, turn: int) -> Span:
  author: Segment | Part = segment
  if origin.field == 'content' and origin.number:
    author = segment.parts[origin.number - 1]
  return Span(text, author.provenance, turn, author.verdict, written=True)
