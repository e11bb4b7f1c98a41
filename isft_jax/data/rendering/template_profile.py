"""What a chat template prints around the turns of an agent.

    How warm?<|im_end|>\\n  <|im_start|>assistant\\n  It is 21.  <|im_end|>  \\n
                            header                  words      stop

At inference, a model reads the header as the generation prompt, and writes the
words and the stop. Templates differ in both. Some print the prompt always, or
close the user's turn in it. Some leave the stop to the next turn, or stop the
agent by the header of the next turn.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence

from isft_jax.data.rendering.chat_template import Stretch
from isft_jax.types import Provenance, Segment, Trajectory

# (messages, tools, **arguments) -> text, rendered by transformers.
Apply = Callable[..., str]
# Renders a trajectory with origins.
Track = Callable[[Trajectory], Sequence[Stretch]]

# Markers such as <|im_end|> and <turn|>, in case the tokenizer has no special
# token for them. U+FF5C is the bar of DeepSeek's markers.
LIKE_A_MARKER = r'<[|\uff5c][^<>\s]{1,40}>|<[^<>\s]{1,40}[|\uff5c]>'
# Words in which two markers of a pair differ: <|START_TEXT|>, <|END_TEXT|>.
_OPENING = {'start', 'begin', 'open'}
_CLOSING = {'end', 'close'}
_WORDS = re.compile(r'[^\W_]+')
# A header that may be searched inside of a text has two letters or more.
_LETTERS = re.compile(r'[^\W\d_]{2}')

# Text of every message in the conversations from which a template is learned.
# No template contains it.
WORD = 'zqj'
# Turns of these conversations. Some templates want ids of nine characters.
_AGENT = Segment('assistant', WORD, Provenance.AGENT)
_ANSWER = Segment(
  'tool',
  WORD,
  Provenance.TOOL,
  fields={'name': WORD, 'tool_call_id': 'call00001'},
)


def _call(arguments: object) -> Segment:
  function = {'name': WORD, 'arguments': arguments}
  call = {'id': 'call00001', 'type': 'function', 'function': function}
  return Segment(
    'assistant', '', Provenance.AGENT, fields={'tool_calls': [call]}
  )


# Some templates want the arguments as text.
_CALLS = (_call({WORD: WORD}), _call(f'{{"{WORD}": "{WORD}"}}'))
# The generation prompt of a turn without thinking may not begin with the usual
# one, as </think> instead of <think>.
_WITHOUT_THINKING = {'enable_thinking': False}


class TemplateProfile:
  """Headers and stops of a template. `learn` makes one."""

  def __init__(self, special: re.Pattern) -> None:
    """Starts a profile without a header.

    Args:
      special: pattern of the texts of the tokenizer's special tokens.
    """
    marker = f'{special.pattern}|{LIKE_A_MARKER}'
    self._special = special
    self._marker = re.compile(marker)
    self._tag = re.compile(rf'{marker}|<[^<>\s]+>')  # such as </think>, too
    # Text may be cut after a marker or after white space, but not inside of a
    # word or a marker.
    self._bounds = re.compile(rf'{marker}|(?<=\S)\s+')
    # Generation prompts by the role of the turn before. A tool's turn may need
    # another text to end it than a user's.
    self._prompts: dict[str, set[str]] = {}
    # Beginnings of these prompts that may be the header of a finished turn, the
    # longest first.
    self._headers: dict[str, list[str]] = {}
    # The text after the words of a last turn, and the part of it that stands
    # before another turn too.
    self._ending = self._closer = ''

  @classmethod
  def learn(
    cls,
    apply: Apply,
    track: Track,
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
    try:
      profile._learn_headers('user', apply, track, before, tools)
    except Exception:  # a template can raise any error
      return None
    # A template may refuse the longer conversations, or have no tools.
    with contextlib.suppress(Exception):
      profile._learn_ending(apply, before, tools)
    for call in _CALLS:
      with contextlib.suppress(Exception):
        answered = (*before, call, _ANSWER)
        profile._learn_headers('tool', apply, track, answered, tools)
        break
    return profile

  def header_length(self, text: str, whole: str, before: str, role: str) -> int:
    """Returns the number of characters of the header of an agent's turn.

    Args:
      text: the text of the template at the beginning of the turn.
      whole: the whole text of the turn.
      before: role of the turn before it.
      role: its own role.
    """
    candidates = [
      (key, learned)
      for key in dict.fromkeys((before, 'user'))
      for learned in self._headers.get(key, ())
    ]
    for key, learned in candidates:
      # White space is a header only after a turn of the learned role.
      if not learned.strip() and key != before:
        continue
      # The end of a prompt, such as '<think>\n', may be in the agent's words.
      # It is then a part of the header only if the prompt is there whole.
      where = whole if learned in self._prompts[key] else text
      header = learned.replace('assistant', role)
      if where.startswith(header):
        return len(header)
      # The text before the header may end the turn before.
      start = text.find(header) if _LETTERS.search(header) else -1
      if start >= 0:
        return start + len(header)
      # The first turn has no separator before its header.
      if header.strip() and where.startswith(header.lstrip()):
        return len(header.lstrip())
    return 0

  def last_header(self, text: str) -> int:
    """Returns where the last header of an agent's turn begins, or -1."""
    starts = (text.rfind(header) for header in self._headers['user'])
    return max(starts, default=-1)

  def stop_length(self, text: str, start: int, syntax: str) -> int:
    """Returns the end of the marker at which the agent stops; 0 if none does.

    Args:
      text: text of the template in an agent's turn.
      start: position from which it is the agent's.
      syntax: all text of the template in the turn before it.
    """
    for marker in self._marker.finditer(text, start):
      so_far = syntax + text[start : marker.start()]
      # The agent writes its stop once. Gemma 4 has quotes <|"|> as markers.
      if marker[0] not in so_far and not self._closes(marker[0], so_far):
        return marker.end()
    return 0

  def is_closed(self, text: str, start: int, syntax: str) -> bool:
    """Returns whether the last text of an agent's turn has its stop.

    Args:
      text, start, syntax: as in `stop_length`.
    """
    has_ending = self._ending and text.rstrip().endswith(self._ending)
    return bool(has_ending or self.stop_length(text, start, syntax))

  def late_stop_length(self, text: str, is_world: bool) -> int:
    """Returns the end of the stop in the text after an agent's turn, or 0.

    Args:
      text: text of the template after a turn that is not closed.
      is_world: whether a user or a tool has the next turn.
    """
    start = len(text) - len(text.lstrip())
    closer = self._closer.lstrip()
    if closer and text.startswith(closer, start):
      return start + len(closer)
    # The model stops by the first special token of the world's turn.
    marker = self._special.match(text, start) if is_world else None
    # A marker that begins the agent's turns too does not end one.
    prompts = (prompt for some in self._prompts.values() for prompt in some)
    if not marker or any(marker[0] in prompt for prompt in prompts):
      return 0
    return marker.end()

  def _learn_headers(
    self,
    role: str,
    apply: Apply,
    track: Track,
    before: Sequence[Segment],
    tools: Sequence[Mapping] | None,
  ) -> None:
    """Learns the headers after some turns; `role` is the role of the last."""
    # A conversation without and with the generation prompt.
    messages = [segment.message() for segment in before]
    ended = apply(messages, tools)
    open = apply(messages, tools, add_generation_prompt=True)
    # 1. The prompt is the text that is added to a conversation for it.
    added = common_prefix(ended, open)
    # Some templates close a conversation that the agent does not continue.
    if added < len(ended):
      cuts = [m.end() for m in self._bounds.finditer(ended[:added])]
      added = max(cuts, default=0)
    # 2. Some templates print the prompt always, or end the user's turn in it.
    # A finished turn shows where the header begins. It has `same` characters in
    # common with the open conversation.
    begins, finished = _finished_turn(track, before, tools)
    same = common_prefix(open, finished)
    starts = {added}
    is_always_printed = added == len(open)
    if same >= max(added, begins) or (is_always_printed and same > begins):
      starts = {begins} | ({added} if begins < added < len(open) else set())
    # 3. A finished turn may have only a beginning of the prompt.
    headers: set[str] = set()
    for start in starts:
      prompt = open[start:]
      bounds = (m.end() for m in self._bounds.finditer(prompt))
      headers |= {prompt, prompt.rstrip(), *(prompt[:end] for end in bounds)}
      if same > start and not self._splits_word(open, finished, same):
        headers.add(open[start:same])
      # It may have other white space before its words.
      header = finished[start : finished.rfind(WORD)]
      if prompt.strip() and header.rstrip() == prompt.rstrip():
        headers.add(header)
    # 4. The prompt of a turn without thinking.
    other = apply(
      messages, tools, add_generation_prompt=True, **_WITHOUT_THINKING
    )
    prompts = {open[start:] for start in starts}
    if not other.startswith(open):
      others = {
        other[start:] for start in starts if other[:start] == open[:start]
      }
      prompts |= others
      headers |= others
    self._prompts[role] = prompts
    self._headers[role] = sorted(headers - {''}, key=len, reverse=True)

  def _learn_ending(
    self,
    apply: Apply,
    before: Sequence[Segment],
    tools: Sequence[Mapping] | None,
  ) -> None:
    """Learns the text after the words of an agent's turn."""
    messages = [segment.message() for segment in before]
    ended, last, followed = (
      apply([*messages, *more], tools)
      for more in ([], [_AGENT.message()], [_AGENT.message(), *messages])
    )
    words = ended.count(WORD) + 1
    if last.count(WORD) != words:
      return
    ending, after = (text.split(WORD, words)[-1] for text in (last, followed))
    self._ending = ending.strip()
    # White space after the stop is protocol.
    if after.startswith(ending):
      self._closer = ending.rstrip()
    # The next turn may print the stop. But a marker that stands before the
    # first user's words is the header of a user.
    marker = self._special.match(after, len(after) - len(after.lstrip()))
    if not self._ending and marker and marker[0] not in ended.split(WORD)[0]:
      self._closer = after[: marker.end()]

  def _splits_word(self, open: str, finished: str, at: int) -> bool:
    """Returns whether a position is inside of a word or a tag."""
    return open[at - 1 : at + 1].isalnum() or any(
      tag.start() < at < tag.end()
      for text in (open, finished)
      for tag in self._tag.finditer(text)
    )

  def _closes(self, marker: str, so_far: str) -> bool:
    """Returns whether a marker closes one before it, as </tool_call> does."""
    closes, name = _pair(marker)
    return closes and any(
      _pair(opening[0]) == (False, name)
      for opening in self._marker.finditer(so_far)
    )


def common_prefix(a: str, b: str) -> int:
  """Returns the length of the longest common prefix of two texts."""
  pairs = enumerate(zip(a, b, strict=False))
  return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _finished_turn(
  track: Track, before: Sequence[Segment], tools: Sequence[Mapping] | None
) -> tuple[int, str]:
  """Returns where a turn of the agent begins, and the whole text.

  The position is past the end of the text if it is unknown.
  """
  given = None if tools is None else (*tools,)
  try:
    stretches = track(Trajectory('', (*before, _AGENT), given))
  except Exception:  # an operation that tracking does not support
    return 1, ''
  text, start = '', None
  for stretch in stretches:
    if start is None and stretch.home == len(before):
      start = len(text)
    text += stretch.text
  return len(text) + 1 if start is None else start, text


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
