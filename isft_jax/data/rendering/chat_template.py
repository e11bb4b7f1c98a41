"""Chat templates that render a conversation with the origin of each character.

transformers renders a conversation with a Jinja program. This module runs the
same program on tracked text (see `tracked_str.py` and `jinja_env.py`):

    Trajectory --wrap--> tracked messages --template--> stretches of one origin
"""

import datetime
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from isft_jax import files
from isft_jax.data.rendering import tracked_str
from isft_jax.data.rendering.jinja_env import Environment, Message
from isft_jax.data.rendering.limits import OverLimitError
from isft_jax.data.rendering.tracked_str import Tracked
from isft_jax.types import Segment, Trajectory

# The paper's format: one line per turn, with a prefix.
PLAIN = """\
{%- for message in messages -%}
  {%- if '\\n' in message.content -%}
    {{- raise_exception('turn ' ~ loop.index0 ~ ': the plain format holds one '
        ~ 'line a turn, and this has a line break: '
        ~ message.content[:60] | tojson) -}}
  {%- elif message.role == 'system' -%}
    {{- message.content + '\\n' -}}
  {%- elif message.role == 'user' -%}
    {{- 'User: ' + message.content + '\\n' -}}
  {%- elif message.role == 'tool' -%}
    {{- 'Tool: ' + message.content + '\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- 'Agent: ' + message.content + '\\n' -}}
  {%- else -%}
    {{- raise_exception('turn ' ~ loop.index0
        ~ ': the plain format knows no role ' ~ message.role | tojson) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Agent: ' -}}{%- endif -%}
"""

# Templates that print today's date print this one, so that the ids do not
# depend on the day.
TODAY = datetime.datetime(2024, 7, 26)

# Keys of an agent's reasoning in a message; templates use any of them.
_THINKING = ('reasoning_content', 'thinking', 'reasoning')
# Keys of values that count as protocol, whoever chose them. They are treated
# as literals of the turn that prints them.
PROTOCOL = ('role', 'name', 'tool_call_id', 'id', 'type')


class Origin(NamedTuple):
  """Source of a stretch of characters."""

  turn: int  # index of the message, or -1 outside of all messages
  # 'literal' is the template's own text in that turn. Fields of a message are
  # 'content', 'thinking', 'other', and 'name' and 'call' for the name and the
  # rest of a tool call. 'tools' are the tool schemas.
  field: str
  # Index of the tool call. For content: 0 outside of the turn's spans, and
  # 1, 2, ... within them.
  number: int = 0


class Stretch(NamedTuple):
  """Consecutive characters of one origin."""

  text: str
  origin: Origin | None  # None if it is unknown
  home: int  # the turn that the template was processing, or -1


class ChatTemplate:
  """A compiled template with its extra values."""

  def __init__(self, template: str, values: Mapping | None = None) -> None:
    """Compiles a template.

    Args:
      template: its text.
      values: extra values that the template can use, by name.

    Raises:
      ValueError: the text is not a valid Jinja template, or computes a constant
        that is too large.
    """
    self.source = freeze(template)  # with a fixed date
    self._values = dict(values or {})
    # The tools of the last conversation as text, and their tracked copy.
    self._last_tools: tuple[str, list] = ('', [])
    self._environment = Environment()
    # `freeze` replaces the calls. Some templates also test whether the
    # function is defined.
    self._environment.globals['strftime_now'] = TODAY.strftime
    try:
      self._template = self._environment.from_string(self.source)
    except OverLimitError as error:
      raise ValueError(
        f'the chat template {error}; name another one with --chat_template'
      ) from error
    # Python may refuse the generated code, for example for its depth.
    except Exception as error:
      raise ValueError(
        'the chat template does not compile: '
        + files.one_line(str(error) or type(error).__name__)
      ) from error

  def render(
    self, trajectory: Trajectory, messages: Sequence[dict] | None = None
  ) -> list[Stretch]:
    """Renders a conversation.

    Args:
      trajectory: the conversation.
      messages: `messages_of(trajectory)`, if it is already computed.

    Returns:
      The rendered text as stretches, in order.

    Raises:
      OverLimitError: the template takes too long or makes too large a text.
      Exception: any error that the template raises.
    """
    # Replace each text by a tracked copy with the code of its origin.
    origins = _Origins(len(trajectory.segments))
    tools = self._tracked_tools(trajectory.tools, origins)
    tracked = [
      _wrap(message, segment, turn, origins)
      for turn, (message, segment) in enumerate(
        zip(
          messages_of(trajectory) if messages is None else messages,
          trajectory.segments,
          strict=True,
        )
      )
    ]
    # The same names that transformers gives to a template.
    context = {
      'messages': tracked,
      'tools': tools,
      'documents': None,
      'add_generation_prompt': False,
      **self._values,
    }
    text, homes = self._environment.render(
      self._template, context, origins.literals, origins.collected
    )
    # Cut where the origin or the turn of the template changes. `str.` skips
    # the tracking slice, which is not needed any more.
    stretches: list[Stretch] = []
    bounds = _bounds(text.origins, homes)
    self._environment.limits.check_stretches(len(bounds))
    for start, stop in itertools.pairwise(bounds.tolist()):
      origin = origins.of(text.origins[start])
      home = origins.known(homes[start]).turn
      if origin is not None:
        origin, home = _settled(origin, home, stretches)
      piece = str.__getitem__(text, slice(start, stop))
      stretches.append(Stretch(piece, origin, home))
    return stretches

  def render_messages(
    self,
    messages: Sequence[dict],
    tools: Sequence[Mapping] | None = None,
    more: Mapping | None = None,
  ) -> str:
    """Renders messages without origins: the text of apply_chat_template.

    Args:
      messages: the messages, as apply_chat_template expects them.
      tools: schemas of tools.
      more: further values, such as add_generation_prompt.

    Raises:
      OverLimitError: the template takes too long or makes too large a text.
      Exception: any error that the template raises.
    """
    context = {
      'messages': messages,
      'tools': None if tools is None else [dict(tool) for tool in tools],
      'documents': None,
      'add_generation_prompt': False,
      **self._values,
      **(more or {}),
    }
    literals = [tracked_str.LITERAL]
    text, _ = self._environment.render(
      self._template, context, literals, literals
    )
    return str.__str__(text)

  def check_limits(
    self,
    messages: Sequence[dict],
    tools: Sequence[Mapping] | None = None,
    more: Mapping | None = None,
  ) -> None:
    """Renders messages without origins, to see whether limits are kept.

    transformers has no limits, so that this comes before it renders a
    conversation that `render` has not rendered.

    Args:
      messages, tools, more: see `render_messages`.

    Raises:
      OverLimitError: the template takes too long or makes too large a text.
    """
    try:
      self.render_messages(messages, tools, more)
    except OverLimitError:
      raise
    except Exception:  # a template can raise any error; transformers reports it
      return

  def _tracked_tools(
    self, tools: Sequence[Mapping] | None, origins: '_Origins'
  ) -> list | None:
    if tools is None:
      return None
    # Most runs of a data set have the same schemas, which templates cannot
    # change. Their code is the same too, as it is the first of a rendering.
    # Compare their texts: 1 and True are equal, and print differently.
    text, tracked = repr(tools), self._last_tools[1]
    if text != self._last_tools[0]:
      tracked = [tracked_str.track(dict(t), origins.tools) for t in tools]
      self._last_tools = (text, tracked)
    return tracked

  def text(self, trajectory: Trajectory) -> str:
    """Returns the rendered text of a conversation, without any tokenizer."""
    return ''.join(stretch.text for stretch in self.render(trajectory))


def freeze(template: str) -> str:
  """Replaces each printed date in a template by `TODAY`.

  Args:
    template: the text of a chat template.

  Returns:
    The text with every call of strftime_now replaced by a string.

  Raises:
    ValueError: the template computes the format of a date, so that the call
      cannot be evaluated here.
  """

  def day(call: re.Match) -> str:
    return json.dumps(TODAY.strftime(call[2]), ensure_ascii=False)

  frozen = re.sub(r'strftime_now\(\s*([\'"])(.*?)\1\s*\)', day, template)
  if 'strftime_now(' in frozen:
    raise ValueError(
      'the chat template prints the date in a format that it computes; copy '
      'the template, write a fixed date into the copy and pass it with '
      '--chat_template'
    )
  return frozen


def messages_of(trajectory: Trajectory) -> list[dict]:
  """Returns a trajectory's messages in the form apply_chat_template expects."""
  return [
    {key: v for key, v in segment.message().items() if v is not None}
    for segment in trajectory.segments
  ]


class _Origins:
  """Maps the origins of one rendering to codes of one character each."""

  def __init__(self, turns: int) -> None:
    self._origins: list[Origin] = []
    self.tools = self.code(Origin(-1, 'tools'))
    # Codes of literals by turn. The last one, at -1, is outside of all turns.
    self.literals = [
      self.code(Origin(turn, 'literal')) for turn in (*range(turns), -1)
    ]
    self.collected = [
      self.code(Origin(turn, 'collected')) for turn in (*range(turns), -1)
    ]

  def code(self, origin: Origin) -> str:
    self._origins.append(origin)
    return chr(len(self._origins) + 1)  # 0 is UNKNOWN, 1 is LITERAL

  def known(self, code: str) -> Origin:
    return self._origins[ord(code) - 2]

  def of(self, code: str) -> Origin | None:
    # LITERAL never remains: `emit` replaces it.
    return None if code == tracked_str.UNKNOWN else self.known(code)


def _bounds(*codes: str) -> np.ndarray:
  """Returns the bounds of the longest stretches without a change of code."""
  # One boolean per gap between characters, compared as uint32 code points.
  changes = np.zeros(len(codes[0]) + 1, bool)
  changes[[0, -1]] = True
  for each in codes:
    code_T = np.frombuffer(each.encode('utf-32-le', 'surrogatepass'), np.uint32)
    changes[1:-1] |= code_T[1:] != code_T[:-1]
  return np.flatnonzero(changes)


def _settled(
  origin: Origin, home: int, before: Sequence[Stretch]
) -> tuple[Origin, int]:
  """Returns origin and home of a stretch, after what was collected is printed.

  A template may collect the text of all turns in a namespace, and print it
  after the last one. Its literals keep their turn, and values follow the
  literals of theirs. What is collected in one turn and printed in another is
  text of that other turn, such as the name of a call in a tool's answer.

  Args:
    origin: of the stretch.
    home: the turn that the template was processing when it printed it.
    before: the stretches before it.
  """
  is_collected = origin.field == 'collected'
  if home < 0 and is_collected:
    home = origin.turn
  elif home < 0 and origin.turn >= 0 and origin.field != 'literal' and before:
    home = before[-1].home
  return (Origin(home, 'literal') if is_collected else origin), home


def _wrap(
  message: dict, segment: Segment, turn: int, origins: _Origins
) -> Message:
  """Returns a message with tracked values, as the template receives it."""
  wrapped = Message(turn)
  # transformers passes the reasoning under two more names.
  thinking = next((message[k] for k in _THINKING if k in message), None)
  if thinking is not None:
    message = {'thinking': thinking, **message, 'reasoning_content': thinking}
  for key, value in message.items():
    if key == 'content':
      wrapped[key] = _content(segment, turn, origins)
    elif key == 'tool_calls':
      wrapped[key] = [
        _call(
          call,
          origins.code(Origin(turn, 'name', number)),
          origins.code(Origin(turn, 'call', number)),
        )
        for number, call in enumerate(value)
      ]
    elif key in PROTOCOL:
      wrapped[key] = value
    else:
      origin = Origin(turn, 'thinking' if key in _THINKING else 'other')
      wrapped[key] = tracked_str.track(value, origins.code(origin))
  return wrapped


def _content(segment: Segment, turn: int, origins: _Origins) -> Tracked:
  """Returns a turn's text; each of its spans gets an origin of its own."""
  codes = origins.code(Origin(turn, 'content')) * len(segment.text)
  for number, part in enumerate(segment.parts, start=1):
    code = origins.code(Origin(turn, 'content', number))
    span_codes = code * (part.stop - part.start)
    codes = codes[: part.start] + span_codes + codes[part.stop :]
  return Tracked(segment.text, codes)


def _call(call: object, name: str, arguments: str) -> Any:
  """Returns a tracked tool call; `name` and `arguments` are origin codes."""
  # A malformed call is rejected later, by `fidelity`.
  if not isinstance(call, Mapping):
    return tracked_str.track(call, arguments)
  tracked = {}
  for key, value in call.items():
    if key == 'function':
      tracked[key] = _call(value, name, arguments)
    elif key == 'name':
      tracked[key] = tracked_str.track(value, name)
    elif key in PROTOCOL:
      tracked[key] = value  # stays a literal
    else:
      tracked[key] = tracked_str.track(value, arguments)
  return tracked
