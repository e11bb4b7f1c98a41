"""Author of each stretch of a rendered conversation.

The text of a message belongs to the author of the message. An agent's turn also
includes the template's text between the end of the generation header and the
end-of-turn marker, for example the syntax of a tool call:

    <|im_start|>assistant\\n  <tool_call>{"name": "f"}<|im_end|>  \\n
    t                        a                                  t

Otherwise L_do would teach the model when to call a tool and when to stop.
"""

import itertools
import re
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from isft_jax.data.rendering.chat_template import Origin, Stretch
from isft_jax.data.rendering.template_profile import (
  LIKE_A_MARKER,
  TemplateProfile,
)
from isft_jax.types import Part, Provenance, Segment, Trajectory, Verdict

_ROLES = 'system|developer|user|assistant|tool|model|human|environment|ipython'


class Span(NamedTuple):
  """Consecutive characters of one author in one turn."""

  text: str
  provenance: Provenance
  segment: int  # index of the turn
  verdict: Verdict = Verdict.UNKNOWN
  # Whether the characters come from a message or a tool schema. If not, the
  # template wrote them.
  written: bool = False


class Attribution:
  """Splits renderings of one template by author."""

  def __init__(self, profile: TemplateProfile, special: re.Pattern) -> None:
    """Compiles the patterns of markers.

    Args:
      profile: headers and stops of the template.
      special: pattern of the texts of the tokenizer's special tokens.
    """
    self._profile = profile
    marker = f'{special.pattern}|{LIKE_A_MARKER}'
    # A marker, the role name after it, and the white space after that.
    self._protocol = re.compile(rf'(?:{marker})(?:[ \t]*(?:{_ROLES})\b)?\s*')
    # Group 1 is the text of a system turn, such as a default system prompt.
    self._context = re.compile(
      rf'(?:{marker})[ \t]*(?:system|developer)\b\s*(?:(?:{marker})\s*)?'
      rf'(.*?)(?={marker}|\Z)',
      re.DOTALL,
    )

  def adopt(
    self, trajectory: Trajectory, stretches: Sequence[Stretch]
  ) -> Sequence[Stretch]:
    """Assigns a last turn that is printed after the loop to that turn.

    Some templates take the agent's last message out of the loop. They print it
    after the loop, as text of no turn.

    Args:
      trajectory: the conversation.
      stretches: its rendering.

    Returns:
      The stretches; those of the last turn have it as their home.
    """
    # Only the last turn can be the agent's message after the loop.
    turn = len(trajectory.segments) - 1
    if turn < 0 or not trajectory.segments[turn].in_agents_slot:
      return stretches
    # The values of the turn that are printed in no turn, and all between them.
    own = [
      i
      for i, (_, origin, home) in enumerate(stretches)
      if home < 0 and origin is not None and origin.turn == turn
    ]
    if not own or not own[0]:
      return stretches
    start, stop = own[0], own[-1] + 1
    if any(stretch.home >= 0 for stretch in stretches[start - 1 : stop]):
      return stretches
    # The text before them has the header, and the text after them the stop.
    before, after = stretches[start - 1], [*stretches[stop : stop + 1]]
    cut = self._profile.last_header(before.text)
    if cut < 0:
      return stretches
    # The header, the values and the stop become stretches of the turn.
    literal = Origin(turn, 'literal')
    turns = [
      Stretch(before.text[:cut], before.origin, -1),
      Stretch(before.text[cut:], literal, turn),
    ]
    for text, origin, _ in stretches[start:stop]:
      is_value = origin is None or origin.turn == turn
      turns.append(Stretch(text, origin if is_value else literal, turn))
    for text, origin, home in after:
      end = self._profile.stop_length(text, 0, '') or len(text)
      end = end if home < 0 else 0
      turns.append(Stretch(text[:end], literal, turn))
      turns.append(Stretch(text[end:], origin, home))
    whole = [*stretches[: start - 1], *turns, *stretches[stop + 1 :]]
    return [stretch for stretch in whole if stretch.text]

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
    segments = trajectory.segments
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

    # State of the walk over the stretches.
    homes = {stretch.home for stretch in stretches}
    spans: list[Span] = []
    turn = 0
    # An agent's turn: characters of its header that are still to come, the
    # template's text in it, and the calls whose name it has shown.
    header, syntax = 0, ''
    named: set[tuple[int, int]] = set()
    open_turn = None  # a turn of the agent that still lacks its stop
    answered_turn = None  # a turn of the agent that shows a tool's answer
    for i, (text, origin, home) in enumerate(stretches):
      assert origin is not None
      is_literal = origin.field == 'literal'
      # Some templates write the stop at the beginning of the next turn.
      if open_turn is not None and is_literal:
        ending, text = self._late_stop(text, segments, open_turn, home)
        spans += ending
      open_turn = None
      # A tool's answer may show the name of the call. It is then protocol.
      if origin.field == 'name':
        if home != origin.turn or home == answered_turn:
          origin, is_literal = Origin(home, 'literal'), True
        else:
          named.add((home, origin.number))
      # Text of no turn: tool schemas, default system prompts, text around the
      # turns.
      if origin.turn < 0:
        spans += self._outside(text, origin.field == 'tools', turn)
        continue
      turn = origin.turn
      segment = segments[turn]
      in_slot = segment.in_agents_slot
      # The header of an agent's turn may reach into its words.
      if in_slot and i == first[turn]:
        before = segments[turn - 1].role if turn else ''
        header = self._profile.header_length(
          text, _joined(stretches, i), before, segment.role
        )
        syntax = ''
      start = min(header, len(text)) if in_slot else 0
      header -= start
      if not is_literal:
        # Values of messages belong to their authors.
        if start:
          spans.append(
            Span(text[:start], Provenance.TEMPLATE, turn, written=True)
          )
        spans.append(_written(text[start:], segment, origin, turn))
        if in_slot:
          answered_turn = None
          open_turn = turn if i == last[turn] else None
      elif segment.role in ('system', 'developer'):
        spans += self._outside(text, False, turn)
      elif in_slot:
        # Header: protocol. Up to the stop: the agent. Then protocol.
        spans += self._around(text[:start], turn)
        stop = len(text)
        what_follows = _what_follows(stretches, i, turn, named)
        if turn == answered_turn:
          stop = start
        elif what_follows == 'answer' or (
          # An empty answer has no text, but it repeats the name of the call.
          what_follows == 'name' and _has_no_home(turn + 1, homes, segments)
        ):
          # The environment writes what follows the stop.
          stop = self._profile.stop_length(text, start, syntax) or start
          answered_turn = turn
        elif i == last[turn]:
          stop = _end(text, start)
          is_closed = self._profile.is_closed(text, start, syntax)
          open_turn = None if is_closed else turn
        syntax += text[start:stop]
        spans.append(_all_of(text[start:stop], segment, turn))
        spans.append(Span(text[stop:], Provenance.TEMPLATE, turn))
      else:
        # A turn of a user or a tool.
        spans += self._around(text, turn)
    # Empty spans come from headers or stops that do not exist.
    return [span for span in spans if span.text]

  def _late_stop(
    self, text: str, segments: Sequence[Segment], turn: int, home: int
  ) -> tuple[list[Span], str]:
    """Returns the spans that stop a turn, and the rest of the text after it.

    Args:
      text: the text after the turn.
      segments: all turns.
      turn: the agent's turn.
      home: the turn that prints the text.
    """
    # The text may be the beginning of a turn of the world.
    is_world = home >= 0 and not (
      segments[home].in_agents_slot
      or segments[home].role in ('system', 'developer')
    )
    stop = self._profile.late_stop_length(text, is_world)
    if not stop:
      return [], text
    # White space after the stop is protocol.
    rest = text[stop:].lstrip()
    space = text[stop : len(text) - len(rest)]
    return [
      _all_of(text[:stop], segments[turn], turn),
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


def _joined(stretches: Sequence[Stretch], i: int) -> str:
  """Returns the text of a turn from its first stretch, number i."""
  home = stretches[i].home
  same = itertools.takewhile(lambda s: s.home == home, stretches[i:])
  return ''.join(stretch.text for stretch in same)


def _has_no_home(
  turn: int, homes: Container[int], segments: Sequence[Segment]
) -> bool:
  """Returns whether a tool's turn is not printed as a turn of its own."""
  is_tool = turn < len(segments) and segments[turn].role == 'tool'
  return is_tool and turn not in homes


def _what_follows(
  stretches: Sequence[Stretch],
  i: int,
  turn: int,
  named: Container[tuple[int, int]],
) -> str:
  """Returns what follows stretch i in an agent's turn.

  Args:
    stretches: of the conversation.
    i: number of a literal of the turn.
    turn: the agent's turn.
    named: (turn, number) of the calls whose names were shown.

  Returns:
    'answer' if another turn's words follow, 'value' if words or a call of the
    turn do, 'name' if only the name of an earlier call does, or ''.
  """
  # Look ahead to the end of the printed turn.
  follows = ''
  for _, origin, home in stretches[i + 1 :]:
    assert origin is not None
    if home != turn or origin.turn < 0:
      break
    if origin.turn != turn:
      return 'answer'
    if origin.field == 'name' and (turn, origin.number) in named:
      follows = 'name'
    elif origin.field != 'literal':
      return 'value'
  return follows


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
