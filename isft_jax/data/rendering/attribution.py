"""Author of each stretch of a rendered conversation.

The text of a message belongs to the author of the message. An agent's turn also
includes the template's text between the end of the generation header and the
end-of-turn marker, for example the syntax of a tool call:

    <|im_start|>assistant\\n  <tool_call>{"name": "f"}<|im_end|>  \\n
    t                        a                                  t

Otherwise L_do would teach the model when to call a tool and when to stop.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from isft_jax.data.rendering.chat_template import Origin, Stretch
from isft_jax.types import Part, Provenance, Segment, Trajectory, Verdict


class Span(NamedTuple):
  """Consecutive characters of one author in one turn."""

  text: str
  provenance: Provenance
  segment: int  # index of the turn
  verdict: Verdict = Verdict.UNKNOWN
  # Whether the characters come from a message or a tool schema. If not, the
  # template wrote them.
  written: bool = False


# Markers such as <|im_end|> and <turn|>, in case the tokenizer has no special
# token for them. U+FF5C is the bar of DeepSeek's markers.
_LIKE_A_MARKER = r'<[|\uff5c][^<>\s]{1,40}>|<[^<>\s]{1,40}[|\uff5c]>'
_ROLES = 'system|developer|user|assistant|tool|model|human|environment|ipython'


# Text of every message in the conversations from which a template is learned.
# No template contains it.
WORD = 'zqj'


class TemplateProfile:
  """Splits a rendering by author, using a template's turn headers and ends."""

  def __init__(
    self, ended: str, open: str, special: re.Pattern, closer: str = ''
  ) -> None:
    """Derives headers and markers from two renderings made by `learn`.

    Args:
      ended: rendering of a conversation.
      open: rendering of the same conversation with a generation prompt. The
        prompt is the text that it adds to `ended`.
      special: pattern of the texts of the tokenizer's special tokens.
      closer: the text after the agent's words that does not depend on the next
        turn.
    """
    marker = f'{special.pattern}|{_LIKE_A_MARKER}'
    # A marker, the role name after it, and the white space after that.
    self._protocol = re.compile(rf'(?:{marker})(?:[ \t]*(?:{_ROLES})\b)?\s*')
    # Group 1 is the text of a system turn, such as a default system prompt.
    self._context = re.compile(
      rf'(?:{marker})[ \t]*(?:system|developer)\b\s*(?:(?:{marker})\s*)?'
      rf'(.*?)(?={marker}|\Z)',
      re.DOTALL,
    )
    # Text may be cut after a marker or after white space, but not inside of a
    # word or a marker.
    bounds = re.compile(rf'{marker}|(?<=\S)\s+')
    # Both renderings agree up to the place where the generation prompt begins.
    shared = ended[: common_prefix(ended, open)]
    # Some templates close a conversation that the agent does not continue.
    if shared != ended:
      cuts = [m.end() for m in bounds.finditer(shared)]
      shared = shared[: max(cuts, default=0)]
    # The generation prompt, which is also the header of the agent's turns.
    self.prompt = prompt = open[len(shared) :]
    # White space after the end marker is protocol, and `_late_end` skips it.
    self._closer = closer.rstrip()
    self._marker = re.compile(marker)
    # Lengths of the beginnings of the prompt that may be a header by
    # themselves.
    self._cuts = {len(prompt)} | {m.end() for m in bounds.finditer(prompt)}

  @classmethod
  def learn(
    cls,
    apply: Callable[..., str],
    before: list[dict],
    special: re.Pattern,
    tools: Sequence[Mapping] | None = None,
  ) -> 'TemplateProfile | None':
    """Learns a template's profile from its rendering of a short conversation.

    Args:
      apply: (messages, tools, **arguments) -> text, rendered by transformers.
      before: messages after which the agent may write.
      special: pattern of the texts of the tokenizer's special tokens.
      tools: schemas of the tools.

    Returns:
      The profile, or None if the template refuses the conversation.
    """
    # The words of the agent's turn are WORD too, which no template contains.
    agent = Segment('assistant', WORD, Provenance.AGENT).message()
    try:
      ended = apply(before, tools)
      open = apply(before, tools, add_generation_prompt=True)
    except Exception:  # a template can raise any error
      return None
    # The closer is optional: a template may refuse the longer conversations.
    closer = ''
    with contextlib.suppress(Exception):
      last, followed = (
        apply([*before, agent, *more], tools) for more in ([], before)
      )
      # The text after the agent's words counts only if it is the same at the
      # end of the conversation and before another turn.
      words = ended.count(WORD) + 1
      if last.count(WORD) == words:
        rest = [text.split(WORD, words)[-1] for text in (last, followed)]
        closer = rest[0] if rest[1].startswith(rest[0]) else ''
    return cls(ended, open, special, closer)

  def spans(
    self, trajectory: Trajectory, stretches: Sequence[Stretch]
  ) -> list[Span]:
    """Splits a rendered conversation into spans of one author.

    Args:
      trajectory: the conversation.
      stretches: its rendering; every origin is known.

    Returns:
      The spans in order; their joined text is the rendering.
    """
    # First and last stretch of each turn: its header and its end.
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, (_, origin, home) in enumerate(stretches):
      assert origin is not None  # `fidelity.count_losses` rejects the others
      # A tool's name belongs to the turn that shows it, not to the turn of the
      # call.
      turn = home if origin.field == 'name' else origin.turn
      first.setdefault(turn, i)
      last[turn] = i

    spans, turn = [], 0
    open_turn = None  # a turn of the agent that still lacks its end marker
    for i, (text, origin, home) in enumerate(stretches):
      assert origin is not None
      is_literal = origin.field == 'literal'
      # Some templates write the end of a turn at the beginning of the next one.
      if open_turn is not None and is_literal:
        segment = trajectory.segments[open_turn]
        ending, text = self._late_end(text, segment, open_turn)
        spans += ending
      open_turn = None
      # A tool's result may show the name of the call. It is then protocol.
      if origin.field == 'name' and home != origin.turn:
        origin, is_literal = Origin(home, 'literal'), True
      # Text of no turn: tool schemas, default system prompts, text around the
      # turns.
      if origin.turn < 0:
        spans += self._outside(text, origin.field == 'tools', turn)
        continue
      turn = origin.turn
      segment = trajectory.segments[turn]
      # Values of messages belong to their authors; literals depend on the role.
      if not is_literal:
        spans.append(_written(text, segment, origin, turn))
        if segment.in_agents_slot and i == last[turn]:
          open_turn = turn
      elif segment.role in ('system', 'developer'):
        spans += self._outside(text, False, turn)
      elif segment.in_agents_slot:
        # Header: protocol. Up to the end marker: the agent. Then protocol.
        start = self._header(text) if i == first[turn] else 0
        stop = _end(text, start) if i == last[turn] else len(text)
        spans += self._around(text[:start], turn)
        spans.append(_all_of(text[start:stop], segment, turn))
        spans.append(Span(text[stop:], Provenance.TEMPLATE, turn))
        is_open = not self._marker.search(text, start)
        open_turn = turn if is_open and i == last[turn] else None
      else:
        # A turn of a user or a tool.
        spans += self._around(text, turn)
    # Empty spans come from headers or ends that do not exist.
    return [span for span in spans if span.text]

  def _header(self, text: str) -> int:
    """Returns the end of the generation header in the first text of a turn."""
    # The generation prompt may be longer than the header of a finished turn:
    # try its beginnings, the longest first.
    for cut in sorted(self._cuts - {0}, reverse=True):
      head = self.prompt[:cut]
      start = text.find(head)
      if start >= 0:
        return start + cut
      # The first turn has no separator before its header.
      if head.strip() and text.startswith(head.lstrip()):
        return len(head.lstrip())
    return 0

  def _late_end(
    self, text: str, segment: Segment, turn: int
  ) -> tuple[list[Span], str]:
    """Returns the spans that end the previous turn, and the rest of `text`."""
    start = len(text) - len(text.lstrip())
    if not self._closer or not text.startswith(self._closer, start):
      return [], text
    stop = start + len(self._closer)
    # White space after the end of a turn is protocol.
    rest = text[stop:].lstrip()
    space = text[stop : len(text) - len(rest)]
    return [
      _all_of(text[:stop], segment, turn),
      Span(space, Provenance.TEMPLATE, turn),
    ], rest

  def _outside(self, text: str, written: bool, turn: int) -> list[Span]:
    """Splits text of a system turn, or of no turn: context except markers."""
    if written:
      # A tool schema comes from the records, and is context as a whole.
      return [Span(text, Provenance.CONTEXT, turn, written=True)]
    markers = [match.span() for match in self._protocol.finditer(text)]
    return _split(text, markers, Provenance.TEMPLATE, Provenance.CONTEXT, turn)

  def _around(self, text: str, turn: int) -> list[Span]:
    """Splits a turn's literals: protocol except a default system prompt."""
    # `_context` needs one of these words, so most texts need no search.
    if 'system' not in text and 'developer' not in text:
      return [Span(text, Provenance.TEMPLATE, turn)]
    defaults = [match.span(1) for match in self._context.finditer(text)]
    return _split(text, defaults, Provenance.CONTEXT, Provenance.TEMPLATE, turn)


def common_prefix(a: str, b: str) -> int:
  """Returns the length of the longest common prefix of two texts."""
  pairs = enumerate(zip(a, b, strict=False))
  return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _end(text: str, start: int) -> int:
  """Returns the end of the end-of-turn marker in the last text of a turn.

  White space after a marker is protocol. If there is only white space, it is
  the marker itself, as the newline of the plain format.
  """
  stop = len(text.rstrip())
  return stop if stop > start else len(text)


def _split(
  text: str,
  ranges: Iterable[tuple[int, int]],
  inside: Provenance,
  outside: Provenance,
  turn: int,
) -> list[Span]:
  """Splits text at (start, stop) ranges, with an author inside and outside."""
  # Alternate between outside and inside.
  spans, done = [], 0
  for start, stop in ranges:
    spans.append(Span(text[done:start], outside, turn))
    spans.append(Span(text[start:stop], inside, turn))
    done = stop
  return [*spans, Span(text[done:], outside, turn)]


def _all_of(text: str, segment: Segment, turn: int) -> Span:
  """Returns a span by the author of a turn."""
  return Span(text, segment.provenance, turn, segment.verdict)


def _written(text: str, segment: Segment, origin: Origin, turn: int) -> Span:
  """Returns a span of a turn's value, by its author or by a span's author."""
  # Number 0 is the message itself; number n is its n-th span by another author.
  author: Segment | Part = segment
  if origin.field == 'content' and origin.number:
    author = segment.parts[origin.number - 1]
  return Span(text, author.provenance, turn, author.verdict, written=True)
