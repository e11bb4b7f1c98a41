"""Author of each stretch of a rendered conversation.

The text of a message belongs to the author of the message. An agent's turn also
includes the template's text between the end of the generation header and the
end-of-turn marker, for example the syntax of a tool call:

    <|im_start|>assistant\\n  <tool_call>{"name": "f"}<|im_end|>  \\n
    t                        a                                  t

Otherwise L_do would teach the model when to call a tool and when to stop.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
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
# Words of a pair of markers that differ, as in <|START_TEXT|> <|END_TEXT|>.
_OPENING = {'start', 'begin', 'open'}
_CLOSING = {'end', 'close'}
_WORDS = re.compile(r'[^\W_]+')


# Text of every message in the conversations from which a template is learned.
# No template contains it.
WORD = 'zqj'


class TemplateProfile:
  """Splits a rendering by author, using a template's turn headers and ends.

  `learn` makes one for a template.
  """

  def __init__(self, special: re.Pattern) -> None:
    """Starts a profile without a header.

    Args:
      special: pattern of the texts of the tokenizer's special tokens.
    """
    marker = f'{special.pattern}|{_LIKE_A_MARKER}'
    self._special = special
    self._marker = re.compile(marker)
    self._tag = re.compile(rf'{marker}|<[^<>\s]+>')  # such as </think>, too
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
    self._bounds = re.compile(rf'{marker}|(?<=\S)\s+')
    # Generation prompts by the role of the turn before. A tool's turn may need
    # another text to end it than a user's.
    self._prompts: dict[str, set[str]] = {}
    # Beginnings of each prompt that may be the header of a finished turn, the
    # longest first.
    self._heads: dict[str, list[str]] = {}
    # The text that ends an agent's turn: at the end of a conversation, and
    # before another turn. White space after it is protocol.
    self._ending = self._closer = ''

  @classmethod
  def learn(
    cls,
    apply: Callable[..., str],
    track: Callable[[Trajectory], Sequence[Stretch]],
    before: Sequence[Segment],
    special: re.Pattern,
    tools: Sequence[Mapping] | None = None,
  ) -> 'TemplateProfile | None':
    """Learns a template's profile from its rendering of short conversations.

    Args:
      apply: (messages, tools, **arguments) -> text, rendered by transformers.
      track: renders a trajectory with origins.
      before: turns after which the agent may write.
      special: pattern of the texts of the tokenizer's special tokens.
      tools: schemas of the tools.

    Returns:
      The profile, or None if the template refuses the conversation.
    """
    profile = cls(special)
    messages = [segment.message() for segment in before]
    try:
      ended = apply(messages, tools)
      profile._learn_prompt('user', apply, track, before, tools)
    except Exception:  # a template can raise any error
      return None
    # A template may refuse the longer conversations, or have no tools.
    with contextlib.suppress(Exception):
      profile._learn_ending(apply, messages, tools, ended)
    with contextlib.suppress(Exception):
      answered = [*before, *_CALL_AND_ANSWER]
      profile._learn_prompt('tool', apply, track, answered, tools)
    return profile

  def _learn_prompt(
    self,
    role: str,
    apply: Callable[..., str],
    track: Callable[[Trajectory], Sequence[Stretch]],
    before: Sequence[Segment],
    tools: Sequence[Mapping] | None,
  ) -> None:
    """Learns the generation prompt after some turns; `role` is the last's."""
    messages = [segment.message() for segment in before]
    ended = apply(messages, tools)
    open = apply(messages, tools, add_generation_prompt=True)
    # The prompt is the text that a conversation gets for it.
    added = common_prefix(ended, open)
    # Some templates close a conversation that the agent does not continue.
    if added < len(ended):
      cuts = [m.end() for m in self._bounds.finditer(ended[:added])]
      added = max(cuts, default=0)
    # Some templates print it always, or end the user's turn in it. The agent's
    # turn tells where it begins, and after how many characters it differs from
    # the header of a finished turn.
    begins, finished = _next_turn(track, before, tools)
    same = common_prefix(open, finished)
    starts = {added}
    is_always_printed = added == len(open)
    if same >= max(added, begins) or (is_always_printed and same > begins):
      starts = {begins} | ({added} if begins < added < len(open) else set())
    self._prompts[role] = {open[start:] for start in starts}
    heads = set()
    for start in starts:
      prompt = open[start:]
      # A finished turn may have other white space before its words.
      header = finished[start : finished.rfind(WORD)]
      if prompt.strip() and header.rstrip() == prompt.rstrip():
        heads.add(header)
      bounds = {m.end() for m in self._bounds.finditer(prompt)}
      heads |= {prompt, prompt.rstrip(), *(prompt[:cut] for cut in bounds)}
      if same > start and not self._cuts_word(open, finished, same):
        heads.add(open[start:same])
    self._heads[role] = sorted(heads - {''}, key=len, reverse=True)

  def _cuts_word(self, open: str, finished: str, at: int) -> bool:
    """Returns whether a position is inside of a word or a marker."""
    return open[at - 1 : at + 1].isalnum() or any(
      marker.start() < at < marker.end()
      for text in (open, finished)
      for marker in self._tag.finditer(text)
    )

  def _learn_ending(
    self,
    apply: Callable[..., str],
    messages: list[dict],
    tools: Sequence[Mapping] | None,
    ended: str,
  ) -> None:
    """Learns the end of an agent's turn; `ended` is the text before it."""
    # The words of the agent's turn are WORD too.
    agent = _AGENT.message()
    last, followed = (
      apply([*messages, agent, *more], tools) for more in ([], messages)
    )
    words = ended.count(WORD) + 1
    if last.count(WORD) != words:
      return
    ending, after = (text.split(WORD, words)[-1] for text in (last, followed))
    # The text counts only if it is the same before another turn.
    if after.startswith(ending):
      self._closer = ending.rstrip()
    self._ending = ending.strip()
    # The next turn may print the end of the agent's turn. A marker that is also
    # before the first user's words is the header of a user.
    space = len(after) - len(after.lstrip())
    marker = self._special.match(after, space)
    if not self._ending and marker and marker[0] not in ended.split(WORD)[0]:
      self._closer = after[: marker.end()]

  def adopt(
    self, trajectory: Trajectory, stretches: Sequence[Stretch]
  ) -> Sequence[Stretch]:
    """Assigns a last turn that is printed after the loop to that turn.

    Some templates take the agent's last message out of the loop, and print it
    after the loop as text of no turn.

    Args:
      trajectory: the conversation.
      stretches: its rendering.

    Returns:
      The stretches; those of the last turn have it as their home.
    """
    turn = len(trajectory.segments) - 1
    if not trajectory.segments or not trajectory.segments[turn].in_agents_slot:
      return stretches
    own = [
      i
      for i, (_, origin, home) in enumerate(stretches)
      if home < 0 and origin and origin.turn == turn
    ]
    start, stop = (own[0], own[-1] + 1) if own else (0, 0)
    if not start or any(home >= 0 for _, _, home in stretches[start:stop]):
      return stretches
    # The text before them has the header, and the text after them the end.
    before, within, after = (
      stretches[start - 1],
      stretches[start:stop],
      [*stretches[stop : stop + 1]],
    )
    cut = max(
      (before.text.rfind(head) for head in self._heads['user']), default=-1
    )
    if before.home >= 0 or cut < 0:
      return stretches
    literal = Origin(turn, 'literal')
    header = Stretch(before.text[cut:], literal, turn)
    ending: list[Stretch] = []
    if after and after[0].home < 0:
      text = after[0].text
      end = self._stop(text, 0, '') or len(text)
      ending = [
        Stretch(text[:end], literal, turn),
        Stretch(text[end:], after[0].origin, -1),
      ]
    adopted = [
      Stretch(text, literal if origin and origin.turn < 0 else origin, turn)
      for text, origin, _ in within
    ]
    whole = [
      *stretches[: start - 1],
      Stretch(before.text[:cut], before.origin, -1),
      *(header, *adopted),
      *(ending or after),
      *stretches[stop + 1 :],
    ]
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

    spans: list[Span] = []
    turn = 0
    open_turn = None  # a turn of the agent that still lacks its end marker
    ended_turn = None  # a turn of the agent that shows a tool's answer
    header = 0  # characters of the agent's header that are still to come
    words = ''  # the text of the agent's turn so far
    named: set[tuple[int, int]] = set()  # calls whose name was shown
    for i, (text, origin, home) in enumerate(stretches):
      assert origin is not None
      is_literal = origin.field == 'literal'
      # Some templates write the end of a turn at the beginning of the next one.
      if open_turn is not None and is_literal:
        ending, text = self._late_end(text, segments, open_turn, home)
        spans += ending
      open_turn = None
      # A tool's result may show the name of the call. It is then protocol.
      if origin.field == 'name':
        if home != origin.turn or home == ended_turn:
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
      if in_slot and i == first[turn]:
        before = segments[turn - 1].role if turn else ''
        header = self._header(_joined(stretches, i), text, before, segment.role)
        words = ''
      cut = min(header, len(text)) if in_slot else 0
      header -= cut
      # Values of messages belong to their authors; literals depend on the role.
      if not is_literal:
        if cut:
          spans.append(
            Span(text[:cut], Provenance.TEMPLATE, turn, written=True)
          )
        spans.append(_written(text[cut:], segment, origin, turn))
        if in_slot:
          words += text[cut:]
          ended_turn = None
          open_turn = turn if i == last[turn] else None
      elif segment.role in ('system', 'developer'):
        spans += self._outside(text, False, turn)
      elif in_slot:
        # Header: protocol. Up to the end marker: the agent. Then protocol.
        spans += self._around(text[:cut], turn)
        stop = len(text)
        if turn == ended_turn:
          stop = cut
        elif _shows_answer(stretches, i, turn, named):
          # The environment goes on from the marker at which the agent stops.
          stop = self._stop(text, cut, words) or cut
          ended_turn = turn
        elif i == last[turn]:
          stop = _end(text, cut)
          is_open = not self._stop(text, cut, words)
          is_open &= not (self._ending and text.rstrip().endswith(self._ending))
          open_turn = turn if is_open else None
        words += text[cut:stop]
        spans.append(_all_of(text[cut:stop], segment, turn))
        spans.append(Span(text[stop:], Provenance.TEMPLATE, turn))
      else:
        # A turn of a user or a tool.
        spans += self._around(text, turn)
    # Empty spans come from headers or ends that do not exist.
    return [span for span in spans if span.text]

  def _header(self, joined: str, text: str, before: str, role: str) -> int:
    """Returns the number of characters of the header of an agent's turn.

    Args:
      joined: the whole text of the turn.
      text: its first stretch.
      before: role of the turn before it.
      role: its own role.
    """
    # The generation prompt may be longer than the header of a finished turn:
    # try its beginnings, the longest first. The agent's words may contain the
    # end of the prompt only if they contain all of it, such as '<think>\n'.
    key = before if before in self._heads else 'user'
    for head in self._heads.get(key, ()):
      # White space is a header only after a turn of the learned role.
      if head.strip() or key == before:
        where = joined if head in self._prompts[key] else text
        head = head.replace('assistant', role)
        if where.startswith(head):
          return len(head)
        # The text before a header may end the turn before.
        start = text.find(head) if _LETTERS.search(head) else -1
        if start >= 0:
          return start + len(head)
        # The first turn has no separator before its header.
        if head.strip() and where.startswith(head.lstrip()):
          return len(head.lstrip())
    return 0

  def _stop(self, text: str, start: int, words: str) -> int:
    """Returns the end of the marker that ends an agent's turn; 0 if none does.

    Args:
      text: a stretch of the turn, from the character `start`.
      start: a position in it.
      words: the text of the turn before it.
    """
    for marker in self._marker.finditer(text, start):
      said = words + text[start : marker.start()]
      # The agent writes its stop once. Gemma 4 has quotes <|"|> as markers.
      if marker[0] not in said and not self._closes_own_tag(marker[0], said):
        return marker.end()
    return 0

  def _closes_own_tag(self, marker: str, said: str) -> bool:
    """Returns whether a marker closes one in `said`, as </tool_call> does."""
    closes, name = _pair(marker)
    return closes and any(
      _pair(opening[0]) == (False, name)
      for opening in self._marker.finditer(said)
    )

  def _begins_turns(self, marker: str) -> bool:
    """Returns whether a marker is part of the agent's header."""
    return any(
      marker in prompt
      for prompts in self._prompts.values()
      for prompt in prompts
    )

  def _late_end(
    self, text: str, segments: Sequence[Segment], turn: int, home: int
  ) -> tuple[list[Span], str]:
    """Returns the spans that end a turn, and the rest of the text after it.

    Args:
      text: the text after the turn.
      segments: all turns.
      turn: the agent's turn.
      home: the turn that prints the text.
    """
    start = len(text) - len(text.lstrip())
    if self._closer and text.startswith(self._closer.lstrip(), start):
      stop = start + len(self._closer.lstrip())
    else:
      # The model stops by the first special token of the world's turn.
      stops_here = home >= 0 and not (
        segments[home].in_agents_slot
        or segments[home].role in ('system', 'developer')
      )
      marker = self._special.match(text, start) if stops_here else None
      # A marker that begins every turn says nothing about this one.
      if not marker or self._begins_turns(marker[0]):
        return [], text
      stop = marker.end()
    # White space after the end of a turn is protocol.
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


# Turns of the conversations from which a template is learned. Some templates
# want ids of nine characters.
_AGENT = Segment('assistant', WORD, Provenance.AGENT)
_CALL_AND_ANSWER = (
  Segment(
    'assistant',
    '',
    Provenance.AGENT,
    fields={
      'tool_calls': [
        {
          'id': 'call00001',
          'type': 'function',
          'function': {'name': WORD, 'arguments': {WORD: WORD}},
        }
      ]
    },
  ),
  Segment(
    'tool',
    WORD,
    Provenance.TOOL,
    fields={'name': WORD, 'tool_call_id': 'call00001'},
  ),
)
# A header that may be searched inside of a text has two letters or more.
_LETTERS = re.compile(r'[^\W\d_]{2}')


def _next_turn(
  track: Callable[[Trajectory], Sequence[Stretch]],
  before: Sequence[Segment],
  tools: Sequence[Mapping] | None,
) -> tuple[int, str]:
  """Returns where the turn of an agent begins after some turns, and the text.

  The position is past the end if the turn cannot be told from the others.
  """
  turns = (*before, _AGENT)
  try:
    stretches = track(
      Trajectory('', turns, None if tools is None else (*tools,))
    )
  except Exception:  # an operation that tracking does not support
    return 1, ''
  text, start = '', None
  for stretch in stretches:
    if start is None and stretch.home == len(before):
      start = len(text)
    text += stretch.text
  return len(text) + 1 if start is None else start, text


def _joined(stretches: Sequence[Stretch], i: int) -> str:
  """Returns the text of a turn from its first stretch, number i."""
  home = stretches[i].home
  same = itertools.takewhile(lambda s: s.home == home, stretches[i:])
  return ''.join(stretch.text for stretch in same)


def _shows_answer(
  stretches: Sequence[Stretch],
  i: int,
  turn: int,
  named: Container[tuple[int, int]],
) -> bool:
  """Returns whether an agent's turn shows a tool's answer after stretch i.

  Args:
    stretches: of the conversation.
    i: number of a literal of the turn.
    turn: the agent's turn.
    named: (turn, number) of the calls whose names were shown. The answer may
      show the name of its call again.
  """
  for _, origin, home in stretches[i + 1 :]:
    assert origin is not None
    if home != turn or origin.turn < 0:
      return False
    if origin.turn != turn:
      return True
    is_name = origin.field == 'name' and (turn, origin.number) in named
    if origin.field != 'literal' and not is_name:
      return False
  return False


def _pair(marker: str) -> tuple[bool, tuple[str, ...]]:
  """Returns whether a marker closes a pair, and the name of the pair.

  <tool_call> and <|tool_call_begin|> give (False, ('tool', 'call')); for
  </tool_call>, <tool_call|> and <|tool_call_end|> the first is True.
  """
  words = [word.lower() for word in _WORDS.findall(marker)]
  name = tuple(word for word in words if word not in _OPENING | _CLOSING)
  closes = (
    marker[1:2] == '/'
    or (marker.endswith('|>') and not marker.startswith('<|'))
    or not _CLOSING.isdisjoint(words)
  )
  return closes and bool(name), name


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
